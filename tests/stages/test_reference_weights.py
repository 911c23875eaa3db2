"""What the reference's weights lose against proper coaddition (Zackay & Ofek 2017, ApJ 836, 188)."""

from dataclasses import replace

import numpy as np
import pytest

from seechange_core.stages.reference import ReferenceParams, _prepare

SIDE = 64
SIGMA = 39.0


def transfer(fwhm: float) -> np.ndarray:
    """Return the Fourier transform of a Moffat profile of beta 3.5, |.| of which counts."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    core = fwhm / (2 * np.sqrt(2 ** (1 / 3.5) - 1))
    stamp = (1 + (x**2 + y**2) / core**2) ** -3.5
    return np.fft.fft2(np.fft.ifftshift(stamp / stamp.sum()))


def found(new: np.ndarray, ref_power: np.ndarray, ref_variance: float) -> float:
    """S/N of a point source in the proper difference from a reference of this PSF and noise."""
    power = np.abs(new) ** 2
    return float(np.sqrt(np.mean(power * ref_power / (SIGMA**2 * ref_power + ref_variance * power))))


@pytest.mark.parametrize(
    ("seeing", "most_lost"),
    [((4.72, 4.63, 4.96, 4.49, 4.43, 4.44, 4.78, 4.46), 3e-4), (np.linspace(3.5, 6.4, 8), 0.01)],
    ids=["one night", "the limits of the choice"],
)
def test_differences_lose_under_a_percent(seeing, most_lost, make_sky, make_wcs):
    one = make_sky(seed=2, side=64, n_stars=2, n_galaxies=1, n_transients=1).image(4.0, make_wcs(64))
    images = [replace(one, psf=replace(one.psf, fwhm_pix=float(fwhm))) for fwhm in seeing]
    boosts = np.array([i.boost for i in _prepare(images, ReferenceParams())])
    psfs = np.array([transfer(fwhm) for fwhm in seeing])
    proper = np.sum(np.abs(psfs) ** 2, axis=0) / SIGMA**2  # its noise is white, of variance 1

    def loss(new_fwhm: float, weights: np.ndarray) -> float:
        psf = np.tensordot(weights / weights.sum(), psfs, axes=1)
        variance = SIGMA**2 * np.sum(weights**2) / weights.sum() ** 2
        new = transfer(new_fwhm)
        return 1 - found(new, np.abs(psf) ** 2, variance) / found(new, proper, 1.0)

    for new_fwhm in (0.8 * min(seeing), np.mean(seeing), 1.2 * max(seeing)):
        assert 0 <= loss(new_fwhm, boosts) < most_lost
    if most_lost > 1e-3:  # weights by variance alone lose more where it counts: of sharp new images
        assert loss(0.8 * min(seeing), np.ones(len(seeing))) > 3 * loss(0.8 * min(seeing), boosts)
