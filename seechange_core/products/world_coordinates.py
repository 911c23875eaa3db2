"""World coordinates: astrometric solutions of images."""

import uuid
from typing import Self

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from seechange_core.frames import WcsSolution
from seechange_core.products.base import Footprint, Product, link
from seechange_core.storage.orm import Base, JsonDict


class WorldCoordinates(Product, Footprint, Base):
    """One astrometric solution; its footprint is the image's true one."""

    __tablename__ = "world_coordinates"

    image_id: Mapped[uuid.UUID] = link("images.id", "The image it belongs to.")
    source_list_id: Mapped[uuid.UUID] = link("source_lists.id", "The sources it was fitted to.")
    catalog_id: Mapped[uuid.UUID] = link("catalog_releases.id", "The reference catalog it was fitted to.")
    cards: Mapped[JsonDict] = mapped_column(doc="FITS WCS cards (TAN or TAN-SIP), 1-based as in FITS.")
    width_pix: Mapped[int] = mapped_column(doc="Columns of the image.")
    height_pix: Mapped[int] = mapped_column(doc="Rows of the image.")
    rms_mas: Mapped[float] = mapped_column(doc="Rms residual per axis of the stars used, milliarcseconds.")
    error_mas: Mapped[float] = mapped_column(
        doc="Error of the solution at the centre per axis, milliarcseconds."
    )
    n_matched: Mapped[int] = mapped_column(doc="How many stars were used.")
    n_catalog: Mapped[int] = mapped_column(doc="How many catalog stars are in the field.")
    pixel_scale_arcsec: Mapped[float] = mapped_column(
        doc="Mean scale at the reference pixel, arcsec per pixel."
    )

    bitflag: Mapped[int] = mapped_column(BigInteger, default=0, doc="`QualityFlag` bits: 0 is good.")

    def take(self, solution: WcsSolution) -> Self:
        """Take all values of a solution, footprint included, and return the row."""
        self.cards = dict(solution.cards)
        self.height_pix, self.width_pix = solution.shape
        self.rms_mas, self.error_mas = solution.rms_mas, solution.error_mas
        self.n_matched, self.n_catalog = solution.n_matched, solution.n_catalog
        self.pixel_scale_arcsec = solution.pixel_scale_arcsec
        return self.cover(solution)

    def solution(self) -> WcsSolution:
        """Return the solution."""
        return WcsSolution(
            cards=dict(self.cards),
            shape=(self.height_pix, self.width_pix),
            rms_mas=self.rms_mas,
            n_matched=self.n_matched,
            n_catalog=self.n_catalog,
            error_mas=self.error_mas,
        )
