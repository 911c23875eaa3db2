"""The sections of a camera: which there are, where they lie, and their properties at a date."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from seechange_core.errors import NotFoundError, UserError
from seechange_core.instrument.sensor_section import (
    SectionId,
    SensorSection,
    commit_rows,
    replace_row,
    valid_rows,
)
from seechange_core.numerics.timing import Moment, mjd_now, to_mjd

Sections = Mapping[SectionId, SensorSection]


class Sectioned:
    """The part of `Instrument` that knows its sections.

    Attributes
    ----------
    name
        Of the instrument.
    filter_array
        Names of the filters in the order of the index; None for one filter over all sections.
    sections
        By id; filled by `fetch_sections`.
    """

    name: str
    filter_array: list[str] | None = None
    sections: dict[SectionId, SensorSection]

    def get_section_ids(self) -> Sequence[SectionId]:
        """Return the ids of the sections: integers or strings."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its sections are")

    def check_section_id(self, section_id: SectionId) -> None:
        """Refuse what is not the id of a section, in type and value.

        Raises
        ------
        NotFoundError
            Naming the ids there are.
        """
        known = list(self.get_section_ids())
        if not any(section_id == s and type(section_id) is type(s) for s in known):
            raise NotFoundError(
                f"{self.name} has no section {section_id!r}", cure=f"its sections are {_short_list(known)}"
            )

    def section_id_of(self, key: str) -> SectionId:
        """Return the section id that a key (its string) stands for.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        for section_id in self.get_section_ids():
            if str(section_id) == key:
                return section_id
        known = _short_list(self.get_section_ids())
        raise NotFoundError(f"{self.name} has no section {key!r}", cure=f"its sections are {known}")

    def _make_new_section(self, section_id: SectionId) -> SensorSection:
        """Make a section with hard-coded properties; None where the instrument's own value holds."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its sections are made")

    def _make_section_at(self, section_id: SectionId, mjd: float) -> SensorSection:
        """Make a section as it was at an MJD (UTC), where the database has none for that date.

        A camera whose hard-coded properties changed over time replaces this, and gives each section the
        dates between which they are so; by default they never changed, and no dates mean just that.
        """
        return self._make_new_section(section_id)

    def hard_coded_section(self, section_id: SectionId, mjd: float) -> SensorSection:
        """Return a section as the camera's own code has it at an MJD (UTC), whatever the database has."""
        return self._make_section_at(section_id, mjd)

    def get_section_offsets(self, section_id: SectionId) -> tuple[float, float]:
        """Return a section's centre, (x, y) pixels from the mosaic's centre."""
        self.check_section_id(section_id)
        if len(self.get_section_ids()) == 1:
            return 0.0, 0.0
        raise NotImplementedError(f"{type(self).__name__} does not say where its sections lie")

    def get_section_filter_array_index(self, section_id: SectionId) -> int:
        """Return which filter of the array covers a section; 0 without an array."""
        self.check_section_id(section_id)
        if self.filter_array is None:
            return 0
        raise NotImplementedError(f"{type(self).__name__} does not say which filter covers which section")

    def get_sections(
        self, session: Session | None = None, dateobs: Moment | None = None
    ) -> dict[SectionId, SensorSection]:
        """Return the sections of a date, without keeping them; parameters as `fetch_sections`."""
        mjd = to_mjd(dateobs) if dateobs is not None else mjd_now()
        stored = valid_rows(session, self.name, mjd) if session is not None else {}
        return self.complete(stored, mjd)

    def complete(self, stored: Mapping[str, SensorSection], mjd: float) -> dict[SectionId, SensorSection]:
        """Return all sections: the stored ones (by their id's string), and new ones of a date for the rest.

        Parameters
        ----------
        stored
            What the database has for the date.
        mjd
            UTC.
        """
        return {s: stored.get(str(s)) or self._make_section_at(s, mjd) for s in self.get_section_ids()}

    def fetch_sections(
        self, session: Session | None = None, dateobs: Moment | None = None
    ) -> dict[SectionId, SensorSection]:
        """Fill `sections` with those of a date; each one the database lacks is made new. Final.

        Parameters
        ----------
        session
            Open session; None means no database.
        dateobs
            `datetime` (without time zone: UTC), astropy `Time`, MJD (UTC) or ``YYYY-MM-DDTHH:MM:SS.SSS``
            (UTC); None means now.

        Returns
        -------
        dict
            The sections by id.
        """
        self.sections = self.get_sections(session, dateobs)
        return self.sections

    def commit_sections(
        self, session: Session, validity_start: Moment | None = None, validity_end: Moment | None = None
    ) -> None:
        """Save the sections and commit the session; sections fetched from it are updated. Final.

        Parameters
        ----------
        session
            Open session.
        validity_start, validity_end
            For the sections that have no validity of their own: start included, end excluded. A new one
            that by the instrument's own word holds for some time only (a CCD before or after it was
            dead) is saved for what both have in common.

        Raises
        ------
        UserError
            If there are no sections, a validity ends before it starts, or has nothing in common with the
            dates given.
        ConflictError
            If a section has another row that holds at the same time. Nothing is written then.
        """
        rows = self._loaded(None)
        dated = {row.section_id for s, row in rows.items() if self._has_hard_coded_validity(s, row)}
        commit_rows(session, rows.values(), validity_start, validity_end, dated)

    def _has_hard_coded_validity(self, section_id: SectionId, row: SensorSection) -> bool:
        """Tell whether it is the instrument itself that limits the validity of a row never saved."""
        start, end = row.validity_start, row.validity_end
        inside = start if start is not None else end - 1e-6 if end is not None else None
        if getattr(row, "id", None) is not None or inside is None:
            return False
        made = self._make_section_at(section_id, inside)
        return (made.validity_start, made.validity_end) == (start, end)

    def replace_section(
        self, session: Session, section_id: SectionId, date: Moment, **properties: Any
    ) -> None:
        """Change a section from a date on, e.g. for a CCD that was exchanged, and commit the session. Final.

        The row that holds on that date ends there, and another begins, which holds as long as that one
        would have. Sections in memory stay as they are: `fetch_sections` gets the new one.

        Parameters
        ----------
        session
            Open session.
        section_id
            Which section.
        date
            From when on; any form that `fetch_sections` takes.
        **properties
            `identifier` and `SECTION_PROPERTIES` that are different from then on; the others stay. None
            means: as the instrument says.

        Raises
        ------
        UserError
            If there is no such property.
        ConflictError
            If a row of the section begins on that very date.
        """
        self.check_section_id(section_id)
        replace_row(session, self._make_section_at(section_id, to_mjd(date)), date, properties)

    def get_property(self, section_id: SectionId, prop: str, sections: Sections | None = None) -> Any:
        """Return a property of a section: its own if it has one, or the instrument's. Final.

        Parameters
        ----------
        section_id
            Which section.
        prop
            A name among `SECTION_PROPERTIES`, or any attribute of the instrument.
        sections
            Whose sections to ask, e.g. an Exposure's own; None takes those fetched last.
        """
        self.check_section_id(section_id)
        own = getattr(self._loaded(sections)[section_id], prop, None)
        if own is not None:
            return own
        if prop in {"offset_x", "offset_y"}:
            return self.get_section_offsets(section_id)[prop == "offset_y"]
        if prop == "filter_array_index":
            return self.get_section_filter_array_index(section_id)
        if not hasattr(self, prop):
            raise UserError(f"neither {self.name} nor its sections have a property {prop!r}")
        return getattr(self, prop)

    def _loaded(self, sections: Sections | None) -> Sections:
        chosen = self.sections if sections is None else sections
        if not chosen:
            raise UserError(f"the sections of {self.name} are not loaded", cure="call fetch_sections() first")
        return chosen


def _short_list(items: Sequence[SectionId]) -> str:
    names = [str(item) for item in items]
    return (
        ", ".join(names) if len(names) <= 12 else f"{names[0]}, {names[1]}, ..., {names[-1]} ({len(names)})"
    )
