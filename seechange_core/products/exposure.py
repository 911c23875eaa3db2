"""Exposures: one opening of the shutter of a whole camera, and the raw files it left behind.

The raw files stay exactly as they came. The row keeps what people search for; pixels and full
headers are read from the files when asked for.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from sqlalchemy import BigInteger, CheckConstraint, String, event
from sqlalchemy.orm import Mapped, QueryContext, Session, mapped_column, validates

from seechange_core.errors import FileDamagedError, HeaderError, UserError
from seechange_core.frames import PointingHint, RawFrame
from seechange_core.instrument import (
    Instrument,
    SectionId,
    SensorSection,
    get_instrument_instance,
    guess_instrument,
)
from seechange_core.instrument.facts import read_site
from seechange_core.instrument.fits_reader import read_cards
from seechange_core.instrument.sensor_section import valid_rows
from seechange_core.numerics.sky import healpix_of
from seechange_core.numerics.timing import Site, mjd_now
from seechange_core.products.exposure_files import ReadSoFar, SectionData, SectionHeaders, name_of
from seechange_core.products.exposure_save import FACTS, save_exposure
from seechange_core.storage.archive import Archive, check_relative
from seechange_core.storage.orm import JSON_OR_NULL, Base, Identified, JsonDict

__all__ = ["EXPOSURE_HEADER_KEYS", "EXPOSURE_TYPES", "Exposure", "SectionData", "SectionHeaders", "name_of"]

Content = TypeVar("Content")

EXPOSURE_TYPES = ("science", "bias", "dark", "flat", "twilight_flat")

#: What every Exposure's `header` keeps, if the file has it; an instrument may add its own.
EXPOSURE_HEADER_KEYS = [
    "latitude_deg",
    "longitude_deg",
    "elevation_m",
    "gain",
    "read_noise",
    "saturation_limit",
]


class Exposure(Identified, Base):
    """One exposure of all sections of a camera.

    Parameters
    ----------
    filename
        Path of the raw file relative to a data root (an absolute one inside a root is made so). If the
        file is on this machine, its header fills the columns that are not given.
    nofile
        True makes an Exposure of pixels in memory: fill `data` and the columns, then `save`.
    **columns
        Values of columns; they win over the header's.

    Raises
    ------
    UserError
        If there is neither a filename nor `nofile`, or the path would leave the data root.
    NotFoundError
        If no instrument is known that made the file.
    FileDamagedError, HeaderError
        If the file is there and its header cannot be used.
    """

    __tablename__ = "exposures"
    __table_args__ = (
        CheckConstraint(f"type IN {EXPOSURE_TYPES}", name="known_type"),
        CheckConstraint("exp_time >= 0", name="exp_time_not_negative"),
    )

    filename: Mapped[str] = mapped_column(
        String,
        unique=True,
        doc="Path of the raw file relative to a data root, or what the paths of all its files begin with.",
    )
    filename_extensions: Mapped[list[str] | None] = mapped_column(
        JSON_OR_NULL, doc="What completes `filename` to each of several files; None for a single file."
    )
    name: Mapped[str] = mapped_column(
        String,
        unique=True,
        doc="What people and partitions call it: `filename` without folder and suffixes, and the night after "
        "it where an exposure of another night or instrument had that name already.",
    )
    type: Mapped[str] = mapped_column(
        String(16), index=True, doc="science, bias, dark, flat (of a dome or lamp) or twilight_flat."
    )
    instrument: Mapped[str] = mapped_column(String, index=True, doc="Name of the instrument.")
    telescope: Mapped[str | None] = mapped_column(String, index=True, doc="Name of the telescope.")
    mjd: Mapped[float] = mapped_column(index=True, doc="Start of the exposure, MJD (UTC).")
    mjd_mid: Mapped[float] = mapped_column(index=True, doc="Middle of the exposure, MJD (UTC).")
    night: Mapped[str] = mapped_column(
        String(10), index=True, doc="Local date of the evening on which the night began, YYYY-MM-DD."
    )
    exp_time: Mapped[float] = mapped_column(
        index=True, doc="Open-shutter time (dark time for a dark), seconds."
    )
    filter: Mapped[str | None] = mapped_column(
        String, index=True, doc="Short name of the filter; None for bias, dark and filter arrays."
    )
    filter_array: Mapped[list[str] | None] = mapped_column(
        JSON_OR_NULL, doc="Filters of a filter array in the order of its index; None for a single filter."
    )
    ra: Mapped[float | None] = mapped_column(doc="Right ascension the telescope pointed at, ICRS deg.")
    dec: Mapped[float | None] = mapped_column(doc="Declination the telescope pointed at, ICRS deg.")
    healpix: Mapped[int | None] = mapped_column(
        BigInteger, index=True, doc="HEALPix pixel of (ra, dec), order 29, nested."
    )
    footprint: Mapped[list[list[float]] | None] = mapped_column(
        JSON_OR_NULL, doc="Nominal corners of the mosaic, four [ra, dec] in ICRS deg; None if unknown."
    )
    project: Mapped[str | None] = mapped_column(
        String, index=True, doc="Project or proposal it was taken for."
    )
    target: Mapped[str | None] = mapped_column(String, index=True, doc="Name of the object or field.")
    airmass: Mapped[float | None] = mapped_column(doc="Airmass at the telescope's pointing.")
    header: Mapped[JsonDict] = mapped_column(
        doc="Further global header values by lower-case uniform name; repeats no column."
    )
    checksum: Mapped[str | None] = mapped_column(
        String(64), unique=True, doc="SHA-256, hexadecimal: of the file, or of its files' SHA-256s in turn."
    )
    size_bytes: Mapped[int | None] = mapped_column(BigInteger, doc="Size of the raw file or files.")
    unreadable_sections: Mapped[dict[str, str] | None] = mapped_column(
        JSON_OR_NULL,
        doc="Sections that could not be read when it was registered, with the reason; None: all could.",
    )
    bitflag: Mapped[int] = mapped_column(BigInteger, default=0, doc="`ExposureFlag` bits: 0 is good.")
    bad_reason: Mapped[str | None] = mapped_column(String, doc="Why a person marked it bad, in their words.")

    def __init__(self, filename: str | None = None, *, nofile: bool = False, **columns: Any) -> None:
        if filename is None and not nofile:
            raise UserError("an Exposure needs a file", cure="give filename=..., or nofile=True for none yet")
        super().__init__(**{"header": {}, "bitflag": 0, **columns})
        if filename is None:
            return
        self.filename = _relative(filename) if Path(filename).is_absolute() else filename
        if "name" not in columns:
            # What is a folder alone is completed to the files by their whole names.
            self.name = name_of(self.relative_paths[0] if self.filename.endswith("/") else self.filename)
        self._recognise(frozenset(columns))

    def _recognise(self, given: frozenset[str]) -> None:
        """Find the instrument and, if the file is here, fill the columns that were not given."""
        here = self._local_paths(Archive())
        if "instrument" not in given:
            try:
                cards = read_cards(here[0]) if here else None
                self.instrument = guess_instrument(PurePosixPath(self.filename).name, cards)
            except IsADirectoryError:
                raise UserError("it is a folder", cure="name a file", file=self.filename) from None
        if here:
            self.fill_from_header(given)

    @property
    def _so_far(self) -> ReadSoFar:
        """What was read so far; made here, because SQLAlchemy makes rows without ``__init__``."""
        state: ReadSoFar = self.__dict__.setdefault("_read_so_far", ReadSoFar())
        return state

    def __getstate__(self) -> dict[str, Any]:
        """Leave pixels and headers behind when crossing to another process."""
        return {**self.__dict__, "_read_so_far": self._so_far.without_files()}

    @validates("filename")
    def _inside_root(self, _: str, value: str) -> str:
        check_relative(value)
        return value

    @validates("filename_extensions")
    def _several(self, _: str, value: Sequence[str] | None) -> Sequence[str] | None:
        if isinstance(value, str) or (value is not None and not all(isinstance(v, str) for v in value)):
            raise UserError(f"filename_extensions = {value!r}", cure="give a list of texts")
        return value

    @validates("ra", "dec")
    def _with_healpix(self, key: str, value: float | None) -> float | None:
        ra, dec = (value, self.dec) if key == "ra" else (self.ra, value)
        self.healpix = None if ra is None or dec is None else int(healpix_of(ra, dec))
        return value

    def __repr__(self) -> str:
        return f"Exposure({self.filename!r})"

    # --- Instrument -----------------------------------------------------------------------------

    @property
    def instrument_object(self) -> Instrument:
        """The instance of the instrument that all its Exposures share, showing this Exposure's sections.

        The sections of another date are back when another Exposure's `instrument_object` is asked for;
        `sections` and `get_property` of the Exposure itself are always its own.
        """
        instance = get_instrument_instance(self.instrument)
        instance.sections = self.sections
        return instance

    @property
    def sections(self) -> dict[SectionId, SensorSection]:
        """The instrument's sections at the time of this exposure; those of now while it has no time yet."""
        instance = get_instrument_instance(self.instrument)
        mjd: float | None = self.mjd
        if mjd is None:
            return instance.complete(self._so_far.stored_sections, mjd_now())
        if self._so_far.sections is None:
            self._so_far.sections = instance.complete(self._so_far.stored_sections, mjd)
        return self._so_far.sections

    def update_instrument(self, session: Session | None = None) -> None:
        """Fetch the instrument's sections for this exposure's own date."""
        self._so_far.sections = get_instrument_instance(self.instrument).fetch_sections(session, self.mjd)

    def get_property(self, section_id: SectionId, prop: str) -> Any:
        """Return a property of a section at the time of this exposure."""
        return get_instrument_instance(self.instrument).get_property(section_id, prop, self.sections)

    def get_section_filter(self, section_id: SectionId) -> str | None:
        """Return the filter over a section: its own under a filter array."""
        if self.filter_array is None:
            return self.filter
        return self.filter_array[int(self.get_property(section_id, "filter_array_index"))]

    def get_pointing_hint(self, section_id: SectionId) -> PointingHint:
        """Return what is known of a section's place on the sky before it is solved."""
        instance = get_instrument_instance(self.instrument)
        return instance.get_pointing_hint(self.ra, self.dec, section_id, self.sections)

    def load_raw_frame(self, section_id: SectionId) -> RawFrame:
        """Read a section with what is known of its amplifiers, fetching the file if need be.

        Raises
        ------
        DeadSection
            If the section is known to be defective.
        FileDamagedError, SectionMissingError, PixelsError, HeaderError
            If it cannot be read, was found damaged when it was registered, or lacks a needed value.
        """
        paths = self.get_fullpath(as_list=True)
        instance = get_instrument_instance(self.instrument)
        return self._believed(section_id, instance.load_raw_frame(paths, section_id, self.sections))

    def _believed(self, section_id: SectionId, content: Content) -> Content:
        """Return what was read of a section, unless it was found damaged when it was registered."""
        reason = (self.unreadable_sections or {}).get(str(section_id))
        if reason is not None:
            raise FileDamagedError(
                f"when it was registered: {reason}",
                cure="ingest a good copy of the file; instrument_object.load_section_image reads it as it is",
                file=self.relative_paths[0],
                section=section_id,
            )
        return content

    @property
    def site(self) -> Site | None:
        """Where the telescope stood: as the header says, or as the instrument does."""
        return read_site(self.header, get_instrument_instance(self.instrument).site)

    # --- Files ----------------------------------------------------------------------------------

    @property
    def has_file(self) -> bool:
        """False for an Exposure in memory that was not saved yet."""
        return bool(self.filename)

    @property
    def relative_paths(self) -> list[str]:
        """The paths of its files relative to the data root."""
        if not self.has_file:
            raise UserError("the Exposure has no file yet", cure="call save()")
        if not self.filename_extensions:
            return [self.filename]
        return [f"{self.filename}{extension}" for extension in self.filename_extensions]

    def get_fullpath(self, download: bool = True, as_list: bool = False) -> str | list[str]:
        """Return where its file is on this machine.

        Local roots are searched first, then the server root, from which it is fetched and verified.

        Parameters
        ----------
        download
            False looks on this machine only.
        as_list
            Always return a list.

        Returns
        -------
        str or list of str
            A list also whenever the exposure has `filename_extensions`, even one alone.

        Raises
        ------
        FileNotFoundError
            If it, or one of its files, is nowhere.
        FileDamagedError
            If what the server has is not what was registered.
        SettingsError, PipelineError
            If the server refuses, or cannot be reached.
        """
        archive, relpaths = Archive(), self.relative_paths
        if self.filename_extensions:
            return list(map(str, archive.find_group(relpaths, checksum=self.checksum, download=download)))
        path = str(archive.find(relpaths[0], checksum=self.checksum, download=download))
        return [path] if as_list else path

    def _local_paths(self, archive: Archive) -> list[Path]:
        """Return the paths of its files if all are on this machine, or an empty list."""
        if not all(archive.exists(p) for p in self.relative_paths):
            return []
        return [archive.find(p, download=False) for p in self.relative_paths]

    @property
    def data(self) -> SectionData:
        """Raw pixels by section, read when asked for."""
        if self._so_far.data is None:
            instance = get_instrument_instance(self.instrument)
            self._so_far.data = SectionData(
                lambda: list(instance.get_section_ids()),
                lambda s: self._believed(s, instance.load_section_image(self.get_fullpath(as_list=True), s)),
            )
        return self._so_far.data

    @property
    def section_headers(self) -> SectionHeaders:
        """Raw headers by section, read when asked for."""
        if self._so_far.section_headers is None:
            instance = get_instrument_instance(self.instrument)
            self._so_far.section_headers = SectionHeaders(
                lambda: list(instance.get_section_ids()),
                lambda s: instance.read_section_header(self.get_fullpath(as_list=True), s),
            )
        return self._so_far.section_headers

    @property
    def raw_header(self) -> dict[str, Any]:
        """The file's global header, upper-case keywords; with one file per section, the first file's."""
        if self._so_far.raw_header is None:
            instance = get_instrument_instance(self.instrument)
            self._so_far.raw_header = (
                instance.read_header(self.get_fullpath(as_list=True)) if self.has_file else {}
            )
        return self._so_far.raw_header

    def fill_from_header(self, keep: Sequence[str] | frozenset[str] = ()) -> None:
        """Fill the columns from the file's header, fetching the file if need be.

        Parameters
        ----------
        keep
            Columns to leave as they are.

        Raises
        ------
        HeaderError
            If a needed card is missing or cannot be read.
        """
        try:
            self.read_from([Path(p) for p in self.get_fullpath(as_list=True)], keep)
        except HeaderError as error:
            raise HeaderError(error.message, cure=error.cure, file=self.relative_paths[0]) from None

    def read_from(self, paths: Sequence[Path], keep: Sequence[str] | frozenset[str] = ()) -> None:
        """Fill the columns from files wherever they are; otherwise as `fill_from_header`."""
        instance = get_instrument_instance(self.instrument)
        columns = self.__table__.columns
        own = [key.lower() for key in instance.get_auxiliary_exposure_header_keys()]
        extra = [*EXPOSURE_HEADER_KEYS, *(key for key in own if key not in columns)]
        self._so_far.raw_header = instance.read_header(paths)
        facts = instance.read_facts(self._so_far.raw_header, extra)
        for column in FACTS:
            if column not in keep:
                setattr(self, column, getattr(facts, column))
        if "footprint" not in keep:
            self.footprint = instance.get_footprint(self.ra, self.dec, self.sections)

    def save(self, filename: str | None = None) -> str:
        """Write pixels and headers in memory to a raw file that the instrument can read back.

        Parameters
        ----------
        filename
            Path relative to the data root; None makes one of instrument, night and time.

        Returns
        -------
        str
            The path relative to the data root.

        Raises
        ------
        UserError
            If a column that is needed was not filled, or the Exposure has files of the camera's own.
        PixelsError
            If a section has no pixels.
        HeaderError
            If what was written does not read back as the columns say.
        """
        return save_exposure(self, filename, Archive())


def _relative(path: str) -> str:
    """Return a path relative to the root it lies in, with the slash that a folder ends with."""
    return Archive().relative(path) + ("/" if path.endswith("/") else "")


@event.listens_for(Exposure, "load", restore_load_context=True)
def _on_load(exposure: Exposure, context: QueryContext | None) -> None:
    """Give an Exposure from the database its instrument's sections for its own date."""
    if context is None:  # from another process: it has them
        return
    exposure.__dict__.pop("_read_so_far", None)
    exposure._so_far.stored_sections = valid_rows(
        context.session, exposure.instrument, exposure.mjd, cached=True
    )
