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
    coefficients = (
        np.linalg.lstsq(basis, flat, rcond=None)[0].reshape(-1, *stamps.shape[1:]).astype(np.float32)
    )
    return PsfModel(coefficients, degree, centre, scale, fwhm(coefficients[0]), n_stars, floor)
