"""Objects: what is seen again and again at one place on the sky, real or bogus."""

import uuid

from sqlalchemy import Select, String, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from seechange_core.numerics.sky import healpix_of, separation
from seechange_core.numerics.timing import mjd_to_iso
from seechange_core.products.base import Detail, Located, link, rows_in_cone
from seechange_core.storage.orm import JSON_OR_NULL, Base, Identified, JsonDict

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
#: Nine letters tell all HEALPix cells of this order apart, 0.4 arcsec wide: closer than that is one object.
NAME_ORDER, N_LETTERS = 19, 9
#: No two places of such a cell, and of a cell of sexagesimal names, are further apart.
NAME_CELL_ARCSEC = 0.75


class Object(Detail, Located, Base):
    """One astronomical object (real or bogus); its `Sighting` rows refer to it."""

    __tablename__ = "objects"
    NATURAL_KEY = ("name", "provenance_id")
    __table_args__ = (UniqueConstraint(*NATURAL_KEY),)

    name: Mapped[str] = mapped_column(
        doc="Such as obj2026kqbzmapfe: year and place of its first sighting; the same under all settings."
    )
    ra_err_arcsec: Mapped[float] = mapped_column(doc="1-sigma error towards east, on the sky, arcsec.")
    dec_err_arcsec: Mapped[float] = mapped_column(doc="1-sigma error towards north, arcsec.")
    n_sightings: Mapped[int] = mapped_column(default=0, doc="How many sightings refer to it.")
    first_mjd: Mapped[float | None] = mapped_column(
        doc="Middle of the exposure of its first sighting, MJD (UTC)."
    )
    last_mjd: Mapped[float | None] = mapped_column(
        index=True, doc="Middle of the exposure of its last sighting, MJD (UTC)."
    )
    place_sums: Mapped[JsonDict | None] = mapped_column(
        JSON_OR_NULL,
        doc="Its best-placed sighting (place, key of its measurement), and the sums over all of them: see "
        "`PlaceSums`. NULL: not known.",
    )
    is_bad: Mapped[bool] = mapped_column(default=False, index=True, doc="Taken for bogus.")
    bad_reason: Mapped[str | None] = mapped_column(doc="Why it is taken for bogus.")


class ObjectAlias(Identified, Base):
    """A name that an object had before, or that another one had which turned out to be the same."""

    __tablename__ = "object_aliases"

    object_id: Mapped[uuid.UUID] = link("objects.id", "What is meant by the name now.", cascade=True)
    name: Mapped[str] = mapped_column(index=True, doc="The earlier name.")
    how: Mapped[str] = mapped_column(
        String(8), doc="renamed: an earlier sighting came in; merged: two objects turned out to be one."
    )


def object_name(pattern: str, ra: float, dec: float, mjd: float) -> str:
    """Spell the name of what was first seen at a place and time.

    It depends on nothing else, so that the same object has the same name whatever else was found, in
    whichever order, and under all settings.

    Parameters
    ----------
    pattern
        With ``%Y``, ``%y``, ``%m``, ``%d`` for the date of the first sighting (UTC), and for its place ``%a``
        (nine letters; places near each other mostly begin alike) or ``%J`` (such as J100012.34+021530.1,
        truncated as the IAU asks).
    ra, dec, mjd
        Of the first sighting, ICRS deg and days.
    """
    iso = mjd_to_iso(mjd)
    parts = {"%Y": iso[:4], "%y": iso[2:4], "%m": iso[5:7], "%d": iso[8:10]}
    parts |= {"%a": _letters(ra, dec), "%J": _sexagesimal(ra, dec)}
    for key, text in parts.items():
        pattern = pattern.replace(key, text)
    return pattern


def _letters(ra: float, dec: float) -> str:
    letters, rest = "", int(healpix_of(ra, dec, NAME_ORDER))
    for _ in range(N_LETTERS):
        rest, letter = divmod(rest, len(ALPHABET))
        letters = ALPHABET[letter] + letters
    return letters


def _sexagesimal(ra: float, dec: float) -> str:
    # Truncated, but for what is less than a thousandth of the last digit.
    time, angle = int(round(ra / 15 * 360_000, 3)) % 8_640_000, int(round(abs(dec) * 36_000, 3))
    hours, minutes, seconds = time // 360_000, time // 6000 % 60, time % 6000 / 100
    degrees, arcmin, arcsec = angle // 36_000, angle // 600 % 60, angle % 600 / 10
    sign = "-" if dec < 0 else "+"
    return f"J{hours:02d}{minutes:02d}{seconds:05.2f}{sign}{degrees:02d}{arcmin:02d}{arcsec:04.1f}"


def objects_named(session: Session, name: str) -> list[Object]:
    """Return the objects that have a name now, one of each processing, then those that had it earlier.

    The newest first, of either.
    """
    now = list(session.scalars(select(Object).where(Object.name == name).order_by(Object.id.desc())))
    query = (
        select(Object)
        .join(ObjectAlias, ObjectAlias.object_id == Object.id)
        .where(ObjectAlias.name == name)
        .order_by(ObjectAlias.created_at.desc(), ObjectAlias.id.desc())
    )
    return now + [row for row in session.scalars(query) if row not in now]


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
    rows = rows_in_cone(session, query, ra, dec, radius_arcsec / 3600)
    distances = separation(ra, dec, [row.ra for row in rows], [row.dec for row in rows]) * 3600
    pairs = [(row, d) for row, d in zip(rows, distances.tolist(), strict=True) if d <= radius_arcsec]
    return sorted(pairs, key=lambda pair: pair[1])
