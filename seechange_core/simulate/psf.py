"""The point spread function of the simulated telescope, and how stars are drawn with it.

A star is the sum of two parts, neither of them a Moffat profile:

* a core: long-exposure Kolmogorov turbulence, whose Fourier transform falls as
  ``exp(-(k/k0)**(5/3))`` (Fried 1966, J. Opt. Soc. Am. 56, 1372, eq. 3.16), blurred by a Gaussian for
  guiding and optics; its wings fall as ``r**(-11/3)``;
* an aureole of light scattered by dust and mirrors, falling as ``r**-2`` (King 1971, PASP 83, 199)
  out to a fixed radius; it does not change with the seeing.

Both are sheared into ellipses of the same area. The profile is integrated over each pixel by
Gauss-Legendre quadrature, so that undersampled stars are right too.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import j0

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]

#: Share of the core's width that is Kolmogorov turbulence, and its Gaussian sigma, in units of an
#: intermediate width; `core_scale` turns the sum into a profile whose FWHM is 1.
KOLMOGOROV_WIDTH = 0.92 * 3.44**0.6 / (2 * np.pi * 0.976)
GAUSS_WIDTH = 0.15

#: Where the core ends, in FWHM: it is faded out from half of this radius on.
CORE_RADIUS_FWHM = 30.0

#: The kernel looks profiles up by ``v = 1 + r^2 / softening^2`` with 256 samples per octave of v: the
#: sample's number is then the top bits of the floating-point number v, which costs no logarithm.
_SAMPLES_PER_OCTAVE = 256
_SOFTENING2 = 0.25**2
_OCTAVES = 14
_SHIFT = 52 - 8
_BIAS = 1023 * _SAMPLES_PER_OCTAVE
_MANTISSA = 1.0 / (1 << _SHIFT)

#: Stars are drawn out to where they give less than this, electrons per pixel.
FAINTEST_WING_E = 0.01

_GL3_X = np.array([-0.5 * np.sqrt(0.6), 0.0, 0.5 * np.sqrt(0.6)])
_GL3_W = np.array([5 / 18, 8 / 18, 5 / 18])
_GL5_X = np.polynomial.legendre.leggauss(5)[0] / 2
_GL5_W = np.polynomial.legendre.leggauss(5)[1] / 2
_GL2_X = np.array([-0.5, 0.5]) / np.sqrt(3.0)
_GL2_W = np.array([0.5, 0.5])


def core_transform(k: npt.NDArray[np.floating[Any]]) -> Float:
    """Return the Fourier transform of the core whose FWHM is 1, at angular frequency `k`."""
    return _unscaled_transform(k * core_scale())


def _unscaled_transform(k: npt.NDArray[np.floating[Any]]) -> Float:
    return np.asarray(np.exp(-((KOLMOGOROV_WIDTH * k) ** (5 / 3)) - 0.5 * (GAUSS_WIDTH * k) ** 2))


@lru_cache(maxsize=1)
def core_scale() -> float:
    """Return the factor on k that makes the core's FWHM 1."""
    half_width = brentq(lambda r: _raw_core(np.array([r]))[0] / _raw_core(np.array([0.0]))[0] - 0.5, 0.2, 1.5)
    return float(1.0 / (2.0 * half_width))


def _raw_core(radius: Float) -> Float:
    """Hankel transform of the core before `core_scale` (composite Gauss-Legendre in k)."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    edges = np.concatenate([np.linspace(0, 1, 5)[:-1] ** 2 * 0.2, np.linspace(0.2, 22.0, 150)])
    half = np.diff(edges)[:, None] / 2
    k = ((edges[1:] + edges[:-1])[:, None] / 2 + half * nodes).ravel()
    weight = (half * weights).ravel()
    transform = _unscaled_transform(k)
    return np.asarray(j0(np.outer(radius, k)) @ (k * transform * weight) / (2 * np.pi))


def _grid() -> Float:
    """Radii of the kernel's table, for a unit such that the last usable one is `CORE_RADIUS_FWHM`."""
    number = np.arange(_OCTAVES * _SAMPLES_PER_OCTAVE + 1)
    octave, part = np.divmod(number, _SAMPLES_PER_OCTAVE)
    v = 2.0**octave * (1 + part / _SAMPLES_PER_OCTAVE)
    return np.sqrt((v - 1) * _SOFTENING2)


@lru_cache(maxsize=1)
def core_table() -> Float:
    """Return the core's surface brightness on the kernel's grid, for FWHM 1 and total flux 1.

    Beyond 8 FWHM the transform's own asymptote, ``r**(-11/3)``, takes over.
    """
    radius = _grid()
    scale = core_scale()
    join = 8.0
    inner = radius < join
    # Smooth enough to interpolate: the transform is the slow part.
    knots = np.linspace(0, join, 500)
    spline = CubicSpline(knots, np.log(_raw_core(knots / scale)))
    profile = np.empty(radius.size)
    profile[inner] = np.exp(spline(radius[inner]))
    profile[~inner] = np.exp(spline(join)) * (radius[~inner] / join) ** (-11 / 3)
    profile *= _fade(radius, CORE_RADIUS_FWHM)
    return profile / _flux(radius, profile)


def _fade(radius: Float, end: float) -> Float:
    """1 inside half of `end`, falling smoothly to 0 there."""
    phase = np.clip((radius / end - 0.5) / 0.5, 0, 1)
    return np.asarray(0.5 * (1 + np.cos(np.pi * phase)))


def _flux(radius: Float, profile: Float) -> float:
    """Total flux of a radial profile, linear in the area between samples."""
    area = np.pi * radius**2
    return float(np.sum(0.5 * (profile[1:] + profile[:-1]) * np.diff(area)))


def _enclosed(table: Float, radius: float) -> float:
    """Flux of a table's profile within a radius in the table's own unit."""
    grid = np.append(_grid()[_grid() < radius], radius)
    profile = np.interp(grid**2, _grid() ** 2, table)
    return _flux(grid, profile)


@lru_cache(maxsize=64)
def aureole_table(core_pix: float, radius_pix: float) -> Float:
    """Return the aureole's surface brightness per pixel on the kernel's grid, for total flux 1."""
    radius = radius_pix / CORE_RADIUS_FWHM * _grid()
    profile = _fade(radius, radius_pix) / (radius**2 + core_pix**2)
    return profile / _flux(radius, profile)


@dataclass(frozen=True)
class PsfField:
    """The PSF over a focal plane in one exposure.

    With ``(u, v)`` the position from the middle of the field in units of its half-diagonal, the
    width grows as ``1 + curvature (u^2 + v^2)`` and wobbles by `wobble` (cosines, so that no
    low-order polynomial is exact); the ellipticity is a constant `e1`, `e2` plus astigmatism that
    points outwards, ``astigmatism (u^2 + v^2)``, plus the same wobble.

    Attributes
    ----------
    fwhm_pix
        FWHM in the middle of the field, before integration over pixels, pixels.
    e1, e2
        Ellipticity ``(a - b) / (a + b)`` along x and along the diagonal.
    curvature, astigmatism, wobble
        Amplitudes at the corner of the field; all 0 gives a constant PSF.
    centre, half_diagonal_pix
        Of the field, in the pixels given to `shape_at`.
    aureole_fraction
        Of the light, 0 to 1.
    aureole_core_pix, aureole_radius_pix
        Where the aureole flattens and where it ends.
    """

    fwhm_pix: float
    e1: float = 0.0
    e2: float = 0.0
    curvature: float = 0.0
    astigmatism: float = 0.0
    wobble: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)
    half_diagonal_pix: float = 1000.0
    aureole_fraction: float = 0.03
    aureole_core_pix: float = 12.0
    aureole_radius_pix: float = 150.0
    _tables: tuple[Float, Float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tables = (core_table(), aureole_table(self.aureole_core_pix, self.aureole_radius_pix))
        object.__setattr__(self, "_tables", tables)

    def shape_at(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Float, Float, Float]:
        """Return FWHM (pixels) and the two ellipticities at positions in the field."""
        u = (np.asarray(x, float) - self.centre[0]) / self.half_diagonal_pix
        v = (np.asarray(y, float) - self.centre[1]) / self.half_diagonal_pix
        rho2 = u * u + v * v
        fwhm = self.fwhm_pix * (1 + self.curvature * rho2 + self.wobble * np.cos(3.1 * u - 4.3 * v + 0.4))
        e1 = self.e1 + self.astigmatism * (u * u - v * v) + self.wobble * np.cos(4.7 * u + 2.9 * v)
        e2 = self.e2 + self.astigmatism * 2 * u * v + self.wobble * np.sin(3.7 * u - 2.3 * v + 1.0)
        return fwhm, e1, e2

    def enclosed(self, radius_pix: float) -> float:
        """Return the fraction of a star's light within a radius, in the middle of the field."""
        core, aureole = self._tables
        inner = _enclosed(core, radius_pix / self.fwhm_pix)
        outer = _enclosed(aureole, radius_pix * CORE_RADIUS_FWHM / self.aureole_radius_pix)
        if self.aureole_fraction == 0:
            return inner
        unit = self.aureole_radius_pix / CORE_RADIUS_FWHM
        return (1 - self.aureole_fraction) * inner + self.aureole_fraction * outer * unit**2

    def draw(self, image: Float, x: npt.ArrayLike, y: npt.ArrayLike, flux_e: npt.ArrayLike,
             offset: tuple[float, float] = (0.0, 0.0)) -> None:  # fmt: skip
        """Add point sources to a float64 image, in place.

        Parameters
        ----------
        image
            (H, W) float64, electrons.
        x, y
            Centres, 0-based pixels of `image`; may lie outside it.
        flux_e
            Total electrons of each.
        offset
            What to add to image pixels to get field positions.
        """
        x, y, flux = (np.atleast_1d(np.asarray(a, float)) for a in (x, y, flux_e))
        fwhm, e1, e2 = self.shape_at(x + offset[0], y + offset[1])
        _draw_stars(
            image, x, y, flux, fwhm, e1, e2, *self._tables, self.aureole_fraction, self.aureole_radius_pix
        )

    def draw_aureole(self, image: Float, x: npt.ArrayLike, y: npt.ArrayLike, flux_e: npt.ArrayLike,
                     offset: tuple[float, float] = (0.0, 0.0)) -> None:  # fmt: skip
        """Add only the aureoles of sources, as `draw` would, in place."""
        if self.aureole_fraction == 0:
            return
        x, y, flux = (np.atleast_1d(np.asarray(a, float)) for a in (x, y, flux_e))
        fwhm, e1, e2 = self.shape_at(x + offset[0], y + offset[1])
        flux = flux * self.aureole_fraction
        _draw_stars(image, x, y, flux, fwhm, e1, e2, *self._tables, 1.0, self.aureole_radius_pix)

    def stamp(self, x: float, y: float, size: int, dx: float = 0.0, dy: float = 0.0) -> Float:
        """Return the PSF at a field position as pixels.

        Parameters
        ----------
        x, y
            Where in the field.
        size
            Side of the stamp, odd.
        dx, dy
            Where the centre lies relative to the middle pixel.

        Returns
        -------
        (size, size) float64; the whole plane would sum to 1, a stamp to a little less.
        """
        image = np.zeros((size, size))
        half = size // 2
        # A bright star, scaled back, so that its wings reach the corners.
        bright = 1e7
        self.draw(image, half + dx, half + dy, bright, (x - half - dx, y - half - dy))
        return image / bright


@njit(cache=True, nogil=True, inline="always")
def _look_up(table: Any, v: float) -> Any:
    """Interpolate a table linearly in v (see `_SAMPLES_PER_OCTAVE`); 0 beyond its end."""
    bits = np.float64(v).view(np.int64)
    i = (bits >> _SHIFT) - _BIAS
    if i >= table.size - 1:
        return 0.0
    part = (bits & ((1 << _SHIFT) - 1)) * _MANTISSA
    return table[i] + part * (table[i + 1] - table[i])


@njit(cache=True, nogil=True, inline="always")
def _brightness(r2: float, core: Any, aureole: Any, scale: Any) -> Any:
    """Surface brightness per pixel at squared elliptical radius `r2`, flux 1."""
    value = scale[0] * _look_up(core, 1.0 + r2 * scale[1])
    if scale[2] > 0.0:
        value += scale[2] * _look_up(aureole, 1.0 + r2 * scale[3])
    return value


@njit(cache=True, nogil=True)
def _reach(flux: float, limit: float, core: Any, aureole: Any, scale: Any) -> float:
    """Radius (pixels) beyond which a star gives less than `FAINTEST_WING_E` per pixel."""
    low, high = 0.0, limit
    for _ in range(12):
        middle = 0.5 * (low + high)
        if flux * _brightness(middle * middle, core, aureole, scale) > FAINTEST_WING_E:
            low = middle
        else:
            high = middle
    return high


@njit(cache=True, nogil=True)
def _draw_stars(
    image: Any, xs: Any, ys: Any, fluxes: Any, fwhms: Any, e1s: Any, e2s: Any,
    core: Any, aureole: Any, fraction: float, end: float,
) -> None:  # fmt: skip
    """Add pixel-integrated stars to an image: fine quadrature in the core, coarser outwards."""
    unit = end / CORE_RADIUS_FWHM
    for n in range(xs.size):
        flux, fwhm, e1, e2 = fluxes[n], fwhms[n], e1s[n], e2s[n]
        if flux == 0.0:
            continue
        area = fwhm * fwhm
        tightness = 1.0 / (area * _SOFTENING2), 1.0 / (unit * unit * _SOFTENING2)
        scale = ((1.0 - fraction) / area, tightness[0], fraction, tightness[1])
        shear = 1.0 / np.sqrt(1.0 - e1 * e1 - e2 * e2)
        a, b, c = shear * (1.0 - e1), shear * e2, shear * (1.0 + e1)
        limit = max(CORE_RADIUS_FWHM * fwhm, end)
        reach = _reach(abs(flux), limit, core, aureole, scale)
        edge = reach * shear * (1.0 + np.sqrt(e1 * e1 + e2 * e2))
        fine2, medium2 = (2.0 * fwhm + 1.0) ** 2, (10.0 * fwhm + 1.0) ** 2
        nodes, weights = (_GL5_X, _GL5_W) if fwhm < 2.5 else (_GL3_X, _GL3_W)
        for j in range(max(0, int(np.ceil(ys[n] - edge))), min(image.shape[0], int(ys[n] + edge) + 1)):
            dy = j - ys[n]
            half = np.sqrt(max(edge * edge - dy * dy, 0.0))
            for i in range(max(0, int(np.ceil(xs[n] - half))), min(image.shape[1], int(xs[n] + half) + 1)):
                dx = i - xs[n]
                d2 = dx * dx + dy * dy
                if d2 >= medium2:
                    s, t = a * dx - b * dy, c * dy - b * dx
                    image[j, i] += flux * _brightness(s * s + t * t, core, aureole, scale)
                    continue
                points, shares = (nodes, weights) if d2 < fine2 else (_GL2_X, _GL2_W)
                value = 0.0
                for q in range(points.size):
                    for p in range(points.size):
                        s = a * (dx + points[p]) - b * (dy + points[q])
                        t = c * (dy + points[q]) - b * (dx + points[p])
                        value += shares[p] * shares[q] * _brightness(s * s + t * t, core, aureole, scale)
                image[j, i] += flux * value
