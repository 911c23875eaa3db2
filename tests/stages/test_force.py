from dataclasses import replace

import numpy as np
import pytest

from seechange_core.flags import PixelFlag
from seechange_core.numerics.psf import constant, draw
from seechange_core.simulate.scene import make_psf_field
from seechange_core.stages.force import ForceParams, force

SHAPE = (1000, 1000)
SKY = 300.0


@pytest.fixture(scope="module")
def psf():
    return constant(make_psf_field((41, 41), 3.5, ellipticity=0.05).stamp(20.0, 20.0, 41))


@pytest.fixture(scope="module")
def sky():
    return (np.random.default_rng(0).poisson(SKY, SHAPE) - SKY).astype(np.float32)


@pytest.fixture
def frame():
    return np.full(SHAPE, 1 / SKY, np.float32), np.zeros(SHAPE, np.uint16)


def test_empty_sky_gives_unit_pulls(psf, sky, frame):
    rng = np.random.default_rng(1)
    x, y = rng.uniform(15, 985, (2, 3000))
    fluxes = force(sky, *frame, psf, x, y, 1.0, ForceParams())
    pulls = fluxes.flux / fluxes.flux_err
    assert abs(pulls.mean()) < 0.06
    assert pulls.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("flux", "gain"), [(3000.0, 1.0), (3e5, 1.0), (3e4, 8.0)])
def test_sources_are_unbiased_for_any_gain(psf, frame, flux, gain):
    rng = np.random.default_rng(2)
    grid = np.arange(25, 980, 50)
    x, y = (a.ravel() + rng.uniform(-0.5, 0.5, grid.size**2) for a in np.meshgrid(grid, grid))
    light = draw(psf, x, y, np.full(x.size, flux), SHAPE) + SKY
    data = (rng.poisson(light * gain) / gain - SKY).astype(np.float32)
    weight = np.full(SHAPE, gain / SKY, np.float32)
    fluxes = force(data, weight, frame[1], psf, x, y, gain, ForceParams())
    pulls = (fluxes.flux - flux) / fluxes.flux_err
    assert abs(pulls.mean()) < 4 / np.sqrt(x.size)
    assert pulls.std() == pytest.approx(1, abs=4 / np.sqrt(2 * x.size))


def test_answers_follow_the_flags(psf, sky, frame):
    weight, flags = frame
    flags[90:111, 90:111] = PixelFlag.SATURATED
    flags[200, 203] = PixelFlag.BAD_PIXEL
    x, y = np.array([100.0, 203.0, 500.0, -40.0, np.nan]), np.array([100.0, 200.0, 500.0, 10.0, 3.0])
    fluxes = force(sky, weight, flags, psf, x, y, 1.0, ForceParams(radius_fwhm=1.5))
    assert np.isfinite(fluxes.flux).tolist() == [False, True, True, False, False]
    assert fluxes.flags.tolist() == [4, 1, 0, 8, 8]
    assert 0.8 < fluxes.usable_fraction[1] < 1
    assert fluxes.usable_fraction[2] == 1


def test_constant_background_is_taken_out(psf, sky, frame):
    x, y = np.random.default_rng(3).uniform(15, 985, (2, 1500))
    raised = sky + np.float32(5)
    plain = force(raised, *frame, psf, x, y, 1.0, ForceParams())
    fitted = force(raised, *frame, psf, x, y, 1.0, ForceParams(fit_background=True))
    assert np.mean(plain.flux / plain.flux_err) > 1
    pulls = fitted.flux / fitted.flux_err
    assert abs(pulls.mean()) < 0.1
    assert pulls.std() == pytest.approx(1, abs=0.06)


def test_switches_and_floor(psf, sky, frame):
    from dataclasses import replace

    x, y = np.array([500.0]), np.array([500.0])
    data = sky + draw(psf, x, y, np.array([1e6]), SHAPE)
    with_noise = force(data, *frame, psf, x, y, 1.0, ForceParams())
    without = force(data, *frame, psf, x, y, 1.0, ForceParams(source_noise=False))
    floored = force(data, *frame, replace(psf, floor=0.01), x, y, 1.0, ForceParams())
    assert without.flux_err[0] < 0.3 * with_noise.flux_err[0]
    assert floored.flux_err[0] == pytest.approx(np.hypot(with_noise.flux_err[0], 1e4), rel=0.01)


def test_inputs_are_not_edited(psf, sky, frame):
    before = sky.copy(), frame[0].copy(), frame[1].copy()
    force(sky, *frame, psf, np.array([5.0]), np.array([5.0]), 1.0, ForceParams())
    for old, new in zip(before, (sky, *frame), strict=True):
        assert np.array_equal(old, new)


def test_a_wrong_psf_is_worse_where_little_of_it_is_seen():
    """The PSF is 2 % too wide: what that does to a flux is its floor; a hole in the middle makes it worse."""
    true, wide = (make_psf_field((61, 61), fwhm).stamp(30.0, 30.0, 61) for fwhm in (4.0, 4.08))
    image = draw(constant(true), np.array([30.0]), np.array([30.0]), np.array([5e4]), (61, 61))
    weight, at = np.full(image.shape, 1e6, np.float32), (np.array([30.0]), np.array([30.0]))
    y, x = np.mgrid[:61, :61]

    def forced(psf, radius):
        flags = np.where(np.hypot(x - 30, y - 30) < radius, PixelFlag.COSMIC_RAY, 0).astype(np.uint16)
        return force(image, weight, flags, psf, *at, np.inf, ForceParams(min_usable_fraction=0.2))

    whole = forced(constant(wide), 0)
    model = replace(constant(wide), floor=abs(whole.flux[0] / 5e4 - 1))
    for radius, least, most in ((2.0, 0.6, 0.8), (2.5, 0.4, 0.6), (3.5, 0.2, 0.4)):
        found = forced(model, radius)
        assert least < found.usable_fraction[0] < most
        pull = (found.flux[0] - whole.flux[0]) / found.flux_err[0]
        assert abs(pull) < 1.5
        with_floor_alone = (found.flux[0] - whole.flux[0]) / (model.floor * found.flux[0])
        assert radius < 3 or abs(with_floor_alone) > 2
    assert np.isnan(
        force(
            image,
            weight,
            np.where(np.hypot(x - 30, y - 30) < 3.5, 16, 0).astype(np.uint16),
            model,
            *at,
            np.inf,
            ForceParams(),
        ).flux[0]
    ) == (found.usable_fraction[0] < 0.3)


class OnDisk:
    """An image of which it is counted which rows are read."""

    def __init__(self, image):
        self.image, self.shape, self.read = image, image.shape, np.zeros(len(image), bool)

    def __getitem__(self, span):
        self.read[span[0]] = True
        return self.image[span]


def test_only_rows_near_the_positions_are_read_and_the_psf_is_that_of_the_place():
    """A PSF that widens from row to row; two groups of sources far apart, and positions off the image."""
    stamps = [make_psf_field((41, 41), fwhm).stamp(20.0, 20.0, 41) for fwhm in (3.0, 4.0)]
    varying = replace(
        constant(stamps[0]), coefficients=np.stack([sum(stamps) / 2, 0 * stamps[0], stamps[1] - stamps[0]]),
        degree=1, centre=(499.5, 499.5), scale=(1000.0, 1000.0),
    )  # fmt: skip
    x = np.array([300.0, 700.2, 40.5, 500.0, np.nan, 600.0])
    y = np.array([980.4, 970.0, 30.2, -60.0, 20.0, 1e9])
    image = draw(varying, x[:3], y[:3], np.full(3, 1000.0), SHAPE)
    planes = [OnDisk(a) for a in (image, np.full(SHAPE, 1 / SKY, np.float32), np.zeros(SHAPE, np.uint16))]
    fluxes = force(*planes, varying, x, y, 1.0, ForceParams())
    assert fluxes.flux[:3] == pytest.approx(1000.0, rel=1e-4)
    assert np.isnan(fluxes.flux[3:]).all() and set(fluxes.flags[3:]) == {PixelFlag.OUT_OF_BOUNDS}
    np.testing.assert_array_equal(fluxes.y, y)
    for plane in planes:
        assert plane.read.sum() < 100 and plane.read[[25, 985]].all() and not plane.read[60:950].any()
    assert len(force(*planes, varying, x[:0], y[:0], 1.0, ForceParams())) == 0
