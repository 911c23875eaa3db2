"""The zero point of a CCD against the truth; there is no peer that does the same.

The truth is the magnitude of one electron within half a PSF stamp, which is what the PSF model defines as all
of a star's light. ``zp_error_vs_flux_mmag`` takes instead the light that the fitted fluxes of bright isolated
stars really hold: it is free of errors of the PSF's normalisation, and ``pull`` is this one over `zp_err`.
"""

from typing import Any

import numpy as np

from benchmarks import ccds, peers
from benchmarks.psf_photometry import Truth
from seechange_core.frames import Sources
from seechange_core.numerics.matching import match_plane
from seechange_core.stages.astrometry import solve
from seechange_core.stages.extract import ExtractParams, extract
from seechange_core.stages.photometry import PhotometryParams, calibrate


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Measure one CCD."""
    ccd = ccds.load(kind, seed)
    image, catalog = ccd.image(), ccd.catalog()
    found = extract(image, ccd.settings.params(ExtractParams, "extract", ccd.row.instrument))
    wcs = solve(found.sources, catalog, ccd.hint, image.shape)
    params = ccd.settings.params(PhotometryParams, "photometry", ccd.row.instrument)
    solution, cost = peers.timed(
        calibrate, found.sources, wcs, catalog, found.background, found.psf, ccd.band, params
    )
    truth, true_zp = Truth(ccd, image), ccd.summary["zp"]
    enclosed_zp = true_zp + 2.5 * np.log10(truth.field.enclosed(found.psf.size // 2))
    of_fluxes = solution.zp - true_zp - 2.5 * np.log10(_share_fitted(ccd, found.sources))
    quality = {
        "n_stars": float(solution.n_stars),
        "zp_err_mmag": 1e3 * solution.zp_err,
        "zp_error_vs_truth_mmag": 1e3 * (solution.zp - enclosed_zp),
        "zp_error_vs_flux_mmag": 1e3 * of_fluxes,
        "pull": of_fluxes / solution.zp_err,
        # The simulation's term is that of the natural magnitude, ours that of the catalog's.
        "color_term_error": solution.color_term + ccd.summary["color_term"],
        "color_term_err": solution.color_term_err,
        "limiting_mag_error": solution.limiting_mag - (true_zp - 2.5 * np.log10(_true_limit_e(truth, 5.0))),
    }
    return [peers.row("zero point", kind, seed, cost, quality)]


def _share_fitted(ccd: ccds.Ccd, sources: Sources) -> float:
    """Return which share of their true light the fitted fluxes of bright isolated stars hold."""
    t = ccd.truth
    stars = np.asarray(t["kind"] == "star") & ~np.asarray(t["saturated"]) & ~np.asarray(t["on_masked"])
    found = match_plane(sources.x, sources.y, np.asarray(t["x"]), np.asarray(t["y"]), 1.0)
    clean = (sources.snr > 100) & ~sources.blended & (sources.flags == 0)
    use = stars[found.second] & clean[found.first]
    flux_e = np.asarray(t["flux_e"])[found.second[use]]
    return float(np.median(sources.flux_psf[found.first[use]] / flux_e))


def _true_limit_e(truth: Truth, n_sigma: float) -> float:
    """Return the flux that the best fit measures at `n_sigma`, median over places, electrons."""
    height, width = truth.shape
    x, y = (
        g.ravel() for g in np.meshgrid(np.linspace(0.1, 0.9, 6) * width, np.linspace(0.1, 0.9, 8) * height)
    )
    flux = n_sigma * truth.limit(x, y, np.zeros(len(x)))
    for _ in range(5):
        flux = n_sigma * truth.limit(x, y, flux)
    return float(np.median(flux))
