"""A coadd as an image of its own: measured, judged and saved as those of exposures are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sqlalchemy.orm import Session

from seechange_core.catalogs.provider import CatalogInfo
from seechange_core.catalogs.transformations import common_error_mag
from seechange_core.chain.catalogs import catalog_at, release_row
from seechange_core.chain.load import CalibratedRows
from seechange_core.chain.quality import bits_of_zero_points
from seechange_core.flags import QualityFlag
from seechange_core.frames import Sources, ZeroPointSolution
from seechange_core.instrument import get_instrument_instance
from seechange_core.numerics.sky import bounding_cone, footprint
from seechange_core.numerics.timing import decimal_year
from seechange_core.products.background import Background
from seechange_core.products.base import save
from seechange_core.products.image import Image, save_image, set_parents
from seechange_core.products.place import Place
from seechange_core.products.psf import Psf
from seechange_core.products.reference import Reference, save_reference
from seechange_core.products.source_list import SourceList
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.settings import Settings
from seechange_core.stages import judge
from seechange_core.stages.extract import Extraction, ExtractParams, extract
from seechange_core.stages.photometry import PhotometryParams, calibrate
from seechange_core.stages.quality_limits import QualityParams
from seechange_core.stages.reference import CoaddResult
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session


@dataclass(frozen=True)
class MeasuredCoadd:
    """A coadd with what was measured on it.

    Attributes
    ----------
    result
        Its pixels and its grid.
    found
        Sources, PSF and background.
    zero_point
        Photometric solution.
    release
        The catalog that it was calibrated with.
    """

    result: CoaddResult
    found: Extraction
    zero_point: ZeroPointSolution
    release: CatalogInfo


def measure_coadd(
    settings: Settings, instrument: str, band: str, result: CoaddResult, used: Sequence[CalibratedRows]
) -> MeasuredCoadd:
    """Extract the sources of a coadd of some images in a filter, and calibrate it.

    PSF and zero point are those of the pixels that are not thin.
    """
    params = settings.params(ExtractParams, "extract", instrument)
    found = extract(result.image, params, trusted=~result.thin)
    cone = bounding_cone(*footprint(result.grid.wcs, result.grid.shape))
    catalog = catalog_at(settings, cone)
    rules = settings.params(PhotometryParams, "photometry", instrument)
    catalog_band = rules.catalog_band or get_instrument_instance(instrument).band_of(band)
    epoch = decimal_year(float(np.mean([row.image.mjd_mid for row in used])))
    stars = catalog.query(*cone, catalog_band, rules.catalog_color, epoch)
    release = catalog.release(*cone)
    zero_point = calibrate(
        _typical(found.sources, result), result.grid, stars, found.background, found.psf, catalog_band, rules,
        gain=result.image.gain, catalog_err_mag=common_error_mag(catalog_band, release.bands),
    )  # fmt: skip
    return MeasuredCoadd(result, found, zero_point, release)


def _typical(sources: Sources, result: CoaddResult) -> Sources:
    """Return those whose middle is not on thin pixels."""
    height, width = result.thin.shape
    row, column = np.rint(sources.y).astype(int), np.rint(sources.x).astype(int)
    thin = result.thin[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return sources.select(np.flatnonzero(~thin))


class CoaddFlags(NamedTuple):
    """What is bad about each product of a coadd, what is bad about those it builds on included."""

    image: QualityFlag
    psf: QualityFlag
    sources: QualityFlag
    zero_point: QualityFlag


def judge_coadd(coadd: MeasuredCoadd, limits: QualityParams, inputs: int) -> CoaddFlags:
    """Judge a coadd as an image is judged; what is bad about its inputs (bits) comes on top."""
    found, image = coadd.found, QualityFlag(inputs)
    psf = image | judge.judge_psf(found.psf, limits).flags
    sources = psf | judge.judge_sources(found.sources, found.psf, found.background, limits).flags
    return CoaddFlags(image, psf, sources, sources | judge.judge_zero_point(coadd.zero_point, limits).flags)


def save_coadd(
    settings: Settings, place: Place, coadd: MeasuredCoadd, used: Sequence[CalibratedRows], row: Reference
) -> tuple[Reference, Image]:
    """Write the files of a coadd of some images, and record everything in one transaction.

    Parameters
    ----------
    settings, place
        Where to.
    coadd
        What was measured.
    used
        Its images.
    row
        A new reference, complete but for what it consists of.

    Returns
    -------
    tuple
        The reference and the coadd in the database.
    """
    found, keys = coadd.found, {"provenance_id": row.provenance_id, "data_version": row.data_version}
    image = Image(
        type="coadd",
        section_id=row.region,
        instrument=row.instrument,
        filter=row.filter,
        mjd_start=min(r.image.mjd_start for r in used),
        mjd_mid=float(np.mean([r.image.mjd_mid for r in used])),
        fwhm_pix=found.psf.fwhm_pix,
        **keys,
    ).cover(coadd.result.grid)
    sources, psf, background = SourceList(**keys), Psf(**keys), Background(**keys)
    archive = Archive(settings)
    image.write(archive, coadd.result.image, place)
    sources.write(archive, found.sources, place)
    psf.write(archive, found.psf, place)
    background.write(archive, found.background, place)
    limits = settings.params(QualityParams, "quality", row.instrument)
    with open_session(settings) as session:
        # Who judges the night of an image meanwhile waits, and then sees this coadd.
        flags = judge_coadd(coadd, limits, bits_of_zero_points(session, [r.zero_point for r in used]))
        image.bitflag, psf.bitflag, sources.bitflag = map(int, flags[:3])
        image = save_image(session, image)
        set_parents(session, image, [r.image.id for r in used])
        sources.image_id = psf.image_id = background.image_id = image.id
        sources, psf = save(session, sources, replace=True), save(session, psf, replace=True)
        row.psf_id, row.background_id = psf.id, save(session, background, replace=True).id
        row.image_id, row.source_list_id = image.id, sources.id
        _save_solutions(session, coadd, flags, row)
        return save_reference(session, row.cover(coadd.result.grid)), image


def _save_solutions(session: Session, coadd: MeasuredCoadd, flags: CoaddFlags, row: Reference) -> None:
    """Record astrometry and zero point of the image that a reference has, and give them to it."""
    links = {
        "image_id": row.image_id,
        "source_list_id": row.source_list_id,
        "catalog_id": release_row(session, coadd.release).id,
        "provenance_id": row.provenance_id,
        "data_version": row.data_version,
    }
    wcs = WorldCoordinates(bitflag=int(flags.sources), **links).take(coadd.result.grid)
    row.world_coordinates_id = save(session, wcs, replace=True).id
    zero_point = ZeroPoint(
        world_coordinates_id=row.world_coordinates_id,
        filter=row.filter,
        bitflag=int(flags.zero_point),
        **links,
    ).take(coadd.zero_point)
    row.zero_point_id = save(session, zero_point, replace=True).id
