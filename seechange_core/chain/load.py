"""Frames of products: from memory if the walk has just made them, else from their files."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core import frames
from seechange_core.chain.section import Section
from seechange_core.frames import (
    CalibratedImage,
    ImageFrame,
    PsfModel,
    Sources,
    WcsSolution,
    ZeroPointSolution,
)
from seechange_core.products.background import Background
from seechange_core.products.base import FileProduct, chunks, unindexed
from seechange_core.products.image import Image
from seechange_core.products.outcome import StepOutcome, made_by
from seechange_core.products.psf import Psf
from seechange_core.products.reference import Reference
from seechange_core.products.source_list import SourceList
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.storage.archive import Archive


def image(section: Section) -> ImageFrame:
    """Return the section's calibrated image."""
    return section.product("image", lambda: section.needed(Image, "image").read(section.archive))


def shape_of(image: Image, archive: Archive) -> tuple[int, int]:
    """Return (H, W) of an image: its file is only read where its row does not say."""
    if image.height_pix and image.width_pix:
        return image.height_pix, image.width_pix
    return image.read(archive).shape


def sources(section: Section) -> Sources:
    """Return the sources of the section's image."""
    return section.product("sources", lambda: section.needed(SourceList, "source_list").read(section.archive))


def background(section: Section) -> frames.Background:
    """Return the background of the section's image."""
    return section.product(
        "background", lambda: section.needed(Background, "source_list").read(section.archive)
    )


def psf(section: Section) -> PsfModel:
    """Return the PSF of the section's image."""
    return section.product("psf", lambda: section.needed(Psf, "source_list").read(section.archive))


def wcs(section: Section) -> WcsSolution:
    """Return the section's astrometric solution."""
    return section.product("wcs", lambda: section.needed(WorldCoordinates, "world_coordinates").solution())


def zero_point(section: Section) -> ZeroPointSolution:
    """Return the section's photometric solution."""
    return section.product("zero_point", lambda: section.needed(ZeroPoint, "zero_point").solution())


def calibrated(section: Section) -> CalibratedImage:
    """Return all that is known of the section's image."""
    return section.product(
        "calibrated",
        lambda: CalibratedImage(
            image=image(section),
            background=background(section),
            psf=psf(section),
            wcs=wcs(section),
            zero_point=zero_point(section),
            label=f"{section.exposure.name}/{section.section}",
        ),
    )


@dataclass(frozen=True)
class CalibratedRows:
    """The rows of one calibrated image, of this or another section, or of a reference."""

    image: Image
    source_list: SourceList
    background: Background
    psf: Psf
    wcs: WorldCoordinates
    zero_point: ZeroPoint

    @property
    def files(self) -> tuple[FileProduct, ...]:
        """Those of the rows that stand for files."""
        return self.image, self.source_list, self.background, self.psf

    def read(self, archive: Archive, label: str, whole: bool = True) -> CalibratedImage:
        """Read the files; the image itself, if not as a whole, only where its arrays are sliced."""
        return CalibratedImage(
            image=self.image.read(archive) if whole else self.image.open(archive),
            background=self.background.read(archive),
            psf=self.psf.read(archive),
            wcs=self.wcs.solution(),
            zero_point=self.zero_point.solution(),
            label=label,
        )


def rows_of_zero_points(session: Session, ids: Sequence[uuid.UUID]) -> list[CalibratedRows]:
    """Return the rows behind zero points, in the order given: their images and all that calibrates them."""
    query = (
        select(Image, SourceList, Background, Psf, WorldCoordinates, ZeroPoint)
        .join(Image, Image.id == ZeroPoint.image_id)
        .join(SourceList, SourceList.id == ZeroPoint.source_list_id)
        .join(Background, Background.data_version == SourceList.data_version)
        .join(Psf, Psf.data_version == SourceList.data_version)
        .join(WorldCoordinates, WorldCoordinates.id == ZeroPoint.world_coordinates_id)
        .select_from(ZeroPoint)
        .where(ZeroPoint.id.in_(ids))
    )
    found = {row[5].id: CalibratedRows(*row) for row in session.execute(query)}
    return [found[i] for i in ids]


def zero_points_of(
    session: Session, differences: Sequence[Image], provenance_ids: Collection[str]
) -> dict[uuid.UUID, uuid.UUID]:
    """Return the present zero point of each difference's new image: its id, by the difference's.

    Parameters
    ----------
    session
        An open session.
    differences
        Those that have none now are left out.
    provenance_ids
        Of the zero points.
    """
    news = [row.new_image_id for row in differences]
    found: dict[uuid.UUID | None, uuid.UUID] = {}
    for some in chunks(news):
        query = (
            select(ZeroPoint.image_id, ZeroPoint.id)
            .join(Image, Image.id == ZeroPoint.image_id)
            .join(StepOutcome, made_by(Image, ZeroPoint, "zero_point"))
            .where(
                ZeroPoint.image_id.in_(some),
                unindexed(ZeroPoint.provenance_id).in_(provenance_ids),
            )
        )
        found |= {row[0]: row[1] for row in session.execute(query)}
    return {row.id: found[row.new_image_id] for row in differences if row.new_image_id in found}


def rows_of_reference(session: Session, reference: Reference) -> CalibratedRows:
    """Return the rows of a reference."""
    return rows_of_zero_points(session, [reference.zero_point_id])[0]
