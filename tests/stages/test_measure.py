"""What is measured of a detection, against truth drawn into noise; and every cut with what trips it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.fft import irfft2

from seechange_core.flags import PixelFlag
from seechange_core.frames import Detections, Stamps, StaticSources
from seechange_core.numerics.psf import constant, on_pixels
from seechange_core.numerics.zogy import Noise, make_kernels, transfer
from seechange_core.stages.measure import BadReason, MeasureParams, Surroundings, measure
from seechange_core.stages.vet import MEANINGS

SIZE, HALF, NOISE, FWHM = 41, 20, 3.0, 4.2
INDEX = np.arange(SIZE) - HALF


def gaussian(dx=0.0, dy=0.0, fwhm=FWHM, elongation=1.0, theta=0.0):
    """A profile of unit sum, wherever its centre is."""
    u, v = INDEX - dx, INDEX[:, None] - dy
    along, across = u * np.cos(theta) + v * np.sin(theta), v * np.cos(theta) - u * np.sin(theta)
    sigma = fwhm / 2.3548
    r2 = along**2 / elongation + across**2 * elongation
    return np.exp(-0.5 * r2 / sigma**2) / (2 * np.pi * sigma**2)


PSF = constant(gaussian(), floor=0.003)
#: Noise of the flux of a faint source.
SIGMA = NOISE / np.sqrt(np.sum(gaussian() ** 2))


def stamps_of(images, seed=1, reference=0.0, noise=NOISE):
    """Stamps of differences at x 100 to 140, y 200 to 240, that show some light without noise."""
    light = np.array(images, float).reshape(-1, SIZE, SIZE)
    rng = np.random.default_rng(seed)
    sub = rng.normal(light, np.sqrt(noise**2 + np.maximum(light, 0))).astype(np.float32)
    ref = np.broadcast_to(np.asarray(reference, np.float32), light.shape)
    weight, flags = np.full(light.shape, 1 / noise**2, np.float32), np.zeros(light.shape, np.uint16)
    corner = np.ones(len(light), np.int64)
    return Stamps(
        sub + ref, ref, sub, weight, weight, weight, flags, flags, flags, 100 * corner, 200 * corner
    )  # fmt: skip


def found_at(dx, dy, score):
    """Detections so far from the middle of the stamps."""
    dx, dy, score = np.broadcast_arrays(*np.atleast_1d(dx, dy, score))
    one = np.ones(len(dx))
    return Detections(
        120 + dx, 220 + dy, 0.1 * one, 0.1 * one, score.astype(float), one, one, np.zeros(len(dx), int)
    )


def measured(images, score=30.0, at=(0.0, 0.0), change=lambda stamps: stamps, translient=None, **kwargs):
    stamps = stamps_of(images, **kwargs)
    detections = found_at(*at, np.broadcast_to(score, len(stamps.sub)))
    return measure(change(stamps), detections, PSF, MeasureParams(), translient=translient)


def reasons(result):
    return BadReason(int(result.bad_reasons[0]))


@pytest.fixture(scope="module")
def points():
    """Point sources of S/N 5 to 200 anywhere on their pixel, as they were drawn and as they were measured."""
    rng = np.random.default_rng(3)
    n = 600
    dx, dy = rng.uniform(-0.5, 0.5, (2, n))
    snr = np.exp(rng.uniform(np.log(5), np.log(200), n))
    noise2 = SIGMA**2
    flux = 0.5 * (snr**2 + np.sqrt(snr**4 + 4 * snr**2 * noise2))
    images = [f * gaussian(a, b) for f, a, b in zip(flux, dx, dy, strict=True)]
    off = rng.normal(0, 0.3, (2, n))
    return flux, dx, dy, snr, measured(images, flux / SIGMA, off)


def test_fluxes_and_positions_are_within_their_errors(points):
    flux, dx, dy, _, m = points
    for pulls in (
        (m.flux_psf - flux) / m.flux_psf_err,
        (m.flux_aper - flux) / np.hypot(m.flux_aper_err, 0.003 * flux),
        (m.x - 120 - dx) / m.x_err,
        (m.y - 220 - dy) / m.y_err,
    ):
        assert np.std(pulls) == pytest.approx(1, abs=0.09)
        assert abs(np.mean(pulls)) < 0.13
    # Of bright ones the errors of the PSF count too, of which there are none here.
    assert np.mean(m.chi2[flux < 12 * SIGMA]) == pytest.approx(1, abs=0.06)


def test_what_faded_has_no_photon_noise_of_its_own():
    """Missing light of up to 200 sigma, among sources that came: fluxes and positions within their errors."""
    rng = np.random.default_rng(8)
    n = 400
    sign = np.where(np.arange(n) % 4 == 0, 1.0, -1.0)
    flux, (dx, dy) = (
        sign * SIGMA * np.exp(rng.uniform(np.log(8), np.log(200), n)),
        rng.uniform(-0.5, 0.5, (2, n)),
    )
    images = [f * gaussian(a, b) for f, a, b in zip(flux, dx, dy, strict=True)]
    m = measured(images, flux / SIGMA)
    gone = sign < 0
    # The PSF's own error is part of the quoted ones, and there is none here.
    error = np.sqrt(m.flux_psf_err**2 - (PSF.floor * flux) ** 2)
    for pulls in (
        (m.flux_psf - flux) / error,
        (m.flux_aper - flux) / m.flux_aper_err,
        (m.x - 120 - dx) / m.x_err,
        (m.y - 220 - dy) / m.y_err,
    ):
        assert np.std(pulls[gone]) == pytest.approx(1, abs=0.12)
        assert np.std(pulls[~gone]) == pytest.approx(1, abs=0.2)
    assert np.mean(m.is_bad) < 0.02


def test_one_in_a_hundred_of_real_changes_fails_a_cut(points):
    m = points[-1]
    assert np.mean(m.is_bad) < 0.012
    faded = measured([-700 * gaussian(0.2, 0.1)] * 40, score=-20.0, noise=NOISE)
    assert np.all(faded.flux_psf < 0)
    assert np.mean(faded.is_bad) < 0.03


def test_widths_and_angles_of_gaussians():
    """Another implementation claims .07 pixels and .005 rad."""
    rng = np.random.default_rng(4)
    n = 60
    fwhm, elongation, theta = rng.uniform(3, 6, n), rng.uniform(1.3, 2, n), rng.uniform(-1.5, 1.5, n)
    dx, dy = rng.uniform(-0.5, 0.5, (2, n))
    images = [
        3e5 * gaussian(a, b, f, e, t) for a, b, f, e, t in zip(dx, dy, fwhm, elongation, theta, strict=True)
    ]
    m = measured(images, 1000.0)
    long, short = fwhm * np.sqrt(elongation), fwhm / np.sqrt(elongation)
    assert np.abs(m.fwhm_pix * np.sqrt(m.elongation) - long).max() < 0.05
    assert np.abs(m.fwhm_pix / np.sqrt(m.elongation) - short).max() < 0.05
    turned = np.angle(np.exp(2j * (m.theta_rad - theta))) / 2
    assert np.sqrt(np.mean(turned**2)) < 0.004


def dipole(flux, separation, angle, ratio=1.0):
    dx, dy = separation / 2 * np.cos(angle), separation / 2 * np.sin(angle)
    return flux * (gaussian(dx, dy) - ratio * gaussian(-dx, -dy))


def test_a_dipole_is_half_negative_and_fitted_by_two():
    rng = np.random.default_rng(5)
    separation, angle = rng.uniform(3, 6, 40), rng.uniform(-3, 3, 40)
    images = [dipole(3000, s, a) for s, a in zip(separation, angle, strict=True)]
    at = separation / 2 * np.cos(angle), separation / 2 * np.sin(angle)
    m = measured(images, 30.0, at)
    assert np.all(m.negative_fraction > 0.2)
    assert np.all(m.dipole_chi2 > 100)
    assert np.all(m.bad_reasons & BadReason.DIPOLE)
    assert np.median(np.abs(m.dipole_separation_pix - separation)) < 0.15
    turned = np.angle(np.exp(1j * (m.dipole_angle_rad - angle)))
    assert np.median(np.abs(turned)) < 0.04
    assert np.median(m.dipole_ratio) > 0.85


def test_half_a_dipole_is_half_negative():
    """Another implementation claims more than .45 when the box is on the middle."""
    m = measured([dipole(3000, 4.0, a) for a in np.linspace(-3, 3, 20)], 30.0)
    assert np.all(m.negative_fraction > 0.45)
    assert np.all(m.negative_flux_fraction > 0.45)


def test_noise_makes_no_dipole_of_a_point(points):
    m = points[-1]
    # Three more parameters, and the best of many places for the second one.
    assert np.quantile(m.dipole_chi2, 0.99) < 25
    assert not np.any(m.bad_reasons & BadReason.DIPOLE)


POINT = 2000 * gaussian(0.2, -0.1)


def masked(where, bit=PixelFlag.BAD_PIXEL):
    def change(stamps):
        flags, weight = stamps.new_flags.copy(), stamps.sub_weight.copy()
        flags[:, where] |= np.uint16(bit)
        weight[:, where] = 0
        return replace(stamps, new_flags=flags, sub_weight=weight)

    return change


def shift(sigma):
    """The test for sources that moved where one of such a significance went to +y, from 2 pixels beside."""
    plane = np.zeros((2, 300, 300), np.float32)
    plane[1, 220, 122] = sigma
    return plane


BESIDE = np.hypot(INDEX - 3, INDEX[:, None]) < 2.0
TRAIL = np.clip(6.5 - np.abs(INDEX), 0, 1) * np.clip(1.2 - np.abs(INDEX[:, None]), 0, 1)
WORM = np.where((np.abs(INDEX + INDEX[:, None]) <= 0) & (np.abs(INDEX) < 4), 1.0, 0.0)
ARTEFACTS = {
    BadReason.OFFSET: {"images": 2000 * gaussian(4.1, 0)},
    BadReason.ELONGATED: {"images": 60 * TRAIL},
    BadReason.TOO_WIDE: {"images": 40000 * gaussian(fwhm=2.6 * FWHM)},
    BadReason.TOO_NARROW: {"images": 600.0 * (np.hypot(INDEX, INDEX[:, None]) < 0.5)},
    BadReason.BAD_PIXELS: {"images": POINT, "change": masked(np.hypot(INDEX, INDEX[:, None] - 1) < 5.5)},
    BadReason.NEGATIVE: {"images": dipole(3000, 4.0, 0.3)},
    BadReason.NO_FIT: {"images": POINT, "change": masked(np.hypot(INDEX, INDEX[:, None]) < 9)},
    BadReason.DIPOLE: {"images": dipole(4000, 3.0, 1.0, ratio=0.7), "at": (0.5, 1.0)},
    BadReason.BAD_FIT: {"images": 300 * WORM},
    BadReason.COSMIC_RAY: {"images": POINT, "change": masked(BESIDE, PixelFlag.COSMIC_RAY)},
    BadReason.MOVED: {"images": POINT, "translient": shift(48.0)},
}


def test_every_cut_is_tripped_here_and_has_a_meaning():
    assert set(ARTEFACTS) == set(MEANINGS) == set(BadReason)


@pytest.mark.parametrize("reason", list(ARTEFACTS), ids=lambda reason: reason.name)
def test_a_cut_names_its_artefact(reason):
    assert reason in reasons(measured(**ARTEFACTS[reason]))


@pytest.mark.parametrize(
    "real",
    [
        {"images": POINT, "reference": 6e4 * gaussian()},
        {"images": POINT, "reference": 1e5 * gaussian()},
        {"images": POINT, "reference": 1e5 * gaussian(fwhm=20)},
        {"images": POINT, "change": masked(np.broadcast_to(INDEX == 1, (SIZE, SIZE)))},
        {"images": POINT, "change": masked(np.hypot(INDEX - 6, INDEX[:, None]) < 2, PixelFlag.COSMIC_RAY)},
        {"images": 3e5 * gaussian(0.1, 0.1, fwhm=1.01 * FWHM), "score": 500.0},
        {"images": 6 * SIGMA * gaussian(), "score": 6.0},
        {"images": POINT, "translient": shift(20.0)},
    ],
    ids=[
        "on a star",
        "two per cent of a star",
        "on a galaxy",
        "on a bad column",
        "near a cosmic ray",
        "bright",
        "faint",
        "with the gradient of a change",
    ],
)
def test_a_real_change_passes_all_cuts(real):
    assert reasons(measured(**real)) == BadReason(0)


def test_a_shift_is_looked_up_within_a_fwhm():
    m = measured([POINT, POINT], translient=shift(48.0), at=(np.array([0.0, -3.0]), 0.0))
    # |z| of two dimensions: somewhat less significant than a standard normal as far from 0.
    assert m.translient_sigma == pytest.approx([47.9, 0], abs=0.1)
    assert m.translient_angle_rad[0] == pytest.approx(np.pi / 2)
    assert np.all(np.isnan(measured(POINT).translient_sigma))


def test_light_on_masked_pixels_is_counted():
    column = np.broadcast_to(INDEX == 0, (SIZE, SIZE))
    m = measured(5000 * gaussian(), change=masked(column))
    assert m.masked_fraction[0] == pytest.approx(gaussian()[column].sum(), abs=0.02)
    assert m.cosmic_ray_fraction[0] == 0
    assert m.n_bad[0] == 5
    assert m.flux_psf[0] == pytest.approx(5000, abs=5 * m.flux_psf_err[0])
    assert m.flux_aper[0] == pytest.approx(5000, abs=5 * m.flux_aper_err[0])


def test_the_change_is_told_as_part_of_what_was_there():
    m = measured([1e4 * gaussian(), -1e4 * gaussian()], np.array([90.0, -90.0]), reference=5e4 * gaussian())
    assert m.change_fraction == pytest.approx([0.2, -0.2], abs=0.02)


def test_neighbours_and_edges():
    sources = StaticSources(
        np.array([110.0, 123.0, 5.0]), np.array([220.0, 224.0, 5.0]), np.array([17.0, 21.0, 16.0]),
        np.array([True, False, True]),
    )  # fmt: skip
    stamps, detections = stamps_of([POINT, POINT]), found_at(0, 0, [30.0, 20.0])
    m = measure(stamps, detections, PSF, MeasureParams(), 1.0, Surroundings((300, 400), 0.5, sources))
    assert m.star_distance_arcsec == pytest.approx([5, 5])
    assert m.star_mag == pytest.approx([17, 17])
    assert m.galaxy_distance_arcsec == pytest.approx([2.5, 2.5])
    assert m.galaxy_mag == pytest.approx([21, 21])
    assert m.edge_distance_pix == pytest.approx([79.5, 79.5])
    alone = measure(
        stamps, detections, PSF, MeasureParams(), 1.0, Surroundings((300, 400), 0.5, sources.select([]))
    )
    assert np.all(np.isnan(alone.star_distance_arcsec))
    assert np.all(alone.edge_distance_pix == 79.5)


def test_the_size_of_stamps_changes_nothing_that_they_hold():
    stamps, detections = stamps_of([POINT]), found_at(0.2, 0, 30.0)
    wide = np.pad(stamps.sub, [(0, 0), (10, 10), (10, 10)])
    planes = {
        name: np.pad(getattr(stamps, name), [(0, 0), (10, 10), (10, 10)])
        for name in stamps.__dataclass_fields__
        if name not in ("x0", "y0")
    }
    larger = Stamps(**planes, x0=stamps.x0 - 10, y0=stamps.y0 - 10)
    assert larger.sub.shape == wide.shape
    one, other = (measure(s, detections, PSF, MeasureParams()) for s in (stamps, larger))
    for name, column in one.columns().items():
        np.testing.assert_allclose(column, getattr(other, name), rtol=1e-6, err_msg=name)


def test_the_psf_is_taken_where_the_source_is():
    """A PSF that widens over the section: the flux of a source far from the middle is right."""
    stamp = gaussian()
    wider = gaussian(fwhm=1.3 * FWHM)
    psf = replace(
        PSF, coefficients=np.stack([stamp, wider - stamp, 0 * stamp]).astype(np.float32), degree=1,
        centre=(0.0, 0.0), scale=(120.0, 240.0),
    )  # fmt: skip
    light = 1e5 * on_pixels(psf, 120.0, 220.0)[0]
    m = measure(stamps_of([light]), found_at(0, 0, 300.0), psf, MeasureParams())
    assert m.flux_psf[0] == pytest.approx(1e5, abs=4 * m.flux_psf_err[0])
    assert m.chi2[0] < 1.2


@pytest.mark.parametrize(("new", "ref"), [(5.6, 4.6), (3.8, 4.6), (2.25, 2.08), (1.88, 2.08), (4.0, 4.0)])
def test_a_proper_difference_counts_as_white_at_sources_too(new, ref):
    """A source's photons are filtered with it; the error of a PSF fit that takes them as they are is right.

    Its variance is that of the matched filter s on the new image: the flux times sum(P s^2).
    """
    side = 128
    noise = Noise(1000.0, 150.0, np.ones((side, side // 2 + 1), np.float32))
    psf_new = transfer(gaussian(fwhm=new).astype(np.float32), side)
    kernels = make_kernels(psf_new, transfer(gaussian(fwhm=ref).astype(np.float32), side), noise, side)
    profile, matched, difference = (
        irfft2(spectrum, (side, side)) for spectrum in (psf_new, kernels.score_new, kernels.psf)
    )
    true = np.sum(profile * (matched / kernels.flux_of_score) ** 2)
    taken = np.sum(difference**3) / np.sum(difference**2) ** 2
    assert taken == pytest.approx(true, rel=0.06)
