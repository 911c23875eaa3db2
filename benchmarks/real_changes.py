"""What changed in a real crowded field: a table of its differences, and light curves as one would publish.

Used by ``benchmarks.real_data`` after the chain has made differences of every frame.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes

from seechange_core import chain
from seechange_core.chain.catalogs import catalog_of
from seechange_core.chain.light_curves import (
    Epoch,
    LightCurveTable,
    all_epochs,
    force_epoch,
    position_light_curve,
)
from seechange_core.qa.style import BLUE, STYLE, VERMILION, Figure
from seechange_core.settings import Settings, use_settings

#: Of the fluxes drawn: magnitude of a flux of 1.
ZERO_POINT = 25.0
RADIUS_DEG = 0.035
N_NEIGHBOURS = 20
N_STARS = 600
#: Neighbours are drawn down to magnitude 19.
MIN_NEIGHBOUR_FLUX = 10 ** (0.4 * (ZERO_POINT - 19))
#: Between nights further apart than this, days, the time axis of a figure is cut.
GAP_DAYS = 4.0


@dataclass(frozen=True)
class Event:
    """Something known to vary: where, the name that people gave it, and the season of its field."""

    label: str
    ra: float
    dec: float
    band: str
    epoch: float


EVENTS = {"kb13475": Event("KB13475", 273.87079, -25.28530, "I", 2013.5)}


@dataclass(frozen=True, eq=False)
class Stars:
    """Fluxes forced on all differences at catalog stars, of which hardly any varies.

    Attributes
    ----------
    ra, dec, flux
        (n,) from the catalog; flux of zero point 25.
    apart_arcsec
        (n,) from the event.
    change, error
        (n, epochs) of zero point 25; NaN where an unusable pixel is near.
    """

    ra: np.ndarray
    dec: np.ndarray
    flux: np.ndarray
    apart_arcsec: np.ndarray
    change: np.ndarray
    error: np.ndarray

    def pulls(self) -> np.ndarray:
        """Return changes from each star's own median, in units of their errors."""
        return (self.change - np.nanmedian(self.change, axis=1, keepdims=True)) / self.error

    def scatter(self) -> np.ndarray:
        """Return each star's scatter from its MAD, as a flux."""
        off = self.change - np.nanmedian(self.change, axis=1, keepdims=True)
        return 1.4826 * np.nanmedian(np.abs(off), axis=1)


def judge(settings: Settings, event: Event, picture: Path) -> Iterator[str]:
    """Draw the light curves, and yield lines about every frame and about what limits the fluxes."""
    yield from frame_lines(settings)
    epochs, stars = measure_stars(settings, event)
    own = position_light_curve(settings, event.ra, event.dec)
    draw_light_curves(event, own, epochs, stars, picture)
    yield from limits(stars, np.array([e.rows.psf.fwhm_pix for e in epochs]))


def frame_lines(settings: Settings) -> Iterator[str]:
    """Yield a line for each frame: seeing, sky, zero point, score, detections; then the medians."""
    figures: dict[str, dict[str, float]] = {}
    for row in chain.status(settings):
        if row.current and row.status == "done":
            figures.setdefault(row.exposure, {}).update(row.metrics)
    names = {
        "fwhm_pix": ("FWHM px", "7.2f"),
        "median_e": ("sky e-", "7.0f"),
        "zp": ("zp mag", "7.3f"),
        "reference_coverage": ("covered", "7.3f"),
        "score_sigma": ("score s", "7.3f"),
        "n_positive": ("det +", "7.0f"),
        "n_negative": ("det -", "7.0f"),
        "n_good": ("pass", "7.0f"),
    }
    yield " ".join(["frame        ", *(title.rjust(7) for title, _ in names.values())])
    table = {f: [m.get(name, np.nan) for name in names] for f, m in figures.items() if "score_sigma" in m}
    for label, values in [*table.items(), ("median", np.nanmedian(list(table.values()), axis=0))]:
        texts = (format(v, form) for v, (_, form) in zip(values, names.values(), strict=True))
        yield " ".join([label.ljust(13), *texts])


def measure_stars(settings: Settings, event: Event) -> tuple[list[Epoch], Stars]:
    """Force fluxes at the brightest stars around an event in all differences."""
    with use_settings(settings):
        epochs = all_epochs(settings, "difference")
        stars = catalog_of(settings).query(event.ra, event.dec, RADIUS_DEG, event.band, None, event.epoch)
        stars = stars.select(np.argsort(stars.mag)[:N_STARS])
        fluxes = [force_epoch(settings, e, stars.ra, stars.dec, "difference") for e in epochs]
        zp = np.array([e.zp_at(stars.ra, stars.dec) for e in epochs])
    scale = 10 ** (0.4 * (ZERO_POINT - zp))
    clean = np.array([flags for *_, flags in fluxes]) == 0
    change = np.where(clean, np.array([f for f, *_ in fluxes]) * scale, np.nan)
    error = np.array([e for _, e, _ in fluxes]) * scale
    east = (stars.ra - event.ra) * np.cos(np.deg2rad(event.dec))
    apart = 3600 * np.hypot(east, stars.dec - event.dec)
    often = np.count_nonzero(np.isfinite(change), axis=0) > 0.7 * len(epochs)
    flux = 10 ** (0.4 * (ZERO_POINT - stars.mag))
    found = Stars(stars.ra, stars.dec, flux, apart, change.T, error.T)
    return epochs, Stars(*(getattr(found, name)[often] for name in vars(found)))


def limits(stars: Stars, fwhm_pix: np.ndarray) -> Iterator[str]:
    """Yield what limits the light curves of stars that do not vary."""
    pulls, far = stars.pulls(), stars.apart_arcsec > 3
    share = stars.scatter() / stars.flux
    order = np.argsort(-stars.flux[far])
    for n in (10, 50, 200):
        rows = np.flatnonzero(far)[order[:n]]
        wide = 1.4826 * np.nanmedian(np.abs(pulls[rows]))
        promised = 1085.7 * np.nanmedian(stars.error[rows] / stars.flux[rows, None])
        yield (
            f"the {n} brightest: scatter {1085.7 * np.median(share[rows]):.1f} mmag of their light, "
            f"error bars {promised:.1f}; scatter over error bar {wide:.2f}"
        )
    thirds = np.quantile(fwhm_pix, [0, 1 / 3, 2 / 3, 1])
    for low, high in pairwise(thirds):
        own = pulls[far][:, (fwhm_pix >= low) & (fwhm_pix <= high)]
        wide, beyond = 1.4826 * np.nanmedian(np.abs(own)), np.nanmean(np.abs(own) > 5)
        span = f"FWHM {low:.1f} to {high:.1f} px"
        yield f"{span}: scatter over error bar {wide:.2f}, {beyond:.2%} beyond 5 sigma"


def draw_light_curves(
    event: Event, own: LightCurveTable, epochs: list[Epoch], stars: Stars, path: Path
) -> None:
    """Draw the event, its twenty nearest stars and the scatter of all."""
    near = np.argsort(stars.apart_arcsec)
    compared = (stars.apart_arcsec > 5) & (stars.flux > MIN_NEIGHBOUR_FLUX)
    near = near[compared[near]][:N_NEIGHBOURS]
    mjd = np.array([e.exposure.mjd_mid for e in epochs])
    days, ticks = _without_gaps(mjd)
    with rc_context({**STYLE, "font.size": 8, "axes.titleweight": "normal"}):
        figure = Figure(figsize=(7.4, 9.6), layout="constrained")
        top, middle, bottom = figure.subfigures(3, 1, height_ratios=(3.2, 4.6, 3.0))
        _event(top.subplots(), event, own, days, ticks)
        panels = middle.subplots(5, 4, sharex=True, sharey=True)
        for ax, k in zip(panels.flat, near, strict=False):
            percent = 100 / stars.flux[k]
            ax.errorbar(days, stars.change[k] * percent, stars.error[k] * percent, **_POINTS)
            ax.axhline(0, color="0.7", lw=0.6, zorder=0)
            mag = ZERO_POINT - 2.5 * np.log10(stars.flux[k])
            ax.set_title(f'{stars.apart_arcsec[k]:.0f}" away, {mag:.2f} mag', fontsize=7, loc="left", pad=2)
            ax.set(ylim=(-15, 15), xticks=ticks[0], xticklabels=[])
        middle.supylabel("change of the twenty nearest stars, percent", fontsize=8)
        _scatter(bottom.subplots(), stars)
        figure.savefig(path, dpi=110)


_POINTS = {"fmt": ".", "ms": 3.5, "color": BLUE, "elinewidth": 0.6, "capsize": 0, "ecolor": "0.6"}


def _without_gaps(mjd: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, list[str]]]:
    """Shorten the gaps between nights; return days to draw at, and where to write which date."""
    order = np.argsort(mjd)
    steps = np.diff(mjd[order], prepend=mjd[order][0])
    drawn = np.cumsum(np.minimum(steps, GAP_DAYS / 2))
    days = np.empty(len(mjd))
    days[order] = drawn
    first = np.flatnonzero((steps > 1.5) | (np.arange(len(mjd)) == 0))
    keep = first[np.concatenate([[True], np.diff(drawn[first]) > 1.5])] if len(first) > 1 else first
    return days, (drawn[keep], [f"{mjd[order][k]:.0f}" for k in keep])


def _event(
    ax: Axes, event: Event, own: LightCurveTable, days: np.ndarray, ticks: tuple[np.ndarray, list[str]]
) -> None:
    scale = 10 ** (0.4 * (ZERO_POINT - own.zp))
    ax.errorbar(days, own.total_flux * scale, own.flux_err * scale, **{**_POINTS, "ms": 6})
    ax.set_xticks(ticks[0], ticks[1], fontsize=7)
    ax.set(ylabel="flux (zero point 25)", xlabel="MJD; gaps without frames are shortened")
    ax.set_title(f"{event.label} in {event.band}, differences plus the flux in their references", loc="left")
    ax.grid(alpha=0.25, lw=0.5)


def _scatter(ax: Axes, stars: Stars) -> None:
    mag = ZERO_POINT - 2.5 * np.log10(stars.flux)
    promised = np.nanmedian(stars.error, axis=1) / stars.flux
    ax.semilogy(mag, 1085.7 * stars.scatter() / stars.flux, ".", ms=4, color=BLUE, label="scatter of a star")
    ax.semilogy(mag, 1085.7 * promised, ".", ms=2, color=VERMILION, label="its error bar")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="magnitude (zero of the bootstrapped catalog)", ylabel="frame to frame [mmag]")
    ax.grid(alpha=0.3, lw=0.5)
    ax.legend(frameon=False, loc="upper left")
