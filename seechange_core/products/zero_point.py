"""Zero points: photometric solutions of images."""

import uuid
from typing import Self

import numpy as np
from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from seechange_core.frames import ZeroPointSolution
from seechange_core.products.base import Product, link
from seechange_core.storage.orm import JSON_TYPE, Base


class ZeroPoint(Product, Base):
    """One photometric solution: ``mag = zp_at(x, y) - 2.5 log10(flux)``, flux in electrons."""

    __tablename__ = "zero_points"

    image_id: Mapped[uuid.UUID] = link("images.id", "The image it belongs to.")
    source_list_id: Mapped[uuid.UUID] = link("source_lists.id", "The sources it was fitted to.")
    world_coordinates_id: Mapped[uuid.UUID] = link(
        "world_coordinates.id", "The astrometric solution that matched them."
    )
    catalog_id: Mapped[uuid.UUID] = link("catalog_releases.id", "The reference catalog it was fitted to.")
    filter: Mapped[str] = mapped_column(index=True, doc="Short name of the filter over the section.")
    band: Mapped[str] = mapped_column(doc="The catalog's band of the magnitudes.")
    zp: Mapped[float] = mapped_column(
        doc="Magnitude of one electron in the whole exposure; mean over the section."
    )
    zp_err: Mapped[float] = mapped_column(doc="1-sigma error of zp, mag.")
    color_term: Mapped[float] = mapped_column(doc="Per magnitude of catalog colour; 0 if not fitted.")
    color_term_err: Mapped[float] = mapped_column(doc="1-sigma error of color_term; 0 if not fitted.")
    n_stars: Mapped[int] = mapped_column(doc="How many stars were used.")
    scatter_mag: Mapped[float] = mapped_column(doc="Robust scatter of the bright stars used, mag.")
    aperture_corrections: Mapped[list[float | None]] = mapped_column(
        JSON_TYPE, doc="Magnitudes to add to each aperture's magnitude to reach the total-flux system."
    )
    limiting_mag: Mapped[float | None] = mapped_column(doc="Of a point source at 5 sigma; None if not known.")

    spatial_mag: Mapped[list[float]] = mapped_column(
        JSON_TYPE, default=list, doc="Its variation over the section, see `ZeroPointSolution`; empty if none."
    )
    width_pix: Mapped[int] = mapped_column(default=2, doc="Columns of the image.")
    height_pix: Mapped[int] = mapped_column(default=2, doc="Rows of the image.")
    bitflag: Mapped[int] = mapped_column(BigInteger, default=0, doc="`QualityFlag` bits: 0 is good.")

    def take(self, solution: ZeroPointSolution) -> Self:
        """Take all values of a solution, and return the row."""
        self.band = solution.band
        self.zp, self.zp_err = solution.zp, solution.zp_err
        self.color_term, self.color_term_err = solution.color_term, solution.color_term_err
        self.n_stars, self.scatter_mag = solution.n_stars, solution.scatter_mag
        self.aperture_corrections = list(solution.aperture_corrections)
        self.limiting_mag = solution.limiting_mag
        self.spatial_mag = list(solution.spatial_mag)
        self.height_pix, self.width_pix = solution.shape
        return self

    def solution(self) -> ZeroPointSolution:
        """Return the solution."""
        return ZeroPointSolution(
            zp=self.zp,
            zp_err=self.zp_err,
            band=self.band,
            color_term=self.color_term,
            color_term_err=self.color_term_err,
            n_stars=self.n_stars,
            scatter_mag=self.scatter_mag,
            aperture_corrections=tuple(np.nan if c is None else c for c in self.aperture_corrections),
            limiting_mag=np.nan if self.limiting_mag is None else self.limiting_mag,
            spatial_mag=tuple(self.spatial_mag),
            shape=(self.height_pix, self.width_pix),
        )
