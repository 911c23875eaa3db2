"""Astrometry of one CCD against the simulated sky, ours and SCAMP's, from the same sources and references.

Twice: with the catalog as it is, and with `N_REFERENCES` references, the brightest in the section, that are
wrong by `REFERENCE_ERROR_MAS` more per axis (those outside the section go down to the same magnitude). Every
solution is compared with the true map from pixels to the sky on a grid over the section: ``grid_error_mas``
is the rms per axis, and ``limit_mas`` what a weighted fit of a polynomial of the same degree can reach: the
errors of the references and those quoted for the centroids, propagated to the grid, from all clean stars
with a reference. Of the 30 mas catalog `DRAWS` are solved; ``grid_error_draws_mas`` is the rms over all.
"""

import math
import tempfile
import warnings
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from benchmarks import ccds
from benchmarks.ccds import Ccd
from benchmarks.peers import Cost, program, row, run_program, timed
from seechange_core.flags import UNUSABLE
from seechange_core.frames import CatalogStars, PointingHint, Sources, WcsSolution
from seechange_core.numerics import sky
from seechange_core.numerics.distortion import basis
from seechange_core.numerics.matching import match_plane
from seechange_core.numerics.timing import decimal_year
from seechange_core.stages.astrometry import AstrometryParams, solve
from seechange_core.stages.extract import ExtractParams, extract

Float = npt.NDArray[np.float64]

N_REFERENCES, REFERENCE_ERROR_MAS, DRAWS = 815, 30.0, 10
GRID = (16, 32)
SCAMP_DEGREE = 3
_MIN_SNR, _MATCH_PIX = 5.0, 1.0
_MAS = 3.6e6


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Return the rows of one CCD: the catalog as it is and a worse one, each against SCAMP."""
    ccd = ccds.load(kind, seed)
    sources, catalog = _sources(kind, seed), ccd.catalog()
    worse = [worse_catalog(ccd, catalog, draw) for draw in range(DRAWS)]
    name = f"astrometry, {REFERENCE_ERROR_MAS:g} mas catalog"
    return [_row("astrometry", ccd, sources, [catalog]), _row(name, ccd, sources, worse)]


@lru_cache(maxsize=2)
def _sources(kind: str, seed: int) -> Sources:
    ccd = ccds.load(kind, seed)
    return extract(ccd.image(), ccd.settings.params(ExtractParams, "extract", ccd.row.instrument)).sources


def _row(step: str, ccd: Ccd, sources: Sources, catalogs: list[CatalogStars]) -> dict[str, Any]:
    params = ccd.settings.params(AstrometryParams, "astrometry", ccd.row.instrument)
    inputs = ccd.hint, _shape(ccd), params
    solution, ours = timed(_solve, sources, catalogs[0], *inputs)
    order = _order(solution)
    quality = {
        "grid_error_mas": grid_error_mas(ccd, solution.wcs),
        "limit_mas": limit_mas(ccd, sources, catalogs[0], order),
        "order": order,
        "matched": solution.n_matched,
    }
    if len(catalogs) > 1:
        errors = [grid_error_mas(ccd, _solve(sources, catalog, *inputs).wcs) for catalog in catalogs]
        quality["grid_error_draws_mas"] = math.sqrt(np.mean(np.square(errors)))
    found = partial(row, step, ccd.kind, ccd.seed, ours, quality)
    if (scamp := program("scamp")) is None:
        return found()
    wcs, theirs = _scamp(scamp, ccd, sources, catalogs[0])
    peer_quality = {
        "grid_error_mas": grid_error_mas(ccd, wcs),
        "limit_mas": limit_mas(ccd, sources, catalogs[0], SCAMP_DEGREE),
        "order": SCAMP_DEGREE,
    }
    return found(f"SCAMP, degree {SCAMP_DEGREE}", theirs, peer_quality)


def _solve(
    sources: Sources,
    catalog: CatalogStars,
    hint: PointingHint,
    shape: tuple[int, int],
    params: AstrometryParams,
) -> WcsSolution:
    return solve(sources, catalog, hint, shape, params)


def _order(solution: WcsSolution) -> int:
    """Return the degree of the distortion: SIP says it, of TPV the highest term does, 1 if there is none."""
    terms = [int(key[4:]) for key in solution.cards if key.startswith("PV1_")]
    last = {2: 6, 3: 10, 4: 16, 5: 22}
    from_tpv = next((degree for degree, n in last.items() if n >= max(terms, default=0)), 1) if terms else 1
    return int(solution.cards.get("A_ORDER", from_tpv))


def _shape(ccd: Ccd) -> tuple[int, int]:
    return ccd.world.camera.height, ccd.world.camera.width


# --- Truth ----------------------------------------------------------------------------------------


def _true_map(ccd: Ccd) -> Any:
    return ccd.world.observations[0].sky_map(ccd.world.camera, ccd.section)


def worse_catalog(ccd: Ccd, catalog: CatalogStars, draw: int) -> CatalogStars:
    """Return the brightest references, moved by errors of `REFERENCE_ERROR_MAS` per axis."""
    height, width = _shape(ccd)
    x, y = _true_map(ccd).to_pixels(catalog.ra, catalog.dec)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1) & np.isfinite(catalog.mag)
    faintest = np.sort(catalog.mag[inside])[:N_REFERENCES][-1]
    bright = catalog.select(np.flatnonzero(catalog.mag <= faintest))
    rng = np.random.default_rng([ccd.seed, draw, 30])
    off = rng.normal(0, REFERENCE_ERROR_MAS / _MAS, (2, len(bright)))
    return replace(
        bright,
        ra=bright.ra + off[0] / np.cos(np.radians(bright.dec)),
        dec=bright.dec + off[1],
        position_err_mas=np.hypot(bright.position_err_mas, REFERENCE_ERROR_MAS),
    )


def _grid(shape: tuple[int, int]) -> tuple[Float, Float]:
    x, y = np.meshgrid(np.linspace(0, shape[1] - 1, GRID[0]), np.linspace(0, shape[0] - 1, GRID[1]))
    return x.ravel(), y.ravel()


def grid_error_mas(ccd: Ccd, wcs: WCS) -> float:
    """Return how far a solution is from the truth: the rms per axis over the grid."""
    x, y = _grid(_shape(ccd))
    apart = sky.separation(*wcs.all_pix2world(x, y, 0), *_true_map(ccd).to_sky(x, y)) * _MAS
    return math.sqrt(np.mean(apart**2) / 2)


def limit_mas(ccd: Ccd, sources: Sources, catalog: CatalogStars, order: int) -> float:
    """Return the error on the grid, per axis, of a weighted fit to all clean stars with a reference."""
    shape = _shape(ccd)
    half_x, half_y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    clean = (sources.flags == 0) & ~sources.blended & (sources.snr > _MIN_SNR)
    stars = sources.select(np.flatnonzero(clean))
    known = catalog.select(np.flatnonzero(catalog.is_star))
    # References that were moved are found all the same: by their true selves, not by the solution.
    found = match_plane(stars.x, stars.y, *_true_map(ccd).to_pixels(known.ra, known.dec), _MATCH_PIX)
    x, y = stars.x[found.first], stars.y[found.first]
    centroid = np.sqrt((stars.x_err**2 + stars.y_err**2) / 2)[found.first] * ccd.hint.pixel_scale_arcsec * 1e3
    errors = np.hypot(centroid, known.position_err_mas[found.second])
    terms = basis(x / half_x - 1, y / half_y - 1, order) / errors[:, None]
    at = basis(*(v / half - 1 for v, half in zip(_grid(shape), (half_x, half_y), strict=True)), order)
    return math.sqrt(np.mean(np.einsum("ij,jk,ik->i", at, np.linalg.inv(terms.T @ terms), at)))


# --- SCAMP ----------------------------------------------------------------------------------------


def _scamp(path: str, ccd: Ccd, sources: Sources, catalog: CatalogStars) -> tuple[WCS, Cost]:
    hint, year = ccd.hint, decimal_year(ccd.row.mjd_mid)
    options = {
        "ASTREF_CATALOG": "FILE", "ASTREFCAT_NAME": "references.cat", "ASTREFCENT_KEYS": "X_WORLD,Y_WORLD",
        "ASTREFERR_KEYS": "ERRA_WORLD,ERRB_WORLD,ERRTHETA_WORLD", "ASTREFMAG_KEY": "MAG",
        "ASTREFMAGERR_KEY": "MAGERR", "ASTREFOBSDATE_KEY": "OBSDATE", "ASTREFMAG_LIMITS": "-99.0,99.0",
        "MATCH": "Y", "POSITION_MAXERR": f"{hint.radius_arcmin:g}", "POSANGLE_MAXERR": "5",
        "PIXSCALE_MAXERR": f"{1 + hint.scale_tolerance:g}", "MOSAIC_TYPE": "UNCHANGED",
        "CROSSID_RADIUS": f"{2 * hint.pixel_scale_arcsec:g}", "SOLVE_ASTROM": "Y", "SOLVE_PHOTOM": "N",
        "DISTORT_DEGREES": str(SCAMP_DEGREE), "SN_THRESHOLDS": "10,100", "FWHM_THRESHOLDS": "0,100",
        "CHECKPLOT_TYPE": "NONE", "CHECKPLOT_DEV": "NULL", "WRITE_XML": "N", "VERBOSE_TYPE": "NORMAL",
        "NTHREADS": "1",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_ldac(folder / "sources.cat", _nominal(ccd, year), _source_columns(sources))
        _write_ldac(folder / "references.cat", fits.Header(), _reference_columns(catalog, year))
        lines = [f"{key} {value}" for key, value in options.items()]
        (folder / "scamp.conf").write_text("\n".join(lines) + "\n")
        cost = run_program([path, "sources.cat", "-c", "scamp.conf"], folder)
        # Comments in it are not ASCII.
        text = (folder / "sources.head").read_text(encoding="latin-1")
    lines = [line for line in text.splitlines() if not line.startswith(("HISTORY", "COMMENT"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        return WCS(fits.Header.fromstring("\n".join(lines), sep="\n")), cost


def _nominal(ccd: Ccd, year: float) -> fits.Header:
    """Return the header with what the hint says of the section."""
    hint, (height, width) = ccd.hint, _shape(ccd)
    scale, angle = hint.pixel_scale_arcsec / 3600, math.radians(hint.rotation_deg or 0.0)
    parity = hint.parity or 1
    header = fits.Header()
    header["SIMPLE"], header["BITPIX"], header["NAXIS"] = True, -32, 2
    header["NAXIS1"], header["NAXIS2"] = width, height
    header["CTYPE1"], header["CTYPE2"], header["RADESYS"], header["EQUINOX"] = (
        "RA---TAN",
        "DEC--TAN",
        "ICRS",
        2000.0,
    )
    header["CUNIT1"], header["CUNIT2"] = "deg", "deg"
    header["CRVAL1"], header["CRVAL2"] = hint.ra, hint.dec
    header["CRPIX1"], header["CRPIX2"] = (width + 1) / 2, (height + 1) / 2
    header["CD1_1"], header["CD1_2"] = -parity * scale * math.cos(angle), scale * math.sin(angle)
    header["CD2_1"], header["CD2_2"] = parity * scale * math.sin(angle), scale * math.cos(angle)
    header["MJD-OBS"], header["EPOCH"] = ccd.row.mjd_mid, year
    header["EXPTIME"], header["GAIN"], header["AIRMASS"], header["FILTER"] = 1.0, 1.0, 1.0, ccd.band
    return header


def _source_columns(sources: Sources) -> dict[str, Any]:
    s = sources.select(np.flatnonzero(np.isfinite(sources.x_err + sources.y_err) & (sources.flux_psf > 0)))
    return {
        "XWIN_IMAGE": s.x + 1, "YWIN_IMAGE": s.y + 1, "ERRAWIN_IMAGE": s.x_err, "ERRBWIN_IMAGE": s.y_err,
        "ERRTHETAWIN_IMAGE": np.zeros(len(s)), "FLUX_AUTO": s.flux_psf, "FLUXERR_AUTO": s.flux_psf_err,
        "FLUX_RADIUS": s.fwhm_pix / 2, "FWHM_IMAGE": s.fwhm_pix, "ELONGATION": s.elongation,
        # SExtractor's words: 4 is saturated, which FLAGS_MASK leaves out; 2 is deblended.
        "FLAGS": (4 * ((s.flags & int(UNUSABLE)) != 0) + 2 * s.blended).astype(np.int16),
    }  # fmt: skip


def _reference_columns(catalog: CatalogStars, year: float) -> dict[str, Any]:
    c = catalog.select(np.flatnonzero(np.isfinite(catalog.mag)))
    error = c.position_err_mas / _MAS
    return {
        "X_WORLD": c.ra, "Y_WORLD": c.dec, "ERRA_WORLD": error, "ERRB_WORLD": error,
        "ERRTHETA_WORLD": np.zeros(len(c)), "MAG": c.mag, "MAGERR": np.nan_to_num(c.mag_err, nan=0.1),
        "OBSDATE": np.full(len(c), year),
    }  # fmt: skip


def _write_ldac(path: Path, header: fits.Header, columns: dict[str, Any]) -> None:
    """Write a table the way SExtractor does: the image's header is the only cell of a table before it."""
    cards = header.tostring(endcard=True, padding=False)
    n = len(cards) // 80
    cell = fits.Column(
        "Field Header Card",
        f"{len(cards)}A",
        dim=f"(80, {n})",
        array=np.array([[cards[80 * i : 80 * i + 80] for i in range(n)]]),
    )
    codes = {"f": "D", "i": "I"}
    made = [fits.Column(name, codes[np.asarray(v).dtype.kind], array=v) for name, v in columns.items()]
    first = fits.BinTableHDU.from_columns([cell], name="LDAC_IMHEAD")
    table = fits.BinTableHDU.from_columns(made, name="LDAC_OBJECTS")
    fits.HDUList([fits.PrimaryHDU(), first, table]).writeto(path)
