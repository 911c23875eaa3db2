"""Figures of real light curves, as one would publish them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from seechange_core.chain.light_curves import LightCurveTable
from seechange_core.qa.style import BLUE, STYLE, VERMILION, Figure

#: Of the fluxes drawn: magnitude of a flux of 1.
ZERO_POINT = 25.0
#: Neighbours are drawn down to magnitude 19.
MIN_NEIGHBOUR_FLUX = 10 ** (0.4 * (ZERO_POINT - 19))
#: Nearer stars are blended with the event, whose change is theirs.
BLENDED_ARCSEC = 5.0
N_NEIGHBOURS = 20
#: Nights closer to each other than this, days, are drawn in one detail.
_SAME_RUN_DAYS = 1.6
_N_DETAILS = 3
_POINTS = {"fmt": ".", "ms": 3.5, "color": BLUE, "elinewidth": 0.6, "capsize": 0, "ecolor": "0.6"}


@dataclass(frozen=True, eq=False)
class Stars:
    """Fluxes forced on all differences at catalog stars, of which hardly any varies.

    Attributes
    ----------
    mjd
        (epochs,) middles.
    flux
        (n,) from the catalog; zero point 25.
    apart_arcsec
        (n,) from the event.
    change, error
        (n, epochs) of zero point 25; NaN where an unusable pixel is near.
    """

    mjd: np.ndarray
    flux: np.ndarray
    apart_arcsec: np.ndarray
    change: np.ndarray
    error: np.ndarray

    @property
    def off(self) -> np.ndarray:
        """Changes from each star's own median."""
        return np.asarray(self.change - np.nanmedian(self.change, axis=1, keepdims=True))

    def pulls(self) -> np.ndarray:
        """Return these in units of their errors."""
        return np.asarray(self.off / self.error)

    def scatter(self) -> np.ndarray:
        """Return each star's scatter from its MAD, as a flux."""
        return np.asarray(1.4826 * np.nanmedian(np.abs(self.off), axis=1))

    def neighbours(self) -> np.ndarray:
        """Return which stars are the nearest to the event of those that are bright enough to compare."""
        compared = (self.apart_arcsec > BLENDED_ARCSEC) & (self.flux > MIN_NEIGHBOUR_FLUX)
        return np.argsort(np.where(compared, self.apart_arcsec, np.inf))[:N_NEIGHBOURS]


def mag_of(flux: np.ndarray) -> np.ndarray:
    """Return magnitudes of fluxes of zero point 25."""
    return np.asarray(ZERO_POINT - 2.5 * np.log10(flux))


def draw_light_curves(label: str, band: str, own: LightCurveTable, stars: Stars, path: Path) -> None:
    """Draw a variable's season and its busiest nights, its twenty nearest stars and the scatter of all."""
    with rc_context({**STYLE, "font.size": 8, "axes.titleweight": "normal"}):
        figure = Figure(figsize=(7.4, 11.2), layout="constrained")
        top, detail, middle, bottom = figure.subfigures(4, 1, height_ratios=(2.9, 2.0, 4.6, 2.7))
        season = top.subplots()
        _event(season, own, band)
        season.set_title(f"{label} in {band}: differences plus the light of their references", loc="left")
        _details(detail.subplots(1, _N_DETAILS, sharey=True), own, band)
        _neighbours(middle, stars)
        _scatter(bottom.subplots(), stars)
        figure.savefig(path, dpi=110)


def _event(ax: Axes, own: LightCurveTable, band: str) -> None:
    ax.errorbar(own.mjd_mid, own.total_mag, own.total_mag_err, **{**_POINTS, "ms": 5})
    ax.set(xlabel="MJD", ylabel=f"{band} (zero of the field's own catalog)")
    ax.invert_yaxis()
    ax.grid(alpha=0.25, lw=0.5)


def _details(panels: np.ndarray, own: LightCurveTable, band: str) -> None:
    """Draw the runs of nights with the most frames, in the order of time."""
    starts = np.flatnonzero(np.diff(own.mjd_mid, prepend=-np.inf) > _SAME_RUN_DAYS)
    runs = np.split(np.arange(len(own)), starts[1:])
    longest = sorted(sorted(runs, key=len)[-len(panels) :], key=lambda run: run[0])
    for ax, run in zip(panels, longest, strict=False):
        _event(ax, own.select(run), band)
        ax.set_ylabel("")
        ax.xaxis.set_major_locator(MultipleLocator(1))
        ax.ticklabel_format(axis="x", useOffset=False)
    panels[0].set_ylabel(band)


def _neighbours(middle: Figure, stars: Stars) -> None:
    panels = middle.subplots(5, 4, sharex=True, sharey=True)
    for ax, k in zip(panels.flat, stars.neighbours(), strict=False):
        percent = 100 / stars.flux[k]
        ax.errorbar(stars.mjd, stars.off[k] * percent, stars.error[k] * percent, **_POINTS)
        ax.axhline(0, color="0.7", lw=0.6, zorder=0)
        words = f'{stars.apart_arcsec[k]:.0f}" away, {mag_of(stars.flux[k]):.2f} mag'
        ax.set_title(words, fontsize=7, loc="left", pad=2)
        ax.set(ylim=(-12, 12))
        ax.xaxis.set_major_locator(MultipleLocator(20))
    middle.supylabel("the twenty nearest stars, percent from their medians", fontsize=8)


def _scatter(ax: Axes, stars: Stars) -> None:
    promised = np.nanmedian(stars.error, axis=1) / stars.flux
    mag = mag_of(stars.flux)
    ax.semilogy(mag, 1085.7 * stars.scatter() / stars.flux, ".", ms=4, color=BLUE, label="scatter of a star")
    ax.semilogy(mag, 1085.7 * promised, ".", ms=2, color=VERMILION, label="its error bar")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(xlabel="magnitude (zero of the field's own catalog)", ylabel="frame to frame [mmag]")
    ax.set(ylim=(3, 1000))
    ax.grid(alpha=0.3, lw=0.5)
    ax.legend(frameon=False, loc="upper left")
