"""Shapes of fitted sources, each without its neighbours, and of the PSF at the same places."""

import math

import numba as nb
import numpy as np
from scipy.ndimage import gaussian_filter

from seechange_core.constants import FWHM_PER_SIGMA
from seechange_core.frames import Float, Float32, PsfModel
from seechange_core.numerics.aperture import Moments, adaptive_moments, as_shapes, moments_of_each
from seechange_core.numerics.psf import PAD, add_star, local_coefficients, spline_coefficients, terms_at
from seechange_core.numerics.scene import SceneFit


def shapes(scene: SceneFit, weight: Float32, psf: PsfModel, blur_pix: float = 0.0) -> Moments:
    """Measure adaptive moments of fitted sources at their places, neighbours' models taken away.

    Parameters
    ----------
    scene
        The fitted sources.
    weight
        (H, W) float32; pixels of weight 0 are left out.
    psf
        They were fitted with.
    blur_pix
        Sigma of a Gaussian by which the image is blurred first.
    """
    fits, blur = scene.fits, (0, blur_pix, blur_pix)
    image = gaussian_filter(scene.residual, blur_pix) if blur_pix else scene.residual.copy()
    coefficients = gaussian_filter(psf.coefficients, blur) if blur_pix else psf.coefficients
    out = np.full((5, len(fits.x)), np.nan)
    start = (float(np.hypot(psf.fwhm_pix, FWHM_PER_SIGMA * blur_pix)) / FWHM_PER_SIGMA) ** 2
    _shapes_of_each(
        image, np.ascontiguousarray(weight, np.float32), spline_coefficients(coefficients),
        terms_at(psf, fits.x, fits.y),
        np.array([fits.x, fits.y, np.maximum(np.nan_to_num(fits.flux), 0.0)]), start, out,
    )  # fmt: skip
    return as_shapes(out)


@nb.njit(cache=True, nogil=True)
def _shapes_of_each(
    image: Float32, weight: Float32, splines: Float32, terms: Float, state: Float, start: float, out: Float
) -> None:
    """Put each source (x, y, flux) back into the image of what is left, look at it, and take it out again."""
    size = splines.shape[1] - 2 * PAD
    coefficients = np.empty((splines.shape[1], splines.shape[1]), np.float32)
    stamp = np.empty((1, size, size), np.float32)
    for k in range(state.shape[1]):
        x, y, flux = state[0, k], state[1, k], state[2, k]
        if not (abs(x) < 1e6 and abs(y) < 1e6):
            continue
        local_coefficients(splines, terms[k], coefficients)
        add_star(image, coefficients, x, y, flux, stamp)
        moments_of_each(
            image, weight, state[0, k : k + 1], state[1, k : k + 1], start, 0.0, out[:, k : k + 1]
        )
        add_star(image, coefficients, x, y, -flux, stamp)


def psf_moments(psf: PsfModel, x: Float, y: Float, blur_pix: float = 0.0) -> tuple[Moments, Float]:
    """Return the adaptive moments and the central pixel of the PSF as it falls on the pixels at (x, y).

    With `blur_pix` the moments are those of the image blurred by a Gaussian of that sigma.
    """
    # Each on a tile of its own, wide enough for the moments' weight: 4 sigma, 1.7 FWHM, of an ellipse.
    side = min(2 * math.ceil(2.5 * psf.fwhm_pix) + 3, psf.size + 2)
    columns = max(1, math.ceil(math.sqrt(len(x))))
    at_x = (np.arange(len(x)) % columns) * side + side // 2 + (x - np.rint(x))
    at_y = (np.arange(len(x)) // columns) * side + side // 2 + (y - np.rint(y))
    image = np.zeros((max(1, -(-len(x) // columns)) * side, columns * side), np.float32)
    _draw_tiles(image, spline_coefficients(psf.coefficients), terms_at(psf, x, y), at_x, at_y, side - 2)
    seen = gaussian_filter(image, blur_pix) if blur_pix else image
    width = float(np.hypot(psf.fwhm_pix, FWHM_PER_SIGMA * blur_pix))
    shape = adaptive_moments(seen, np.ones_like(image), at_x, at_y, width)
    centre = image[np.rint(at_y).astype(int), np.rint(at_x).astype(int)]
    return shape, centre.astype(float)


@nb.njit(cache=True, nogil=True)
def _draw_tiles(image: Float32, splines: Float32, terms: Float, x: Float, y: Float, side: int) -> None:
    coefficients = np.empty((side + 2 * PAD, side + 2 * PAD), np.float32)
    stamp = np.empty((1, side, side), np.float32)
    for k in range(len(x)):
        local_coefficients(splines, terms[k], coefficients)
        add_star(image, coefficients, x[k], y[k], 1.0, stamp)
