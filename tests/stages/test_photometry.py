"""Photometric calibration against known zero points: pulls, outliers, colours, apertures, depth, clouds."""

from dataclasses import replace

import numpy as np
import pytest

from seechange_core.errors import Clouded, NoCatalog, NoSolution, NoStars
from seechange_core.flags import PixelFlag
from seechange_core.frames import Background, CatalogStars, Sources, WcsSolution
from seechange_core.frames.solutions import spatial_terms
from seechange_core.numerics.psf import constant
from seechange_core.stages.photometry import PhotometryParams, calibrate

ZP, TERM, PIVOT, SKY_RMS, SIGMA_PSF = 31.2, -0.03, 0.7, 20.0, 1.7
WCS = WcsSolution(
    {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 0.0, "CRVAL2": 5.0,
     "CRPIX1": 512.5, "CRPIX2": 512.5,
     "CD1_1": -0.27 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.27 / 3600},
    (1024, 1024),
)  # fmt: skip
BACKGROUND = Background(
    np.full((4, 4), 400, np.float32), np.full((4, 4), SKY_RMS, np.float32), 256, (1024, 1024)
)
AREA = 4 * np.pi * SIGMA_PSF**2


@pytest.fixture(scope="module")
def psf():
    y, x = np.mgrid[-15:16, -15:16]
    return constant(np.exp(-(x**2 + y**2) / (2 * SIGMA_PSF**2)))


def simulate(seed, *, n=60, scatter=0.015, outliers=0.1, color_spread=0.3, faint=20.0):
    """Stars with true errors: photons, catalog, intrinsic scatter; some are too bright by magnitudes."""
    rng = np.random.default_rng(seed)
    mag = rng.uniform(15.0, faint, n)
    color = rng.normal(PIVOT, color_spread, n)
    flux_true = 10 ** (0.4 * (ZP + TERM * (color - PIVOT) - mag + rng.normal(0, scatter, n)))
    flux_err = np.sqrt(flux_true + AREA * SKY_RMS**2)
    flux = flux_true + rng.normal(0, flux_err)
    wrong = rng.uniform(size=n) < outliers
    flux[wrong] *= 10 ** (0.4 * rng.uniform(0.3, 2.0, np.count_nonzero(wrong)))
    x, y = rng.uniform(5, 1018, (2, n))
    ra, dec = WCS.to_sky(x, y)
    mag_err = rng.uniform(0.005, 0.03, n)
    one = np.ones(n)
    sources = Sources(
        x=x + rng.normal(0, 0.1, n), y=y + rng.normal(0, 0.1, n), x_err=0.1 * one, y_err=0.1 * one,
        flux_psf=flux, flux_psf_err=flux_err, chi2=one, flux_aper=flux[:, None] * [0.7, 0.97],
        flux_aper_err=flux_err[:, None] * [0.8, 1.5], peak=flux / 18, fwhm_pix=4 * one, elongation=one,
        theta_rad=0 * one, flags=np.zeros(n, int), blended=np.zeros(n, bool), is_star=np.ones(n, bool),
    )  # fmt: skip
    catalog = CatalogStars(ra, dec, one, mag + rng.normal(0, mag_err), mag_err, color, np.ones(n, bool))
    return sources, catalog


def changed(table, **columns):
    return type(table)(**(table.columns() | columns))


def run(pair, psf, *, expected_zp=None, **params):
    given = PhotometryParams(**params)
    return calibrate(pair[0], WCS, pair[1], BACKGROUND, psf, "r", given, expected_zp=expected_zp)


@pytest.mark.parametrize(
    ("n", "scatter", "outliers"), [(30, 0.015, 0.1), (80, 0.0, 0.05), (80, 0.05, 0.1), (80, 0.015, 0.3)]
)
def test_the_error_is_the_error(psf, n, scatter, outliers):
    found = [run(simulate(seed, n=n, scatter=scatter, outliers=outliers), psf) for seed in range(250)]
    pulls = np.array([(z.zp - ZP) / z.zp_err for z in found])
    # The scatter comes from the same stars: pulls follow Student's t, which is 4 % wider for 30 of them.
    free = np.mean([z.n_stars for z in found]) - 2
    assert np.std(pulls) == pytest.approx(np.sqrt(free / (free - 2)), abs=0.1)
    assert np.median(pulls) == pytest.approx(0.0, abs=0.25)


def test_the_color_term_is_measured_with_its_error(psf):
    found = [run(simulate(seed, n=120), psf) for seed in range(150)]
    pulls = [(z.color_term - TERM) / z.color_term_err for z in found if z.color_term_err > 0]
    assert len(pulls) > 140
    assert np.std(pulls) == pytest.approx(1.0, abs=0.15)
    assert np.mean(pulls) == pytest.approx(0.0, abs=0.25)


def test_what_is_not_known_of_the_color_term_is_in_the_error(psf):
    pair = simulate(1, n=80, color_spread=0.001, outliers=0.0)
    red = pair[0], changed(pair[1], color=pair[1].color + 0.5, mag=pair[1].mag + 0.5 * TERM)
    found = run(red, psf)
    assert found.color_term_err == pytest.approx(0.1, rel=0.02)
    assert found.zp_err == pytest.approx(0.5 * 0.1, rel=0.02)
    known = run(red, psf, color_term=TERM, color_term_prior=1e-3)
    assert known.color_term == pytest.approx(TERM, abs=1e-3)
    assert known.zp == pytest.approx(ZP, abs=4 * known.zp_err)
    assert known.zp_err < 0.01
    without = run((red[0], changed(red[1], color=np.full(80, np.nan))), psf)
    assert (without.color_term, without.color_term_err) == (0.0, 0.0)
    assert without.zp == pytest.approx(ZP + 0.5 * TERM, abs=4 * without.zp_err)


def test_stars_of_unknown_color_take_part(psf):
    sources, catalog = simulate(2, n=120, outliers=0.0)
    half = changed(catalog, color=np.where(np.arange(120) % 2, catalog.color, np.nan))
    found = run((sources, half), psf)
    assert found.n_stars > 100
    assert found.color_term == pytest.approx(TERM, abs=4 * found.color_term_err)
    assert found.zp == pytest.approx(ZP, abs=4 * found.zp_err)


def test_a_tilt_is_found_and_an_even_field_is_left_alone(psf):
    even = [run(simulate(seed, n=100), psf).spatial_mag for seed in range(60)]
    assert np.mean([len(terms) == 0 for terms in even]) > 0.6
    sources, catalog = simulate(3, n=200, outliers=0.05)
    u = sources.x / 511.5 - 1
    found = run((changed(sources, flux_psf=sources.flux_psf * 10 ** (0.4 * 0.03 * u)), catalog), psf)
    corners = found.zp_at([0, 1023], [511.5, 511.5])
    assert corners == pytest.approx([ZP - 0.03, ZP + 0.03], abs=0.01)
    beyond = found.zp_at([-500, 1e4], [511.5, 511.5])
    assert np.array_equal(beyond, corners)
    assert found.zp == pytest.approx(ZP, abs=4 * found.zp_err)


def test_a_quarter_of_bright_outliers_hardly_matters(psf):
    bias = [run(simulate(seed, n=60, outliers=0.25), psf).zp - ZP for seed in range(40)]
    assert np.mean(bias) == pytest.approx(0.0, abs=0.004)


def test_scatter_apertures_and_depth(psf):
    found = run(simulate(3, n=200, scatter=0.02, outliers=0.05), psf)
    assert found.aperture_corrections == pytest.approx([2.5 * np.log10(0.7), 2.5 * np.log10(0.97)], abs=1e-6)
    assert 0.015 < found.scatter_mag < 0.035
    assert 150 < found.n_stars <= 200
    assert found.band == "r"


@pytest.mark.parametrize(("sky_rms", "gain"), [(20.0, 1.0), (1.0, 1.0), (1.0, 4.0)])
def test_a_source_at_the_limit_is_measured_at_5_sigma(psf, sky_rms, gain):
    rms = np.full((4, 4), sky_rms, np.float32)
    background = Background(np.zeros((4, 4), np.float32), rms, 256, (1024, 1024))
    found = calibrate(simulate(3)[0], WCS, simulate(3)[1], background, psf, "r", gain=gain)
    flux = 10 ** (0.4 * (found.zp - found.limiting_mag))
    stamp = psf.coefficients[0].astype(float)
    rng = np.random.default_rng(0)
    pixels = rng.poisson(gain * flux * stamp.clip(0), (4000, *stamp.shape)) / gain
    pixels = pixels + rng.normal(0, sky_rms, pixels.shape)
    fitted = np.sum(pixels * stamp, axis=(1, 2)) / np.sum(stamp**2)
    assert np.mean(fitted) / np.std(fitted) == pytest.approx(5.0, rel=0.04)


def test_aperture_corrections_shun_neighbours_and_miss_nothing_else(psf):
    sources, catalog = simulate(4, n=120, outliers=0.0)
    fluxes = sources.flux_aper.copy()
    fluxes[:40] *= 1.3  # light of neighbours, which stand 4 pixels away
    crowded = changed(sources, flux_aper=fluxes)
    near = sources.select(np.arange(40))
    near = changed(near, x=near.x + 4.0, is_star=np.zeros(40, bool))
    both = type(sources)(**{k: np.concatenate([v, near.columns()[k]]) for k, v in crowded.columns().items()})
    found = run((both, catalog), psf)
    assert found.aperture_corrections[0] == pytest.approx(2.5 * np.log10(0.7), abs=1e-6)
    empty = changed(sources, flux_aper=np.full_like(fluxes, np.nan))
    assert np.isnan(run((empty, catalog), psf).aperture_corrections).all()


def test_spoiled_stars_and_contaminants_are_left_out(psf):
    sources, catalog = simulate(5, n=80, outliers=0.0)
    flux, flags, is_star = sources.flux_psf.copy(), sources.flags.copy(), sources.is_star.copy()
    flux[:30] *= 0.5
    flags[:10] = int(PixelFlag.SATURATED)
    is_star[10:20] = False
    listed = catalog.is_star.copy()
    listed[20:30] = False
    found = run(
        (changed(sources, flux_psf=flux, flags=flags, is_star=is_star), changed(catalog, is_star=listed)), psf
    )
    assert found.n_stars <= 50
    assert found.zp == pytest.approx(ZP, abs=4 * found.zp_err)


def test_stops_say_what_was_seen(psf):
    sources, catalog = simulate(6)
    with pytest.raises(NoStars, match="0 of 60"):
        run((changed(sources, is_star=np.zeros(60, bool)), catalog), psf)
    with pytest.raises(NoCatalog, match="r magnitude"):
        run((sources, changed(catalog, mag=np.full(60, np.nan))), psf)
    with pytest.raises(NoSolution, match="match catalog stars within 1 arcsec"):
        run((sources, changed(catalog, dec=catalog.dec + 0.1)), psf)
    rng = np.random.default_rng(0)
    with pytest.raises(NoSolution, match="unexplained scatter"):
        run((sources, changed(catalog, mag=catalog.mag + rng.normal(0, 2, 60))), psf)
    with pytest.raises(Clouded, match="below the expected"):
        run((sources, catalog), psf, expected_zp=ZP + 1.5)
    run((sources, catalog), psf, expected_zp=ZP + 0.5)


def test_inputs_stay_untouched(psf):
    sources, catalog = simulate(7)
    before = {k: v.copy() for k, v in (sources.columns() | catalog.columns()).items()}
    run((sources, catalog), psf)
    after = sources.columns() | catalog.columns()
    assert isinstance(sources, Sources)
    assert all(np.array_equal(before[k], after[k], equal_nan=True) for k in before)


def counts(seed, *, catalog_err, catalog_faint=99.0, n=900, pedestal=0.0):
    """Stars that grow more numerous with magnitude, beyond the limits of image and catalog."""
    rng = np.random.default_rng(seed)
    sources, catalog = simulate(seed, n=n, outliers=0.0, scatter=0.01)
    ends = 10.0 ** (0.3 * np.array([15.0, 24.7]))
    mag = np.log10(rng.uniform(*ends, n)) / 0.3
    true = 10 ** (0.4 * (ZP + TERM * (catalog.color - PIVOT) - mag + rng.normal(0, 0.01, n)))
    error = np.sqrt(true + AREA * SKY_RMS**2)
    flux = true + rng.normal(0, error)
    found = np.flatnonzero(flux > 4 * error)
    sources = changed(
        sources, flux_psf=flux, flux_psf_err=np.sqrt(np.maximum(flux, 0) + AREA * SKY_RMS**2),
        flux_aper=flux[:, None] * [0.7, 0.97] + pedestal * np.array([1.0, 9.0]),
        flux_aper_err=error[:, None] * [0.8, 3.0],
    )  # fmt: skip
    seen = mag + rng.normal(0, catalog_err, n)
    listed = np.flatnonzero(seen < catalog_faint)
    catalog = changed(catalog, mag=seen, mag_err=np.full(n, catalog_err))
    return sources.select(found), catalog.select(listed)


# A flux of S/N 10 has 23.5 mag.
@pytest.mark.parametrize(
    ("catalog_err", "catalog_faint"), [(0.01, 99), (0.075, 99), (0.075, 22.5), (0.05, 21.5)]
)
def test_faint_limits_of_image_and_catalog_leave_no_bias(psf, catalog_err, catalog_faint):
    given = {"catalog_err": catalog_err, "catalog_faint": catalog_faint}
    found = [run(counts(seed, **given), psf) for seed in range(120)]
    pulls = np.array([(z.zp - ZP) / z.zp_err for z in found])
    assert np.mean(pulls) == pytest.approx(0.0, abs=0.2 + 2 / np.sqrt(120))
    assert np.std(pulls) == pytest.approx(1.0, abs=0.1 + 2 / np.sqrt(240))


def test_few_stars_are_used_down_to_a_third_of_the_wanted_snr(psf):
    sources, catalog = counts(1, catalog_err=0.02)
    tenth = float(np.sort(sources.snr)[-10])
    assert run((sources, catalog), psf, min_snr=tenth).n_stars == pytest.approx(20, abs=3)
    faint = sources.select(np.flatnonzero((sources.snr > 11) & (sources.snr < 20)))
    assert run((faint, catalog), psf).n_stars == pytest.approx(20, abs=3)
    with pytest.raises(NoStars):
        run((faint, catalog), psf, min_snr=100.0)


def test_apertures_hold_light_of_others_too(psf):
    found = run(counts(1, catalog_err=0.02, pedestal=60.0), psf).aperture_corrections
    assert found == pytest.approx([2.5 * np.log10(0.7), 2.5 * np.log10(0.97)], abs=1e-3)


def test_the_error_holds_what_is_not_known_of_the_wings(psf):
    y, x = np.mgrid[-15:16, -15:16]
    core = np.asarray(psf.coefficients[0], float)
    far = np.hypot(x, y) > 2.5 * psf.fwhm_pix
    wide = constant(0.9 * core / core.sum() + 0.1 * far / far.sum())
    pair = simulate(3, n=80)
    narrow, winged = run(pair, psf), run(pair, wide)
    assert winged.zp == narrow.zp
    assert np.sqrt(winged.zp_err**2 - narrow.zp_err**2) == pytest.approx(0.045 * 0.1 * 1.0857, rel=0.05)


def test_the_error_holds_what_all_magnitudes_of_the_catalog_share(psf):
    sources, catalog = simulate(3, n=80)
    alone = run((sources, catalog), psf)
    shared = calibrate(sources, WCS, catalog, BACKGROUND, psf, "r", catalog_err_mag=0.01)
    assert shared.zp_err == pytest.approx(np.hypot(alone.zp_err, 0.01))


def test_the_depth_of_a_narrow_section_is_that_of_a_wide_one(psf):
    pair = simulate(3, n=80)
    depths = []
    for cells in ((4, 4), (32, 1), (1, 32), (33, 3)):
        background = replace(
            BACKGROUND, level=np.full(cells, 400, np.float32), rms=np.full(cells, SKY_RMS, np.float32)
        )
        depths.append(calibrate(pair[0], WCS, pair[1], background, psf, "r").limiting_mag)
    assert depths == pytest.approx([depths[0]] * 4, abs=1e-6)


def test_stars_in_one_half_do_not_tell_the_mean_of_the_section(psf):
    """A variation too small to be chosen, or too far from the stars, is in the error of the mean."""
    pulls = []
    for seed in range(150):
        sources, catalog = simulate(seed, n=200)
        tilt = np.random.default_rng(seed).normal(0, 0.015, 5)
        variation = np.stack(spatial_terms(sources.x, sources.y, BACKGROUND.shape), axis=1) @ tilt
        rows = np.flatnonzero(sources.x < 512)
        seen = changed(sources, flux_psf=sources.flux_psf * 10 ** (-0.4 * variation)).select(rows)
        found = run((seen, catalog.select(rows)), psf)
        pulls.append((found.zp - ZP) / found.zp_err)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.3)
    assert np.mean(np.abs(pulls) > 3) < 0.03
