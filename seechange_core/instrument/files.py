"""Where a camera's sections are in its FITS files, and how they are read.

This is the default reader. An instrument with another layout replaces `get_section_unit`, or `_place` and
`_places` if its exposures have several files that are not one for each section; one with another format
replaces `read_header`, `read_section_header`, `load_section_image` and `find_unreadable_sections`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from seechange_core.errors import (
    FileDamagedError,
    SectionAbsent,
    SectionMissingError,
    SeeChangeError,
    UserError,
)
from seechange_core.instrument import fits_reader
from seechange_core.instrument.sections import Sectioned
from seechange_core.instrument.sensor_section import SectionId

Paths = str | Path | Sequence[str | Path]
"""An exposure's file, or its files: one for each section, in the order of `get_section_ids`."""


class SectionFiles(Sectioned):
    """The part of `Instrument` that reads files."""

    def get_section_unit(self, section_id: SectionId) -> fits_reader.Unit:
        """Return which unit of a FITS file holds a section: EXTNAME, index, or None for the first image."""
        return None if len(self.get_section_ids()) == 1 else str(section_id)

    def _place(self, filepath: Paths, section_id: SectionId) -> tuple[Path, fits_reader.Unit]:
        """Return the file and the unit that hold a section."""
        self.check_section_id(section_id)
        paths = as_paths(filepath)
        if len(paths) == 1:
            return paths[0], self.get_section_unit(section_id)
        ids = list(self.get_section_ids())
        if len(paths) != len(ids):
            raise UserError(
                f"{len(paths)} files for {len(ids)} sections of {self.name}",
                cure="give one file, or one for each section",
            )
        return paths[ids.index(section_id)], None

    def _places(self, filepath: Paths, section_id: SectionId) -> list[tuple[Path, fits_reader.Unit]]:
        """Return every file and unit that a section cannot do without, its pixels' own first."""
        return [self._place(filepath, section_id)]

    def read_header(self, filepath: Paths) -> dict[str, Any]:
        """Read the raw global header: of several files, the first one's."""
        return fits_reader.read_cards(as_paths(filepath)[0], 0)

    def read_section_header(self, filepath: Paths, section_id: SectionId) -> dict[str, Any]:
        """Read the raw header of one section."""
        return fits_reader.read_cards(*self._place(filepath, section_id))

    def load_section_image(self, filepath: Paths, section_id: SectionId) -> npt.NDArray[Any]:
        """Read the pixels of one section: (H, W), ADU, overscan included, in the camera's own type."""
        return fits_reader.read_pixels(*self._place(filepath, section_id))

    def find_unreadable_sections(self, filepath: Paths) -> dict[SectionId, SeeChangeError]:
        """Return the sections that cannot be read from an exposure's files, with the reasons.

        The extent of the pixels is checked, and where the file carries sums of them, these; no pixel is
        looked at otherwise.
        """
        reports: dict[Path, list[fits_reader.UnitReport]] = {}
        bad: dict[SectionId, SeeChangeError] = {}
        for section_id in self.get_section_ids():
            try:
                for path, unit in self._places(filepath, section_id):
                    if path not in reports:
                        reports[path] = fits_reader.list_units(path)
                    fits_reader.check_unit(reports[path], unit, path)
            except (FileDamagedError, SectionMissingError, SectionAbsent) as error:
                bad[section_id] = error
        return bad


def as_paths(filepath: Paths) -> list[Path]:
    """Return one path or several as a list."""
    return [Path(filepath)] if isinstance(filepath, str | Path) else [Path(p) for p in filepath]
