"""Real lights without any pointing in their headers, solved from a hint and a Tycho-2 excerpt.

Runs where ``SEECHANGE_REAL_DATA`` names a folder with ``tres1/`` and ``catalogs/``.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import sep
from astropy.io import fits

from seechange_core.catalogs import LocalCatalog, import_table
from seechange_core.flags import PixelFlag
from seechange_core.frames import Background, PointingHint, Sources
from seechange_core.numerics.psf import constant
from seechange_core.stages.astrometry import query_radius_deg, solve
from seechange_core.stages.photometry import calibrate

ROOT = Path(os.environ.get("SEECHANGE_REAL_DATA", "/nowhere"))
HINT = PointingHint(286.0409, 36.6325, 20.0, 2.374)

pytestmark = pytest.mark.skipif(not (ROOT / "tres1").is_dir(), reason="SEECHANGE_REAL_DATA is not set")


@pytest.fixture(scope="module")
def dark():
    return np.median(
        [fits.getdata(f).astype(np.float32) for f in sorted(ROOT.glob("tres1/*d.fit.gz"))], axis=0
    )


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    import_table(
        ROOT / "catalogs" / "tres1_tycho2.ecsv", "tycho2", store, epoch=2000.0, mapping={"mag_V": "VT"},
        default_position_err_mas=60.0, default_motion_mas_yr=10.0, default_mag_err=0.1,
    )  # fmt: skip
    return LocalCatalog(store, "tycho2").query(
        HINT.ra, HINT.dec, query_radius_deg(HINT, (736, 1092)), "V", None, 2012.46
    )


def plain_sources(pixels, raw):
    sky = sep.Background(pixels, bw=64, bh=64)
    data = pixels - sky.back()
    found = sep.extract(data, 5.0, err=sky.globalrms, minarea=5)
    flux, flux_err, _ = sep.sum_circle(data, found["x"], found["y"], 4.0, err=sky.globalrms, gain=2.3)
    n, one = len(found), np.ones(len(found))
    err = np.sqrt(found["errx2"] + 1e-4)
    peak = raw[found["ypeak"], found["xpeak"]]
    return Sources(
        x=found["x"], y=found["y"], x_err=err, y_err=err, flux_psf=flux, flux_psf_err=flux_err, chi2=one,
        flux_aper=flux[:, None], flux_aper_err=flux_err[:, None], peak=found["peak"].astype(float),
        fwhm_pix=2 * one, elongation=found["a"] / found["b"],
        theta_rad=found["theta"].astype(float), flags=np.where(peak > 60000, int(PixelFlag.SATURATED), 0),
        blended=found["flag"] > 0, is_star=np.ones(n, bool),
    ), sky.globalrms  # fmt: skip


def test_every_light_is_solved_and_calibrated(dark, catalog):
    y, x = np.mgrid[-7:8, -7:8]
    psf = constant(np.exp(-(x**2 + y**2) / 2.0))
    scales, centres, rms, zero_points = [], [], [], []
    lights = sorted(f for f in ROOT.glob("tres1/*.fit.gz") if not f.name.endswith("d.fit.gz"))
    for light in lights:
        raw = fits.getdata(light).astype(np.float32)
        sources, sky_rms = plain_sources(raw - dark, raw)
        solution = solve(sources, catalog, HINT, raw.shape)
        mesh = np.full((2, 2), sky_rms, np.float32)
        zero_point = calibrate(sources, solution, catalog, Background(mesh, mesh, 550, raw.shape), psf, "V")
        scales.append(solution.pixel_scale_arcsec)
        centres.append((solution.cards["CRVAL1"], solution.cards["CRVAL2"]))
        rms.append(solution.rms_mas)
        zero_points.append(zero_point.zp)
        assert solution.n_matched >= 15
        assert np.linalg.det(solution.wcs.pixel_scale_matrix) > 0  # mirrored
    assert len(lights) == 27
    # Tycho-2 is good to 60 mas and its stars moved for 12 years; a pixel is 2374 mas.
    assert max(rms) < 300
    assert np.ptp(scales) < 1e-3
    assert np.median(scales) == pytest.approx(2.3743, abs=5e-4)
    # The field drifts slowly and smoothly: no light was solved to somewhere else.
    assert np.max(np.abs(np.diff(np.array(centres), axis=0))) < 0.01
    assert np.std(zero_points) < 0.1
