"""All point sources of an image fitted together: each with its neighbours' models taken away."""

import math
from dataclasses import dataclass

import numba as nb
import numpy as np
from scipy.spatial import cKDTree

from seechange_core.frames import Bool, Float, Float32, Int, PsfModel
from seechange_core.numerics.aperture import (
    overlap,
)
from seechange_core.numerics.psf import (
    PAD,
    add_star,
    draw,
    local_coefficients,
    shifted_stamp,
    spline_coefficients,
    terms_at,
)
from seechange_core.numerics.psf_fit import PsfFits, fit_source, window_half

#: A source is fitted again once one within this many fit radii has moved or changed by more than this share
#: of its error, or it has itself moved by so much that other pixels are around it.
_REACH_RADII = 2.0
_CHANGE_SIGMA = 0.02
_MOVE_PIX = 0.2
_HALF_DIAGONAL = math.sqrt(0.5)


@dataclass(frozen=True, eq=False)
class SceneFit:
    """Sources fitted to an image.

    Attributes
    ----------
    fits
        One entry per source.
    model
        (H, W) float32, their light.
    residual
        (H, W) float32, the image minus `model`.
    """

    fits: PsfFits
    model: Float32
    residual: Float32


def fit_scene(
    data: Float32,
    weight: Float32,
    psf: PsfModel,
    x: Float,
    y: Float,
    flux: Float,
    *,
    radius_pix: float,
    gain: float,
    passes: int,
    max_shift_pix: float,
) -> SceneFit:
    """Fit positions and fluxes of all sources, subtracting the others' models from each.

    The brightest first, each taking its new model out of the image before the next is fitted (Gauss-Seidel):
    chi square only falls, also where stars overlap. Sources none of whose neighbours changed are not fitted
    again.

    Parameters
    ----------
    data, weight
        (H, W) float32, background removed, and 1 / background variance.
    psf
        The model.
    x, y, flux
        (n,) starting values; flux 0 where unknown.
    radius_pix, gain, max_shift_pix
        See `psf_fit.fit`.
    passes
        How often a source is fitted at most, 1 or more.
    """
    shape = data.shape[0], data.shape[1]
    place = np.array([x, y], float)
    state = np.array([x, y, np.nan_to_num(flux)], float)
    model = draw(psf, state[0], state[1], state[2], shape)
    residual, weights = data - model, np.ascontiguousarray(weight, np.float32)
    # Positions that are not finite have no neighbours.
    finite = np.isfinite(place).all(axis=0)
    order = np.flatnonzero(finite)[np.argsort(-state[2][finite], kind="stable")]
    first, others = _neighbours(place, finite, _REACH_RADII * radius_pix)
    found = np.full((8, len(x)), np.nan)
    found[0], found[1], found[7] = *place, 0.0
    _sweeps(
        residual, model, weights, spline_coefficients(psf.coefficients), terms_at(psf, *place), order, first,
        others, state, radius_pix, 1 / gain, passes, max_shift_pix, found,
    )  # fmt: skip
    return SceneFit(PsfFits(*found), model, residual)


def _neighbours(place: Float, finite: Bool, radius: float) -> tuple[Int, Int]:
    """Return all others within a radius, those of source k at ``others[first[k]:first[k + 1]]``."""
    rows = np.flatnonzero(finite)
    pairs = rows[cKDTree(place[:, rows].T).query_pairs(radius, output_type="ndarray")].reshape(-1, 2)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    return np.searchsorted(both[:, 0], np.arange(place.shape[1] + 1)), np.ascontiguousarray(both[:, 1])


@nb.njit(cache=True, nogil=True)
def _sweeps(
    residual: Float32,
    model: Float32,
    weight: Float32,
    splines: Float32,
    terms: Float,
    order: Int,
    first: Int,
    others: Int,
    state: Float,
    radius: float,
    inverse_gain: float,
    passes: int,
    max_shift: float,
    found: Float,
) -> None:
    """Fit sources in order, again and again, keeping `residual`, `model` and `state` (x, y, flux) current."""
    size = splines.shape[1] - 2 * PAD
    side = 2 * window_half(radius, size) + 1
    reach = splines.shape[1] // 2 + math.ceil(max_shift)
    coefficients = np.empty((2 * reach + 1, 2 * reach + 1), np.float32)
    work, stamp = np.empty((6, side, side), np.float32), np.empty((1, size, size), np.float32)
    # When each was fitted last, and when it last changed.
    fitted, changed = np.zeros(state.shape[1], np.int64), np.zeros(state.shape[1], np.int64)
    settled = np.zeros(state.shape[1], np.bool_)
    start = state.copy()
    clock = 0
    for _ in range(passes):
        before = clock
        for k in order:
            stale = not settled[k]
            for j in others[first[k] : first[k + 1]]:
                stale |= changed[j] > fitted[k]
            if not stale:
                continue
            x, y, flux = state[0, k], state[1, k], state[2, k]
            limits = (
                start[0, k] - max_shift, start[0, k] + max_shift,
                start[1, k] - max_shift, start[1, k] + max_shift,
            )  # fmt: skip
            local_coefficients(splines, terms[k], coefficients)
            fit_source(
                residual, weight, model, coefficients, x, y, flux, limits, radius, inverse_gain, True, False,
                work, found[:, k],
            )  # fmt: skip
            clock += 1
            fitted[k] = clock
            settled[k] = max(abs(found[0, k] - x), abs(found[1, k] - y)) < _MOVE_PIX
            known = found[5, k] > 0.0
            new_flux = max(found[4, k], 0.0) if known else 0.0
            new_x, new_y = found[0, k], found[1, k]
            _replace(residual, model, coefficients, state[:, k], (new_x, new_y, new_flux), stamp)
            if _has_changed(x - new_x, y - new_y, flux - new_flux, found[:, k]):
                changed[k] = clock
            state[0, k], state[1, k], state[2, k] = new_x, new_y, new_flux
        if clock == before:
            break


@nb.njit(cache=True, nogil=True)
def _replace(
    residual: Float32,
    model: Float32,
    coefficients: Float32,
    old: Float,
    new: tuple[float, float, float],
    stamp: Float32,
) -> None:
    """Take a source's old model out of the image and put the new one in."""
    for image, sign in ((residual, -1.0), (model, 1.0)):
        if old[2] != 0.0:
            add_star(image, coefficients, old[0], old[1], -sign * old[2], stamp)
        if new[2] != 0.0:
            add_star(image, coefficients, new[0], new[1], sign * new[2], stamp)


@nb.njit(cache=True, nogil=True)
def _has_changed(dx: float, dy: float, flux: float, found: Float) -> bool:
    """Tell whether a source changed by more than a small share of its errors; one without a fit never did."""
    change: bool = (
        abs(flux) > _CHANGE_SIGMA * found[5]
        or abs(dx) > _CHANGE_SIGMA * found[2]
        or abs(dy) > _CHANGE_SIGMA * found[3]
    )
    return change


def without_position_bias(flux: Float, flux_err: Float) -> Float:
    """Return fluxes fitted with free positions, freed of the bias of having climbed the noise.

    The maximum over two position parameters exceeds the value at the true position by
    ``flux_err^2 / flux`` on average (Portillo, Speagle & Finkbeiner 2020, AJ 159, 165, eq. 27).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(flux > 0, flux_err**2 / flux, 0.0)
    return flux - np.minimum(excess, 0.5 * np.maximum(flux, 0.0))


def apertures(
    scene: SceneFit, weight: Float32, psf: PsfModel, radii_pix: Float, gain: float
) -> tuple[Float, Float]:
    """Return aperture fluxes and errors of fitted sources, neighbours removed.

    The residuals within the circle plus the source's own model: unusable pixels are filled by the model. A
    pixel cut by the circle counts with exactly the area inside.

    Parameters
    ----------
    scene
        The fitted sources.
    weight
        (H, W) float32, 1 / background variance; 0 where unusable.
    psf
        They were fitted with.
    radii_pix
        (m,) radii, pixels.
    gain
        Photons per unit of flux.

    Returns
    -------
    flux, flux_err
        (n, m) float64; NaN where no pixel is usable.
    """
    fits, order = scene.fits, np.argsort(radii_pix)
    radii = np.asarray(radii_pix, float)[order]
    sums = np.full((3, len(fits.x), len(radii)), np.nan)
    _sum_all(
        scene.residual, scene.model, np.ascontiguousarray(weight, np.float32),
        spline_coefficients(psf.coefficients), terms_at(psf, fits.x, fits.y),
        np.array([fits.x, fits.y, np.maximum(np.nan_to_num(fits.flux), 0.0)]), radii, 1 / gain, sums,
    )  # fmt: skip
    flux, error = np.empty((2, *sums.shape[1:]))
    seen = sums[2] > 0
    flux[:, order] = np.where(seen, sums[0], np.nan)
    error[:, order] = np.where(seen, np.sqrt(sums[1]), np.nan)
    return flux, error


@nb.njit(cache=True, nogil=True)
def _sum_all(
    residual: Float32,
    model: Float32,
    weight: Float32,
    splines: Float32,
    terms: Float,
    state: Float,
    radii: Float,
    inverse_gain: float,
    sums: Float,
) -> None:
    """Fill `sums` with flux, variance and usable area of sources (x, y, flux) in circles, smallest first."""
    size = splines.shape[1] - 2 * PAD
    coefficients = np.empty((splines.shape[1], splines.shape[1]), np.float32)
    stamp = np.empty((1, size, size), np.float32)
    for k in range(state.shape[1]):
        x, y = state[0, k], state[1, k]
        if not (abs(x) < 1e6 and abs(y) < 1e6):
            continue
        local_coefficients(splines, terms[k], coefficients)
        shifted_stamp(coefficients, x - math.floor(x + 0.5), y - math.floor(y + 0.5), stamp)
        sums[:, k] = 0.0
        _sum_one(residual, model, weight, stamp[0], state[:, k], radii, inverse_gain, sums[:, k])


@nb.njit(cache=True, nogil=True)
def _sum_one(
    residual: Float32,
    model: Float32,
    weight: Float32,
    stamp: Float32,
    source: Float,
    radii: Float,
    inverse_gain: float,
    sums: Float,
) -> None:
    height, width = residual.shape
    x, y = source[0], source[1]
    half = stamp.shape[0] // 2
    left, low = math.floor(x + 0.5) - half, math.floor(y + 0.5) - half
    n, largest = len(radii), radii[-1]
    # What lies wholly within a circle and outside all smaller ones; what they cut goes to `sums`.
    rings = np.zeros((3, n))
    for j in range(math.ceil(y - largest - 0.5), math.floor(y + largest + 0.5) + 1):
        for i in range(math.ceil(x - largest - 0.5), math.floor(x + largest + 0.5) + 1):
            dx, dy = i - x, j - y
            distance = math.sqrt(dx * dx + dy * dy)
            if distance > largest + _HALF_DIAGONAL:
                continue
            inside = i >= left and j >= low and i < left + stamp.shape[1] and j < low + stamp.shape[0]
            flux = source[2] * stamp[j - low, i - left] if inside else 0.0
            variance, usable = 0.0, 0.0
            on_image = i >= 0 and j >= 0 and i < width and j < height
            if on_image and weight[j, i] > 0 and math.isfinite(residual[j, i]):
                flux += residual[j, i]
                variance = 1.0 / weight[j, i] + max(model[j, i], 0.0) * inverse_gain
                usable = 1.0
            for m in range(n):
                if distance <= radii[m] - _HALF_DIAGONAL:
                    rings[0, m] += flux
                    rings[1, m] += variance
                    rings[2, m] += usable
                    break
                if distance < radii[m] + _HALF_DIAGONAL:
                    area = overlap(dx, dy, radii[m])
                    sums[0, m] += area * flux
                    sums[1, m] += area * variance
                    sums[2, m] += area * usable
    for m in range(n):
        for q in range(m + 1):
            for a in range(3):
                sums[a, m] += rings[a, q]
