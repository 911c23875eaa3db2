"""From the sky to pixels and back: tangent plane, rotation, parity, distortion.

Everything is done with directions in the tangent plane, so that right ascension 0 and the poles are
nothing special.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seechange_core.simulate.psf import Float

ARCSEC_PER_RAD = 180.0 * 3600.0 / np.pi


def project(
    ra: npt.ArrayLike, dec: npt.ArrayLike, ra0: float, dec0: float
) -> tuple[Float, Float]:  # fmt: skip
    """Project gnomonically: degrees to arcseconds east and north of (ra0, dec0); NaN behind the sky."""
    a, d = np.deg2rad(np.asarray(ra, float) - ra0), np.deg2rad(np.asarray(dec, float))
    d0 = np.deg2rad(dec0)
    depth = np.sin(d) * np.sin(d0) + np.cos(d) * np.cos(d0) * np.cos(a)
    depth = np.where(depth > 0, depth, np.nan)
    east = np.cos(d) * np.sin(a) / depth
    north = (np.sin(d) * np.cos(d0) - np.cos(d) * np.sin(d0) * np.cos(a)) / depth
    return east * ARCSEC_PER_RAD, north * ARCSEC_PER_RAD


def deproject(east: npt.ArrayLike, north: npt.ArrayLike, ra0: float, dec0: float) -> tuple[Float, Float]:
    """Invert `project`: arcseconds east and north of (ra0, dec0) to degrees."""
    xi, eta = np.asarray(east, float) / ARCSEC_PER_RAD, np.asarray(north, float) / ARCSEC_PER_RAD
    d0 = np.deg2rad(dec0)
    along = np.cos(d0) - eta * np.sin(d0)
    up = np.sin(d0) + eta * np.cos(d0)
    ra = (ra0 + np.rad2deg(np.arctan2(xi, along))) % 360.0
    dec = np.rad2deg(np.arctan2(up, np.hypot(xi, along)))
    return ra, dec


def move(
    ra: npt.ArrayLike, dec: npt.ArrayLike, east_mas: npt.ArrayLike, north_mas: npt.ArrayLike
) -> tuple[Float, Float]:
    """Displace positions (deg) by small angles on the sky (mas), right up to the poles."""
    a, d = np.deg2rad(np.asarray(ra, float)), np.deg2rad(np.asarray(dec, float))
    de = np.asarray(east_mas, float) / 1e3 / ARCSEC_PER_RAD
    dn = np.asarray(north_mas, float) / 1e3 / ARCSEC_PER_RAD
    x = np.cos(d) * np.cos(a) - np.sin(a) * de - np.sin(d) * np.cos(a) * dn
    y = np.cos(d) * np.sin(a) + np.cos(a) * de - np.sin(d) * np.sin(a) * dn
    z = np.sin(d) + np.cos(d) * dn
    return np.rad2deg(np.arctan2(y, x)) % 360.0, np.rad2deg(np.arctan2(z, np.hypot(x, y)))


@dataclass(frozen=True)
class SkyMap:
    """How one section sees the sky in one exposure: the true world coordinates.

    A pixel's place in the focal plane is ``(X, Y) = (x, y) - centre + offset``; with
    ``rho = r / half_diagonal`` the optics take it to ``(X, Y) (1 + c3 rho^2 + c5 rho^4)`` plus a small
    quadratic tilt, and rotation, parity and scale take that to the tangent plane.

    Attributes
    ----------
    ra, dec
        Tangent point: the sky at the middle of the mosaic, deg.
    rotation_deg
        Position angle of +y, north through east.
    parity
        1: east is left when north is up; -1: mirrored.
    scale_arcsec
        Of a pixel at the middle of the mosaic.
    centre, offset
        Pixel in the middle of the section, and where that lies from the middle of the mosaic.
    half_diagonal_pix
        Of the mosaic.
    distortion_pix
        Radial displacement at the mosaic's corner, pixels.
    """

    ra: float
    dec: float
    rotation_deg: float
    parity: int
    scale_arcsec: float
    centre: tuple[float, float]
    offset: tuple[float, float]
    half_diagonal_pix: float
    distortion_pix: float

    def _distort(self, X: Float, Y: Float) -> tuple[Float, Float]:
        R = self.half_diagonal_pix
        rho2 = (X * X + Y * Y) / R**2
        strength = self.distortion_pix / R
        radial = strength * (0.9 * rho2 + 0.1 * rho2 * rho2)
        tilt = 0.1 * strength / R
        return (
            X * radial + tilt * (3 * X * X + Y * Y),
            Y * radial + tilt * 2 * X * Y,
        )

    def to_sky(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Float, Float]:
        """Convert 0-based pixels to degrees."""
        X = np.asarray(x, float) - self.centre[0] + self.offset[0]
        Y = np.asarray(y, float) - self.centre[1] + self.offset[1]
        dX, dY = self._distort(X, Y)
        s, c = np.sin(np.deg2rad(self.rotation_deg)), np.cos(np.deg2rad(self.rotation_deg))
        X, Y = (X + dX) * self.scale_arcsec * self.parity, (Y + dY) * self.scale_arcsec
        return deproject(-c * X + s * Y, s * X + c * Y, self.ra, self.dec)

    def to_pixels(self, ra: npt.ArrayLike, dec: npt.ArrayLike) -> tuple[Float, Float]:
        """Convert degrees to 0-based pixels; NaN where the position is on the other side of the sky."""
        east, north = project(ra, dec, self.ra, self.dec)
        s, c = np.sin(np.deg2rad(self.rotation_deg)), np.cos(np.deg2rad(self.rotation_deg))
        U = (-c * east + s * north) / self.scale_arcsec * self.parity
        V = (s * east + c * north) / self.scale_arcsec
        # Far from the mosaic the distortion's polynomial means nothing and need not be inverted.
        near = np.hypot(U, V) < 3 * self.half_diagonal_pix
        X, Y = np.where(near, U, 0.0), np.where(near, V, 0.0)
        for _ in range(12):
            dX, dY = self._distort(X, Y)
            X, Y = np.where(near, U - dX, 0.0), np.where(near, V - dY, 0.0)
        X, Y = np.where(near, X, U), np.where(near, Y, V)
        return X + self.centre[0] - self.offset[0], Y + self.centre[1] - self.offset[1]
