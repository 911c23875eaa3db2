"""What every reference catalog promises, and how its rows become stars at an epoch."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from seechange_core.errors import NotFoundError
from seechange_core.frames import CatalogStars, Float
from seechange_core.numerics import sky


class CatalogInfo(BaseModel):
    """What is known of a catalog as a whole.

    Attributes
    ----------
    name
        E.g. ``gaia_dr3``.
    epoch
        Decimal year of its positions.
    bands
        Bands it has magnitudes in.
    colors
        Colours it can give, as ``g-r``.
    source
        Where it came from.
    n_stars
        Rows.
    checksum
        SHA-256 over its files: names one content.
    tile_order
        HEALPix order of its files.
    assumed
        The errors assumed where the source states none, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    epoch: float
    bands: tuple[str, ...]
    colors: tuple[str, ...]
    source: str
    n_stars: int
    checksum: str
    tile_order: int
    assumed: dict[str, float] = {}


class Provider(Protocol):
    """A reference catalog that can be asked for the stars in a cone."""

    @property
    def info(self) -> CatalogInfo:
        """Describe the catalog."""
        ...

    def query(
        self, ra: float, dec: float, radius_deg: float, band: str, color: str | None, epoch: float
    ) -> CatalogStars:
        """Return the stars in a cone.

        Parameters
        ----------
        ra, dec, radius_deg
            The cone, ICRS degrees.
        band
            Of the magnitudes; one of ``info.bands``.
        color
            Difference of two bands, as ``g-r``; None for none (NaN).
        epoch
            Decimal year to which proper motions carry the positions.

        Raises
        ------
        NoCatalog
            If it has no star there.
        NotFoundError
            If it has no such band or colour.
        """
        ...


def stars_at_epoch(
    rows: Mapping[str, npt.NDArray[Any]], info: CatalogInfo, band: str, color: str | None, epoch: float
) -> CatalogStars:
    """Turn catalog rows into stars at an epoch, their position errors grown by those of their motions.

    Parameters
    ----------
    rows
        Columns ``ra dec`` (deg), ``pmra pmdec pm_err`` (mas/yr, pmra includes cos dec), ``position_err_mas``,
        ``is_star``, and ``mag_<band>``, ``mag_<band>_err`` of the band and the colour's bands.
    """
    years = epoch - info.epoch
    shift = years / 3.6e6
    ra, dec = sky.offset(rows["ra"], rows["dec"], rows["pmra"] * shift, rows["pmdec"] * shift)
    error = np.hypot(_float(rows["position_err_mas"]), _float(rows["pm_err"]) * years)
    mag = _float(rows[f"mag_{band}"])
    first, second = bands_of(color) if color else (band, band)
    shade = (
        _float(rows[f"mag_{first}"]) - _float(rows[f"mag_{second}"]) if color else np.full(len(mag), np.nan)
    )
    return CatalogStars(
        ra, dec, error, mag, _float(rows[f"mag_{band}_err"]), shade, np.asarray(rows["is_star"], bool)
    )


def bands_of(color: str) -> tuple[str, str]:
    """Split ``g-r`` into its bands."""
    first, dash, second = color.partition("-")
    if not (first and dash and second):
        raise NotFoundError(f"{color!r} is no colour", cure="write it as two bands, like g-r")
    return first, second


def check_bands(info: CatalogInfo, band: str, color: str | None) -> None:
    """Refuse a band or colour that the catalog lacks, naming those it has."""
    for wanted in (band, *(bands_of(color) if color else ())):
        if wanted not in info.bands:
            raise NotFoundError(
                f"catalog {info.name} has no band {wanted!r}, only {', '.join(info.bands)}",
                cure="map your filter to one of these, or import the catalog again with a column mapping",
            )


def _float(column: npt.NDArray[Any]) -> Float:
    return np.asarray(column, np.float64)
