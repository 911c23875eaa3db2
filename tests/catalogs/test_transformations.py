"""Gaia's magnitudes in other bands, against relations between those bands that others have published."""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from numpy.polynomial import polynomial

from seechange_core.catalogs import LocalCatalog, import_table
from seechange_core.catalogs.transformations import (
    GAIA_RELATIONS,
    SDSS_MINUS_PS1,
    common_error_mag,
    derived_bands,
    measured_bands,
    transform,
)
from seechange_core.errors import NotFoundError

GAIA = ("BP", "G", "RP")
BANDS = (*GAIA_RELATIONS, *SDSS_MINUS_PS1)


def gaia(color, g=15.0, errors=(0.0, 0.0, 0.0)):
    """Give stars of a colour: BP and RP lie 3:2 on both sides of G, as they do for stars."""
    color = np.asarray(color, float)
    mags = {"G": np.full_like(color, g), "BP": g + 0.6 * color, "RP": g - 0.4 * color}
    return lambda name: (mags[name], np.full_like(color, dict(zip(GAIA, errors, strict=True))[name]))


def mags_of(color):
    return {band: transform(band, gaia(color))[0] for band in BANDS}


def test_the_sun():
    """Of BP-RP .82 (Casagrande & VandenBerg 2018): B-V .653, V-R .356, V-I .701 (Ramirez et al. 2012)."""
    m = mags_of([0.82])
    assert m["B"] - m["V"] == pytest.approx(0.653, abs=0.06)
    assert m["V"] - m["R"] == pytest.approx(0.356, abs=0.03)
    assert m["V"] - m["I"] == pytest.approx(0.701, abs=0.03)
    # SDSS: g-r .44, r-i .11, i-z .03 (Blanton & Roweis 2007)
    assert m["g"] - m["r"] == pytest.approx(0.44, abs=0.05)
    assert m["r"] - m["i"] == pytest.approx(0.11, abs=0.05)
    assert m["i"] - m["z"] == pytest.approx(0.03, abs=0.05)


def test_sdss_and_johnson_agree_by_lupton():
    """Lupton (2005, sdss.org), from Stetson's standards, knows nothing of Gaia."""
    m = mags_of(np.linspace(0.55, 1.7, 24))
    g_r, r_i = m["g"] - m["r"], m["r"] - m["i"]
    for band, expected in {
        "B": m["g"] + 0.3130 * g_r + 0.2271,
        "V": m["g"] - 0.5784 * g_r - 0.0038,
        "R": m["r"] - 0.2936 * r_i - 0.1439,
        "I": m["i"] - 0.3780 * (m["i"] - m["z"]) - 0.3974,
    }.items():
        assert np.abs(m[band] - expected).max() < GAIA_RELATIONS[band].scatter_mag, band


def test_ps1_and_johnson_agree_by_tonry():
    """Tonry et al. (2012), table 6, linear relations from PS1 to Johnson-Cousins."""
    m = mags_of(np.linspace(0.55, 1.6, 24))
    g_r = m["g_ps1"] - m["r_ps1"]
    for band, expected in {
        "B": m["g_ps1"] + 0.213 + 0.587 * g_r,
        "V": m["r_ps1"] + 0.006 + 0.474 * g_r,
        "R": m["r_ps1"] - 0.138 - 0.131 * g_r,
        "I": m["i_ps1"] - 0.367 - 0.149 * g_r,
    }.items():
        assert np.abs(m[band] - expected).max() < GAIA_RELATIONS[band].scatter_mag, band


def test_published_relations_agree_within_the_common_error():
    m = mags_of([1.0])
    g_r, r_i, i_z, of_ps1 = m["g"] - m["r"], m["r"] - m["i"], m["i"] - m["z"], m["g_ps1"] - m["r_ps1"]
    differences = [
        m["B"] - (m["g"] + 0.3130 * g_r + 0.2271),
        m["V"] - (m["g"] - 0.5784 * g_r - 0.0038),
        m["R"] - (m["r"] - 0.2936 * r_i - 0.1439),
        m["I"] - (m["i"] - 0.3780 * i_z - 0.3974),
        m["B"] - (m["g_ps1"] + 0.213 + 0.587 * of_ps1),
        m["V"] - (m["r_ps1"] + 0.006 + 0.474 * of_ps1),
        m["R"] - (m["r_ps1"] - 0.138 - 0.131 * of_ps1),
        m["I"] - (m["i_ps1"] - 0.367 - 0.149 * of_ps1),
    ]
    assert np.sqrt(np.mean(np.square(differences))) == pytest.approx(common_error_mag("r", GAIA), rel=0.35)
    assert common_error_mag("r", ("g", "r")) == 0.0


@pytest.mark.parametrize("band", list(SDSS_MINUS_PS1))
def test_from_ps1_back_to_sdss(band):
    m = mags_of(np.linspace(0.55, 1.95, 30))
    coefficients, _ = SDSS_MINUS_PS1[band]
    back = m[band] + polynomial.polyval(m["g_ps1"] - m["r_ps1"], coefficients)
    assert back == pytest.approx(m[band[0]], abs=1e-12)


@pytest.mark.parametrize("band", list(GAIA_RELATIONS))
def test_a_relation_ends_where_it_was_fitted_and_has_no_steps(band):
    relation = GAIA_RELATIONS[band]
    edge = np.array([relation.bluest + 1e-9, relation.reddest - 1e-9])
    outside = transform(band, gaia([edge[0] - 1e-6, edge[1] + 1e-6, np.nan]))
    assert np.isnan(outside[0]).all()
    assert np.isfinite(transform(band, gaia(edge))[0]).all()
    color = np.linspace(*edge, 2000)
    mag = transform(band, gaia(color))[0]
    assert np.abs(np.diff(mag)).max() < 4 * (color[1] - color[0])


@pytest.mark.parametrize("band", BANDS)
def test_errors_are_those_of_the_magnitudes_and_the_scatter(band):
    """Against many stars with noisy magnitudes and the relation's own scatter."""
    rng = np.random.default_rng(3)
    errors = {"BP": 0.03, "G": 0.004, "RP": 0.02}
    clean = gaia(np.full(200_000, 1.2))
    noisy = {name: clean(name)[0] + rng.normal(0, errors[name], 200_000) for name in GAIA}
    mag, err = transform(band, lambda name: (noisy[name], np.full(200_000, errors[name])))
    scatter = GAIA_RELATIONS[band[0]].scatter_mag
    added = np.hypot(scatter, SDSS_MINUS_PS1[band][1]) if band in SDSS_MINUS_PS1 else scatter
    assert np.hypot(np.std(mag), added) == pytest.approx(np.median(err), rel=0.02)


def test_a_catalog_of_gaia_serves_the_instruments_filters(tmp_path):
    table = Table({"ra": [10.0, 10.1], "dec": [0.0, 0.0]})
    for name, mags in {"G": [15.0, 15.0], "BP": [15.5, 17.0], "RP": [14.6, 14.0]}.items():
        table[f"mag_{name}"], table[f"mag_{name}_err"] = mags, [0.01, 0.01]
    table.write(tmp_path / "t.ecsv")
    info = import_table(tmp_path / "t.ecsv", "gaia", tmp_path, epoch=2016.0)
    assert info.bands == ("BP", "G", "RP")
    assert info.serves == (*info.bands, *BANDS)
    found = LocalCatalog(tmp_path, "gaia").query(10.0, 0.0, 1.0, "r", "g-i", 2016.0)
    found = found.select(np.argsort(found.ra))
    expected, err = transform("r", gaia([0.9], errors=(0.01, 0.01, 0.01)))
    assert found.mag == pytest.approx([expected[0] + 15.5 - 15.54, np.nan], abs=0.05, nan_ok=True)
    assert found.mag_err[0] == pytest.approx(err[0], rel=1e-4)
    m = mags_of([0.9])
    assert found.color[0] == pytest.approx(m["g"][0] - m["i"][0], abs=1e-4)
    assert np.isnan(found.color[1])  # redder than g is known for
    with pytest.raises(NotFoundError, match=r"no band 'u'.*G, RP, B, V.*catalog_band"):
        LocalCatalog(tmp_path, "gaia").query(10.0, 0.0, 1.0, "u", None, 2016.0)


def test_what_is_measured_is_not_transformed():
    assert derived_bands(("G", "BP", "RP", "g", "r")) == tuple(b for b in BANDS if b not in ("g", "r"))
    assert derived_bands(("G", "BP")) == ()
    assert measured_bands("g", ("g", "G", "BP", "RP")) == ("g",)
    assert measured_bands("g", ("G", "BP", "RP")) == ("G", "BP", "RP")


#: DECam's bands in Gaia's, as the Legacy Surveys fitted them on the sky: G to X in powers of BP-RP
#: (legacysurvey/legacypipe, gaiacat.py). Another system, but its g and z are near PS1's.
DECAM_G = (
    -0.1178631039, 0.3650113495, 0.5608615360, -0.2850687702, -1.0243473939, 1.4378375491, 0.0679401731,
    -1.1713172509, 0.9107811975, -0.3374324004, 0.0683946390, -0.0073089582, 0.0003230170,
)  # fmt: skip
DECAM_Z = (
    0.4811198057, -0.9990015041, 0.1403990019, 0.2150988888, -0.2917655866, 0.1326831887, -0.0259205004,
    0.0018548776,
)  # fmt: skip


@pytest.mark.skipif("SEECHANGE_REAL_DATA" not in os.environ, reason="no real data here")
def test_real_stars_have_the_magnitudes_that_decam_sees(tmp_path):
    """Gaia rows of five fields, as their files have them, against what the Legacy Surveys found for DECam."""
    files = sorted((Path(os.environ["SEECHANGE_REAL_DATA"]) / "decam_cutouts").glob("*/gaia/chunk-*.fits"))
    files = [file for file in files if len(Table.read(file)) > 0]
    for i, file in enumerate(files):
        import_table(file, f"g{i}", tmp_path, layout="gaia_dr3")
    n = 0
    for i in range(len(files)):
        catalog = LocalCatalog(tmp_path, f"g{i}")
        table = Table.read(files[i])
        cone = (float(np.mean(table["ra"])), float(np.mean(table["dec"])), 5.0)
        ours = {b: catalog.query(*cone, b, "BP-RP", 2015.5) for b in ("G", "g_ps1", "z_ps1")}
        color, g = ours["G"].color, ours["G"].mag
        good = (color > 0.6) & (color < 1.6) & np.isfinite(g)
        for band, coefficients in (("g_ps1", DECAM_G), ("z_ps1", DECAM_Z)):
            decam = g + polynomial.polyval(np.clip(color, -0.6, 4.1), coefficients)
            assert np.all(np.abs(ours[band].mag - decam)[good] < 0.06), band
        n += np.count_nonzero(good)
    assert n > 100
