"""The zero point of a CCD against the truth; there is no peer that does the same.

The truth is the magnitude of one electron within half a PSF stamp, which is what the PSF model defines as all
of a star's light: ``pull_total`` is the error against it over `zp_err`. ``zp_error_vs_flux_mmag`` takes
instead the light that the fitted fluxes of bright isolated stars really hold: it is free of errors of the
PSF's normalisation, and ``pull_flux`` is this one over `zp_err` without the term that stands for them.

One CCD is one draw. ``trials_*`` are the pulls of `_TRIALS` catalogs of a part of its true stars, each with
its own noise of fluxes and of magnitudes, without pixels: what choice, weights and clipping of stars do.
"""

import math
from typing import Any

import numpy as np

from benchmarks import ccds, peers
from benchmarks.psf_photometry import Truth
from seechange_core.frames import CatalogStars, PsfModel, Sources, ZeroPointSolution
from seechange_core.numerics.matching import match_plane
from seechange_core.stages.astrometry import solve
from seechange_core.stages.extract import Extraction, ExtractParams, extract
from seechange_core.stages.photometry import PhotometryParams, calibrate, total_flux_error_mag

_TRIALS, _PART = 200, 3
_SCATTER_MAG = 0.01  # of the trials' stars, which neither error tells
_FOUND_SNR = 5.0


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
        "pull_total": (solution.zp - enclosed_zp) / solution.zp_err,
        "pull_flux": of_fluxes / _fit_error(solution, found.psf),
        # The simulation's term is that of the natural magnitude, ours that of the catalog's.
        "color_term_error": solution.color_term + ccd.summary["color_term"],
        "color_term_err": solution.color_term_err,
        "limiting_mag_error": solution.limiting_mag - (true_zp - 2.5 * np.log10(_true_limit_e(truth, 5.0))),
    } | _trials(ccd, found, params, seed)
    return [peers.row("zero point", kind, seed, cost, quality)]


def _fit_error(solution: ZeroPointSolution, psf: PsfModel) -> float:
    """Return the error of a zero point of PSF fluxes, whatever part of the light these are."""
    return math.sqrt(solution.zp_err**2 - total_flux_error_mag(psf) ** 2)


def _trials(ccd: ccds.Ccd, found: Extraction, params: PhotometryParams, seed: int) -> dict[str, float]:
    """Return mean and width of the pulls of synthetic catalogs, in which every error is known."""
    rng = np.random.default_rng(seed)
    table, true_zp = ccd.truth, ccd.summary["zp"]
    rows = np.flatnonzero(np.asarray(table["kind"] == "star") & ~np.asarray(table["saturated"]))
    wcs = solve(found.sources, ccd.catalog(), ccd.hint, ccd.image().shape)
    area = 4 * np.pi * (found.psf.fwhm_pix / 2.355) ** 2
    sky_e = math.sqrt(area) * float(np.median(found.background.rms))
    pulls = []
    for _ in range(_TRIALS):
        some = rng.choice(rows, len(rows) // _PART, replace=False)
        x, y, flux = (np.asarray(table[name], float)[some] for name in ("x", "y", "flux_e"))
        mag = true_zp - 2.5 * np.log10(flux) + rng.normal(0, _SCATTER_MAG, len(some))
        measured = flux + rng.normal(0, np.hypot(np.sqrt(flux), sky_e))
        seen = measured > _FOUND_SNR * sky_e
        sources = _sources(x[seen], y[seen], measured[seen], np.hypot(np.sqrt(measured[seen]), sky_e))
        # As accurate as catalogs are: a hundredth, more towards their limit, where they end.
        mag_err = np.hypot(0.01, 0.1 * 10 ** (0.4 * (mag - ccd.survey.options.catalog_faint_mag)))
        listed = mag + rng.normal(0, mag_err)
        known = listed < ccd.survey.options.catalog_faint_mag
        ra, dec = wcs.to_sky(x[known], y[known])
        catalog = CatalogStars(
            ra, dec, np.ones(len(ra)), listed[known], mag_err[known], np.full(len(ra), np.nan),
            np.ones(len(ra), bool),
        )  # fmt: skip
        solution = calibrate(sources, wcs, catalog, found.background, found.psf, ccd.band, params)
        pulls.append((solution.zp - true_zp) / _fit_error(solution, found.psf))
    return {
        "trials": float(_TRIALS),
        "trials_pull_mean": float(np.mean(pulls)),
        "trials_pull_width": float(np.std(pulls)),
    }


def _sources(x: Any, y: Any, flux: Any, flux_err: Any) -> Sources:
    """Return clean stars with these fluxes."""
    one, no = np.ones(len(x)), np.zeros(len(x), bool)
    return Sources(
        x=x, y=y, x_err=0.01 * one, y_err=0.01 * one, flux_psf=flux, flux_psf_err=flux_err, chi2=one,
        flux_aper=flux[:, None], flux_aper_err=flux_err[:, None], peak=0.05 * flux, fwhm_pix=4 * one,
        elongation=one, theta_rad=0 * one, flags=np.zeros(len(x), int), blended=no, is_star=~no,
    )  # fmt: skip


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
