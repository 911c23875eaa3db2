"""A difference knows its flux scale and its registration, however wrong the solutions were."""

from dataclasses import replace

import numpy as np
import pytest

from seechange_core.flags import QualityFlag
from seechange_core.frames import CommonStars, WcsSolution
from seechange_core.products import Image
from seechange_core.qa.metrics import metrics
from seechange_core.stages.force import ForceParams, force
from seechange_core.stages.judge import judge_registration
from seechange_core.stages.quality_limits import SubtractionLimits
from seechange_core.stages.subtract import SubtractParams, subtract

DITHER = {"rotation_deg": 0.3, "shift": (13.37, -8.61)}
SIDE, REF_ZP = 600, 24.8


@pytest.fixture(scope="module")
def field(make_sky, make_wcs):
    sky = make_sky(seed=5, side=SIDE, n_stars=800, n_galaxies=0, n_transients=1)
    ref = sky.image(4.0, make_wcs(SIDE, **DITHER), zp=REF_ZP, gain=5.0)
    apart = np.array([np.sort(np.hypot(sky.x - x, sky.y - y))[1] for x, y in zip(sky.x, sky.y, strict=True)])
    inside = (np.minimum(sky.x, sky.y) > 40) & (np.maximum(sky.x, sky.y) < SIDE - 41)
    stars = np.flatnonzero(inside & (apart > 10) & (sky.flux > 5e3) & (sky.flux < 2e5))
    return sky, ref, stars


def forced(image, psf, x, y):
    return force(image.data, image.weight, image.flags, psf, x, y, image.gain, ForceParams())


@pytest.mark.parametrize("method", ["zogy", "kernel"])
def test_constant_stars_have_one_magnitude_whatever_the_catalog_said(field, method):
    """The zero points of three nights are off by 0, 0.05 and -0.1 mag; that of the reference is right."""
    sky, ref, stars = field
    x, y = sky.x[stars], sky.y[stars]
    there = ref.wcs.to_pixels(*sky.wcs.to_sky(x, y))
    sky_level = np.float32(np.median(ref.image.data))
    held = forced(replace(ref.image, data=ref.image.data - sky_level), ref.psf, *there)
    true_mag = 25 - 2.5 * np.log10(sky.flux[stars])
    offsets = []
    for off_mag in (0.0, 0.05, -0.1):
        new = sky.image(4.4)
        new = replace(new, zero_point=replace(new.zero_point, zp=25 + off_mag, zp_err=0.05))
        sub = subtract(new, [ref], SubtractParams(method=method))
        found = forced(sub.image, sub.psf, x, y)
        row = Image(zp_change_mag=list(sub.zp_change_mag), zp_err=sub.zp_err)
        solution = row.zero_point(new.zero_point)
        zp = solution.zp_at(x, y)
        assert zp == pytest.approx(25, abs=0.01)
        assert solution.zp_err < 0.02
        total = found.flux + held.flux * 10 ** (0.4 * (zp - REF_ZP))
        mag_off = zp - 2.5 * np.log10(total) - true_mag
        offsets.append(np.median(mag_off))
        wrong = found.flux + held.flux * 10 ** (0.4 * (25 + off_mag - REF_ZP))
        assert off_mag == 0 or abs(np.median(25 - 2.5 * np.log10(wrong) - true_mag)) > 0.8 * abs(off_mag)
    # What neighbours and the sky's level do to the reference's flux is the same every night.
    assert np.ptp(offsets) < 0.003 and np.abs(offsets).max() < 0.008


@pytest.mark.parametrize("off_pix", [0.9, 1.1, 3.0])
def test_a_solution_that_is_off_by_pixels_is_put_right(field, off_pix):
    sky, ref, _ = field
    new = sky.image(4.4)
    cards = dict(ref.wcs.cards) | {"CRPIX1": ref.wcs.cards["CRPIX1"] + off_pix}
    bad = replace(ref, wcs=replace(WcsSolution(cards, ref.wcs.shape), error_mas=50.0))
    sub = subtract(new, [bad], SubtractParams())
    assert sub.common_stars.n_stars >= 8
    assert np.hypot(sub.common_stars.shift_x_pix, sub.common_stars.shift_y_pix) == pytest.approx(
        off_pix, abs=0.05
    )
    assert np.mean(np.abs(sub.score[sub.image.weight > 0]) > 5) < 1e-4
    assert judge_registration(sub.common_stars, 0.02, SubtractionLimits()).flags == 0
    assert metrics(sub)["registration_shift_pix"] == pytest.approx(off_pix, abs=0.05)
    assert metrics(sub)["common_stars"] == sub.common_stars.n_stars


def test_a_registration_that_fails_is_flagged(field, make_sky):
    limits, good = SubtractionLimits(), CommonStars(50, 0.1, 0.1, 0.02, 0.03, 1.01, 0.002, 0.004)
    assert judge_registration(good, 0.02, limits).flags == 0
    for stars, word in (
        (CommonStars(), "too few common stars"),
        (replace(good, sigma_y_pix=0.2), "the registration's error is 0.2 pixels"),
        (replace(good, flux_ratio=0.912), "flux ratio and zero points differ by 0.1 mag"),
    ):
        verdict = judge_registration(stars, 0.02, limits)
        assert verdict.flags == QualityFlag.MISREGISTERED
        assert word in verdict.words
    empty = make_sky(seed=5, side=200, n_stars=3, n_galaxies=0, n_transients=1)
    new = empty.image(4.4)
    sub = subtract(new, [empty.image(4.0)], SubtractParams())
    assert sub.common_stars == CommonStars() or sub.common_stars.n_stars == 0
    assert sub.zp_change_mag == () and np.isnan(sub.zp_err)
    assert Image(zp_change_mag=None, zp_err=None).zero_point(new.zero_point) is new.zero_point
