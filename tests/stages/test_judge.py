"""What is judged bad, against what is known to be: shapes, skies, numbers of sources, clouds."""

from dataclasses import replace

import numpy as np
import pytest

from seechange_core.flags import QUALITY_MEANINGS, PixelFlag, QualityFlag, names
from seechange_core.frames import Background, ImageFrame, PsfModel, Sources, WcsSolution, ZeroPointSolution
from seechange_core.simulate.scene import scene
from seechange_core.stages.clouds import clear_zero_point, cloud_extinction, judge_clouds
from seechange_core.stages.extract import ExtractParams, extract
from seechange_core.stages.judge import (
    common_elongation,
    flags_of_stop,
    judge_image,
    judge_noise,
    judge_psf,
    judge_sources,
    judge_wcs,
    judge_zero_point,
    noise_over_predicted,
)
from seechange_core.stages.quality_limits import QualityParams

LIMITS = QualityParams()


def image(sky_e=500.0, lost=0.0, **options):
    rng = np.random.default_rng(1)
    data = rng.poisson(sky_e, (200, 300)).astype(np.float32)
    flags = np.where(rng.random(data.shape) < lost, int(PixelFlag.BAD_PIXEL), 0).astype(np.uint16)
    weight = np.where(flags, 0, 1 / sky_e).astype(np.float32)
    return ImageFrame(data, weight, flags, 60.0, saturation_e=90_000.0, **options)


def sources(angles, elongation=2.0, n_flagged=0):
    """Sources of the same elongation, bright and clean but for the first ones, at some position angles."""
    n = len(angles)
    ones, no = np.ones(n), np.zeros(n, bool)
    return Sources(
        x=100 * ones, y=100 * ones, x_err=ones, y_err=ones, flux_psf=1e4 * ones, flux_psf_err=100 * ones,
        chi2=ones, flux_aper=ones[:, None], flux_aper_err=ones[:, None], peak=ones, fwhm_pix=3 * ones,
        elongation=elongation * ones, theta_rad=np.asarray(angles, float),
        flags=np.where(np.arange(n) < n_flagged, int(PixelFlag.SATURATED), 0), blended=no, is_star=~no,
    )  # fmt: skip


def psf(floor=0.001, fwhm_pix=3.0):
    return PsfModel(np.ones((1, 15, 15), np.float32) / 225, 0, (50, 50), (50, 50), fwhm_pix, 20, floor)


BACKGROUND = Background(np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32), 128, (200, 300))


# --- Images ---------------------------------------------------------------------------------------


def test_a_good_image_has_no_flag():
    assert judge_image(image(), LIMITS) == (QualityFlag(0), ())


@pytest.mark.parametrize(("lost", "bad"), [(0.27, False), (0.33, True), (1.0, True)])
def test_lost_pixels_are_counted(lost, bad):
    flags, reasons = judge_image(image(lost=lost), LIMITS)
    assert flags == (QualityFlag.MANY_PIXELS_LOST if bad else 0)
    assert not bad or f"lost pixels is {lost:.1g}"[:20] in reasons[0]


def test_a_sky_near_saturation_is_bright_and_so_is_one_above_a_limit():
    assert judge_image(image(sky_e=50_000.0), LIMITS).flags == QualityFlag.BRIGHT_SKY
    assert judge_image(image(sky_e=40_000.0), LIMITS).flags == 0
    by_rate = QualityParams(max_sky_e_s=8.0)
    assert judge_image(image(sky_e=470.0), by_rate).flags == 0
    bad = judge_image(image(sky_e=490.0), by_rate)
    assert bad.flags == QualityFlag.BRIGHT_SKY
    assert bad.words.startswith("the sky is 8.1") and bad.words.endswith("e-/s/pix, at most 8 wanted")


# --- Sources --------------------------------------------------------------------------------------


def extracted(ellipticity, psf_variation=0.0, seed=3):
    s = scene((640, 640), 150, seed=seed, ellipticity=ellipticity, psf_variation=psf_variation)
    frame = ImageFrame(s.data, 1 / s.background_variance, np.zeros(s.shape, np.uint16), 60.0)
    return extract(frame, ExtractParams())


@pytest.mark.parametrize("ellipticity", [0.0, 0.05, 0.2])
def test_the_common_elongation_is_that_of_the_psf_and_a_trail_is_flagged(ellipticity):
    found = extracted(ellipticity)
    elongation = common_elongation(found.sources)
    # Pixels of a quarter of the FWHM make an ellipse rounder by a few per cent of what it has.
    assert elongation - 1 == pytest.approx((1 + ellipticity) / (1 - ellipticity) - 1, rel=0.1, abs=0.02)
    verdict = judge_sources(found.sources, found.psf, found.background, LIMITS)
    assert verdict.flags == (QualityFlag.TRAILED if ellipticity == 0.2 else 0)
    assert judge_psf(found.psf, LIMITS).flags == 0


def test_a_psf_that_varies_is_no_trail():
    found = extracted(0.0, psf_variation=0.2)
    assert common_elongation(found.sources) < 1.1


def test_shapes_in_all_directions_are_no_trail():
    rng = np.random.default_rng(2)
    angles = rng.uniform(-np.pi / 2, np.pi / 2, 400)
    assert common_elongation(sources(angles)) < 1.15
    # A trail is in all stars but those that are something else.
    angles[:380] = 0.4
    assert common_elongation(sources(angles)) == pytest.approx(2, rel=0.05)
    assert np.isnan(common_elongation(sources(angles[:7], n_flagged=3)))


def test_too_few_and_too_many():
    few, many = sources(np.zeros(9), 1.0), sources(np.zeros(2000), 1.0)
    assert judge_sources(few, psf(), BACKGROUND, LIMITS).flags == QualityFlag.TOO_FEW_SOURCES
    assert judge_sources(many, psf(), BACKGROUND, LIMITS).flags == QualityFlag.TOO_MANY_SOURCES
    # As many are fine where they are sharper.
    assert judge_sources(many, psf(fwhm_pix=2.0), BACKGROUND, LIMITS).flags == 0


def test_a_psf_that_does_not_fit_its_stars():
    assert judge_psf(psf(0.06), LIMITS).flags == QualityFlag.PSF_FAILED


@pytest.mark.parametrize(("weight_off", "flags"), [(1.0, 0), (1.3, 0), (1.6, 1), (0.55, 1)])
def test_noise_that_the_weights_do_not_tell(weight_off, flags):
    s = scene((512, 512), 60, seed=3)
    weight = (weight_off / s.background_variance).astype(np.float32)
    frame = ImageFrame(s.data, weight, np.zeros(s.shape, np.uint16), 60.0)
    background = extract(frame, ExtractParams()).background
    ratio = noise_over_predicted(frame, background)
    # A quarter of a million pixels give it to 0.15 %; sources below the limit add some permille.
    assert ratio == pytest.approx(np.sqrt(weight_off), rel=0.01)
    assert judge_noise(ratio, LIMITS).flags == flags * QualityFlag.NOISE_WRONG


# --- Solutions ------------------------------------------------------------------------------------


def test_big_residuals_in_units_of_pixels_and_magnitudes():
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 1.0,
        "CRPIX2": 1.0, "CD1_1": -1e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-4,
    }  # fmt: skip
    wcs = WcsSolution(cards, (100, 100), rms_mas=100.0, error_mas=10.0)
    assert judge_wcs(wcs, LIMITS).flags == 0
    assert judge_wcs(replace(wcs, rms_mas=120.0), LIMITS).flags == QualityFlag.BIG_RESIDUALS
    assert judge_wcs(replace(wcs, error_mas=40.0), LIMITS).flags == QualityFlag.BIG_RESIDUALS
    zero_point = ZeroPointSolution(25.0, 0.01, "r", scatter_mag=0.02)
    assert judge_zero_point(zero_point, LIMITS).flags == 0
    bad = judge_zero_point(replace(zero_point, scatter_mag=0.2, zp_err=0.06), LIMITS)
    assert bad.flags == QualityFlag.BIG_RESIDUALS
    assert (
        bad.words == "the scatter is 0.2 mag, at most 0.15 wanted; the error is 0.06 mag, at most 0.05 wanted"
    )


# --- Clouds ---------------------------------------------------------------------------------------


def night(n, cloudy, seed=0, error=0.02):
    """A night of several exposure times and airmasses: zero points, times, airmasses and what clouds took."""
    rng = np.random.default_rng(seed)
    times, airmasses = rng.choice([30.0, 60.0, 300.0], n), rng.uniform(1, 2.2, n)
    clouds = np.zeros(n)
    clouds[rng.permutation(n)[:cloudy]] = rng.uniform(0.5, 2.0, cloudy)
    zp = 26.0 + 2.5 * np.log10(times) - 0.1 * airmasses - clouds + rng.normal(0, error, n)
    return zp, times, airmasses, clouds


@pytest.mark.parametrize(("n", "cloudy"), [(2, 1), (5, 4), (40, 0), (40, 15), (40, 30)])
def test_clouds_are_told_from_clear_air(n, cloudy):
    zp, times, airmasses, clouds = night(n, cloudy)
    lost = cloud_extinction(zp, 0.02, times, airmasses, "r", LIMITS)
    assert lost == pytest.approx(clouds, abs=0.12)
    told = np.array([bool(judge_clouds(mag, 0.02, LIMITS).flags) for mag in lost])
    assert np.array_equal(told, clouds > 0)


def test_the_order_of_exposures_and_some_wrong_zero_points_do_not_matter():
    zp, times, airmasses, clouds = night(20, 6)
    zp[np.flatnonzero(clouds == 0)[:3]] += 5.0
    order = np.random.default_rng(1).permutation(20)
    lost = cloud_extinction(zp, 0.02, times, airmasses, "r", LIMITS)
    assert np.array_equal(
        cloud_extinction(zp[order], 0.02, times[order], airmasses[order], "r", LIMITS), lost[order]
    )
    assert lost[clouds > 0] == pytest.approx(clouds[clouds > 0], abs=0.12)


def test_extinction_is_of_the_band_or_of_the_settings_and_a_missing_airmass_is_the_mean_one():
    zp, one = np.array([25.0, 24.6]), np.ones(2)
    low = np.array([1.0, 3.0])
    assert cloud_extinction(zp, 0.0, one, low, "g", LIMITS) == pytest.approx([0, 0.04])
    assert cloud_extinction(zp, 0.0, one, low, "r", LIMITS) == pytest.approx([0, 0.2])
    given = QualityParams(extinction_mag=0.2)
    assert cloud_extinction(zp, 0.0, one, low, "r", given) == pytest.approx([0, 0])
    assert cloud_extinction(zp, 0.0, one, np.array([1.0, np.nan]), "r", given) == pytest.approx([0, 0.4])
    assert cloud_extinction(zp[:1], 0.0, one[:1], low[:1], "r", given) == pytest.approx([0])


def test_an_exposure_of_no_time_tells_nothing_and_hides_nothing():
    zp, times, airmasses, _ = night(20, 6)
    lost = cloud_extinction(zp, 0.02, times, airmasses, "r", LIMITS)
    for bad in (0.0, -1.0, np.nan):
        with_it = cloud_extinction(
            np.append(zp, 30.0), 0.02, np.append(times, bad), np.append(airmasses, np.nan), "r", LIMITS
        )
        assert np.array_equal(with_it, np.append(lost, 0.0))
    assert cloud_extinction(zp[:1], 0.02, np.zeros(1), airmasses[:1], "r", LIMITS) == pytest.approx([0])


def test_one_missing_airmass_does_not_make_clouds_of_the_others():
    zp, times, airmasses, _ = night(20, 0)
    airmasses[3] = np.nan
    lost = cloud_extinction(zp, 0.02, times, airmasses, "r", LIMITS)
    assert np.delete(lost, 3) == pytest.approx(0, abs=0.06)
    assert lost[3] == pytest.approx(0, abs=0.06 + 0.1 * 0.6)


@pytest.mark.parametrize("n", [2, 5, 12])
def test_the_noise_of_zero_points_does_not_raise_the_level_of_the_clear_sky(n):
    nights = [night(n, 0, seed) for seed in range(300)]
    lost = [cloud_extinction(zp, 0.02, t, a, "r", LIMITS).mean() for zp, t, a, _ in nights]
    assert np.mean(lost) == pytest.approx(0, abs=0.003)


def test_clear_zero_points_are_those_of_the_night():
    zp, times, airmasses, _ = night(30, 0, error=0.0)
    assert clear_zero_point(26.0, times, airmasses, "r", LIMITS) == pytest.approx(zp)
    unknown = clear_zero_point(26.0, np.array([10.0, 0.0]), np.full(2, np.nan), "r", LIMITS)
    assert unknown == pytest.approx([26.0 + 2.5 - 0.1, np.nan], nan_ok=True)


def test_an_uncertain_zero_point_is_no_proof_of_clouds():
    assert judge_clouds(0.36, 0.1, LIMITS).flags == 0
    assert judge_clouds(0.36, 0.02, LIMITS).flags == QualityFlag.CLOUDS


# --- Words ----------------------------------------------------------------------------------------


def test_a_stop_says_what_is_bad():
    assert names(flags_of_stop("source_list", "no_stars"), QualityFlag) == ["too_few_sources", "psf_failed"]
    assert flags_of_stop("zero_point", "no_stars") == QualityFlag.TOO_FEW_SOURCES
    assert flags_of_stop("world_coordinates", "no_catalog") == QualityFlag.NO_CATALOG
    assert flags_of_stop("world_coordinates", "no_answer") == QualityFlag.NO_CATALOG
    assert flags_of_stop("world_coordinates", "no_solution") == QualityFlag.MATCH_FAILED
    assert flags_of_stop("zero_point", "clouded") == QualityFlag.CLOUDS
    assert flags_of_stop("subtraction", "no_reference") == 0


def test_every_flag_has_a_meaning():
    assert set(QUALITY_MEANINGS) == set(QualityFlag)
