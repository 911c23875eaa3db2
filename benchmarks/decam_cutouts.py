"""Real pieces of DECam CCDs: PSF, positions, fluxes and sources, against what others know of the same pixels.

    SEECHANGE_REAL_DATA=FOLDER python -m benchmarks.decam_cutouts

The folder's ``decam_cutouts/`` holds seven pieces of 100 to 375 pixels, single exposures as the observatory
calibrated them (not resampled: the noise of their pixels is independent), each with the whole CCD's PSFEx
model and the Gaia rows around it. Five of their stars are bright, whole and single. Each is fitted twice,
position, flux and a sloping sky free: with PSFEx's model, from a hundred stars and more of its CCD, itself
among them, and with ours, from the other one or two of its piece, the star itself hidden from `extract`.
``residual`` is the rms of what is left within 3 FWHM beyond its noise, relative to the model's rms; ``limit``
what the noise of our few stars leaves to a model that is free in every pixel. Prints tables, draws
``docs/images/decam_psf.png``.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sep
from matplotlib import rc_context
from matplotlib.patches import Circle
from scipy.spatial import cKDTree

from benchmarks.cutouts import FAINTEST_G, Cutout, cutouts, normalised, observatory_zp, stamp_of
from seechange_core.errors import Stop
from seechange_core.flags import PixelFlag
from seechange_core.frames import ImageFrame, PointingHint, PsfModel
from seechange_core.numerics import psf as psf_of
from seechange_core.numerics.aperture import adaptive_moments
from seechange_core.qa.style import STYLE, Figure
from seechange_core.settings import load_settings, use_settings
from seechange_core.stages import astrometry
from seechange_core.stages.extract import Extraction, ExtractParams, extract

#: Pieces of an eighth of a square arcminute to two: one star has to do.
FEW = ExtractParams(psf_min_stars=1, psf_star_min_snr=20.0)
RADIUS_FWHM = 3.0

#: A PSF on the pixels around a place, its centre (dx, dy) from the middle one.
Star = Callable[[float, float], Any]


@dataclass(frozen=True)
class StarFit:
    """One star fitted with one PSF: see the module.

    Attributes
    ----------
    x, y, flux, error
        Pixels, electrons.
    residual, noise, chi2
        See the module; of noise as the weights and the star's own photons have it. The residual is negative
        where less is left than the noise; `noise` is one that noise alone gives, 1 sigma.
    pulls
        (n, n) stamp of what is left, in sigma.
    """

    x: float
    y: float
    flux: float
    error: float
    residual: float
    noise: float
    chi2: float
    pulls: Any


def moved(model: PsfModel) -> Star:
    """Return a function that gives the stamp of a constant PSF, moved from the middle pixel."""
    half, one = model.size // 2, np.ones(1)
    return lambda dx, dy: psf_of.draw(
        model, np.array([half + dx]), np.array([half + dy]), one, (model.size, model.size)
    )


def fit_star(image: ImageFrame, star: Star, x: float, y: float, radius_pix: float, size: int) -> StarFit:
    """Fit position, flux and a sloping sky to the (size, size) pixels around a place."""
    half = size // 2
    data, weight = (stamp_of(plane, x, y, half).astype(float) for plane in (image.data, image.weight))
    steps = np.arange(-half, half + 1)
    column, row = round(x), round(y)
    inside = (np.hypot(steps + column - x, (steps + row - y)[:, None]) <= radius_pix) & (weight > 0)
    ones = np.ones_like(data)
    sky = [ones, ones * steps, ones * steps[:, None]]
    dx, dy = x - column, y - row
    light = np.zeros_like(data)
    for _ in range(5):
        profile, *sides = (
            star(dx + a, dy + b) for a, b in ((0, 0), (0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02))
        )
        slopes = (sides[0] - sides[1]) / 0.04, (sides[2] - sides[3]) / 0.04
        variance = 1 / np.where(weight > 0, weight, 1) + np.maximum(light, 0) / image.gain
        design = np.stack([plane[inside] for plane in (profile, *slopes, *sky)], axis=1).astype(float)
        lever = design / variance[inside, None]
        covariance = np.linalg.inv(design.T @ lever)
        found = covariance @ (lever.T @ data[inside])
        light = found[0] * profile
        dx, dy = dx + found[1] / found[0], dy + found[2] / found[0]
    left = data - light - sum(c * plane for c, plane in zip(found[3:], sky, strict=True))
    power = np.sum(light[inside] ** 2)
    excess = np.sum(left[inside] ** 2 - variance[inside]) / power
    noise = np.sqrt(np.sqrt(2 * np.sum(variance[inside] ** 2)) / power)
    chi2 = np.sum(left[inside] ** 2 / variance[inside]) / (inside.sum() - len(found))
    return StarFit(
        column + dx, row + dy, found[0], float(np.sqrt(covariance[0, 0])),
        float(np.sign(excess) * np.sqrt(abs(excess))), float(noise), float(chi2), left / np.sqrt(variance),
    )  # fmt: skip


def without(image: ImageFrame, x: float, y: float, radius_pix: float) -> ImageFrame:
    """Return the image with a star hidden: its pixels are flagged as bad."""
    rows, columns = np.indices(image.shape)
    hidden = np.hypot(columns - x, rows - y) < radius_pix
    return replace(
        image,
        weight=np.where(hidden, np.float32(0), image.weight),
        flags=np.where(hidden, np.uint16(PixelFlag.BAD_PIXEL), image.flags),
    )


@dataclass(frozen=True)
class StarTest:
    """A star, and its fits with our PSF from other stars and with PSFEx's."""

    cutout: Cutout
    row: int
    psf: PsfModel
    limit: float
    ours: StarFit
    theirs: StarFit

    @property
    def shapes(self) -> tuple[Any, Any]:
        """FWHM (pixels), e1 and e2 of both models there."""
        size = self.psf.size
        there = normalised(self.cutout.psfex, self.theirs.x, self.theirs.y, size)
        return shape_of(self.psf), shape_of(there)


def shape_of(model: PsfModel) -> Any:
    """Return FWHM (pixels) and ellipticity ``(q - 1) / (q + 1)`` along axes and diagonals, from moments."""
    middle = np.array([model.size // 2.0])
    stamp = model.coefficients[0]
    m = adaptive_moments(stamp, np.ones_like(stamp), middle, middle, model.fwhm_pix)
    ellipticity = (m.elongation[0] - 1) / (m.elongation[0] + 1)
    angle = 2 * m.theta_rad[0]
    return m.fwhm_pix[0], ellipticity * np.cos(angle), ellipticity * np.sin(angle)


def star_tests(cutout: Cutout) -> list[StarTest]:
    """Fit the stars of a piece, each with a PSF it took no part in."""
    x, y = cutout.places
    tests = []
    for row in cutout.stars():
        radius = RADIUS_FWHM * cutout.psfex.fwhm_pix
        found = extract(without(cutout.image, x[row], y[row], radius), FEW)
        there = normalised(cutout.psfex, x[row], y[row], found.psf.size)
        both = (
            fit_star(cutout.image, moved(model), x[row], y[row], radius, model.size)
            for model in (found.psf, there)
        )
        tests.append(StarTest(cutout, row, found.psf, _limit(found, cutout.image, there, radius), *both))
    return tests


def _limit(found: Extraction, image: ImageFrame, true: PsfModel, radius_pix: float) -> float:
    """Return the residual that the noise of the brightest `n_stars` point sources leaves."""
    s = found.sources
    good = s.is_star & (s.flags == 0) & (s.peak < 0.7 * image.saturation_e)
    flux = np.sort(s.flux_psf[good])[::-1][: found.psf.n_stars, None]
    profile = true.coefficients[0]
    steps = np.arange(true.size) - true.size // 2
    inside = np.hypot(steps, steps[:, None]) <= radius_pix
    variance = 1 / np.median(image.weight[image.weight > 0])
    each = 1 / np.sum(flux**2 / (variance + flux * np.maximum(profile[inside], 0)), axis=0)
    return float(np.sqrt(each.sum() / np.sum(profile[inside] ** 2)))


@dataclass(frozen=True)
class Comparison:
    """What our sources of a piece have in common with Gaia's and with sep's.

    Attributes
    ----------
    extraction
        Ours.
    rows, gaia
        Which of our sources are which Gaia stars.
    in_gaia
        Gaia stars in the piece.
    ours_in_sep, sep_in_ours
        (common, all) of the sources with a S/N above 10 on either side.
    """

    extraction: Extraction
    rows: Any
    gaia: Any
    in_gaia: int
    ours_in_sep: tuple[int, int]
    sep_in_ours: tuple[int, int]


def compare(cutout: Cutout) -> Comparison:
    """Extract a piece and look its sources up.

    Raises
    ------
    Stop
        If no PSF can be made.
    """
    found = extract(cutout.image, FEW)
    s, there = found.sources, cutout.inside(0.5)
    x, y = cutout.places
    distance, nearest = cKDTree(np.c_[s.x, s.y]).query(np.c_[x[there], y[there]])
    met = distance < 2.0
    sep_x, sep_y, sep_snr = _sep(cutout)
    common = []
    for one, snr, other in (((s.x, s.y), s.snr, (sep_x, sep_y)), ((sep_x, sep_y), sep_snr, (s.x, s.y))):
        places = np.stack(one, axis=1)[snr > 10]
        near = cKDTree(np.stack(other, axis=1)).query(places)[0] < cutout.psfex.fwhm_pix
        common.append((int(near.sum()), len(near)))
    return Comparison(found, nearest[met], there[met], len(there), *common)


def _sep(cutout: Cutout) -> tuple[Any, Any, Any]:
    """Return positions and S/N of what sep finds, as SExtractor does when nothing is said."""
    image = cutout.image
    unusable = image.weight == 0
    data = np.ascontiguousarray(image.data)
    data = data - sep.Background(data, mask=unusable, bw=64, bh=64).back()
    rms = float(1 / np.sqrt(np.median(image.weight[~unusable])))
    found = sep.extract(data, 1.5, err=rms, mask=unusable, minarea=5)
    flux, error, _ = sep.sum_circle(
        data, found["x"], found["y"], 1.5 * cutout.psfex.fwhm_pix, err=rms, mask=unusable, gain=image.gain
    )
    return found["x"], found["y"], flux / error


@dataclass(frozen=True)
class Offsets:
    """Our sources against Gaia: (n,) each, mas along x and y, and magnitudes.

    Attributes
    ----------
    x, y, error
        Ours minus Gaia's by the observatory's WCS, their mean removed; error of centroid and Gaia together.
    mean
        What was removed, mas.
    zp, zp_err
        Zero point by each star alone: Gaia's magnitude, transformed, plus 2.5 log10 of our flux.
    """

    x: Any
    y: Any
    error: Any
    mean: tuple[float, float]
    zp: Any
    zp_err: Any


def offsets(cutout: Cutout, met: Comparison) -> Offsets:
    """Compare positions and fluxes of the bright point sources that are in Gaia, and on no galaxy."""
    s = met.extraction.sources
    good = s.is_star[met.rows] & (s.flags[met.rows] == 0) & (cutout.gaia_g.mag[met.gaia] < FAINTEST_G)
    good &= s.chi2[met.rows] < 3
    rows, gaia = met.rows[good], met.gaia[good]
    x, y = cutout.places
    scale = 3.6e6 * np.sqrt(abs(np.linalg.det(cutout.wcs.pixel_scale_matrix)))
    dx, dy = scale * (s.x[rows] - x[gaia]), scale * (s.y[rows] - y[gaia])
    error = np.hypot(
        scale * np.hypot(s.x_err[rows], s.y_err[rows]) / np.sqrt(2), cutout.gaia.position_err_mas[gaia]
    )
    mean = tuple(float(np.average(d, weights=error**-2)) if len(d) else np.nan for d in (dx, dy))
    zp = cutout.gaia.mag[gaia] + 2.5 * np.log10(s.flux_psf[rows])
    return Offsets(dx - mean[0], dy - mean[1], error, mean, zp, cutout.gaia.mag_err[gaia])


def solved(cutout: Cutout, met: Comparison) -> str:
    """Solve for the piece's astrometry from 20" beside it, with no idea of its rotation."""
    height, width = cutout.image.shape
    ra, dec = cutout.wcs.all_pix2world([[width / 2, height / 2]], 0)[0]
    hint = PointingHint(ra + 0.005, dec, 1.0, 0.264)
    try:
        found = astrometry.solve(met.extraction.sources, cutout.gaia, hint, cutout.image.shape)
    except Stop as error:
        return f"refused: {str(error).split(' (')[0]}"
    return f"{found.n_matched} stars, rms {found.rms_mas:.0f} mas"


def draw(tests: list[StarTest], path: Path) -> None:
    """Draw each star, and what is left of it with either PSF."""
    with rc_context(STYLE):
        figure = Figure(figsize=(1.75 * len(tests) + 0.9, 6.0), layout="constrained")
        axes = figure.subplots(3, len(tests))
        for column, test in zip(axes.T, tests, strict=True):
            _draw_star(column, test)
        bar = figure.colorbar(axes[2, 0].images[0], ax=axes[1:], shrink=0.6, pad=0.01)
        bar.set_label("noise sigma")
        for axis, label in zip(
            axes[:, 0], ("DECam", "our PSF, of other stars", "PSFEx, of the CCD"), strict=True
        ):
            axis.set_ylabel(label)
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, dpi=110)


def _draw_star(axes: Any, test: StarTest) -> None:
    cutout, half = test.cutout, test.psf.size // 2
    x, y = test.theirs.x, test.theirs.y
    data = stamp_of(cutout.image.data, x, y, half)
    sky, rms = np.median(cutout.image.data), 1 / np.sqrt(np.median(cutout.image.weight))
    axes[0].imshow(np.arcsinh((data - sky) / (3 * rms)), cmap="gray_r")
    _, section, band = cutout.name.split()
    axes[0].set_title(f"{section} {band}, S/N {test.theirs.flux / test.theirs.error:.0f}", fontsize=10)
    for axis, fit in zip(axes[1:], (test.ours, test.theirs), strict=True):
        axis.imshow(fit.pulls, vmin=-5, vmax=5, cmap="RdBu_r")
        there = half + x - round(x), half + y - round(y)
        axis.add_patch(Circle(there, RADIUS_FWHM * cutout.psfex.fwhm_pix, fill=False, lw=0.8, ls=":"))
        left = f"{100 * fit.residual:.1f} %" if fit.residual > fit.noise else "noise alone"
        axis.set_title(left, fontsize=9, fontweight="normal")
    axes[1].set_title(
        f"{axes[1].get_title()} (limit {100 * test.limit:.1f})", fontsize=9, fontweight="normal"
    )
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(True)


def main() -> None:
    """Compare, print and draw."""
    root = Path(os.environ["SEECHANGE_REAL_DATA"]) / "decam_cutouts"
    with use_settings(load_settings(environ={})):
        pieces = list(cutouts(root))
        tests = [test for piece in pieces for test in star_tests(piece)]
        _print_tests(tests)
        for piece in pieces:
            _print_sources(piece)
    draw(tests, Path(__file__).parents[1] / "docs" / "images" / "decam_psf.png")


def _print_tests(tests: list[StarTest]) -> None:
    print(f"{'':<24}{'S/N':>5}{'PSF':>6}{'FWHM, pixels':>14}{'e1, e2':>15}{'e1, e2':>14}"
          f"{'residual, %':>29}{'chi2':>12}{'flux':>8}{'centre':>7}")  # fmt: skip
    print(f"{'star':<24}{'':>5}{'stars':>6}{'ours':>7}{'PSFEx':>7}{'ours':>15}{'PSFEx':>14}{'ours':>7}"
          f"{'limit':>7}{'PSFEx':>7}{'noise':>8}{'ours':>6}{'PSFEx':>6}{'%':>8}{'mpix':>7}")  # fmt: skip
    for t in tests:
        (w, a, b), (v, c, d) = t.shapes
        name = f"{t.cutout.name} G {t.cutout.gaia_g.mag[t.row]:.1f}"
        move = np.hypot(t.ours.x - t.theirs.x, t.ours.y - t.theirs.y)
        percent = [100 * value for value in (t.ours.residual, t.limit, t.theirs.residual)]
        print(f"{name:<24}{t.theirs.flux / t.theirs.error:>5.0f}{t.psf.n_stars:>6}{w:>7.2f}{v:>7.2f}"
              f"{a:>8.3f}{b:>7.3f}{c:>7.3f}{d:>7.3f}{percent[0]:>7.1f}{percent[1]:>7.1f}{percent[2]:>7.1f}"
              f"{100 * t.ours.noise:>8.1f}{t.ours.chi2:>6.2f}{t.theirs.chi2:>6.2f}"
              f"{100 * (t.ours.flux / t.theirs.flux - 1):>+8.1f}{1e3 * move:>7.0f}")  # fmt: skip


def _print_sources(piece: Cutout) -> None:
    try:
        extract(piece.image, ExtractParams())
        print(f"\n{piece.name}: a PSF")
    except Stop as error:
        print(f"\n{piece.name}: {error}")
    try:
        met = compare(piece)
    except Stop as error:
        print(f"  with one star: {error}")
        return
    psf, s = met.extraction.psf, met.extraction.sources
    (a, b), (c, d) = met.ours_in_sep, met.sep_in_ours
    print(
        f"  with one star: PSF of {psf.n_stars}, FWHM {psf.fwhm_pix:.2f} (PSFEx {piece.psfex.fwhm_pix:.2f})"
    )
    print(f"  {len(s)} sources, {len(met.rows)} of {met.in_gaia} Gaia stars; S/N > 10: sep has {a} of our"
          f" {b}, we have {c} of its {d}")  # fmt: skip
    off = offsets(piece, met)
    if len(off.x) > 1:
        print(f"  positions of {len(off.x)} stars: rms {np.std(off.x):.1f} and {np.std(off.y):.1f} mas,"
              f" errors {np.median(off.error):.1f}; by the observatory's WCS all are {off.mean[0]:+.0f} and"
              f" {off.mean[1]:+.0f} mas off")  # fmt: skip
    known = np.isfinite(off.zp)
    if known.any():
        zps = ", ".join(f"{z:.2f}+-{e:.2f}" for z, e in zip(off.zp[known], off.zp_err[known], strict=True))
        print(f"  zero point by each Gaia star: {zps}; the observatory's {observatory_zp(piece):.2f}")
    print(f"  solved from scratch: {solved(piece, met)}")


if __name__ == "__main__":
    main()
