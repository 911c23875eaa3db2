"""Figures that show at a glance whether a product is any good. Each returns a matplotlib Figure."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from seechange_core.constants import FWHM_PER_SIGMA
from seechange_core.frames import (
    CatalogStars,
    Flags,
    Float,
    Float32,
    PsfModel,
    Sources,
    WcsSolution,
    ZeroPointSolution,
)
from seechange_core.numerics.psf import evaluate, fwhm
from seechange_core.numerics.stats import mad_sigma
from seechange_core.qa.samples import END_SIGMA, place_residuals, score_counts, zero_point_residuals
from seechange_core.qa.style import BLUE, STYLE, VERMILION


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def psf_variation(psf: PsfModel, shape: tuple[int, int], n_side: int = 9) -> Figure:
    """Show how the PSF's width and elongation vary over an image, and the PSF itself.

    Parameters
    ----------
    psf
        The model.
    shape
        (H, W) of its image.
    n_side
        Positions along each side at which the model is measured.
    """
    height, width = shape
    x, y = (grid.ravel() for grid in np.meshgrid(_grid(width, n_side), _grid(height, n_side)))
    stamps = evaluate(psf, x, y)
    widths = np.array([fwhm(stamp) for stamp in stamps])
    e1, e2 = _ellipticity(stamps, psf.fwhm_pix)
    with mpl.rc_context(STYLE):
        figure = _figure(8.4, 3.8)
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        field = left.imshow(
            widths.reshape(n_side, n_side),
            extent=(0, width, 0, height),
            cmap="viridis",
            interpolation="bicubic",
        )
        figure.colorbar(field, ax=left, label="FWHM [pix]")
        size, angle = np.hypot(e1, e2), np.arctan2(e2, e1) / 2
        sticks = {"headwidth": 0, "headlength": 0, "headaxislength": 0, "pivot": "mid", "color": "white"}
        arrows = left.quiver(
            x, y, size * np.cos(angle), size * np.sin(angle), scale=1.0, width=0.006, **sticks
        )
        left.quiverkey(arrows, 0.86, 1.04, 0.05, "e = 0.05", color="black", labelpos="E")
        left.set(xlabel="x [pix]", ylabel="y [pix]")
        left.set_title(f"{widths.min():.2f} to {widths.max():.2f} pix", loc="left")
        _psf_panel(right, evaluate(psf, width / 2, height / 2)[0], psf)
    return figure


def _grid(length: int, n: int) -> Float:
    return np.asarray((np.arange(n) + 0.5) * length / n - 0.5)


def _psf_panel(ax: Axes, stamp: Float32, psf: PsfModel) -> None:
    peak = float(stamp.max())
    picture = ax.imshow(np.maximum(stamp / peak, 1e-5), norm=LogNorm(1e-4, 1), cmap="magma")
    figure = ax.get_figure()
    if figure is not None:
        figure.colorbar(picture, ax=ax, label="of the peak")
    ax.set_title(f"centre: {psf.fwhm_pix:.2f} pix, {psf.n_stars} stars", loc="left")
    ax.set(xticks=[], yticks=[])


def _ellipticity(stamps: Float32, fwhm_pix: float) -> tuple[Float, Float]:
    """Return e1, e2 from Gaussian-weighted second moments (weight as wide as the PSF)."""
    middle = stamps.shape[-1] // 2
    dx = np.arange(stamps.shape[-1]) - middle
    r2 = dx[None, :] ** 2 + dx[:, None] ** 2
    weighted = stamps * np.exp(-r2 / (2 * (fwhm_pix / FWHM_PER_SIGMA) ** 2))
    total = weighted.sum(axis=(1, 2))
    xx = (weighted * dx[None, None, :] ** 2).sum(axis=(1, 2)) / total
    yy = (weighted * dx[None, :, None] ** 2).sum(axis=(1, 2)) / total
    xy = (weighted * dx[None, None, :] * dx[None, :, None]).sum(axis=(1, 2)) / total
    # The weight halves the moments of a PSF as wide as itself, and so doubles back here.
    return 2 * (xx - yy) / (xx + yy), 4 * xy / (xx + yy)


def wcs_residuals(sources: Sources, wcs: WcsSolution, catalog: CatalogStars, min_snr: float = 20.0) -> Figure:
    """Show the astrometric residuals of stars: as arrows over the image, and as a cloud of points.

    Parameters
    ----------
    sources, wcs, catalog
        Matched within 1 arcsec; stars above `min_snr` are shown.
    min_snr
        See above.
    """
    stars = place_residuals(sources, wcs, catalog, min_snr)
    east, north = stars.east, stars.north
    spread = max(float(np.hypot(mad_sigma(east), mad_sigma(north))), 0.1) if len(stars) else 1.0
    with mpl.rc_context(STYLE):
        figure = _figure(8.4, 4.0)
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        height, width = wcs.shape
        quiver = left.quiver(
            stars.x, stars.y, stars.along_x, stars.along_y, color=BLUE, scale=spread * 20, width=0.004
        )
        key = float(f"{2 * spread:.1g}")
        left.quiverkey(quiver, 0.84, 1.04, key, f"{key:g} mas", labelpos="E")
        left.set(xlim=(0, width), ylim=(0, height), xlabel="x [pix]", ylabel="y [pix]", aspect="equal")
        left.set_title(f"{len(stars)} stars above S/N {min_snr:g}", loc="left")
        right.axhline(0, color="0.8", lw=0.8)
        right.axvline(0, color="0.8", lw=0.8)
        right.plot(east, north, ".", ms=4, color=BLUE, alpha=0.6)
        limit = 3.5 * spread
        right.set(xlim=(limit, -limit), ylim=(-limit, limit), aspect="equal")
        right.set(xlabel="east [mas]", ylabel="north [mas]")
        right.set_title(f"solution: {wcs.rms_mas:.1f} mas rms per axis", loc="left")
    return figure


def zero_point_scatter(
    sources: Sources,
    wcs: WcsSolution,
    catalog: CatalogStars,
    solution: ZeroPointSolution,
    reference_color: float = 0.0,
) -> Figure:
    """Show each star's zero point against its magnitude and its colour, with the solution.

    Parameters
    ----------
    sources, wcs, catalog
        Matched within 1 arcsec; isolated, unflagged stars with a catalog magnitude are shown.
    solution
        What was fitted.
    reference_color
        Of the star that it refers to, mag.
    """
    stars = zero_point_residuals(sources, wcs, catalog, solution, reference_color)
    spread = max(3 * mad_sigma(stars.residual), 0.02) if len(stars) else 0.1
    bars = {"fmt": ".", "ms": 4, "elinewidth": 0.6, "alpha": 0.6, "color": BLUE, "zorder": 2}
    with mpl.rc_context(STYLE):
        figure = _figure(8.4, 3.6)
        left, right = figure.subplots(1, 2, sharey=True)
        color = stars.color
        left.errorbar(stars.mag, stars.residual - stars.expected, stars.error, **bars)
        right.errorbar(color, stars.residual, stars.error, **bars)
        known = np.isfinite(color)
        if known.any():
            ends = np.array([color[known].min(), color[known].max()])
            right.plot(
                ends, solution.color_term * (ends - reference_color), color=VERMILION, lw=1.5, zorder=3
            )
        left.axhline(0, color=VERMILION, lw=1.5, zorder=3)
        left.set(xlabel=f"catalog {solution.band} [mag]", ylabel="star − solution [mag]")
        left.set_ylim(-2 * spread, 2 * spread)
        left.set_title(f"zp {solution.zp:.3f} ± {solution.zp_err:.3f}, {solution.n_stars} stars", loc="left")
        right.set(xlabel="catalog colour [mag]")
        right.set_title(f"colour term {solution.color_term:+.3f} ± {solution.color_term_err:.3f}", loc="left")
    return figure


def score_histogram(score: Float32, flags: Flags | None = None, threshold: float = 5.0) -> Figure:
    """Show a score image's distribution against the unit normal that a blank difference has.

    Parameters
    ----------
    score
        (H, W) sigma.
    flags
        (H, W); flagged pixels and pixels of score 0 (unusable) are left out.
    threshold
        Of detection, drawn.
    """
    found = score_counts(score, flags)
    edges = np.linspace(-END_SIGMA, END_SIGMA, len(found.counts) + 1)
    with mpl.rc_context(STYLE):
        figure = _figure(5.4, 3.8)
        ax = figure.subplots()
        ax.stairs(found.counts, edges, color=BLUE, lw=1.4)
        ax.plot(found.middles, np.maximum(found.normal, 0.01), "--", color="0.5", lw=1.2, label="unit normal")
        for sign in (-1, 1):
            ax.axvline(sign * threshold, color=VERMILION, lw=1, ls=":")
        ax.set(yscale="log", xlabel="score [σ]", ylabel="pixels")
        ax.set_ylim(0.5, max(2.0, 2 * float(found.normal.max(initial=1.0))))
        ax.set_title(f"mean {found.mean:+.3f}, σ {found.sigma:.3f}", loc="left")
        ax.legend(frameon=False)
    return figure
