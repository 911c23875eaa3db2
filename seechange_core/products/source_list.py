"""Source lists: what was found in an image, or in a difference."""

import uuid
from functools import partial

from sqlalchemy import BigInteger, CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from seechange_core.frames import Detections, Sources
from seechange_core.products.base import FileProduct, link
from seechange_core.products.place import Place
from seechange_core.storage.archive import Archive
from seechange_core.storage.fits_io import read_fits, to_table, write_fits
from seechange_core.storage.orm import Base

CONTENTS = ("sources", "detections")


class SourceList(FileProduct, Base):
    """The light sources of one image."""

    __tablename__ = "source_lists"
    __table_args__ = (CheckConstraint(f"content IN {CONTENTS}", name="known_content"),)

    image_id: Mapped[uuid.UUID] = link("images.id", "The image they were found in.")
    content: Mapped[str] = mapped_column(
        String(10), default="sources", doc="sources (of an image) or detections (of a difference)."
    )
    n_sources: Mapped[int] = mapped_column(default=0, doc="How many sources it holds.")
    bitflag: Mapped[int] = mapped_column(BigInteger, default=0, doc="`QualityFlag` bits: 0 is good.")

    def write(self, archive: Archive, frame: Sources | Detections, place: Place) -> None:
        """Write the sources or detections, and note where they are and how many."""
        self.content = "detections" if isinstance(frame, Detections) else "sources"
        path = place.path(archive.settings, self.content, self.data_version)
        contents = {self.content: frame}
        self.file_written(path, archive.write(path, partial(write_fits, contents=contents)))
        self.n_sources = len(frame)

    def read(self, archive: Archive) -> Sources:
        """Read the sources of an image.

        Raises
        ------
        FileNotFoundError, FileDamagedError
            If its file is nowhere, or not whole, or holds detections.
        """
        path = archive.find(self.file, checksum=self.checksum)
        return to_table(Sources, read_fits(path, ("sources",))[0]["sources"], path)

    def read_detections(self, archive: Archive) -> Detections:
        """Read the detections of a difference. Raises what `read` does."""
        path = archive.find(self.file, checksum=self.checksum)
        return to_table(Detections, read_fits(path, ("detections",))[0]["detections"], path)
