"""Subtraction by a fitted kernel, and the test for sources that moved, on a simulated sky."""

from dataclasses import replace

import numpy as np
import pytest

from seechange_core.errors import NoStars, SettingsError
from seechange_core.numerics.psf import constant, evaluate
from seechange_core.numerics.psf_fit import fit
from seechange_core.numerics.translient import dipoles_at
from seechange_core.stages.subtract import SubtractParams, subtract
from seechange_core.stages.vet import CutLimits

DITHER = {"rotation_deg": 0.3, "shift": (13.37, -8.61)}
KERNEL = SubtractParams(method="kernel", tile_pix=96)


class Epochs:
    """A new image with transients, a deeper reference of other seeing, and what came of subtracting them."""

    def __init__(self, make_sky, make_wcs, seed, new_fwhm, ref_fwhm, params=KERNEL):
        self.sky = make_sky(seed=seed, side=420, n_stars=420, n_galaxies=20, n_transients=40)
        self.new = self.sky.image(new_fwhm, transients=True)
        self.ref = self.sky.image(ref_fwhm, make_wcs(420, **DITHER), zp=24.8, gain=5.0)
        self.sub = subtract(self.new, [self.ref], params)
        self.truth = self.sky.transient_fluxes(self.new.psf)

    def pulls(self):
        image, psf = self.sub.image, self.sub.psf
        x, y = self.sky.tx, self.sky.ty
        zero, reach = np.zeros(len(x)), 2 * psf.fwhm_pix
        fits = fit(image.data, image.weight, psf, x, y, zero, radius_pix=reach, gain=np.inf)
        p = evaluate(self.new.psf, x, y).astype(float)
        own = self.truth * np.sum(p**3, (1, 2)) / np.sum(p**2, (1, 2)) ** 2
        return (fits.flux - self.truth) / np.sqrt(fits.flux_err**2 + own + (psf.floor * self.truth) ** 2)


@pytest.fixture(scope="module")
def epochs(make_sky, make_wcs):
    """Both orders of seeing, and sizes near each other and near the pixel's."""
    pairs = [(5.0, 3.9), (3.9, 5.0), (4.4, 4.3), (2.1, 2.6)]
    return [Epochs(make_sky, make_wcs, seed, *pair) for seed, pair in enumerate(pairs, start=1)]


def test_blank_sky_is_white_with_unit_noise(epochs):
    scores = []
    for e in epochs:
        blank = e.sky.blank() & (e.sub.image.weight > 0)
        pixels = e.sub.image.data * np.sqrt(e.sub.image.weight)
        scores.append(e.sub.score[blank])
        assert np.std(pixels[blank]) == pytest.approx(1, abs=0.02)
        for lag in ((0, 1), (1, 0), (0, 2)):
            both = blank[: -lag[0] or None, : -lag[1] or None] & blank[lag[0] :, lag[1] :]
            product = pixels[: -lag[0] or None, : -lag[1] or None] * pixels[lag[0] :, lag[1] :]
            assert abs(np.mean(product[both])) < 0.02
    assert np.std(np.concatenate(scores)) == pytest.approx(1, abs=0.03)


def test_static_stars_leave_nothing(epochs):
    worst = []
    for e in epochs:
        inside = (np.minimum(e.sky.x, e.sky.y) > 3) & (np.maximum(e.sky.x, e.sky.y) < e.sky.side - 4)
        inside &= e.sky.static(e.sky.x, e.sky.y, radius=25)
        places = np.rint(e.sky.x[inside]).astype(int), np.rint(e.sky.y[inside]).astype(int)
        worst += [
            np.abs(e.sub.score[y - 2 : y + 3, x - 2 : x + 3]).max() for x, y in zip(*places, strict=True)
        ]
    assert len(worst) > 500
    assert max(worst) < 5.5


def test_fluxes_and_psf_of_transients(epochs):
    pulls = np.concatenate([e.pulls() for e in epochs])
    pulls = pulls[np.isfinite(pulls)]
    assert len(pulls) > 130
    assert abs(np.median(pulls)) < 0.25
    assert np.std(pulls) == pytest.approx(1, abs=0.17)
    for e in epochs:
        middle = e.sky.side / 2
        assert evaluate(e.sub.psf, middle, middle).sum() == pytest.approx(1, abs=0.01)


def test_it_sees_as_much_as_proper_subtraction(epochs):
    for e in epochs:
        proper = subtract(e.new, [e.ref], KERNEL.model_copy(update={"method": "zogy"}))
        y, x = np.rint(e.sky.ty).astype(int), np.rint(e.sky.tx).astype(int)
        good = (e.sky.snr > 10) & (np.minimum(x, y) > 15) & (np.maximum(x, y) < e.sky.side - 16)
        y, x = y[good], x[good]
        ratio = e.sub.score[y, x] / proper.score[y, x]
        assert np.median(ratio) == pytest.approx(1, abs=0.03)


def test_it_needs_no_model_of_the_psf(make_sky, make_wcs):
    """With PSF models far from the truth the stars still vanish, as they do not in proper subtraction."""
    sky = make_sky(seed=9, side=420, n_stars=420, n_galaxies=10, n_transients=4)
    new, ref = sky.image(4.9), sky.image(4.0, make_wcs(420, **DITHER), zp=24.8, gain=5.0)
    wrong = [replace(i, psf=constant(_box(i.psf.size, i.psf.fwhm_pix))) for i in (new, ref)]
    bright = (sky.flux > 2e4) & (np.minimum(sky.x, sky.y) > 25) & (np.maximum(sky.x, sky.y) < sky.side - 26)
    at = np.rint(sky.y[bright]).astype(int), np.rint(sky.x[bright]).astype(int)
    weight = {}
    for method in ("zogy", "kernel"):
        params = SubtractParams(method=method, match_stars=False, registration_error_mas=0.5)
        sub = subtract(wrong[0], wrong[1:], params)
        weight[method] = np.median(sub.image.weight[at])
        if method == "kernel":
            assert np.abs(sub.score).max() < 5.5
    # What proper subtraction leaves of stars it counts as noise there.
    assert weight["kernel"] > 1.5 * weight["zogy"]


def _box(size, width):
    v, u = np.mgrid[:size, :size] - size // 2
    return (np.maximum(np.abs(u), np.abs(v)) < width / 2).astype(float)


def test_too_few_stars_are_a_stop_with_a_cure(make_sky, make_wcs):
    sky = make_sky(seed=6, side=256, n_stars=2, n_galaxies=1, n_transients=1, max_flux=500.0)
    new, ref = sky.image(4.6), sky.image(4.0, make_wcs(256, **DITHER))
    with pytest.raises(NoStars, match=r"sources above S/N 30 .*set subtract.method to zogy"):
        subtract(new, [ref], SubtractParams(method="kernel"))
    with pytest.raises(SettingsError, match="method"):
        SubtractParams.checked({"method": "hotpants"}, "subtract")


@pytest.mark.parametrize("method", ["zogy", "kernel"])
@pytest.mark.parametrize("changes", [[0.75], [1.3, 0.75, 1.2, 0.85, 1.15, 0.9, 1.3, 0.95]])
@pytest.mark.parametrize("seeing", [(4.8, 4.0), (4.0, 4.8)])
def test_bright_stars_that_changed_where_they_are_have_not_moved(make_sky, make_wcs, method, seeing, changes):
    """A variable keeps its place, though its flanks rise and fall with it, where less is lost to errors."""
    sky = make_sky(seed=12, side=420, n_stars=300, n_galaxies=5, n_transients=1)
    inside = (np.minimum(sky.x, sky.y) > 25) & (np.maximum(sky.x, sky.y) < sky.side - 26)
    distance = np.hypot(sky.x[:, None] - sky.x, sky.y[:, None] - sky.y) + 99 * np.eye(len(sky.x))
    variables = np.flatnonzero(inside & (distance.min(axis=1) > 16) & sky.static(sky.x, sky.y))[
        : len(changes)
    ]
    sky.flux[variables] = np.geomspace(8e5, 5e4, len(variables))
    ref = sky.image(seeing[1], make_wcs(420, **DITHER), zp=24.8, gain=5.0)
    sky.flux[variables] *= changes
    new = sky.image(seeing[0])
    sub = subtract(new, [ref], SubtractParams(method=method, translient=True))
    x, y = sky.x[variables], sky.y[variables]
    strength = np.array([
        np.abs(sub.score[b - 2 : b + 3, a - 2 : a + 3]).max()
        for a, b in zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True)
    ])  # fmt: skip
    found = strength > 5
    assert np.mean(found) > 0.6
    dipoles = dipoles_at(sub.translient, x, y, new.psf.fwhm_pix)
    assert np.all(dipoles.significance[found] < CutLimits().min_translient_ratio * strength[found])


@pytest.mark.parametrize("method", ["zogy", "kernel"])
def test_dipoles_of_moved_stars_stand_out_when_asked_for(make_sky, make_wcs, method):
    sky = make_sky(seed=11, side=420, n_stars=300, n_galaxies=5, n_transients=12)
    ref = sky.image(4.0, make_wcs(420, **DITHER), zp=24.8, gain=5.0)
    inside = (np.minimum(sky.x, sky.y) > 25) & (np.maximum(sky.x, sky.y) < sky.side - 26)
    movers = np.flatnonzero(inside & (sky.flux > 2e4) & (sky.flux < 2e5) & sky.static(sky.x, sky.y))[:4]
    before = sky.x[movers].copy(), sky.y[movers].copy()
    sky.x[movers] += 0.6
    new = sky.image(4.8, transients=True)
    params = SubtractParams(method=method, translient=True)
    sub = subtract(new, [ref], params)
    assert sub.translient.shape == (2, *sub.score.shape)
    blank = sky.blank() & (sub.image.weight > 0)
    assert np.std(sub.translient[:, blank]) == pytest.approx(1, abs=0.04)
    assert np.all(sub.translient[:, sub.image.weight == 0] == 0)
    dipoles = dipoles_at(sub.translient, *before, new.psf.fwhm_pix)
    assert np.all(dipoles.significance > 5)
    assert dipoles.angle_rad == pytest.approx(0, abs=0.35)
    strong = sky.snr > 15
    dipoles = dipoles_at(sub.translient, sky.tx[strong], sky.ty[strong], 1.0)
    y, x = np.rint(sky.ty[strong]).astype(int), np.rint(sky.tx[strong]).astype(int)
    assert np.all(dipoles.significance < sub.score[y, x])
    off = subtract(new, [ref], params.model_copy(update={"translient": False}))
    assert off.translient is None
    assert np.array_equal(off.score, sub.score)
