"""Astrometry of one CCD against the simulated sky: what it costs and how far off it is.

Twice: with the catalog as it is, and with `N_REFERENCES` references, the brightest in the section, that are
wrong by `REFERENCE_ERROR_MAS` more per axis (those outside the section go down to the same magnitude). Every
solution is compared with the true map from pixels to the sky on a grid over the section: ``grid_error_mas``
is the rms per axis, and ``limit_mas`` what a weighted fit of a polynomial of the true degree can reach: the
errors of the references and those quoted for the centroids, propagated to the grid, from all clean stars
with a reference. Of the 30 mas catalog `DRAWS` are solved; ``grid_error_draws_mas`` is the rms over all.
"""

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS

from benchmarks import ccds, scamp
from benchmarks.ccds import Ccd
from benchmarks.peers import row, timed
from seechange_core.frames import CatalogStars, PointingHint, Sources, WcsSolution
from seechange_core.numerics import sky
from seechange_core.numerics.distortion import basis
from seechange_core.numerics.matching import match_plane
from seechange_core.stages.astrometry import AstrometryParams, solve
from seechange_core.stages.extract import ExtractParams, extract

Float = npt.NDArray[np.float64]

N_REFERENCES, REFERENCE_ERROR_MAS, DRAWS = 815, 30.0, 10
GRID = (16, 32)
#: What the simulated optics do to one CCD: a fit of lower order is off, one of higher order noisier.
TRUE_ORDER = 3
_MIN_SNR, _MATCH_PIX = 5.0, 1.0
_MAS = 3.6e6


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Return the rows of one CCD: the catalog as it is and a worse one."""
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
        "limit_mas": limit_mas(ccd, sources, catalogs[0], TRUE_ORDER),
        "order": order,
        "matched": solution.n_matched,
    }
    if len(catalogs) > 1:
        errors = [grid_error_mas(ccd, _solve(sources, catalog, *inputs).wcs) for catalog in catalogs]
        quality["grid_error_draws_mas"] = math.sqrt(np.mean(np.square(errors)))
    if not scamp.is_installed():
        return row(step, ccd.kind, ccd.seed, ours, quality)
    wcs, theirs = scamp.solve(ccd, catalogs[0])
    their_quality = {"grid_error_mas": grid_error_mas(ccd, wcs)}
    return row(step, ccd.kind, ccd.seed, ours, quality, "SCAMP", theirs, their_quality)


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
