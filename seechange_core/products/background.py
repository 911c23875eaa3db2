"""Sky backgrounds of images: level and noise on a coarse mesh."""

import uuid
from functools import partial

import numpy as np
from sqlalchemy.orm import Mapped, mapped_column

from seechange_core import frames
from seechange_core.errors import FileDamagedError
from seechange_core.products.base import FileProduct, link
from seechange_core.products.cards import background_cards, to_background
from seechange_core.products.place import Place
from seechange_core.storage.archive import Archive
from seechange_core.storage.fits_io import read_fits, write_fits
from seechange_core.storage.orm import Base


class Background(FileProduct, Base):
    """The sky of one image."""

    __tablename__ = "backgrounds"

    image_id: Mapped[uuid.UUID] = link("images.id", "The image it belongs to.")
    level_e: Mapped[float] = mapped_column(doc="Median sky level, electrons per pixel.")
    rms_e: Mapped[float] = mapped_column(doc="Median noise of the sky, electrons per pixel.")

    def write(self, archive: Archive, frame: frames.Background, place: Place) -> None:
        """Write the meshes, and note where they are and their medians."""
        path = place.path(archive.settings, "background", self.data_version)
        contents, cards = {"level": frame.level, "rms": frame.rms}, background_cards(frame)
        if frame.wings is not None:
            contents["wings"] = frame.wings
        self.file_written(path, archive.write(path, partial(write_fits, contents=contents, cards=cards)))
        self.level_e, self.rms_e = float(np.median(frame.level)), float(np.median(frame.rms))

    def read(self, archive: Archive) -> frames.Background:
        """Read the background.

        Raises
        ------
        FileNotFoundError, FileDamagedError
            If its file is nowhere, or not whole.
        """
        path = archive.find(self.file, checksum=self.checksum)
        arrays, cards = read_fits(path)  # all of it: not every background has wings
        if missing := {"level", "rms"} - arrays.keys():
            raise FileDamagedError(
                f"it has no extension {', '.join(sorted(missing)).upper()}",
                cure="remove it and make it again",
                file=str(path),
            )
        return to_background(arrays["level"], arrays["rms"], cards, arrays.get("wings"))
