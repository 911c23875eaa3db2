"""Where something is that was seen many times, by sums that the next sighting is simply added to."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

#: Scatter beyond what the errors let expect by so many of its own standard deviations is believed.
_SCATTER_SIGMA = 3.0
#: Sums are integers in units of 2^-64: so they are the same to the last bit in any order.
_UNIT = 2.0**64
_ARCSEC = math.pi / 180 / 3600

Vector = tuple[float, float, float]


class MeanPlace(NamedTuple):
    """Where an object is: ICRS deg, and 1-sigma errors on the sky towards east and north, arcsec."""

    ra: float
    dec: float
    ra_err_arcsec: float
    dec_err_arcsec: float


class Place(NamedTuple):
    """Where something was seen: ICRS deg, and the 1-sigma error per axis, arcsec."""

    ra: float
    dec: float
    err_arcsec: float

    @property
    def precision(self) -> tuple[float, float, float]:
        """What places are sorted by, the best first."""
        return (self.err_arcsec, self.ra, self.dec)


@dataclass(frozen=True)
class PlaceSums:
    """Sums over the sightings of one object.

    Attributes
    ----------
    head
        The place from which offsets are counted, one of them.
    sums
        The number of sightings, and over them, in units of 2^-64: of the weights ``1 / err^2``, and of these
        times the offsets east and north, and times their squares (arcsec).
    """

    head: Place
    sums: tuple[int, ...] = (0, 0, 0, 0, 0, 0)

    def plus(self, places: Iterable[Place]) -> Self:
        """Return the sums with more sightings, the same whatever the order and however they are shared out.

        Each term is computed on its own, in plain floats: what a vectorised sine returns may depend on where
        in an array its argument stands.
        """
        origin, axes = _vector(self.head.ra, self.head.dec), _axes(self.head.ra, self.head.dec)
        n, *sums = self.sums
        for place in places:
            shift = [a - b for a, b in zip(_vector(place.ra, place.dec), origin, strict=True)]
            east, north = (_dot(shift, axis) / _ARCSEC for axis in axes)
            weight = 1 / (place.err_arcsec * place.err_arcsec)
            terms = (weight, weight * east, weight * north, weight * east * east, weight * north * north)
            sums = [have + int(term * _UNIT) for have, term in zip(sums, terms, strict=True)]
            n += 1
        return type(self)(self.head, (n, *sums))

    def mean(self) -> MeanPlace:
        """Return the mean place, each sighting weighted by its error.

        The error is that of the weighted mean, ``(sum 1 / err^2)^-1/2``. Where the positions scatter by far
        more than their errors say (beyond 3 sigma of chi square), it grows with the scatter: times
        ``(chi^2 / dof)^1/2`` (Birge 1932, Phys. Rev. 40, 207), towards east and north each on its own.
        """
        n = self.sums[0]
        weight, *rest = (value / _UNIT for value in self.sums[1:])
        shift = [total / weight for total in rest[:2]]
        chi2 = [square - weight * mean**2 for square, mean in zip(rest[2:], shift, strict=True)]
        vector = list(_vector(self.head.ra, self.head.dec))
        for offset, axis in zip(shift, _axes(self.head.ra, self.head.dec), strict=True):
            vector = [v + offset * _ARCSEC * a for v, a in zip(vector, axis, strict=True)]
        x, y, z = vector
        ra = math.degrees(math.atan2(y, x)) % 360.0
        dec = math.degrees(math.atan2(z, math.hypot(x, y)))
        errors = [weight**-0.5 * _scatter(value, n - 1) for value in chi2]
        return MeanPlace(0.0 if ra >= 360.0 else ra, dec, *errors)

    def plain(self) -> dict[str, Any]:
        """Return what JSON knows."""
        return {"head": list(self.head), "sums": [str(value) for value in self.sums]}

    @classmethod
    def from_plain(cls, value: dict[str, Sequence[Any]]) -> Self:
        """Undo `plain`."""
        return cls(Place(*map(float, value["head"])), tuple(map(int, value["sums"])))


def _scatter(chi2: float, dof: int) -> float:
    """Return by how much errors are too small for the scatter; 1 where that may be chance."""
    return math.sqrt(chi2 / dof) if dof and chi2 > dof + _SCATTER_SIGMA * math.sqrt(2 * dof) else 1.0


def _vector(ra: float, dec: float) -> Vector:
    lon, lat = math.radians(ra), math.radians(dec)
    return (math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat))


def _axes(ra: float, dec: float) -> tuple[Vector, Vector]:
    """Return the unit vectors towards east and north."""
    lon, lat = math.radians(ra), math.radians(dec)
    north = (-math.sin(lat) * math.cos(lon), -math.sin(lat) * math.sin(lon), math.cos(lat))
    return (-math.sin(lon), math.cos(lon), 0.0), north


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
