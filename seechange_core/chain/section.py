"""One section of one exposure on its walk: what is known of it, and what is in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from sqlalchemy import select

from seechange_core.chain.lineage import provenances
from seechange_core.errors import NotFoundError, PipelineError
from seechange_core.instrument import Instrument, SectionId
from seechange_core.products.base import FileProduct, Product
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image
from seechange_core.products.place import Place
from seechange_core.provenance import ProvenanceKey
from seechange_core.settings import AnyParams, Settings
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session
from seechange_core.storage.orm import HasFile

T = TypeVar("T")
Row = TypeVar("Row", bound=Product)
FileRow = TypeVar("FileRow", bound=FileProduct)


@dataclass
class Section:
    """One section of one exposure, walked through the chain.

    Attributes
    ----------
    settings
        Of the run.
    exposure
        Its row, detached.
    section_id
        The instrument's own id (int or str).
    versions
        Data version of each step that has a product now, by step name.
    products
        What steps made or loaded, by step name: rows and frames.
    redo
        Make again also what is there: set by the walk for the step at hand.
    """

    settings: Settings
    exposure: Exposure
    section_id: SectionId
    versions: dict[str, str] = field(default_factory=dict)
    products: dict[str, Any] = field(default_factory=dict)
    redo: bool = False

    @classmethod
    def open(cls, settings: Settings, exposure_name: str, section_id: str) -> "Section":
        """Find the exposure and check the section's id.

        Raises
        ------
        NotFoundError
            If there is no such exposure, or its instrument has no such section.
        """
        with open_session(settings, read_only=True) as session:
            exposure = session.scalar(select(Exposure).where(Exposure.name == exposure_name))
            if exposure is None:
                raise NotFoundError(
                    "not in the database", exposure=exposure_name, cure="ingest its raw file first"
                )
            exposure.update_instrument(session)
        ids = {str(i): i for i in exposure.instrument_object.get_section_ids()}
        if section_id not in ids:
            raise NotFoundError(
                f"{exposure.instrument} has no such section",
                exposure=exposure_name,
                section=section_id,
                cure=f"its sections are {', '.join(ids)}",
            )
        return cls(settings, exposure, ids[section_id])

    @cached_property
    def instrument(self) -> Instrument:
        """The instrument, with this exposure's sections."""
        return self.exposure.instrument_object

    @cached_property
    def archive(self) -> Archive:
        """The files."""
        return Archive(self.settings)

    @cached_property
    def provenances(self) -> dict[str, ProvenanceKey]:
        """Provenance of every process under the present settings."""
        return provenances(self.settings, self.exposure.instrument)

    @property
    def section(self) -> str:
        """The section's id as text: what rows, files and partitions use."""
        return str(self.section_id)

    @cached_property
    def place(self) -> Place:
        """Where its files go."""
        return Place(self.exposure.instrument, self.exposure.night, self.exposure.name, self.section)

    @property
    def band(self) -> str:
        """Filter in front of this section: with a filter array, the section's own.

        Raises
        ------
        PipelineError
            If the exposure has none: a science exposure always does.
        """
        band = self.exposure.get_section_filter(self.section_id)
        if band is None:
            raise PipelineError("a science exposure without a filter", exposure=self.exposure.name)
        return band

    def params(self, kind: type[AnyParams], stage: str) -> AnyParams:
        """Return a stage's parameters for this instrument."""
        return self.settings.params(kind, stage, self.exposure.instrument)

    def provenance_id(self, process: str) -> str:
        """Return the id of a process's provenance under the present settings."""
        return self.provenances[process].id

    def row(self, kind: type[Row], step: str) -> Row | None:
        """Return the row of a table that belongs to a step's present data version, if it was made."""
        with open_session(self.settings, read_only=True) as session:
            return session.scalar(select(kind).where(kind.data_version == self.versions[step]))

    def has_file(self, kind: type[FileRow], step: str) -> bool:
        """Tell whether the row and its file are there."""
        row = self.row(kind, step)
        return row is not None and has_file(row, self.archive)

    def needed(self, kind: type[Row], step: str) -> Row:
        """Return that row.

        Raises
        ------
        PipelineError
            If it is not there: its step has not run.
        """
        key = f"{kind.__name__} of {step}"
        if key not in self.products:
            row = self.row(kind, step)
            if row is None:
                raise PipelineError(
                    f"its {step} is not in the database", exposure=self.exposure.name, section=self.section
                )
            self.products[key] = row
        found: Row = self.products[key]
        return found

    def product(self, name: str, load: Callable[[], T]) -> T:
        """Return something of this section from memory, loading it once if it is not there."""
        if name not in self.products:
            self.products[name] = load()
        found: T = self.products[name]
        return found


def has_file(row: HasFile, archive: Archive) -> bool:
    """Tell whether a row's file is here, or on the server: nothing is fetched to know it."""
    if row.filepath is None:
        return False
    paths = row.relative_paths if isinstance(row, Image) else [row.filepath]
    return all(archive.is_somewhere(path) for path in paths)
