"""All point sources of an image fitted together: each with its neighbours' models taken away."""

from dataclasses import dataclass, replace

import numpy as np

from seechange_core.frames import Float, Float32, PsfModel
from seechange_core.numerics.aperture import Moments, adaptive_moments, sum_circles
from seechange_core.numerics.psf import add_stamps, coefficients_at, draw
from seechange_core.numerics.psf_fit import PsfFits, fit


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
        How often all sources are fitted, 1 or more.
    """
    shape = data.shape[0], data.shape[1]
    start = x, y
    model = draw(psf, x, y, flux, shape)
    for _ in range(passes):
        fits = fit(
            data - model,
            weight,
            psf,
            x,
            y,
            np.nan_to_num(flux),
            radius_pix=radius_pix,
            gain=gain,
            model=model,
            free_position=True,
            max_shift_pix=max_shift_pix,
        )
        # Never further from the start than allowed, however many passes there are.
        x = np.clip(fits.x, start[0] - max_shift_pix, start[0] + max_shift_pix)
        y = np.clip(fits.y, start[1] - max_shift_pix, start[1] + max_shift_pix)
        flux = np.maximum(np.nan_to_num(fits.flux), 0.0)
        model = draw(psf, x, y, flux, shape)
    return SceneFit(replace(fits, x=x, y=y), model, data - model)


def without_position_bias(flux: Float, flux_err: Float) -> Float:
    """Return fluxes fitted with free positions, freed of the bias of having climbed the noise.

    The maximum over two position parameters exceeds the value at the true position by
    ``flux_err^2 / flux`` on average (Portillo, Speagle & Finkbeiner 2020, AJ 159, 165, eq. 27).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(flux > 0, flux_err**2 / flux, 0.0)
    return flux - np.minimum(excess, 0.5 * np.maximum(flux, 0.0))


@dataclass(frozen=True, eq=False)
class _Tiles:
    """Unit PSFs at the sub-pixel phases of the sources, each on a tile of its own."""

    image: Float32
    x: Float
    y: Float


def _tiles(psf: PsfModel, x: Float, y: Float) -> _Tiles:
    n = len(x)
    side = psf.size + 2
    columns = max(1, int(np.ceil(np.sqrt(n))))
    rows = max(1, -(-n // columns))
    tile_x = (np.arange(n) % columns) * side + side // 2 + (x - np.rint(x))
    tile_y = (np.arange(n) // columns) * side + side // 2 + (y - np.rint(y))
    image = np.zeros((rows * side, columns * side), np.float32)
    for start in range(0, n, 1000):
        part = slice(start, start + 1000)
        coefficients = coefficients_at(psf, x[part], y[part])
        add_stamps(image, coefficients, tile_x[part], tile_y[part], np.ones(len(tile_x[part])))
    return _Tiles(image, tile_x, tile_y)


def apertures(
    scene: SceneFit, weight: Float32, psf: PsfModel, radii_pix: Float, gain: float
) -> tuple[Float, Float]:
    """Return aperture fluxes and errors of fitted sources, neighbours removed.

    The residuals within the circle plus the source's own model: unusable pixels are filled by the model.

    Returns
    -------
    flux, flux_err
        (n, n_radii) float64.
    """
    fits = scene.fits
    left, error, _ = sum_circles(
        scene.residual, weight, fits.x, fits.y, radii_pix, model=scene.model, gain=gain
    )
    tiles = _tiles(psf, fits.x, fits.y)
    share, _, _ = sum_circles(tiles.image, np.ones_like(tiles.image), tiles.x, tiles.y, radii_pix)
    own = np.maximum(np.nan_to_num(fits.flux), 0.0)[:, None] * share
    return left + own, error


def psf_moments(psf: PsfModel, x: Float, y: Float) -> tuple[Moments, Float]:
    """Return the adaptive moments and the central pixel of the PSF as it falls on the pixels at (x, y)."""
    tiles = _tiles(psf, x, y)
    ones = np.ones_like(tiles.image)
    shape = adaptive_moments(tiles.image, ones, tiles.x, tiles.y, psf.fwhm_pix)
    centre = tiles.image[np.rint(tiles.y).astype(int), np.rint(tiles.x).astype(int)]
    return shape, centre.astype(float)
