"""PSFs that depend on position: carried through a warp, and fitted from stamps at many places."""

import numpy as np
from scipy.ndimage import map_coordinates

from seechange_core.frames import Float, Float32, PsfModel
from seechange_core.numerics.psf import PAD, fwhm, spline_coefficients, terms

_TERMS_PER_STAMP = 2.0
"""Stamps needed per polynomial term."""


def warp_stamps(stamps: Float32, jacobians: Float) -> Float32:
    """Carry PSF stamps through the local linear part of a warp.

    Parameters
    ----------
    stamps
        (n, size, size) PSFs on source pixels.
    jacobians
        (n, 2, 2) d(source x, source y) / d(target x, target y).

    Returns
    -------
    Float32
        (n, size, size) PSFs on target pixels, each summing to 1.
    """
    size = stamps.shape[-1]
    half = size // 2
    v, u = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    offsets = np.stack([u.ravel(), v.ravel()])
    coefficients = spline_coefficients(stamps)
    out = np.empty(stamps.shape, np.float32)
    for k, jacobian in enumerate(jacobians):
        x, y = jacobian @ offsets + (half + PAD)
        out[k] = map_coordinates(coefficients[k], [y, x], order=5, prefilter=False, mode="constant").reshape(
            size, size
        )
    return np.asarray(out / out.sum((1, 2), keepdims=True), np.float32)


def fit_field(
    stamps: Float32, x: Float, y: Float, shape: tuple[int, int], max_degree: int, n_stars: int, floor: float
) -> PsfModel:
    """Fit a polynomial of position to PSF stamps, pixel by pixel.

    Parameters
    ----------
    stamps
        (n, size, size); their sums are kept as they are.
    x, y
        (n,) where they hold, image pixels.
    shape
        (H, W) of the image.
    max_degree
        Of the polynomial; lowered where there are too few stamps.
    n_stars, floor
        Passed on to the model.
    """
    distinct = min(len(np.unique(x)), len(np.unique(y)))
    degree = 0
    for candidate in range(1, max_degree + 1):
        n_terms = (candidate + 1) * (candidate + 2) / 2
        if distinct > candidate and len(x) >= _TERMS_PER_STAMP * n_terms:
            degree = candidate
    centre = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    scale = (max(shape[1] / 2, 1.0), max(shape[0] / 2, 1.0))
    basis = terms(degree, (x - centre[0]) / scale[0], (y - centre[1]) / scale[1])
    flat = stamps.reshape(len(stamps), -1).astype(float)
    coefficients = (np.linalg.pinv(basis) @ flat).reshape(-1, *stamps.shape[1:]).astype(np.float32)
    return PsfModel(coefficients, degree, centre, scale, fwhm(coefficients[0]), n_stars, floor)


def with_wings(stamps: Float32, size: int) -> Float32:
    """Carry PSF stamps on beyond their edge, by the power law of their outermost quarter.

    Beside a very bright star the step at a stamp's edge shows: the light beyond it is no part of the model.
    It falls off smoothly to nothing at the new edge, for all PSFs alike, and adds to their sum of 1.

    Parameters
    ----------
    stamps
        (n, size, size) float32, 0 beyond the circle that fits in them.
    size
        Of the stamps to make, odd, not smaller.

    Returns
    -------
    Float32
        (n, size, size).
    """
    old = stamps.shape[1] // 2
    half = size // 2
    v, u = np.mgrid[-half : half + 1, -half : half + 1]
    radius = np.hypot(v, u)
    edge = old - 1.5
    out = np.zeros((len(stamps), size, size), np.float32)
    inner = slice(half - old, half + old + 1)
    out[:, inner, inner] = stamps
    rings = [(radius > r - 1) & (radius <= r + 1) for r in (0.75 * edge, edge - 1)]
    near, far = (np.maximum(out[:, ring].mean(axis=1), 1e-12) for ring in rings)
    if half <= old or not np.median(far) > 1e-11:
        return out
    slope = float(np.log(np.median(near) / np.median(far)) / np.log((edge - 1) / (0.75 * edge)))
    beyond = (radius > edge) & (radius < half)
    r = radius[beyond]
    fall = np.cos(0.5 * np.pi * np.clip((r - edge) / (half - edge), 0, 1)) ** 2
    out[:, beyond] = far[:, None] * (r / (edge - 1)) ** -max(slope, 2.0) * fall
    return out
