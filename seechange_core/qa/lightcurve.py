"""Light curves as figures one would show a colleague."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from textwrap import wrap
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from seechange_core.errors import UserError
from seechange_core.frames import Bool, Float
from seechange_core.qa.style import STYLE, band_style

#: Zero point of a flux in microjansky, for AB magnitudes.
MICROJANSKY_ZP = 23.9

#: Length of the arrows of upper limits, mag.
_ARROW_MAG = 0.25
_CURE = "`seechange process` measures objects, as its last step, in all exposures that cover them"

Quantity = Literal["mag", "flux"]


@dataclass(frozen=True, eq=False)
class LightCurve:
    """What was measured of one object, one entry per epoch.

    Attributes
    ----------
    label
        The object's name, and what to say about it.
    time
        (n,) days: MJD or BJD.
    flux, flux_err
        (n,) any linear unit; NaN epochs are left out.
    zp
        (n,) magnitude of a flux of 1.
    band
        (n,) short names of the filters.
    truth_time, truth_mag
        A known light curve to draw behind, if there is one; NaN where it was dark.
    total_flux, total_flux_err
        (n,) of all light at the place, in the unit of `flux`; empty where it is not known.
    system
        Of the magnitudes: ``AB``, ``Vega``, or another word for one without a physical zero.
    ab_offset_mag
        (n,) or a number: what to add to the magnitudes to make them AB; NaN where nothing does.
    note
        A line to stand below the figure of one object, such as what was left out.
    """

    label: str
    time: Float
    flux: Float
    flux_err: Float
    zp: Float
    band: npt.NDArray[np.str_]
    truth_time: Float = field(default_factory=lambda: np.empty(0))
    truth_mag: Float = field(default_factory=lambda: np.empty(0))
    total_flux: Float = field(default_factory=lambda: np.empty(0))
    total_flux_err: Float = field(default_factory=lambda: np.empty(0))
    system: str = "AB"
    ab_offset_mag: Float | float = 0.0
    note: str = ""

    @property
    def usable(self) -> Bool:
        """(n,) bool: epochs with a flux and an error bar."""
        return np.isfinite(self.time) & np.isfinite(self.flux) & np.isfinite(self.zp) & (self.flux_err > 0)

    @property
    def is_physical(self) -> bool:
        """Whether its fluxes can be told in microjansky."""
        return bool(np.isfinite(self.ab_offset_mag).all())

    def scaled(self, quantity: Quantity) -> tuple[Float, Float]:
        """Return flux and error on the scale of zero point 23.9: microjansky, or as the magnitudes are."""
        offset = self.ab_offset_mag if quantity == "flux" and self.is_physical else 0.0
        scale = 10 ** (0.4 * (MICROJANSKY_ZP - self.zp - offset))
        return self.flux * scale, self.flux_err * scale

    def axis(self, quantity: Quantity) -> str:
        """Return what an axis is called."""
        if quantity == "flux":
            return "Flux [µJy]" if self.is_physical else "Flux [relative]"
        return f"Magnitude ({self.system if self.is_physical else 'instrumental'})"

    def total(self) -> "LightCurve":
        """Return the light curve of all light at the place; that of nothing where it is not known."""
        if not self.total_flux.size:
            unknown = np.full(len(self.time), np.nan)
            return replace(self, flux=unknown, flux_err=unknown, truth_time=np.empty(0))
        return replace(self, flux=self.total_flux, flux_err=self.total_flux_err, truth_time=np.empty(0))


def plot(
    curves: Sequence[LightCurve],
    *,
    quantity: Quantity = "mag",
    detection_sigma: float = 3.0,
    limit_sigma: float = 5.0,
    time_name: str = "MJD",
    title: str = "",
    columns: int = 3,
) -> Figure:
    """Plot one light curve, or many in panels that share their time axis.

    Epochs below `detection_sigma` are upper limits in magnitudes: arrows down from `limit_sigma` times
    the error. In flux every epoch is a point with its error bar.

    Parameters
    ----------
    curves
        At least one, each with at least one usable epoch.
    quantity
        ``mag`` or ``flux``.
    detection_sigma, limit_sigma
        See above.
    time_name
        What the times are, e.g. ``BJD (TDB)``.
    title
        Over all.
    columns
        Of panels, at most.

    Returns
    -------
    Figure
        With the Agg canvas; save with `seechange_core.qa.style.to_png`.

    Raises
    ------
    UserError
        If there is no curve, or one without a usable epoch.
    """
    empty = [c.label for c in curves if not c.usable.any()]
    if not curves or empty:
        raise UserError(
            f"nothing to plot{' for ' + ', '.join(empty) if empty else ''}",
            cure=_CURE,
        )
    n_columns = min(columns, len(curves))
    n_rows = -(-len(curves) // n_columns)
    start = float(np.floor(min(c.time[c.usable].min() for c in curves)))
    with mpl.rc_context(STYLE):
        single = len(curves) == 1
        figure = Figure(
            figsize=(7.2, 4.4) if single else (3.6 * n_columns + 0.4, 2.5 * n_rows + 0.8),
            layout="constrained",
        )
        axes = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False)
        for curve, ax in zip(curves, axes.flat, strict=False):
            _panel(ax, curve, start, quantity, (detection_sigma, limit_sigma))
        _dress(figure, axes, len(curves), f"{time_name} − {start:.0f} [days]", quantity)
        _legend(figure, curves, quantity, (detection_sigma, limit_sigma))
        if title:
            figure.suptitle(title)
    return figure


def plot_object(
    curve: LightCurve,
    *,
    detection_sigma: float = 3.0,
    limit_sigma: float = 5.0,
    time_name: str = "MJD (UTC)",
) -> Figure:
    """Plot the light curve of one object for a paper: its own light above, all light at its place below.

    Its own light is in magnitudes with upper limits as arrows, or in microjansky if it ever was fainter than
    in the reference by more than `detection_sigma`. The panel below is left out where the total is not known.

    Parameters
    ----------
    curve
        With at least one usable epoch.
    detection_sigma, limit_sigma, time_name
        As of `plot`.

    Returns
    -------
    Figure
        With the Agg canvas.

    Raises
    ------
    UserError
        If there is no usable epoch.
    """
    if not curve.usable.any():
        raise UserError(f"nothing to plot for {curve.label}", cure=_CURE)
    sigmas = (detection_sigma, limit_sigma)
    faded = bool((curve.flux[curve.usable] < -detection_sigma * curve.flux_err[curve.usable]).any())
    quantity: Quantity = "flux" if faded else "mag"
    total = curve.total()
    has_total = bool((total.usable & (total.flux > 0)).any())
    start = float(np.floor(curve.time[curve.usable].min()))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 6.2 if has_total else 4.4), layout="constrained")
        rows = figure.subplots(
            1 + has_total, 1, sharex=True, squeeze=False, height_ratios=[3, 2][: 1 + has_total]
        )
        axes: list[Axes] = list(rows[:, 0])
        _panel(axes[0], curve, start, quantity, sigmas)
        axes[0].set_title(curve.label, fontsize="large", loc="left")
        axes[0].set_ylabel(curve.axis(quantity))
        if has_total:
            _panel(axes[1], total, start, "mag", sigmas)
            axes[1].set_title("All light at its place: difference + reference", fontsize="medium", loc="left")
            axes[1].title.set_fontweight("normal")
            axes[1].set_ylabel(curve.axis("mag"))
        axes[-1].set_xlabel(f"{time_name} − {start:.0f} [days]")
        _days_since_seen(axes[0], curve, start, detection_sigma)
        for ax in axes:
            ax.xaxis.set_major_locator(MaxNLocator(7))
            ax.margins(x=0.04)
        _legend(figure, [curve], quantity, sigmas)
    return figure


def _days_since_seen(ax: Axes, curve: LightCurve, start: float, sigma: float) -> None:
    """Add a scale of days since the first detection, if there is one, on top."""
    seen = curve.usable & (np.abs(curve.flux) >= sigma * curve.flux_err)
    if not seen.any():
        return
    first = float(curve.time[seen].min()) - start

    def since(t: Any) -> Any:
        return t - first

    def until(t: Any) -> Any:
        return t + first

    top = ax.secondary_xaxis("top", functions=(since, until))
    top.set_xlabel(f"Days since the first detection above {sigma:g}σ")
    top.xaxis.set_major_locator(MaxNLocator(7))


def _panel(
    ax: Axes, curve: LightCurve, start: float, quantity: Quantity, sigmas: tuple[float, float]
) -> None:
    days = curve.time - start
    flux, err = curve.scaled(quantity)
    if quantity == "mag":
        ax.invert_yaxis()  # first: arrows point by it
    for band in dict.fromkeys(curve.band.tolist()):
        here = curve.usable & (curve.band == band)
        style = band_style(str(band))
        if quantity == "flux":
            ax.errorbar(days[here], flux[here], err[here], **_points(style))
        else:
            _magnitudes(ax, (days[here], flux[here], err[here]), style, sigmas)
    _truth(ax, curve, start, quantity)
    if quantity == "flux":
        ax.axhline(0, color="0.75", lw=0.8, zorder=0)
    ax.set_title(curve.label, fontsize="medium", loc="left")


def _points(style: dict[str, str]) -> dict[str, Any]:
    return {
        "fmt": style["marker"],
        "color": style["color"],
        "ms": 4.5,
        "mec": "white",
        "mew": 0.5,
        "elinewidth": 1.0,
        "capsize": 0,
        "zorder": 3,
    }


def _magnitudes(
    ax: Axes, points: tuple[Float, Float, Float], style: dict[str, str], sigmas: tuple[float, float]
) -> None:
    days, flux, err = points
    seen = flux >= sigmas[0] * err
    ratio = err[seen] / flux[seen]
    # The two halves of a faint point's error bar differ: a magnitude is a logarithm.
    brighter = 2.5 * np.log10(1 + ratio)
    fainter = -2.5 * np.log10(np.maximum(1 - ratio, 1e-3))
    mags = MICROJANSKY_ZP - 2.5 * np.log10(flux[seen])
    ax.errorbar(days[seen], mags, [brighter, fainter], **_points(style))
    limits = MICROJANSKY_ZP - 2.5 * np.log10(sigmas[1] * err[~seen])
    ax.errorbar(
        days[~seen], limits, _ARROW_MAG, lolims=True, fmt="_", color=style["color"], ms=6, mew=1.0,
        elinewidth=0.9, capsize=2.5, alpha=0.75, zorder=2,
    )  # fmt: skip


def _truth(ax: Axes, curve: LightCurve, start: float, quantity: Quantity) -> None:
    if curve.truth_time.size == 0:
        return
    order = np.argsort(curve.truth_time)
    mag = curve.truth_mag[order]
    if quantity == "mag":
        # What is far below every point and limit would only squeeze them together.
        value = np.where(mag <= ax.dataLim.y1 + 0.3, mag, np.nan)
    else:
        value = 10 ** (0.4 * (MICROJANSKY_ZP - mag))
    ax.plot(curve.truth_time[order] - start, value, "-", color="0.6", lw=1.2, zorder=1)


def _dress(figure: Figure, axes: npt.NDArray[Any], n_used: int, time_label: str, quantity: Quantity) -> None:
    """Label the outer panels only, and take away those without a curve."""
    n_columns = axes.shape[1]
    ax: Axes
    for k, ax in enumerate(axes.flat):
        if k >= n_used:
            figure.delaxes(ax)
            continue
        if k + n_columns >= n_used:
            ax.set_xlabel(time_label)
            ax.tick_params(labelbottom=True)
        if k % n_columns == 0:
            ax.set_ylabel("Magnitude" if quantity == "mag" else "Flux [µJy]")
        ax.xaxis.set_major_locator(MaxNLocator(6))


def _legend(
    figure: Figure, curves: Sequence[LightCurve], quantity: Quantity, sigmas: tuple[float, float]
) -> None:
    bands = dict.fromkeys(str(b) for c in curves for b in c.band[c.usable].tolist())
    handles = []
    for band in bands:
        style = band_style(band)
        handles.append(Line2D([], [], ls="", marker=style["marker"], color=style["color"], ms=5, label=band))
    if quantity == "mag" and any((c.flux < sigmas[0] * c.flux_err)[c.usable].any() for c in curves):
        label = f"{sigmas[1]:g}σ upper limit where below {sigmas[0]:g}σ (σ: error of the forced flux)"
        handles.append(Line2D([], [], ls="", marker=r"$\downarrow$", color="0.3", ms=9, label=label))
    if any(c.truth_time.size for c in curves):
        handles.append(Line2D([], [], color="0.6", lw=1.2, label="truth"))
    note = curves[0].note if len(curves) == 1 else ""
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False,
        title="\n".join(wrap(note, 100)), title_fontsize="small",
    )  # fmt: skip
