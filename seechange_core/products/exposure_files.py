"""The pixels and headers of an Exposure's raw files, read section by section when asked for."""

import re
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Generic, TypeVar

import numpy.typing as npt

from seechange_core.errors import SeeChangeError, UserError
from seechange_core.instrument import SectionId, SensorSection

Content = TypeVar("Content")

#: Endings that say how a file is packed, not what it is called.
_SUFFIXES = frozenset({".fits", ".fit", ".fts", ".fz", ".gz", ".bz2"})


class LazySections(MutableMapping[SectionId, Content], Generic[Content]):
    """A dictionary by section id whose values are made when first asked for, and kept.

    Parameters
    ----------
    section_ids
        The keys.
    load
        Makes the value of a section.
    """

    def __init__(
        self, section_ids: Callable[[], list[SectionId]], load: Callable[[SectionId], Content]
    ) -> None:
        self._section_ids = section_ids
        self._load = load
        self._loaded: dict[SectionId, Content] = {}

    def __getitem__(self, section_id: SectionId) -> Content:
        if section_id not in self._loaded:
            try:
                self._loaded[section_id] = self._load(section_id)
            except SeeChangeError as error:
                error.section = section_id if error.section is None else error.section
                raise
        return self._loaded[section_id]

    def __setitem__(self, section_id: SectionId, value: Content) -> None:
        self._loaded[section_id] = value

    def __delitem__(self, section_id: SectionId) -> None:
        """Forget what was loaded; asking again reads it again."""
        self._loaded.pop(section_id, None)

    def __iter__(self) -> Iterator[SectionId]:
        return iter(self._section_ids())

    def __len__(self) -> int:
        return len(self._section_ids())

    def __contains__(self, section_id: object) -> bool:
        return section_id in self._section_ids()

    @property
    def loaded(self) -> dict[SectionId, Content]:
        """What is in memory."""
        return self._loaded

    def clear(self) -> None:
        """Forget all that was loaded, to free its memory."""
        self._loaded.clear()


class SectionData(LazySections[npt.NDArray[Any]]):
    """Raw pixels by section: (H, W), ADU, in the camera's own type."""


class SectionHeaders(LazySections[dict[str, Any]]):
    """Raw headers by section: upper-case keywords."""


@dataclass
class ReadSoFar:
    """What an Exposure holds beside its columns.

    Attributes
    ----------
    stored_sections
        The database's sections for its date, by their id's string.
    sections
        All sections for its date; None until asked for.
    data, section_headers, raw_header
        None until asked for.
    """

    stored_sections: dict[str, SensorSection] = field(default_factory=dict)
    sections: dict[SectionId, SensorSection] | None = None
    data: SectionData | None = None
    section_headers: SectionHeaders | None = None
    raw_header: dict[str, Any] | None = None

    def without_files(self) -> "ReadSoFar":
        """Return it with nothing that can be read from files again."""
        return ReadSoFar(self.stored_sections, self.sections)


def name_of(filename: str) -> str:
    """Return what an exposure is called: its file's name without folder and suffixes.

    Characters that partitions cannot have become underscores.
    """
    path = PurePosixPath(filename)
    while path.suffix.lower() in _SUFFIXES:
        path = path.with_suffix("")
    name = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._:+-]", "_", path.name)).strip("._")
    if not name:
        raise UserError("its name is nothing but suffixes", cure="give it a name", file=filename)
    return name


def possible_names(name: str, night: str, instrument: str) -> tuple[str, ...]:
    """Return what exposures whose files have the same name are called in turn, so that no two are alike."""
    place = re.sub(r"[^A-Za-z0-9._:+-]", "_", instrument)
    return name, f"{name}_{night}", f"{name}_{night}_{place}"
