"""Point spread functions of images. That of a difference lies in the difference image's own file."""

import uuid
from functools import partial

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from seechange_core.frames import PsfModel
from seechange_core.products.base import FileProduct, link
from seechange_core.products.cards import psf_cards, to_psf
from seechange_core.products.place import Place
from seechange_core.storage.archive import Archive
from seechange_core.storage.fits_io import read_fits, write_fits
from seechange_core.storage.orm import Base


class Psf(FileProduct, Base):
    """The PSF model of one image."""

    __tablename__ = "psfs"

    image_id: Mapped[uuid.UUID] = link("images.id", "The image it belongs to.")
    fwhm_pix: Mapped[float] = mapped_column(doc="Full width at half maximum at the image's centre, pixels.")
    n_stars: Mapped[int] = mapped_column(doc="How many stars it was made from.")
    degree: Mapped[int] = mapped_column(doc="Of the polynomial by which it varies over the image.")
    floor: Mapped[float] = mapped_column(doc="Relative systematic error of fluxes fitted with it.")

    brighter_fatter: Mapped[float | None] = mapped_column(
        doc="Relative growth of the FWHM up to stars that peak at 100,000 electrons; None if not measured."
    )
    brighter_fatter_err: Mapped[float | None] = mapped_column(doc="1-sigma error of brighter_fatter.")
    bitflag: Mapped[int] = mapped_column(BigInteger, default=0, doc="`QualityFlag` bits: 0 is good.")

    def write(self, archive: Archive, frame: PsfModel, place: Place) -> None:
        """Write the model, and note where it is and its main numbers."""
        path = place.path(archive.settings, "psf", self.data_version)
        contents, cards = {"psf": frame.coefficients}, psf_cards(frame)
        self.file_written(path, archive.write(path, partial(write_fits, contents=contents, cards=cards)))
        self.fwhm_pix, self.n_stars = frame.fwhm_pix, frame.n_stars
        self.degree, self.floor = frame.degree, frame.floor
        self.brighter_fatter = frame.brighter_fatter
        self.brighter_fatter_err = frame.brighter_fatter_err

    def read(self, archive: Archive) -> PsfModel:
        """Read the model.

        Raises
        ------
        FileNotFoundError, FileDamagedError
            If its file is nowhere, or not whole.
        """
        arrays, cards = read_fits(archive.find(self.file, checksum=self.checksum), ("psf",))
        return to_psf(arrays["psf"], cards)
