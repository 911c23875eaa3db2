"""Source lists: what was found in an image, or in a difference, and how faint it could have been."""

import uuid
from dataclasses import fields
from functools import partial

import numpy as np
from sqlalchemy import BigInteger, CheckConstraint, ColumnElement, String
from sqlalchemy.orm import Mapped, mapped_column

from seechange_core.flags import QualityFlag
from seechange_core.frames import Depth, Detections, Sources, ZeroPointSolution
from seechange_core.products.base import FileProduct, link
from seechange_core.products.place import Place
from seechange_core.storage.archive import Archive
from seechange_core.storage.fits_io import AnyTable, read_fits, to_table, write_fits
from seechange_core.storage.orm import JSON_OR_NULL, Base, JsonDict

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
    limit_e: Mapped[float | None] = mapped_column(
        doc="Of detections: flux of the point source that is found in half of all cases, electrons; median."
    )
    limiting_mag: Mapped[float | None] = mapped_column(doc="Of detections: magnitude of limit_e.")
    searched_fraction: Mapped[float | None] = mapped_column(
        doc="Of detections: fraction of the section's pixels that were searched, 0 to 1."
    )
    depth_map: Mapped[JsonDict | None] = mapped_column(
        JSON_OR_NULL, doc="Of detections: the limit from place to place, see `depth`."
    )

    def take_depth(self, depth: Depth, zero_point: ZeroPointSolution) -> None:
        """Note how faint a change would have been found."""
        limit = depth.median_e
        self.searched_fraction = depth.searched_fraction
        self.limit_e = limit if np.isfinite(limit) else None
        self.limiting_mag = zero_point.zp - 2.5 * np.log10(limit) if limit > 0 else None
        self.depth_map = {
            "limit_e": [[None if np.isnan(e) else float(f"{e:.5g}") for e in row] for row in depth.limit_e],
            "searched": [[round(float(part), 4) for part in row] for row in depth.searched],
            "step_pix": depth.step_pix,
            "shape": list(depth.shape),
            "sigma": depth.sigma,
        }

    @property
    def depth(self) -> Depth | None:
        """How faint a change would have been found; None if nobody asked.

        ``depth.limit_at(x, y)`` is the flux limit at a place: what was not found there is fainter.
        """
        if self.depth_map is None:
            return None
        limits = [[np.nan if e is None else e for e in row] for row in self.depth_map["limit_e"]]
        height, width = self.depth_map["shape"]
        return Depth(
            np.array(limits, np.float32),
            np.array(self.depth_map["searched"], np.float32),
            int(self.depth_map["step_pix"]),
            (int(height), int(width)),
            float(self.depth_map["sigma"]),
        )

    def write(self, archive: Archive, frame: Sources | Detections, place: Place) -> None:
        """Write the sources or detections, and note where they are and how many."""
        self.content = "detections" if isinstance(frame, Detections) else "sources"
        path = place.path(archive.settings, self.content, self.data_version)
        contents = {self.content: frame}
        self.file_written(path, archive.write(path, partial(write_fits, contents=contents)))
        self.n_sources = len(frame)

    def read(self, archive: Archive) -> Sources:
        """Read the sources of an image. Raises what `read_as` does."""
        return self.read_as(Sources, archive)

    def read_as(self, kind: type[AnyTable], archive: Archive) -> AnyTable:
        """Read some columns of the sources of an image.

        Parameters
        ----------
        kind
            A table with columns of `Sources`: no others are read.
        archive
            Where the file is.

        Raises
        ------
        FileNotFoundError, FileDamagedError
            If its file is nowhere, or not whole, or holds detections.
        """
        path = archive.find(self.file, checksum=self.checksum)
        columns = [field.name for field in fields(kind)]
        return to_table(kind, read_fits(path, ("sources",), columns=columns)[0]["sources"], path)

    def read_detections(self, archive: Archive) -> Detections:
        """Read the detections of a difference. Raises what `read` does."""
        path = archive.find(self.file, checksum=self.checksum)
        return to_table(Detections, read_fits(path, ("detections",))[0]["detections"], path)


def not_too_dense() -> ColumnElement[bool]:
    """Make the condition that a list of detections is no crowd of false ones, see `QualityFlag.TOO_DENSE`."""
    return SourceList.bitflag.bitwise_and(int(QualityFlag.TOO_DENSE)) == 0
