"""Astrometry against known world coordinates: simulated catalogs, distortion, contamination, real lights."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from seechange_core.errors import NoCatalog, NoSolution, NoStars
from seechange_core.flags import PixelFlag
from seechange_core.frames import CatalogStars, PointingHint, Sources
from seechange_core.numerics import sky
from seechange_core.numerics.matching import match_plane
from seechange_core.stages.astrometry import AstrometryParams, query_radius_deg, solve

SCALE = 0.27


def true_wcs(ra, dec, *, rotation_deg=0.0, parity=1, scale=SCALE, shape=(1024, 1024), distortion=1.0):
    """A TAN-SIP WCS; `distortion` 1 bends the corners by about 1.5 pixels."""
    header = fits.Header()
    c, s = np.cos(np.deg2rad(rotation_deg)), np.sin(np.deg2rad(rotation_deg))
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    header["CRVAL1"], header["CRVAL2"] = ra, dec
    header["CRPIX1"], header["CRPIX2"] = shape[1] / 2 + 0.5, shape[0] / 2 + 0.5
    cd = scale / 3600 * np.array([[-parity * c, s], [parity * s, c]])
    for i in (0, 1):
        for j in (0, 1):
            header[f"CD{i + 1}_{j + 1}"] = cd[i, j]
    header["A_ORDER"], header["B_ORDER"] = 3, 3
    unit = shape[1] / 2
    for key, value in {"A_2_0": 0.5, "A_1_1": -0.3, "A_3_0": 0.4, "A_1_2": 0.4}.items():
        header[key] = distortion * value / unit ** (int(key[2]) + int(key[4]))
    for key, value in {"B_0_2": -0.4, "B_2_1": 0.4, "B_0_3": 0.4}.items():
        header[key] = distortion * value / unit ** (int(key[2]) + int(key[4]))
    return WCS(header)


def make_sources(x, y, flux, err_pix, flags=0):
    n = len(x)
    one = np.ones(n)
    flux_err = np.sqrt(flux + 400.0)
    return Sources(
        x=x, y=y, x_err=one * err_pix, y_err=one * err_pix, flux_psf=flux, flux_psf_err=flux_err, chi2=one,
        flux_aper=flux[:, None], flux_aper_err=flux_err[:, None], peak=flux / 10, fwhm_pix=4 * one,
        elongation=one, theta_rad=0 * one, flags=np.full(n, flags), blended=np.zeros(n, bool),
        is_star=np.ones(n, bool),
    )  # fmt: skip


def make_field(
    rng,
    wcs,
    *,
    n_stars=300,
    shape=(1024, 1024),
    centroid_pix=0.03,
    catalog_mas=10.0,
    missing=0.3,
    contamination=0.3,
):
    """Sources and a catalog over a cone three times as wide; each lacks stars that the other has."""
    ra0, dec0 = (float(v) for v in wcs.all_pix2world(shape[1] / 2, shape[0] / 2, 0))
    reach = 1.6 * np.hypot(*shape) / 2 * np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))
    n_all = int(
        n_stars * np.pi * reach**2 / (shape[0] * shape[1] * abs(np.linalg.det(wcs.pixel_scale_matrix)))
    )
    angle, r = rng.uniform(0, 2 * np.pi, n_all), reach * np.sqrt(rng.uniform(0, 1, n_all))
    ra, dec = sky.offset(ra0, dec0, r * np.cos(angle), r * np.sin(angle))
    mag = 22 - rng.exponential(1.6, n_all)
    x, y = wcs.all_world2pix(ra, dec, 0, quiet=True)
    on = (x > 0) & (x < shape[1] - 1) & (y > 0) & (y < shape[0] - 1) & (rng.uniform(size=n_all) > missing)
    n_false = int(contamination * on.sum())
    xs = np.append(x[on], rng.uniform(0, shape[1], n_false))
    ys = np.append(y[on], rng.uniform(0, shape[0], n_false))
    mags = np.append(mag[on] + rng.normal(0, 0.2, on.sum()), 22 - rng.exponential(1.6, n_false))
    err = np.full(len(xs), centroid_pix)
    shuffled = rng.permutation(len(xs))
    sources = make_sources(
        (xs + rng.normal(0, err))[shuffled], (ys + rng.normal(0, err))[shuffled],
        10 ** (0.4 * (28 - mags[shuffled])), centroid_pix,
    )  # fmt: skip
    known = rng.uniform(size=n_all) > missing
    noise = rng.normal(0, catalog_mas / 3.6e6, (2, known.sum()))
    cat_ra, cat_dec = sky.offset(ra[known], dec[known], *noise)
    n = int(known.sum())
    catalog = CatalogStars(
        cat_ra, cat_dec, np.full(n, catalog_mas), mag[known] + rng.normal(0, 0.1, n), np.full(n, 0.1),
        np.zeros(n), np.ones(n, bool),
    )  # fmt: skip
    return sources, catalog


def grid_error_mas(solution, wcs, shape=(1024, 1024)):
    """Rms per axis between a solution and the truth, over the whole section."""
    x, y = (
        a.ravel() for a in np.meshgrid(np.linspace(0, shape[1] - 1, 20), np.linspace(0, shape[0] - 1, 20))
    )
    apart = sky.separation(*solution.to_sky(x, y), *wcs.all_pix2world(x, y, 0))
    return float(np.sqrt(np.mean(apart**2) / 2) * 3.6e6)


def hint_near(rng, wcs, shape=(1024, 1024), *, off_arcmin=2.9, radius_arcmin=3.0, **known):
    ra, dec = (float(v) for v in wcs.all_pix2world((shape[1] - 1) / 2, (shape[0] - 1) / 2, 0))
    angle = rng.uniform(0, 2 * np.pi)
    ra, dec = sky.offset(ra, dec, off_arcmin / 60 * np.cos(angle), off_arcmin / 60 * np.sin(angle))
    return PointingHint(float(ra), float(dec), radius_arcmin, SCALE, **known)


@pytest.mark.parametrize("seed", range(12))
def test_any_rotation_parity_and_scale_with_a_wrong_pointing(seed):
    rng = np.random.default_rng(seed)
    rotation, parity = rng.uniform(0, 360), int(rng.choice([-1, 1]))
    place = [(150.0, 2.2), (0.01, -30.0), (40.0, 89.97), (300.0, -89.99)][seed % 4]
    wcs = true_wcs(*place, rotation_deg=rotation, parity=parity, scale=SCALE * rng.uniform(0.97, 1.03))
    sources, catalog = make_field(rng, wcs)
    solution = solve(sources, catalog, hint_near(rng, wcs), (1024, 1024))
    # 10 terms of a cubic, 10 mas catalog and 8 mas centroids on about 150 stars: 12.9 * sqrt(10 / 150).
    expected = np.hypot(10.0, 0.03 * SCALE * 1e3) * np.sqrt(10 / solution.n_matched)
    assert grid_error_mas(solution, wcs) < 2.0 * expected
    assert solution.rms_mas == pytest.approx(np.hypot(10.0, 0.03 * SCALE * 1e3), rel=0.25)
    assert solution.n_catalog == pytest.approx(210, rel=0.3)


def test_the_grid_error_is_what_the_stars_allow():
    """Averaged over fields, the map is no worse than 1.2 times what an ideal cubic fit would give."""
    ratio = []
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        wcs = true_wcs(0.0, 20.0, rotation_deg=1.0)
        sources, catalog = make_field(rng, wcs)
        solution = solve(sources, catalog, hint_near(rng, wcs, rotation_deg=0.0, parity=1), (1024, 1024))
        ratio.append(grid_error_mas(solution, wcs) / (12.9 * np.sqrt(10 / solution.n_matched)))
    assert np.sqrt(np.mean(np.square(ratio))) < 1.2


def test_the_quoted_error_is_the_error():
    pulls = []
    for seed in range(60):
        rng = np.random.default_rng(500 + seed)
        wcs = true_wcs(80.0, -20.0, rotation_deg=2.0, distortion=0.5)
        sources, catalog = make_field(rng, wcs, n_stars=150)
        solution = solve(sources, catalog, hint_near(rng, wcs, rotation_deg=0.0, parity=1), (1024, 1024))
        east, north = sky.project(*solution.to_sky(511.5, 511.5), *wcs.all_pix2world(511.5, 511.5, 0))
        pulls += [east * 3.6e6 / solution.error_mas, north * 3.6e6 / solution.error_mas]
    assert np.std(pulls) == pytest.approx(1.0, abs=0.2)
    assert np.mean(pulls) == pytest.approx(0.0, abs=0.3)


def test_cards_read_back_identically_and_have_no_pv():
    rng = np.random.default_rng(3)
    wcs = true_wcs(10.0, 40.0)
    sources, catalog = make_field(rng, wcs)
    solution = solve(sources, catalog, hint_near(rng, wcs), (1024, 1024))
    header = fits.Header.fromstring(fits.Header(solution.cards).tostring())
    x, y = rng.uniform(0, 1023, (2, 50))
    apart = sky.separation(*WCS(header).all_pix2world(x, y, 0), *solution.to_sky(x, y))
    assert np.max(apart) * 3.6e6 < 1e-3
    assert header["CTYPE1"] == "RA---TAN-SIP"
    assert not any(key.startswith("PV") for key in header)
    back = solution.to_pixels(*solution.to_sky(x, y))
    assert np.hypot(back[0] - x, back[1] - y).max() < 1e-3


def test_without_distortion_the_plain_tangent_plane_is_chosen():
    orders = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        wcs = true_wcs(10.0, 40.0, distortion=0.0)
        sources, catalog = make_field(rng, wcs)
        solution = solve(sources, catalog, hint_near(rng, wcs, rotation_deg=0.0), (1024, 1024))
        orders.append(solution.cards.get("A_ORDER", 1))
    assert np.mean(np.array(orders) == 1) >= 0.6


def test_few_stars_are_enough():
    solved = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        wcs = true_wcs(10.0, 40.0, rotation_deg=rng.uniform(0, 360), distortion=0.3)
        sources, catalog = make_field(rng, wcs, n_stars=18, missing=0.15, contamination=0.1)
        try:
            solution = solve(sources, catalog, hint_near(rng, wcs), (1024, 1024))
        except NoSolution:
            continue
        assert grid_error_mas(solution, wcs) < 60
        solved += 1
    assert solved >= 8


@pytest.mark.parametrize("seed", range(6))
def test_another_field_is_refused(seed):
    rng = np.random.default_rng(seed)
    sources, _ = make_field(rng, true_wcs(10.0, 40.0), n_stars=[60, 300, 1500][seed % 3])
    _, other = make_field(rng, true_wcs(10.0, 40.0), n_stars=[60, 300, 1500][seed % 3])
    with pytest.raises(NoSolution, match="probability 1e"):
        solve(sources, other, PointingHint(10.0, 40.0, 3.0, SCALE), (1024, 1024))


def test_a_wrong_parity_and_a_wrong_rotation_are_refused():
    rng = np.random.default_rng(1)
    wcs = true_wcs(10.0, 40.0, rotation_deg=20.0)
    sources, catalog = make_field(rng, wcs)
    for known in ({"parity": -1}, {"rotation_deg": 90.0}):
        with pytest.raises(NoSolution):
            solve(sources, catalog, hint_near(rng, wcs, **known), (1024, 1024))
    solve(sources, catalog, hint_near(rng, wcs, parity=1, rotation_deg=18.0), (1024, 1024))


def test_a_wrong_pointing_beyond_the_radius_is_refused():
    rng = np.random.default_rng(1)
    wcs = true_wcs(10.0, 40.0)
    sources, catalog = make_field(rng, wcs)
    with pytest.raises(NoSolution):
        solve(sources, catalog, hint_near(rng, wcs, off_arcmin=3.0, radius_arcmin=1.0), (1024, 1024))


def test_too_few_sources_or_stars_stop_with_a_cure():
    rng = np.random.default_rng(1)
    wcs = true_wcs(10.0, 40.0)
    sources, catalog = make_field(rng, wcs)
    hint = hint_near(rng, wcs)
    with pytest.raises(NoStars, match="usable"):
        solve(sources.select(np.arange(5)), catalog, hint, (1024, 1024))
    with pytest.raises(NoCatalog, match="deeper"):
        solve(sources, catalog.select(np.arange(4)), hint, (1024, 1024))
    with pytest.raises(NoStars):
        flagged = make_sources(sources.x, sources.y, sources.flux_psf, 0.03, int(PixelFlag.COSMIC_RAY))
        solve(flagged, catalog, hint, (1024, 1024))


def test_inputs_stay_untouched():
    rng = np.random.default_rng(1)
    wcs = true_wcs(10.0, 40.0)
    sources, catalog = make_field(rng, wcs)
    before = {k: v.copy() for k, v in (sources.columns() | catalog.columns()).items()}
    solve(sources, catalog, hint_near(rng, wcs), (1024, 1024))
    after = sources.columns() | catalog.columns()
    assert all(np.array_equal(before[k], after[k], equal_nan=True) for k in before)


def test_query_radius_covers_the_search():
    hint = PointingHint(10.0, 40.0, 3.0, SCALE)
    assert query_radius_deg(hint, (1024, 1024)) * 60 == pytest.approx(
        3 + 1024 / np.sqrt(2) * SCALE / 60 * 1.03
    )


def hard_field(seed, *, n_stars, related=True, distortion=0.3):
    """3' off, any rotation and parity, scale 3 % wrong, a third of either list without partner."""
    rng = np.random.default_rng(seed)
    place = [(150.0, 2.2), (0.01, -30.0), (40.0, 89.97), (300.0, -89.99)][seed % 4]

    def field():
        wcs = true_wcs(
            *place, rotation_deg=rng.uniform(0, 360), parity=int(rng.choice([-1, 1])),
            scale=SCALE * rng.uniform(0.97, 1.03), distortion=distortion,
        )  # fmt: skip
        return wcs, *make_field(rng, wcs, n_stars=n_stars)

    wcs, sources, catalog = field()
    if not related:
        _, _, catalog = field()
    x, y = wcs.all_world2pix(catalog.ra, catalog.dec, 0, quiet=True)
    common = len(match_plane(sources.x, sources.y, x, y, 1.0).first)
    return wcs, sources, catalog, hint_near(rng, wcs), common


@pytest.mark.parametrize("first", [0, 40])
def test_no_wrong_solution_is_returned_and_twelve_common_stars_are_enough(first):
    """A wrong pose is off by many pixels; a dozen stars leave the distortion unsure by a part of one."""
    solved, solvable = 0, 0
    for seed in range(first, first + 40):
        wcs, sources, catalog, hint, common = hard_field(seed, n_stars=[28, 28, 60, 400][seed // 4 % 4])
        solvable += common >= 12
        try:
            solution = solve(sources, catalog, hint, (1024, 1024))
        except NoSolution:
            continue
        assert grid_error_mas(solution, wcs) < 0.25 * SCALE * 1e3
        solved += common >= 12
    assert solvable >= 25
    assert solved >= 0.97 * solvable


def test_unrelated_fields_give_no_solution_however_dense():
    for seed in range(24):
        _, sources, catalog, hint, _ = hard_field(seed, n_stars=[28, 100, 600][seed % 3], related=False)
        with pytest.raises(NoSolution):
            solve(sources, catalog, hint, (1024, 1024))


def test_tpv_is_the_same_solution():
    rng = np.random.default_rng(4)
    wcs = true_wcs(10.0, 40.0)
    sources, catalog = make_field(rng, wcs)
    hint = hint_near(rng, wcs)
    sip, tpv = (
        solve(sources, catalog, hint, (1024, 1024), AstrometryParams(projection=p))
        for p in ("TAN-SIP", "TPV")
    )
    assert tpv.cards["CTYPE1"] == "RA---TPV"
    assert not any(key.startswith(("A_", "B_", "AP_", "BP_")) for key in tpv.cards)
    x, y = rng.uniform(0, 1023, (2, 50))
    assert np.max(sky.separation(*sip.to_sky(x, y), *tpv.to_sky(x, y))) * 3.6e6 < 1e-3
