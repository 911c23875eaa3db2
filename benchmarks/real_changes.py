"""What changed in a real crowded field: a table of its differences, and what limits its light curves.

Used by ``benchmarks.real_data`` after the chain has made differences of every frame.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.real_figures import BLENDED_ARCSEC, ZERO_POINT, Stars, draw_light_curves, mag_of
from seechange_core import chain
from seechange_core.chain.catalogs import catalog_of
from seechange_core.chain.light_curves import Epoch, all_epochs, force_epoch, position_light_curve
from seechange_core.numerics.sky import separation
from seechange_core.settings import Settings, use_settings
from seechange_core.storage.archive import Archive

RADIUS_DEG = 0.035
N_STARS = 600
#: Bins of the reference's light in a pixel, in sigma of the sky's noise.
LIGHT_BINS = (-np.inf, 1.0, 3.0, 10.0, 40.0, np.inf)


@dataclass(frozen=True)
class Event:
    """Something known to vary: the name that people gave it, where, and the season of its field.

    Attributes
    ----------
    ra, dec, within_arcsec
        Where to look for it: what varies most there is it. Headers that know the pointing to some
        arcseconds, and a catalog made of one of their images, have it elsewhere than another catalog.
    """

    label: str
    ra: float
    dec: float
    within_arcsec: float
    band: str
    epoch: float


EVENTS = {"kb13475": Event("KB13475", 273.8708, -25.2853, 20.0, "I", 2013.5)}


def judge(settings: Settings, event: Event, picture: Path) -> Iterator[str]:
    """Draw the light curves, and yield lines about every frame and about what limits the fluxes."""
    yield from frame_lines(settings)
    yield from light_lines(settings)
    rank, event = found(settings, event)
    yield (
        f"{event.label} is candidate {rank + 1} of {len(chain.candidates(settings))}, "
        f"at {event.ra:.5f} {event.dec:.5f}"
    )
    epochs, stars = measure_stars(settings, event)
    own = position_light_curve(settings, event.ra, event.dec)
    draw_light_curves(event.label, event.band, own, stars, picture)
    scale = 10 ** (0.4 * (ZERO_POINT - own.zp))
    for k in range(len(own)):
        flux, error = own.total_flux[k] * scale[k], own.flux_err[k] * scale[k]
        yield f"{own.exposure[k]} MJD {own.mjd_mid[k]:.4f}: {flux:.1f} +- {error:.1f} (zero point 25)"
    yield from limits(stars, np.array([e.rows.psf.fwhm_pix for e in epochs]))


def found(settings: Settings, event: Event) -> tuple[int, Event]:
    """Return the rank among the candidates of what varies most near an event's place, and that place.

    Raises
    ------
    LookupError
        If no candidate is there.
    """
    for rank, row in enumerate(chain.candidates(settings)):
        if 3600 * separation(row.ra, row.dec, event.ra, event.dec) < event.within_arcsec:
            return rank, replace(event, ra=row.ra, dec=row.dec)
    raise LookupError(f"{event.label}: nothing changed within {event.within_arcsec} arcsec")


def frame_lines(settings: Settings) -> Iterator[str]:
    """Yield a line for each frame: seeing, sky, zero point, score, detections, seconds; then the medians."""
    figures: dict[str, dict[str, float]] = {}
    for row in chain.status(settings):
        if not row.current:
            continue
        if row.status != "done":
            yield f"{row.exposure}: {row.step} {row.status}, {row.message}"
            continue
        figures.setdefault(row.exposure, {}).update(row.metrics)
        if row.step == "subtraction":
            figures[row.exposure]["subtract_s"] = row.metrics["seconds"]
    names = {
        "fwhm_pix": ("FWHM px", "7.2f"),
        "median_e": ("sky e-", "7.0f"),
        "zp": ("zp mag", "7.3f"),
        "reference_coverage": ("covered", "7.3f"),
        "score_sigma": ("score s", "7.3f"),
        "n_positive": ("det +", "7.0f"),
        "n_negative": ("det -", "7.0f"),
        "n_good": ("pass", "7.0f"),
        "subtract_s": ("seconds", "7.1f"),
    }
    yield " ".join(["frame        ", *(title.rjust(7) for title, _ in names.values())])
    table = {f: [m.get(name, np.nan) for name in names] for f, m in figures.items() if "score_sigma" in m}
    for label, values in [*table.items(), ("median", np.nanmedian(list(table.values()), axis=0))]:
        texts = (format(v, form) for v, (_, form) in zip(values, names.values(), strict=True))
        yield " ".join([label.ljust(13), *texts])


def light_lines(settings: Settings) -> Iterator[str]:
    """Yield how wide the score is by the light of the reference in a pixel: medians over the frames."""
    width = np.full((len(epochs := all_epochs(settings, "difference")), len(LIGHT_BINS) - 1), np.nan)
    beyond = width.copy()
    with use_settings(settings):
        for i, epoch in enumerate(epochs):
            frame = epoch.difference.read_subtraction(Archive(settings))
            there = frame.score != 0
            sky_sigma = np.quantile(frame.image.weight[there], 0.95) ** -0.5
            place = np.digitize(frame.reference[there] / sky_sigma, LIGHT_BINS) - 1
            score = frame.score[there]
            for k in range(width.shape[1]):
                own = score[place == k]
                width[i, k] = 1.4826 * np.median(np.abs(own - np.median(own))) if len(own) else np.nan
                beyond[i, k] = np.mean(np.abs(own) > 5) if len(own) else np.nan
    for k, (low, high) in enumerate(pairwise(LIGHT_BINS)):
        yield (
            f"light of {low:g} to {high:g} sky sigma a pixel: score sigma {np.nanmedian(width[:, k]):.2f}, "
            f"{np.nanmedian(beyond[:, k]):.2%} beyond 5"
        )


def measure_stars(settings: Settings, event: Event) -> tuple[list[Epoch], Stars]:
    """Force fluxes at the brightest stars around an event in all differences."""
    with use_settings(settings):
        epochs = all_epochs(settings, "difference")
        stars = catalog_of(settings).query(event.ra, event.dec, RADIUS_DEG, event.band, None, event.epoch)
        stars = stars.select(np.argsort(stars.mag)[:N_STARS])
        fluxes = [force_epoch(settings, e, stars.ra, stars.dec, "difference") for e in epochs]
        zp = np.array([e.zp_at(stars.ra, stars.dec) for e in epochs])
    scale = 10 ** (0.4 * (ZERO_POINT - zp))
    clean = np.array([f.flags for f in fluxes]) == 0
    change = np.where(clean, np.array([f.flux for f in fluxes]) * scale, np.nan).T
    often = np.count_nonzero(np.isfinite(change), axis=1) > 0.7 * len(epochs)
    apart = 3600 * separation(stars.ra, stars.dec, event.ra, event.dec)
    error = (np.array([f.flux_err for f in fluxes]) * scale).T
    flux = 10 ** (0.4 * (ZERO_POINT - stars.mag))
    mjd = np.array([e.exposure.mjd_mid for e in epochs])
    return epochs, Stars(mjd, flux[often], apart[often], change[often], error[often])


def limits(stars: Stars, fwhm_pix: np.ndarray) -> Iterator[str]:
    """Yield what limits the light curves of stars that do not vary."""
    pulls, far = stars.pulls(), stars.apart_arcsec > BLENDED_ARCSEC
    share = stars.scatter() / stars.flux
    order = np.argsort(-stars.flux[far])
    for n in (10, 50, 200):
        rows = np.flatnonzero(far)[order[:n]]
        wide = 1.4826 * np.nanmedian(np.abs(pulls[rows]))
        promised = 1085.7 * np.nanmedian(stars.error[rows] / stars.flux[rows, None])
        yield (
            f"the {n} brightest, to {mag_of(stars.flux[rows[-1]]):.1f} mag: scatter "
            f"{1085.7 * np.median(share[rows]):.1f} mmag of their light, error bars {promised:.1f}; "
            f"scatter over error bar {wide:.2f}"
        )
    near = stars.neighbours()
    rms = 1085.7 * np.nanstd(stars.change[near], axis=1) / stars.flux[near]
    yield f"the {len(near)} neighbours drawn: rms {', '.join(f'{r:.0f}' for r in rms)} mmag"
    thirds = np.quantile(fwhm_pix, [0, 1 / 3, 2 / 3, 1])
    for low, high in pairwise(thirds):
        own = pulls[far][:, (fwhm_pix >= low) & (fwhm_pix <= high)]
        wide, beyond = 1.4826 * np.nanmedian(np.abs(own)), np.nanmean(np.abs(own) > 5)
        span = f"FWHM {low:.1f} to {high:.1f} px"
        yield f"{span}: scatter over error bar {wide:.2f}, {beyond:.2%} beyond 5 sigma"
