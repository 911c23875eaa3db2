"""What every reference catalog promises, and how its rows become stars at an epoch."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from seechange_core.catalogs.recipe import FetchRecipe
from seechange_core.catalogs.transformations import derived_bands, measured_bands, transform
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
        Bands it has magnitudes in; `serves` adds those it can be transformed to.
    colors
        Colours of these, as ``g-r``.
    source
        Where it came from.
    n_stars
        Rows; of a growing catalog, those of one part of it or 0.
    checksum
        Names one content. Of a growing catalog it names the recipe, and one part's content has its own.
    tile_order
        HEALPix order of its files.
    assumed
        The errors assumed where the source states none, by name.
    columns
        Which of the source's columns became ours: our name to its name.
    relative
        Made from images of ours: positions and magnitudes are good relative to their own field only.
    recipe
        How to fetch more of it; None if it is whole.
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
    columns: dict[str, str] = {}
    relative: bool = False
    recipe: FetchRecipe | None = None

    @property
    def serves(self) -> tuple[str, ...]:
        """Bands it gives magnitudes in: its own, and those of published transformations."""
        return (*self.bands, *derived_bands(self.bands))

    def color_named(self, color: str | None) -> str | None:
        """Return the colour that is meant: for ``auto`` g-r, or none where it does not serve both bands."""
        if color != "auto":
            return color
        return "g-r" if {"g", "r"} <= set(self.serves) else None


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
            Of the magnitudes; one of ``info.serves``.
        color
            Difference of two of these, as ``g-r``; ``auto`` for g-r where it serves both; None: none (NaN).
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
        ``is_star``, and ``mag_<band>``, ``mag_<band>_err`` of the `measured_bands` of band and colour.
    """
    years = epoch - info.epoch
    shift = years / 3.6e6
    ra, dec = sky.offset(rows["ra"], rows["dec"], rows["pmra"] * shift, rows["pmdec"] * shift)
    error = np.hypot(_float(rows["position_err_mas"]), _float(rows["pm_err"]) * years)

    def measured(name: str) -> tuple[Float, Float]:
        return _float(rows[f"mag_{name}"]), _float(rows[f"mag_{name}_err"])

    def magnitude(name: str) -> tuple[Float, Float]:
        return measured(name) if name in info.bands else transform(name, measured)

    mag, mag_err = magnitude(band)
    shade = np.full(len(mag), np.nan)
    if color:
        first, second = bands_of(color)
        shade = magnitude(first)[0] - magnitude(second)[0]
    return CatalogStars(ra, dec, error, mag, mag_err, shade, np.asarray(rows["is_star"], bool))


def columns_for(info: CatalogInfo, band: str, color: str | None) -> list[str]:
    """Name the columns that `stars_at_epoch` needs.

    Raises
    ------
    NotFoundError
        If the catalog does not serve the band or colour.
    """
    wanted = dict.fromkeys((band, *(bands_of(color) if color else ())))
    for name in wanted:
        if name not in info.serves:
            setting = "photometry.catalog_band" if name == band else "photometry.catalog_color"
            raise NotFoundError(
                f"catalog {info.name} has no band {name!r}, only {', '.join(info.serves)}",
                cure=f"choose among these with the setting {setting}, or import the catalog again with "
                f"--column mag_{name}=COL",
            )
    measured = dict.fromkeys(m for name in wanted for m in measured_bands(name, info.bands))
    magnitudes = [f"mag_{name}{end}" for name in measured for end in ("", "_err")]
    return ["ra", "dec", "pmra", "pmdec", "pm_err", "position_err_mas", "is_star", *magnitudes]


def bands_of(color: str) -> tuple[str, str]:
    """Split ``g-r`` into its bands."""
    first, dash, second = color.partition("-")
    if not (first and dash and second):
        raise NotFoundError(f"{color!r} is no colour", cure="write it as two bands, like g-r")
    return first, second


def _float(column: npt.NDArray[Any]) -> Float:
    return np.asarray(column, np.float64)
