"""What the products share: provenance, natural keys, places on the sky and names of files."""

import json
import uuid
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, ClassVar, Self, TypeVar

from sqlalchemy import (
    ColumnElement,
    ForeignKey,
    Select,
    TextClause,
    Uuid,
    false,
    func,
    null,
    or_,
    select,
    text,
)
from sqlalchemy.orm import InstrumentedAttribute, Mapped, Session, mapped_column, validates

from seechange_core.frames import WcsSolution
from seechange_core.numerics.sky import (
    bounding_cone,
    cell_ranges,
    cells_near,
    cone_ranges,
    footprint,
    healpix_of,
    polygon_contains,
    polygons_overlap,
)
from seechange_core.storage.orm import JSON_OR_NULL, HasFile, Identified, OnSky, Produced
from seechange_core.storage.rows import find_same, get_or_insert, insert_or_update

#: Keys in one query.
_KEYS_AT_ONCE = 10_000

Key = TypeVar("Key")

Corners = list[list[float]]
"""Four [ra, dec] in ICRS degrees, in order around an image."""


def link(target: str, doc: str, *, index: bool = True, cascade: bool = False) -> Any:
    """Declare a foreign key: one of the rows this one was made from."""
    return mapped_column(ForeignKey(target, ondelete="CASCADE" if cascade else None), index=index, doc=doc)


class Detail(Identified):
    """Mixin: a row among many that one processing made.

    `NATURAL_KEY` names the columns that tell what it is: the same thing made twice, even at once, is
    one row.
    """

    NATURAL_KEY: ClassVar[tuple[str, ...]]

    provenance_id: Mapped[str] = mapped_column(
        ForeignKey("provenances.id"), index=True, doc="The processing that made it."
    )


class Product(Identified, Produced):
    """Mixin: a product of the walk, told from all others by its `data_version`."""

    NATURAL_KEY: ClassVar[tuple[str, ...]] = ("data_version",)


class FileProduct(Product, HasFile):
    """Mixin: a product whose content is a file."""

    def file_written(self, filepath: str, checksum: str) -> None:
        """Note where the file is and what is in it."""
        self.filepath, self.checksum = filepath, checksum

    @property
    def file(self) -> str:
        """The file's path relative to the data root.

        Raises
        ------
        FileNotFoundError
            If none was written yet.
        """
        if self.filepath is None:
            raise FileNotFoundError(f"{type(self).__name__} {self.id} has no file yet: write it first")
        return self.filepath


class Located(OnSky):
    """Mixin: a point on the sky that keeps its HEALPix column right by itself."""

    @validates("ra", "dec")
    def _index_position(self, name: str, value: float) -> float:
        ra, dec = (value, self.dec) if name == "ra" else (self.ra, value)
        if ra is not None and dec is not None:
            self.healpix = int(healpix_of(ra, dec))
        return value


class Footprint(Located):
    """Mixin: a piece of the sky; (ra, dec) is its centre."""

    corners: Mapped[Corners | None] = mapped_column(
        JSON_OR_NULL,
        doc="Outer corners (left bottom, right bottom, right top, left top), four [ra, dec], ICRS deg.",
    )
    radius_deg: Mapped[float | None] = mapped_column(
        index=True, doc="Of the smallest circle around (ra, dec) that holds all corners, deg."
    )

    def cover(self, wcs: WcsSolution) -> Self:
        """Take centre, corners and radius from an astrometric solution, and return the row."""
        ra, dec = footprint(wcs.wcs, wcs.shape)
        self.ra, self.dec, self.radius_deg = bounding_cone(ra, dec)
        self.corners = [[float(a), float(d)] for a, d in zip(ra, dec, strict=True)]
        return self


AnyProduct = TypeVar("AnyProduct", bound=Any)
AnyFootprint = TypeVar("AnyFootprint", bound=Footprint)
AnyLocated = TypeVar("AnyLocated", bound=Any)


def save(session: Session, row: AnyProduct, *, replace: bool = False) -> AnyProduct:
    """Insert a product's row, or return the one that is there.

    Parameters
    ----------
    session
        An open session; nothing is committed here.
    row
        A new row, not added to the session.
    replace
        Give a row that is there the new one's values: the product was made again.

    Returns
    -------
    row
        The one in the session, whose `id` others refer to.
    """
    if replace:
        return insert_or_update(session, row, type(row).NATURAL_KEY)
    return get_or_insert(session, row, type(row).NATURAL_KEY)[0]


def existing(session: Session, row: AnyProduct) -> AnyProduct | None:
    """Return the row that has the same natural key, if there is one, and keep others from changing it."""
    return find_same(session, row, type(row).NATURAL_KEY, locked=True)


def chunks(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    """Yield keys in portions that one query can name."""
    return (keys[i : i + _KEYS_AT_ONCE] for i in range(0, len(keys), _KEYS_AT_ONCE))


# --- The sky ------------------------------------------------------------------------------------


#: Of smaller cones few cells do: the rows next to them cost less than finding thinner rims.
_SMALL_DEG = 1 / 60


def in_cone(
    healpix: InstrumentedAttribute[int] | InstrumentedAttribute[int | None],
    ra: float,
    dec: float,
    radius_deg: float,
) -> ColumnElement[bool]:
    """Make the condition that a HEALPix column lies in a cone, or just outside of it."""
    ranges = _ranges(ra, dec, radius_deg)
    return or_(false(), *(healpix.between(low, high - 1) for low, high in ranges))


def _ranges(ra: float, dec: float, radius_deg: float) -> list[tuple[int, int]]:
    """Return the ranges of the HEALPix index that hold a cone."""
    small = radius_deg < _SMALL_DEG
    return cell_ranges(*cells_near(ra, dec, radius_deg)) if small else cone_ranges(ra, dec, radius_deg)


def ids_in_ranges(
    session: Session, kind: type[AnyLocated], ranges: Sequence[tuple[int, int]]
) -> list[uuid.UUID]:
    """Return the keys of the rows of a table of places that lie in half-open ranges of its HEALPix column.

    One statement, the same for any number of ranges, goes through the ranges and looks each up in the index:
    given them as conditions, SQLite, which has no statistics of a table, reads all of it if they are many.
    """
    engine = session.get_bind().dialect.name
    statement = _look_up(kind.__tablename__, engine, "id").columns(id=Uuid())
    return list(session.scalars(statement, _given(ranges, engine)))


def _given(ranges: Sequence[tuple[int, int]], engine: str) -> dict[str, Any]:
    low, high = [r[0] for r in ranges], [r[1] - 1 for r in ranges]
    if engine == "postgresql":
        return {"low": low, "high": high}
    return {"ranges": json.dumps(list(zip(low, high, strict=True)))}


@cache
def _look_up(table: str, engine: str, columns: str) -> TextClause:
    """Select columns of the rows of a table that lie in ranges of its HEALPix column, see `_given`."""
    ranges, low, high = (
        "json_each(:ranges) AS r",
        "json_extract(r.value, '$[0]')",
        "json_extract(r.value, '$[1]')",
    )
    if engine == "postgresql":
        ranges = "unnest(CAST(:low AS bigint[]), CAST(:high AS bigint[])) AS r(low, high)"
        low, high = "r.low", "r.high"
    # SQLite keeps the order of a cross join; and what has a limit it works out by itself.
    most, place = (f"LIMIT {2**62}", "main.") if engine == "sqlite" else ("", "")
    return text(
        f'SELECT t.{columns} FROM {ranges} CROSS JOIN {place}"{table}" AS t '  # "references" is a word of SQL
        f"WHERE t.healpix BETWEEN {low} AND {high} {most}"
    )


def unindexed(column: InstrumentedAttribute[Any]) -> ColumnElement[Any]:
    """Return a column that cannot be null as an expression for which no index is looked up.

    For conditions beside keys: from a handful of keys on, SQLite, which has no statistics of a table, would
    rather go by the index of `is_bad` or a provenance, through all the rows there are.
    """
    return func.coalesce(column, null())


def rows_in_cone(
    session: Session, query: Select[AnyLocated], ra: float, dec: float, radius_deg: float
) -> list[AnyLocated]:
    """Run a query for rows of one table of places, keeping those in a cone, or just outside of it.

    SQLite would rather read half of the table by the index of a condition such as `is_bad` than take the
    narrow ranges of the place. There, the query is given what lies in these under the name of the table.

    Parameters
    ----------
    session
        An open session.
    query
        Selects rows of one table that have a HEALPix column.
    ra, dec, radius_deg
        The cone, ICRS deg.
    """
    kind: type[AnyLocated] = query.column_descriptions[0]["entity"]
    if session.get_bind().dialect.name != "sqlite":
        return list(session.scalars(query.where(in_cone(kind.healpix, ra, dec, radius_deg))))
    near = _look_up(kind.__tablename__, "sqlite", "*").columns().cte(kind.__tablename__)
    return list(session.scalars(query.add_cte(near), _given(_ranges(ra, dec, radius_deg), "sqlite")))


def overlapping(session: Session, query: Select[AnyFootprint], corners: Corners) -> list[AnyFootprint]:
    """Run a query for footprints, keeping those that overlap a piece of the sky.

    Parameters
    ----------
    session
        An open session.
    query
        Selects rows of one table that has footprints.
    corners
        Of the piece of sky; one corner alone is a point.
    """
    kind: type[AnyFootprint] = query.column_descriptions[0]["entity"]
    ra, dec, radius = bounding_cone(*zip(*corners, strict=True))
    largest = session.scalar(select(func.max(kind.radius_deg))) or 0.0
    rows = rows_in_cone(session, query, ra, dec, min(180.0, radius + largest))
    return [row for row in rows if row.corners and _overlap(row.corners, corners)]


def _overlap(one: Corners, other: Corners) -> bool:
    ra1, dec1 = zip(*one, strict=True)
    if len(other) == 1:
        return bool(polygon_contains(ra1, dec1, other[0][0], other[0][1]))
    ra2, dec2 = zip(*other, strict=True)
    return polygons_overlap(ra1, dec1, ra2, dec2)
