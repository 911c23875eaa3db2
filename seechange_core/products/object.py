"""Objects: what is seen again and again at one place on the sky, real or bogus."""

from sqlalchemy import Select, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from seechange_core.numerics.sky import separation
from seechange_core.products.base import Detail, Located, in_cone
from seechange_core.storage.orm import Base

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_FIRST = 1 + 26 + 26**2
"""Number of ``aaa`` when names are counted a, b, ..., z, aa, ...: shorter ones are not used."""


class Object(Detail, Located, Base):
    """One astronomical object (real or bogus); its `Sighting` rows refer to it."""

    __tablename__ = "objects"
    NATURAL_KEY = ("name",)

    name: Mapped[str] = mapped_column(unique=True, doc="Such as obj2026aab: year of discovery and letters.")
    ra_err_arcsec: Mapped[float] = mapped_column(doc="1-sigma error towards east, on the sky, arcsec.")
    dec_err_arcsec: Mapped[float] = mapped_column(doc="1-sigma error towards north, arcsec.")
    n_sightings: Mapped[int] = mapped_column(default=0, doc="How many sightings refer to it.")
    first_mjd: Mapped[float | None] = mapped_column(
        doc="Middle of the exposure of its first sighting, MJD (UTC)."
    )
    last_mjd: Mapped[float | None] = mapped_column(
        index=True, doc="Middle of the exposure of its last sighting, MJD (UTC)."
    )
    is_bad: Mapped[bool] = mapped_column(default=False, index=True, doc="Taken for bogus.")
    bad_reason: Mapped[str | None] = mapped_column(doc="Why it is taken for bogus.")


class ObjectNameCounter(Base):
    """How many names of objects a year has given away."""

    __tablename__ = "object_name_counters"

    year: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, doc="Of discovery.")
    n_given: Mapped[int] = mapped_column(doc="How many names were given.")


def take_names(session: Session, year: int, n_names: int) -> list[str]:
    """Take names that no other process gets.

    Others who want one of the same year wait until this session ends; names of one that is rolled
    back are given again.
    """
    if n_names == 0:
        return []
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(ObjectNameCounter).values(year=year, n_given=n_names)
    upsert = statement.on_conflict_do_update(
        index_elements=["year"], set_={"n_given": ObjectNameCounter.n_given + n_names}
    ).returning(ObjectNameCounter.n_given)
    last: int = session.execute(upsert).scalar_one()
    return [object_name(year, number) for number in range(last - n_names, last)]


def object_name(year: int, number: int) -> str:
    """Spell a name: number 0 of 2026 is obj2026aaa, 1 is obj2026aab, 17576 is obj2026aaaa."""
    letters, rest = "", number + _FIRST
    while rest > 0:
        rest, letter = divmod(rest - 1, 26)
        letters = ALPHABET[letter] + letters
    return f"obj{year}{letters}"


def find_objects(
    session: Session,
    ra: float,
    dec: float,
    radius_arcsec: float,
    query: Select[Object] | None = None,
) -> list[tuple[Object, float]]:
    """Return the objects in a cone with their distances in arcsec, the nearest first.

    Parameters
    ----------
    session
        An open session.
    ra, dec, radius_arcsec
        The cone, ICRS deg.
    query
        Selects among the objects (one provenance's, good ones, ...); None takes all.
    """
    query = select(Object) if query is None else query
    rows = list(session.scalars(query.where(in_cone(Object.healpix, ra, dec, radius_arcsec / 3600))))
    distances = [float(separation(ra, dec, row.ra, row.dec)) * 3600 for row in rows]
    pairs = [(row, d) for row, d in zip(rows, distances, strict=True) if d <= radius_arcsec]
    return sorted(pairs, key=lambda pair: pair[1])
