"""How fast a PSF varies over an image: the degree of the polynomial that its stars ask for.

Building a model for each degree would tell, but costs as much as everything else. What varies first is width
and ellipticity; these are three numbers a star, and a polynomial through them is judged by how well it
predicts stars left out of it (PRESS: Allen 1974, Technometrics 16, 125).
"""

import numpy as np

from seechange_core.frames import Float, Float32, PsfModel
from seechange_core.numerics.psf import evaluate, shift, terms_at
from seechange_core.numerics.psf_build import StarStamps, choose_degree

#: No width or ellipticity counts as known better than this; one star says no more than so many sigma.
_SHAPE_TRUST, _CLIP_SIGMA = 0.003, 5.0
#: A higher degree must lower the misfit of left-out stars to this share, and needs so many stars per term.
_GAIN, STARS_PER_TERM = 0.85, 5
#: Of degree + 1 cells a side over the section this share must hold stars; a cell counts if so much is usable.
_CELLS_HELD, _CELL_USABLE, _SAMPLE = 0.85, 0.25, 8


def held_degree(x: Float, y: Float, weight: Float32, max_degree: int) -> int:
    """Return the highest degree, up to a limit, that stars hold down everywhere over a section.

    Outside a cluster a polynomial through its stars runs away, however many they are, and leaving single ones
    out does not show it. A degree d is held where hardly any of (d + 1) x (d + 1) cells is without a star.

    Parameters
    ----------
    x, y
        (n,) positions, pixels.
    weight
        (H, W), 0 where unusable.
    max_degree
        The limit.
    """
    height, width = weight.shape
    rows, columns = np.nonzero(weight[::_SAMPLE, ::_SAMPLE])
    for degree in range(max_degree, 0, -1):
        n = degree + 1
        stars, pixels = (
            np.histogram2d(at_y, at_x, bins=n, range=((0, height), (0, width)))[0]
            for at_y, at_x in ((y + 0.5, x + 0.5), (rows * _SAMPLE, columns * _SAMPLE))
        )
        counts = pixels > _CELL_USABLE * height * width / (n * _SAMPLE) ** 2
        if np.count_nonzero(stars[counts]) >= _CELLS_HELD * np.count_nonzero(counts):
            return degree
    return 0


def needed_degree(stars: StarStamps, psf: PsfModel, radius_pix: float, max_degree: int) -> int:
    """Return the degree that predicts the shapes of left-out stars best, not below that of `psf`.

    Parameters
    ----------
    stars
        Neighbours removed.
    psf
        A model of them; its degree is the lowest that is tried.
    radius_pix
        Pixels within it are looked at.
    max_degree
        The highest that is tried; fewer than 5 stars per term allow less.
    """
    off, error = _shape_errors(stars, psf, radius_pix)
    known = np.isfinite(error).all(axis=1)
    best, least = psf.degree, np.inf
    affordable = choose_degree(int(known.sum()), max_degree, STARS_PER_TERM)
    for degree in range(psf.degree, max(affordable, psf.degree) + 1):
        basis = terms_at(psf, stars.x[known], stars.y[known], degree)
        misfit = sum(_left_out_misfit(basis, off[known, k], error[known, k]) for k in range(3))
        if misfit < _GAIN * least:
            best, least = degree, misfit
    return best


def _left_out_misfit(basis: Float, values: Float, errors: Float) -> float:
    """Return the sum of squares, in sigma, by which a fit without each star misses that star."""
    design = basis / errors[:, None]
    rotation, _ = np.linalg.qr(design)
    target = values / errors
    leverage = np.minimum(np.sum(rotation**2, axis=1), 0.99)
    missed = (target - rotation @ (rotation.T @ target)) / (1 - leverage)
    return float(np.sum(np.minimum(missed**2, _CLIP_SIGMA**2)))


def _shape_errors(stars: StarStamps, psf: PsfModel, radius_pix: float) -> tuple[Float, Float]:
    """Return by how much each star is wider than the model and more elliptical, (n, 3), and the errors.

    Residuals are fitted with the model itself (the flux) and what a change of width or ellipticity makes
    of it.
    """
    steps = np.arange(psf.size) - psf.size // 2
    y, x = np.meshgrid(steps, steps, indexing="ij")
    inside = np.hypot(x, y) <= radius_pix
    profiles = evaluate(psf, stars.x, stars.y).astype(float)
    by_y, by_x = np.gradient(profiles, axis=(1, 2))
    shapes = [-2 * profiles - x * by_x - y * by_y, y * by_y - x * by_x, -x * by_y - y * by_x]
    dx, dy = stars.x - np.rint(stars.x), stars.y - np.rint(stars.y)
    # The model is moved to the star, not the star to the model: its pixels keep their own noise.
    planes = [shift(p.astype(np.float32), dx, dy)[:, inside] for p in (profiles, *shapes)]
    design = np.stack(planes, axis=-1).astype(float)
    flux = np.maximum(stars.flux, 1.0)[:, None]
    variance = stars.variance[:, inside] + np.maximum(design[..., 0], 0) * flux / stars.gain
    weight = np.where(np.isfinite(variance), 1 / variance, 0.0) * flux**2
    residual = np.where(weight > 0, stars.data[:, inside] / flux - design[..., 0], 0.0)
    normal = np.einsum("npa,np,npb->nab", design, weight, design, optimize=True)
    normal += 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(4)
    right = np.einsum("npa,np,np->na", design, weight, residual, optimize=True)
    seen = weight.sum(axis=1) > 0
    covariance = np.full(normal.shape, np.nan)
    covariance[seen] = np.linalg.inv(normal[seen])
    found = np.einsum("nab,nb->na", covariance, right)[:, 1:]
    error = np.sqrt(np.einsum("naa->na", covariance)[:, 1:])
    return found, np.hypot(error, _SHAPE_TRUST)
