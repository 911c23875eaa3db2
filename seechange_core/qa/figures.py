"""Figures that show at a glance whether a product is any good. Each returns a matplotlib Figure."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from seechange_core.constants import FWHM_PER_SIGMA, MAG_PER_RELATIVE
from seechange_core.frames import (
    CatalogStars,
    Detections,
    Flags,
    Float,
    Float32,
    PsfModel,
    Sources,
    Stamps,
    WcsSolution,
    ZeroPointSolution,
)
from seechange_core.numerics.matching import Matches, match_sky
from seechange_core.numerics.psf import evaluate, fwhm
from seechange_core.numerics.stats import clipped_stats, mad_sigma
from seechange_core.qa.preview import stretch
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


def match_stars(
    sources: Sources, wcs: WcsSolution, catalog: CatalogStars, radius_arcsec: float = 1.0
) -> Matches:
    """Match sources (first) to catalog stars (second) on the sky; `distance` in arcseconds."""
    ra, dec = wcs.to_sky(sources.x, sources.y)
    return match_sky(ra, dec, catalog.ra, catalog.dec, radius_arcsec)


def wcs_residuals(sources: Sources, wcs: WcsSolution, catalog: CatalogStars, min_snr: float = 20.0) -> Figure:
    """Show the astrometric residuals of stars: as arrows over the image, and as a cloud of points.

    Parameters
    ----------
    sources, wcs, catalog
        Matched within 1 arcsec; stars above `min_snr` are shown.
    min_snr
        See above.
    """
    pairs = match_stars(sources, wcs, catalog)
    shown = (sources.snr[pairs.first] >= min_snr) & catalog.is_star[pairs.second]
    first, second = pairs.first[shown], pairs.second[shown]
    ra, dec = wcs.to_sky(sources.x[first], sources.y[first])
    east = ((ra - catalog.ra[second] + 180) % 360 - 180) * np.cos(np.radians(dec)) * 3.6e6
    north = (dec - catalog.dec[second]) * 3.6e6
    # Arrows live on the image: rotate east and north to the directions of x and y.
    to_sky = wcs.wcs.pixel_scale_matrix * 3.6e6
    arrows = np.linalg.solve(to_sky, np.array([east, north])) * wcs.pixel_scale_arcsec * 1e3
    spread = max(float(np.hypot(mad_sigma(east), mad_sigma(north))), 0.1) if len(first) else 1.0
    with mpl.rc_context(STYLE):
        figure = _figure(8.4, 4.0)
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        height, width = wcs.shape
        quiver = left.quiver(
            sources.x[first], sources.y[first], *arrows, color=BLUE, scale=spread * 20, width=0.004
        )
        key = float(f"{2 * spread:.1g}")
        left.quiverkey(quiver, 0.84, 1.04, key, f"{key:g} mas", labelpos="E")
        left.set(xlim=(0, width), ylim=(0, height), xlabel="x [pix]", ylabel="y [pix]", aspect="equal")
        left.set_title(f"{len(first)} stars above S/N {min_snr:g}", loc="left")
        right.axhline(0, color="0.8", lw=0.8)
        right.axvline(0, color="0.8", lw=0.8)
        right.plot(east, north, ".", ms=4, color=BLUE, alpha=0.6)
        limit = 3.5 * spread
        right.set(xlim=(limit, -limit), ylim=(-limit, limit), aspect="equal")
        right.set(xlabel="east [mas]", ylabel="north [mas]")
        right.set_title(f"solution: {wcs.rms_mas:.1f} mas rms per axis", loc="left")
    return figure


def zero_point_scatter(
    sources: Sources, wcs: WcsSolution, catalog: CatalogStars, solution: ZeroPointSolution
) -> Figure:
    """Show each star's zero point against its magnitude and its colour, with the solution.

    Parameters
    ----------
    sources, wcs, catalog
        Matched within 1 arcsec; isolated, unflagged stars with a catalog magnitude are shown.
    solution
        What was fitted.
    """
    pairs = match_stars(sources, wcs, catalog)
    good = np.isfinite(catalog.mag[pairs.second]) & catalog.is_star[pairs.second]
    good &= (sources.flux_psf[pairs.first] > 5 * sources.flux_psf_err[pairs.first]) & ~sources.blended[
        pairs.first
    ]
    good &= sources.flags[pairs.first] == 0
    first, second = pairs.first[good], pairs.second[good]
    star_zp = catalog.mag[second] + 2.5 * np.log10(sources.flux_psf[first])
    error = np.hypot(MAG_PER_RELATIVE / sources.snr[first], np.nan_to_num(catalog.mag_err[second]))
    residual = star_zp - solution.zp_at(sources.x[first], sources.y[first])
    spread = max(3 * mad_sigma(residual), 0.02) if len(first) else 0.1
    bars = {"fmt": ".", "ms": 4, "elinewidth": 0.6, "alpha": 0.6, "color": BLUE, "zorder": 2}
    with mpl.rc_context(STYLE):
        figure = _figure(8.4, 3.6)
        left, right = figure.subplots(1, 2, sharey=True)
        color = catalog.color[second]
        left.errorbar(
            catalog.mag[second], residual - np.nan_to_num(solution.color_term * color), error, **bars
        )
        right.errorbar(color, residual, error, **bars)
        known = np.isfinite(color)
        if known.any():
            ends = np.array([color[known].min(), color[known].max()])
            right.plot(ends, solution.color_term * ends, color=VERMILION, lw=1.5, zorder=3)
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
    used = np.isfinite(score) & (score != 0)
    if flags is not None:
        used &= flags == 0
    values = score[used]
    stats = clipped_stats(values[:: max(1, values.size // 200_000)])
    edges = np.arange(-10, 10.01, 0.2)
    middle = (edges[1:] + edges[:-1]) / 2
    with mpl.rc_context(STYLE):
        figure = _figure(5.4, 3.8)
        ax = figure.subplots()
        ax.stairs(np.histogram(np.clip(values, -9.99, 9.99), edges)[0], edges, color=BLUE, lw=1.4)
        normal = values.size * 0.2 * np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi)
        ax.plot(middle, np.maximum(normal, 0.01), "--", color="0.5", lw=1.2, label="unit normal")
        for sign in (-1, 1):
            ax.axvline(sign * threshold, color=VERMILION, lw=1, ls=":")
        ax.set(yscale="log", xlabel="score [σ]", ylabel="pixels")
        ax.set_ylim(0.5, max(2.0, 2 * float(normal.max(initial=1.0))))
        ax.set_title(f"mean {stats.mean:+.3f}, σ {stats.sigma:.3f}", loc="left")
        ax.legend(frameon=False)
    return figure


def triplets(stamps: Stamps, detections: Detections, n_best: int = 8) -> Figure:
    """Show new, reference and difference of the best detections, one column each.

    Parameters
    ----------
    stamps, detections
        In the same order, one entry per detection.
    n_best
        How many, by the absolute score.
    """
    best = np.argsort(-np.abs(detections.score))[:n_best]
    columns = max(1, len(best))
    with mpl.rc_context(STYLE):
        figure = _figure(1.15 * columns + 0.5, 3.9)
        axes = figure.subplots(3, columns, squeeze=False)
        for row, name in enumerate(("new", "ref", "sub")):
            axes[row, 0].set_ylabel(name)
            for ax, k in zip(axes[row], best, strict=False):
                stamp = getattr(stamps, name)[k]
                if name == "sub":
                    limit = max(5 * mad_sigma(stamp), float(np.nanmax(np.abs(stamp), initial=1e-9)) / 2)
                    ax.imshow(stamp, cmap="gray", vmin=-limit, vmax=limit)
                else:
                    ax.imshow(stretch(stamp), cmap="gray", vmin=0, vmax=1)
        for ax, k in zip(axes[0], best, strict=False):
            ax.set_title(f"{detections.score[k]:+.1f}σ", fontsize="small")
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    return figure
