"""Galaxies: a disk and a bulge, blurred by the PSF exactly, in Fourier space.

Both parts are Spergel profiles (Spergel 2010, ApJS 191, 58), whose transform is ``(1 + (k r0)^2)^-(1 + nu)``:
nu = 0.5 is an exponential disk, nu = -0.6 is close to a de Vaucouleurs bulge. So a galaxy in an exposure
is a product of three known transforms (galaxy, PSF core, pixel), and the same galaxy under another seeing
is exactly that.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import scipy.fft
from numba import njit
from scipy.optimize import brentq
from scipy.special import gamma, kv

from seechange_core.simulate.geometry import SkyMap, move
from seechange_core.simulate.psf import GAUSS_WIDTH, KOLMOGOROV_WIDTH, Float, PsfField, core_scale

DISK_NU, BULGE_NU = 0.5, -0.6
#: Half-light radius of the bulge in units of the disk's.
BULGE_SIZE = 0.7
STAMP_SIZES = (32, 48, 64, 96, 128, 192, 256, 384, 512)
#: A stamp ends where a galaxy gives about this many electrons per pixel.
FAINTEST_EDGE_E = 0.03


@lru_cache(maxsize=4)
def half_light_scale(nu: float) -> float:
    """Return r0 in units of the half-light radius (Spergel 2010, eq. 3: the light within a radius)."""

    def enclosed(radius: float) -> float:
        order = nu + 1
        u = (radius / 2) ** order * kv(order, radius) / gamma(order + 1)
        return float(1 - 2 * (1 + nu) * u)

    return 1.0 / float(brentq(lambda radius: enclosed(radius) - 0.5, 0.05, 10.0))


def draw_galaxies(
    image: Float, sky_map: SkyMap, psf: PsfField, offset: tuple[float, float],
    ra: Float, dec: Float, flux_e: Float, shapes: Any,
) -> None:  # fmt: skip
    """Add galaxies to an image, in place.

    Parameters
    ----------
    image
        (H, W) float64, electrons.
    sky_map
        True world coordinates: shapes are given on the sky.
    psf, offset
        The PSF, and what to add to image pixels to get its field positions.
    ra, dec, flux_e
        (n,) deg and total electrons.
    shapes
        Table with half_light_arcsec, axis_ratio, angle_deg (north through east) and bulge_fraction.
    """
    x, y = sky_map.to_pixels(ra, dec)
    matrices = _pixel_shapes(sky_map, ra, dec, x, y, shapes)
    fwhm, e1, e2 = psf.shape_at(x + offset[0], y + offset[1])
    # The aureole is much wider than any galaxy here: it is drawn around a point.
    psf.draw_aureole(image, x, y, flux_e, offset)
    light = flux_e * (1 - psf.aureole_fraction)
    sizes = _stamp_sizes(light, np.sqrt(np.abs(np.linalg.det(matrices))), fwhm)
    scales = half_light_scale(DISK_NU), half_light_scale(BULGE_NU) * BULGE_SIZE
    bulge = np.asarray(shapes["bulge_fraction"], float)
    for n in np.flatnonzero(light > 0):
        size = int(sizes[n])
        column, row = int(np.floor(x[n])) - size // 2, int(np.floor(y[n])) - size // 2
        if column >= image.shape[1] or row >= image.shape[0] or column + size <= 0 or row + size <= 0:
            continue
        transform = np.empty((size, size // 2 + 1), np.complex128)
        _fill_transform(
            transform, x[n] - column, y[n] - row, light[n], matrices[n], bulge[n], scales,
            fwhm[n] * core_scale(), e1[n], e2[n], _aliases(fwhm[n]),
        )  # fmt: skip
        stamp = scipy.fft.irfft2(transform, (size, size), overwrite_x=True)
        _add_stamp(image, stamp, column, row)


def _pixel_shapes(sky_map: SkyMap, ra: Float, dec: Float, x: Float, y: Float, shapes: Any) -> Float:
    """(n, 2, 2): what takes the unit circle to the half-light ellipse, in pixels."""
    step_mas = 1000.0
    east = sky_map.to_pixels(*move(ra, dec, step_mas, 0.0))
    north = sky_map.to_pixels(*move(ra, dec, 0.0, step_mas))
    jacobian = np.array([[east[0] - x, north[0] - x], [east[1] - y, north[1] - y]]).transpose(2, 0, 1)
    angle = np.deg2rad(np.asarray(shapes["angle_deg"], float))
    ratio = np.sqrt(np.asarray(shapes["axis_ratio"], float))
    radius = np.asarray(shapes["half_light_arcsec"], float)
    major = np.array([np.sin(angle), np.cos(angle)]) * radius / ratio
    minor = np.array([np.cos(angle), -np.sin(angle)]) * radius * ratio
    ellipse = np.stack([major, minor], axis=1).transpose(2, 0, 1)
    return np.asarray(jacobian @ ellipse)


def _stamp_sizes(light: Float, radius: Float, fwhm: Float) -> Float:
    """Sides of stamps at whose edges the galaxies have faded, from the asymptotes of their profiles."""
    per_area = np.maximum(light, 1.0) / (radius**2 + fwhm**2) / FAINTEST_EDGE_E
    of_galaxy = 1.6 * radius * np.log(np.maximum(per_area, 2.0)) / 1.3
    of_psf = (0.05 * light * fwhm ** (5 / 3) / FAINTEST_EDGE_E) ** (3 / 11)
    half = np.maximum(np.hypot(of_galaxy, 3 * fwhm), of_psf)
    return np.take(STAMP_SIZES, np.minimum(np.searchsorted(STAMP_SIZES, 2 * half), len(STAMP_SIZES) - 1))


def _aliases(fwhm_pix: float) -> int:
    """How many times the sampling frequency still carries power, on each side."""
    if fwhm_pix > 3.5:
        return 0
    return 1 if fwhm_pix > 1.3 else 2


def _add_stamp(image: Float, stamp: Float, column: int, row: int) -> None:
    """Add a stamp whose lower left pixel is (column, row), cut at the image's edges."""
    y0, y1 = max(0, row), min(image.shape[0], row + stamp.shape[0])
    x0, x1 = max(0, column), min(image.shape[1], column + stamp.shape[1])
    if y0 < y1 and x0 < x1:
        image[y0:y1, x0:x1] += stamp[y0 - row : y1 - row, x0 - column : x1 - column]


@njit(cache=True, nogil=True)
def _fill_transform(
    out: Any, x: float, y: float, flux: float, shape: Any, bulge: float, scales: Any,
    fwhm: float, e1: float, e2: float, aliases: int,
) -> None:  # fmt: skip
    """Fill the half-plane transform of a pixel-integrated galaxy, aliases folded in as sampling does."""
    size, columns = out.shape
    shear = 1.0 / np.sqrt(1.0 - e1 * e1 - e2 * e2)
    a, b, c = shear * (1.0 + e1), shear * e2, shear * (1.0 - e1)
    step = 2.0 * np.pi / size
    for j in range(size):
        jj = j if j < (size + 1) // 2 else j - size
        for i in range(columns):
            real, imaginary = 0.0, 0.0
            for m in range(-aliases, aliases + 1):
                ky = step * (jj + m * size)
                for n in range(-aliases, aliases + 1):
                    kx = step * (i + n * size)
                    u, v = a * kx + b * ky, b * kx + c * ky
                    k2 = (u * u + v * v) * fwhm * fwhm
                    blur = (KOLMOGOROV_WIDTH * KOLMOGOROV_WIDTH * k2) ** (
                        5.0 / 6.0
                    ) + 0.5 * GAUSS_WIDTH**2 * k2
                    if blur > 30.0:
                        continue
                    u = shape[0, 0] * kx + shape[1, 0] * ky
                    v = shape[0, 1] * kx + shape[1, 1] * ky
                    k2 = u * u + v * v
                    disk = 1.0 + k2 * scales[0] * scales[0]
                    value = (1.0 - bulge) / (disk * np.sqrt(disk))
                    if bulge > 0.0:
                        value += bulge * (1.0 + k2 * scales[1] * scales[1]) ** -0.4
                    value *= flux * np.exp(-blur) * _sinc(0.5 * kx) * _sinc(0.5 * ky)
                    phase = kx * x + ky * y
                    real += value * np.cos(phase)
                    imaginary -= value * np.sin(phase)
            out[j, i] = complex(real, imaginary)


@njit(cache=True, nogil=True, inline="always")
def _sinc(x: float) -> Any:
    return 1.0 if abs(x) < 1e-8 else np.sin(x) / x
