"""Cutouts: small stamps of the new, the reference and the difference image around each sighting."""

import uuid
from collections.abc import Sequence
from dataclasses import fields
from functools import partial

import numpy as np
from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from seechange_core.frames import Stamps
from seechange_core.products.base import Detail, link
from seechange_core.products.place import Place
from seechange_core.products.sighting import Sighting
from seechange_core.storage.archive import Archive
from seechange_core.storage.fits_io import read_fits, write_fits
from seechange_core.storage.orm import Base, HasFile


class Cutouts(Detail, HasFile, Base):
    """The stamps of one sighting in three images; those of one difference image share a file."""

    __tablename__ = "cutouts"
    NATURAL_KEY = ("sighting_id", "provenance_id")
    __table_args__ = (UniqueConstraint(*NATURAL_KEY),)

    sighting_id: Mapped[uuid.UUID] = link("sightings.id", "What they are around.", cascade=True)
    number: Mapped[int] = mapped_column(doc="Their place in the file, from 0.")

    def read(self, archive: Archive) -> Stamps:
        """Read this sighting's stamps, and no other ones of their file: arrays of length 1.

        Raises
        ------
        FileNotFoundError, FileDamagedError
            If their file is nowhere, or not whole.
        """
        return _read(archive, self, slice(self.number, self.number + 1))


def write_cutouts(
    archive: Archive,
    stamps: Stamps,
    sightings: Sequence[Sighting],
    place: Place,
    *,
    provenance_id: str,
    data_version: str,
) -> list[Cutouts]:
    """Write the stamps of a difference image into one file, and make a row for each sighting.

    Parameters
    ----------
    archive, place
        Where.
    stamps
        One set per sighting.
    sightings
        In the order of the stamps.
    provenance_id, data_version
        Of the cutouts.
    """
    path = place.path(archive.settings, "cutouts", data_version)
    contents = {f.name: getattr(stamps, f.name) for f in fields(Stamps) if f.name not in {"x0", "y0"}}
    corner = np.stack([stamps.x0, stamps.y0], axis=-1).astype(np.int64).reshape(-1, 2)
    # FITS has no image of no pixels: an empty set has its corners alone, and one row of nothing to keep them.
    contents = contents if len(sightings) else {}
    contents["corner"] = corner if len(sightings) else np.zeros((1, 2), np.int64)
    checksum = archive.write(path, partial(write_fits, contents=contents))
    return [
        Cutouts(
            sighting_id=sighting.id, number=i, provenance_id=provenance_id, filepath=path, checksum=checksum
        )
        for i, sighting in enumerate(sightings)
    ]


def read_stamps(archive: Archive, row: Cutouts) -> Stamps:
    """Read all stamps of the file that a row's are in. Raises what `Cutouts.read` does."""
    return _read(archive, row, None)


def _read(archive: Archive, row: Cutouts, rows: slice | None) -> Stamps:
    arrays, _ = read_fits(archive.find(str(row.filepath), checksum=row.checksum), rows=rows)
    corner = arrays.pop("corner")
    return Stamps(**arrays, x0=corner[:, 0].copy(), y0=corner[:, 1].copy())
