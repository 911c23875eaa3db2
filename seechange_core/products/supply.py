"""Supplying calibrators: files made elsewhere become rows and files of ours, whole or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from seechange_core.errors import NotFoundError, PixelsError, UserError
from seechange_core.instrument import Instrument, SectionId, Sections, get_instrument_instance
from seechange_core.numerics.timing import Moment, mjd_now, mjd_to_iso, to_mjd
from seechange_core.products.calibrator import (
    FROM_EVER,
    KINDS,
    WITH_FILTER,
    Calibrator,
    Content,
    save_calibrator,
)
from seechange_core.products.place import Place
from seechange_core.products.provenance import record_provenance
from seechange_core.products.supply_files import CODE_VERSION, check_shape, read_supplied
from seechange_core.provenance import ProvenanceKey, digest
from seechange_core.settings import Settings, get_settings, use_settings
from seechange_core.storage.archive import Archive, sha256_of
from seechange_core.storage.engine import open_session

SUPPLIED = "supplied"
#: Night of what was supplied without any date.
UNDATED = "undated"


@dataclass(frozen=True)
class _Dates:
    """When a calibrator holds, and the date that counts as its own, MJD (UTC)."""

    start: float
    end: float | None
    own: float | None

    @property
    def sections(self) -> float:
        """The date whose sections it must fit."""
        return mjd_now() if self.own is None else self.own


def supply(
    path: str | Path,
    kind: str,
    instrument: str,
    *,
    section: str | None = None,
    band: str = "",
    valid_from: Moment | None = None,
    valid_to: Moment | None = None,
    date: Moment | None = None,
    settings: Settings | None = None,
) -> list[Calibrator]:
    """Take a calibrator made elsewhere: of all sections its file has, or of none.

    The same content supplied again is the same calibrator, with the dates given last. Of several that
    are valid for an exposure, the one whose date is nearest to it is used. One without any date serves
    where no dated one does. Of those of one date, or of none, the one added last is used.

    Parameters
    ----------
    path
        The file; what it must look like is in `supply_files`.
    kind
        One of `calibrator.KINDS`.
    instrument
        Name of the instrument.
    section
        Only this section; needed where the file does not say which section it is of.
    band
        Name of the filter, for flats, fringes and illuminations; under a filter array each section's own
        is taken if none is given.
    valid_from, valid_to
        It serves exposures from here on, and until before there; None is no limit.
    date
        The date that counts as its own; None takes the beginning of its validity, else its end.
    settings
        None takes the process's settings.

    Returns
    -------
    list of Calibrator
        Their rows, committed and in no session.

    Raises
    ------
    NotFoundError
        If there is no such file, instrument or section.
    UserError
        If the kind is unknown, a filter is missing or out of place, or the dates are impossible.
    BadDataError, FileDamagedError
        If the file cannot be used.
    """
    chosen = settings if settings is not None else get_settings()
    source = Path(path).expanduser()
    if not source.is_file():
        raise NotFoundError(
            "there is no such file", cure="give the path of a calibrator's file", file=str(path)
        )
    if kind not in KINDS:
        raise UserError(f"{kind!r} is no kind of calibrator", cure=f"the kinds are {', '.join(KINDS)}")
    with use_settings(chosen):
        camera = get_instrument_instance(instrument)
        if section is not None:
            camera.section_id_of(section)
        _check_band(kind, band, camera)
        dates = _dates(valid_from, valid_to, date)
        key = ProvenanceKey(kind, CODE_VERSION, {"sha256": sha256_of(source), "origin": SUPPLIED})
        return _Supply(chosen, source, camera, kind, band, dates, key).run(section)


@dataclass(frozen=True)
class _Supply:
    settings: Settings
    source: Path
    camera: Instrument
    kind: str
    band: str
    dates: _Dates
    key: ProvenanceKey

    def run(self, section: str | None) -> list[Calibrator]:
        """Write a file for each section as it is read, and record all of them at the end."""
        archive, written, rows = Archive(self.settings), list[str](), list[Calibrator]()
        with open_session(self.settings, read_only=True) as session:
            sections = self.camera.get_sections(session, self.dates.sections)
        ids = {str(section_id): section_id for section_id in sections}
        try:
            for name, content in read_supplied(self.source, self.kind, list(ids), section):
                self._check_size(content, ids[name], sections)
                row = self._row(name, self._band_of(ids[name], sections))
                # Its path does not depend on its dates: giving it others moves nothing.
                place = Place.of_master(self.camera.name, SUPPLIED, name)
                if not archive.exists(path := row.path_at(archive, place)):
                    written.append(path)
                row.write(archive, content, place)
                rows.append(row)
            return self._record(rows)
        except BaseException:
            self._clear_up(written, archive)
            raise

    def _check_size(self, content: Content, section_id: SectionId, sections: Sections) -> None:
        width, height = (
            self.camera.get_property(section_id, prop, sections) for prop in ("size_x", "size_y")
        )
        try:
            check_shape(content, width, height)
        except PixelsError as error:
            error.section, error.file = section_id, str(self.source)
            raise

    def _band_of(self, section_id: SectionId, sections: Sections) -> str:
        """Return the filter: the one given, or under a filter array the section's own."""
        if self.kind not in WITH_FILTER or self.band or self.camera.filter_array is None:
            return self.band
        index = self.camera.get_property(section_id, "filter_array_index", sections)
        return self.camera.filter_array[int(index)]

    def _record(self, rows: Sequence[Calibrator]) -> list[Calibrator]:
        """Record all rows at once."""
        with open_session(self.settings) as session:
            record_provenance(session, self.key)
            return [save_calibrator(session, row) for row in rows]

    def _clear_up(self, written: Sequence[str], archive: Archive) -> None:
        """Remove the files that were written, unless another process has recorded them meanwhile."""
        with open_session(self.settings, read_only=True) as session:
            query = select(Calibrator.filepath).where(Calibrator.filepath.in_(written))
            recorded = set(session.scalars(query))
        for file in written:
            if file not in recorded:
                archive.remove(file)

    def _row(self, section: str, band: str) -> Calibrator:
        return Calibrator(
            kind=self.kind,
            instrument=self.camera.name,
            section_id=section,
            filter=band,
            night=UNDATED if self.dates.own is None else mjd_to_iso(self.dates.own)[:10],
            mjd=FROM_EVER if self.dates.own is None else self.dates.own,
            validity_start=self.dates.start,
            validity_end=self.dates.end,
            origin=SUPPLIED,
            source=self.source.name,
            provenance_id=self.key.id,
            data_version=digest(self.key.id, self.camera.name, section, band),
        )


def _check_band(kind: str, band: str, camera: Instrument) -> None:
    if band and kind not in WITH_FILTER:
        raise UserError(f"a {kind} belongs to no filter, got {band!r}", cure="leave the filter out")
    if kind in WITH_FILTER and not band and camera.filter_array is None:
        raise UserError(f"a {kind} belongs to a filter", cure="name it, e.g. --filter r")


def _dates(valid_from: Moment | None, valid_to: Moment | None, date: Moment | None) -> _Dates:
    start = to_mjd(valid_from) if valid_from is not None else FROM_EVER
    end = to_mjd(valid_to) if valid_to is not None else None
    if end is not None and end <= start:
        raise UserError(
            f"valid from {mjd_to_iso(start)} to {mjd_to_iso(end)}: never", cure="exchange the dates"
        )
    given = next((moment for moment in (date, valid_from, valid_to) if moment is not None), None)
    if given is None:
        return _Dates(start, end, None)
    own = to_mjd(given)
    if not start <= own <= (end if end is not None else own):
        raise UserError(
            f"its date {mjd_to_iso(own)[:10]} lies outside of its validity", cure="give a date inside of it"
        )
    return _Dates(start, end, own)
