"""A calibrated-like image in memory, with its truth: for unit tests that need no camera and no disk."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seechange_core.simulate.psf import Float, Float32, PsfField


@dataclass(frozen=True, eq=False)
class Scene:
    """Stars on a flat sky, in electrons, and what is true about them.

    Attributes
    ----------
    data
        (H, W) float32: one noisy realisation, sky included.
    expected
        (H, W) float64: its mean, sky included.
    x, y, flux_e
        (n,) true centres (0-based pixels) and total electrons.
    psf_field
        The PSF they were drawn with.
    sky_e, read_noise_e
        Electrons per pixel.
    """

    data: Float32
    expected: Float
    x: Float
    y: Float
    flux_e: Float
    psf_field: PsfField
    sky_e: float
    read_noise_e: float

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.data.shape[0], self.data.shape[1]

    @property
    def variance(self) -> Float32:
        """(H, W) float32: true variance of every pixel, the stars' photons included, electrons^2."""
        return (self.expected + self.read_noise_e**2).astype(np.float32)

    @property
    def background_variance(self) -> Float32:
        """(H, W) float32: true variance of sky and read noise alone, electrons^2."""
        return np.full(self.shape, self.sky_e + self.read_noise_e**2, np.float32)

    def psf(self, x: float, y: float, size: int = 31, *, unit_sum: bool = False) -> Float:
        """Return the true PSF at (x, y) as a stamp centred on its middle pixel.

        Parameters
        ----------
        x, y
            Where, pixels.
        size
            Side, odd.
        unit_sum
            Rescale the stamp so that it sums to 1; else the whole plane does, wings included.

        Returns
        -------
        (size, size) float64.
        """
        stamp = self.psf_field.stamp(x, y, size)
        return stamp / stamp.sum() if unit_sum else stamp


def add_noise(expected: Float, read_noise_e: float, rng: np.random.Generator) -> Float32:
    """Draw photon and read noise around an expected image, (H, W) float32 electrons."""
    noisy = rng.poisson(np.maximum(expected, 0.0)).astype(np.float32)
    if read_noise_e > 0:
        noisy += np.float32(read_noise_e) * rng.standard_normal(expected.shape, dtype=np.float32)
    return noisy


def make_psf_field(
    shape: tuple[int, int],
    fwhm_pix: float,
    *,
    ellipticity: float = 0.0,
    psf_variation: float = 0.0,
    aureole_fraction: float = 0.0,
) -> PsfField:
    """Build a PSF for an image of the given shape.

    Parameters
    ----------
    shape
        (H, W), pixels.
    fwhm_pix
        In the middle of the image, pixels.
    ellipticity
        ``(a - b) / (a + b)`` in the middle, at 30 degrees from +x.
    psf_variation
        Relative change of the width from the middle to the corners; the ellipticity changes by as
        much, and a quarter of it wobbles as no polynomial does.
    aureole_fraction
        Of the light that is scattered into the r^-2 aureole. `flux_e` counts it, so a PSF normalised
        on a stamp of some size measures ``flux_e * Scene.psf(x, y, size).sum()``.
    """
    height, width = shape
    angle = np.deg2rad(30.0)
    return PsfField(
        fwhm_pix=fwhm_pix,
        e1=ellipticity * float(np.cos(2 * angle)),
        e2=ellipticity * float(np.sin(2 * angle)),
        curvature=psf_variation,
        astigmatism=psf_variation,
        wobble=psf_variation / 4,
        centre=((width - 1) / 2, (height - 1) / 2),
        half_diagonal_pix=float(np.hypot(width, height)) / 2,
        aureole_fraction=aureole_fraction,
        aureole_core_pix=2.7 * fwhm_pix,
        aureole_radius_pix=34.0 * fwhm_pix,
    )


def simulate_image(
    shape: tuple[int, int],
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    flux_e: npt.ArrayLike,
    *,
    psf_field: PsfField,
    sky_e: float = 500.0,
    read_noise_e: float = 5.0,
    seed: int = 0,
) -> Scene:
    """Draw point sources at the places and fluxes given.

    Parameters
    ----------
    shape
        (H, W), pixels.
    x, y
        Centres, 0-based pixels.
    flux_e
        Total electrons.
    psf_field
        Made by `make_psf_field`, or any other.
    sky_e, read_noise_e
        Electrons per pixel.
    seed
        Of the noise.
    """
    expected = np.full(shape, float(sky_e))
    psf_field.draw(expected, x, y, flux_e)
    data = add_noise(expected, read_noise_e, np.random.default_rng(seed))
    x, y, flux = (np.atleast_1d(np.asarray(a, float)) for a in (x, y, flux_e))
    return Scene(data, expected, x, y, flux, psf_field, float(sky_e), float(read_noise_e))


def scene(
    shape: tuple[int, int] = (512, 512),
    n_stars: int = 100,
    seed: int = 0,
    fwhm_pix: float = 4.0,
    sky_e: float = 500.0,
    read_noise_e: float = 5.0,
    flux_range: tuple[float, float] = (500.0, 200_000.0),
    *,
    ellipticity: float = 0.03,
    psf_variation: float = 0.0,
    aureole_fraction: float = 0.0,
    min_separation_pix: float = 0.0,
    border_pix: float = 0.0,
) -> Scene:
    """Draw stars at random places, with fluxes uniform in the logarithm.

    Parameters
    ----------
    shape
        (H, W), pixels.
    n_stars
        How many; fewer when `min_separation_pix` leaves no room (their number is ``len(scene.x)``).
    seed
        The same seed gives the same image.
    fwhm_pix
        Before integration over pixels, in the middle.
    sky_e, read_noise_e
        Electrons per pixel.
    flux_range
        Faintest and brightest, total electrons.
    ellipticity, psf_variation, aureole_fraction
        See `make_psf_field`.
    min_separation_pix
        Stars closer than this to an earlier one are not placed.
    border_pix
        Distance that all stars keep from the edges.
    """
    rng = np.random.default_rng(seed)
    x, y = _places(rng, shape, n_stars, min_separation_pix, border_pix)
    flux = np.exp(rng.uniform(np.log(flux_range[0]), np.log(flux_range[1]), x.size))
    field = make_psf_field(
        shape,
        fwhm_pix,
        ellipticity=ellipticity,
        psf_variation=psf_variation,
        aureole_fraction=aureole_fraction,
    )
    noise_seed = int(rng.integers(2**32))
    return simulate_image(
        shape, x, y, flux, psf_field=field, sky_e=sky_e, read_noise_e=read_noise_e, seed=noise_seed
    )


def _places(
    rng: np.random.Generator, shape: tuple[int, int], count: int, separation: float, border: float
) -> tuple[Float, Float]:
    """Random positions that keep their distance from each other and from the edges."""
    low, high = np.full(2, border - 0.5), np.array(shape[::-1], float) - 0.5 - border
    if separation <= 0:
        points = rng.uniform(low, high, (count, 2))
        return points[:, 0], points[:, 1]
    kept = np.empty((0, 2))
    for point in rng.uniform(low, high, (20 * count, 2)):
        if len(kept) == count:
            break
        if not np.any(np.sum((kept - point) ** 2, axis=1) < separation**2):
            kept = np.vstack([kept, point])
    return kept[:, 0], kept[:, 1]
