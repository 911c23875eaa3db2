"""The steps from a raw section to a calibrated image: exposure, image, sources, astrometry, zero point."""

import numpy as np

from seechange_core.catalogs.transformations import common_error_mag
from seechange_core.chain import load
from seechange_core.chain.catalogs import catalog_at, cone_of, release_of, release_row
from seechange_core.chain.choice import SLOTS, masters_for, read_masters
from seechange_core.chain.extractions import found_before
from seechange_core.chain.quality import judge_night, save_zero_point
from seechange_core.chain.section import Section
from seechange_core.chain.step import Made, Step
from seechange_core.flags import QualityFlag
from seechange_core.frames import CatalogStars, ImageFrame, RawFrame
from seechange_core.instrument import SECTION_PROPERTIES
from seechange_core.numerics.timing import decimal_year
from seechange_core.products.background import Background
from seechange_core.products.base import save
from seechange_core.products.calibrator import Calibrator
from seechange_core.products.image import Image, save_image
from seechange_core.products.psf import Psf
from seechange_core.products.source_list import SourceList
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.provenance import digest
from seechange_core.qa import charts
from seechange_core.qa.metrics import metrics
from seechange_core.qa.preview import Marks, thumb
from seechange_core.qa.samples import place_residuals, zero_point_residuals
from seechange_core.stages import judge
from seechange_core.stages.astrometry import AstrometryParams, solve
from seechange_core.stages.clouds import clear_zero_point
from seechange_core.stages.extract import ExtractParams, extract
from seechange_core.stages.photometry import PhotometryParams, calibrate
from seechange_core.stages.preprocess import PreprocessParams, preprocess, wanted_kinds
from seechange_core.stages.quality_limits import QualityParams
from seechange_core.storage.engine import open_session

#: Of a thumbnail of sources: in a crowded field more circles would show nothing else.
SOURCES_MARKED = 100


def _limits(section: Section) -> QualityParams:
    return section.params(QualityParams, "quality")


# --- exposure -------------------------------------------------------------------------------------


def read_raw(section: Section) -> RawFrame:
    """Read the raw section, from memory if it was read before."""
    return section.product(
        "raw",
        lambda: section.exposure.load_raw_frame(section.section_id),
    )


def _raw_metrics(raw: RawFrame) -> dict[str, float]:
    # One pixel in a hundred is plenty for a median.
    return {"raw_median_adu": float(np.median(raw.data[::10, ::10])), "exposure_time_s": raw.exposure_time_s}


def _searchable(section: Section, frame: ImageFrame) -> dict[str, object]:
    """Return what is worth searching for beside the columns: facts of exposure and image, lower case."""
    exposure = section.exposure
    facts = {"target": exposure.target, "project": exposure.project, "airmass": exposure.airmass}
    if np.isfinite(frame.fringe_scale):
        facts["fringe_scale"] = frame.fringe_scale
    return {**exposure.header, **{k: v for k, v in facts.items() if v is not None}}


def _facts_used(section: Section) -> tuple[str, ...]:
    """Hash what is believed about exposure and section beside the file: a gain corrected later counts."""
    exposure = section.exposure
    properties = {p: exposure.get_property(section.section_id, p) for p in SECTION_PROPERTIES}
    times = [exposure.mjd, exposure.mjd_mid, exposure.exp_time]
    # The site sets the times at the barycentre.
    return (digest(properties, times, section.band, exposure.ra, exposure.dec, exposure.site),)


def _make_exposure(section: Section) -> Made:
    raw = read_raw(section)
    return Made(str(section.exposure.id), section.exposure.filename, _raw_metrics(raw), thumb(raw.data))


# --- image ----------------------------------------------------------------------------------------


def _masters_used(section: Section) -> tuple[str, ...]:
    masters = section.product("masters", lambda: masters_for(section))
    return tuple(masters[slot].data_version if slot in masters else "" for slot in SLOTS)


def _make_image(section: Section) -> Made:
    raw = read_raw(section)
    chosen: dict[str, Calibrator] = section.product("masters", lambda: masters_for(section))
    params = section.params(PreprocessParams, "preprocess")
    # What others have settled before the section came to us is not read.
    wanted = wanted_kinds(params, raw, section.band)
    rows = {slot: row for slot, row in chosen.items() if slot in wanted}
    # Not kept here, so that they can go when they have been applied: eight are half a gigabyte.
    frame = preprocess(raw, read_masters(rows, section.archive), params, section.band)
    verdict = judge.judge_image(frame, _limits(section))
    exposure = section.exposure
    hint = exposure.get_pointing_hint(section.section_id)
    row = Image(
        type="science",
        ra=hint.ra,
        dec=hint.dec,
        exposure_id=exposure.id,
        section_id=section.section,
        instrument=exposure.instrument,
        filter=section.band,
        mjd_start=exposure.mjd,
        mjd_mid=exposure.mjd_mid,
        provenance_id=section.provenance_id("image"),
        data_version=section.versions["image"],
        header=_searchable(section, frame),
        bitflag=int(verdict.flags),
        **{f"{slot}_id": used.id for slot, used in rows.items()},
    )
    row.write(section.archive, frame, section.place)
    with open_session(section.settings) as session:
        row = save_image(session, row)
    section.products["image"] = frame
    section.products.pop("raw", None)
    picture = thumb(frame.data, frame.flags)
    return Made(str(row.id), row.filepath, metrics(frame), picture, row.bitflag, verdict.words)


# --- source_list ----------------------------------------------------------------------------------


def _make_source_list(section: Section) -> Made:
    frame = load.image(section)
    found = None if section.redo else found_before(section)
    found = found or extract(frame, section.params(ExtractParams, "extract"))
    limits, image = _limits(section), section.needed(Image, "image")
    of_psf = judge.judge_psf(found.psf, limits)
    noise = judge.noise_over_predicted(frame, found.background)
    verdict = of_psf | judge.judge_sources(found.sources, found.psf, found.background, limits)
    verdict |= judge.judge_noise(noise, limits)
    keys = {
        "image_id": image.id,
        "provenance_id": section.provenance_id("source_list"),
        "data_version": section.versions["source_list"],
    }
    sources = SourceList(bitflag=int(image.bitflag | verdict.flags), **keys)
    psf, background = Psf(bitflag=int(image.bitflag | of_psf.flags), **keys), Background(**keys)
    sources.write(section.archive, found.sources, section.place)
    psf.write(section.archive, found.psf, section.place)
    background.write(section.archive, found.background, section.place)
    with open_session(section.settings) as session:
        row = save(session, sources, replace=True)
        save(session, psf, replace=True)
        save(session, background, replace=True)
    section.products |= {"sources": found.sources, "psf": found.psf, "background": found.background}
    brightest = np.argsort(-found.sources.flux_psf)[:SOURCES_MARKED]
    picture = thumb(frame.data, frame.flags, Marks(found.sources.x[brightest], found.sources.y[brightest]))
    figures = metrics(found.sources) | metrics(found.psf) | metrics(found.background)
    figures["noise_over_predicted"] = noise
    return Made(str(row.id), row.filepath, figures, picture, row.bitflag, verdict.words)


# --- world_coordinates ----------------------------------------------------------------------------


def catalog_stars(section: Section) -> CatalogStars:
    """Return the catalog stars around the section, in its band, at its time."""

    def query() -> CatalogStars:
        exposure = section.exposure
        params = section.params(PhotometryParams, "photometry")
        cone = cone_of(section)
        return catalog_at(section.settings, cone).query(
            *cone,
            params.catalog_band or section.instrument.band_of(section.band),
            params.catalog_color,
            decimal_year(exposure.mjd_mid),
        )

    return section.product("stars", query)


def _catalog_used(section: Section) -> tuple[str, ...]:
    return (release_of(section).checksum,)


def _make_world_coordinates(section: Section) -> Made:
    exposure, shape = section.exposure, load.image(section).shape
    hint = exposure.get_pointing_hint(section.section_id)
    solution = solve(
        load.sources(section),
        catalog_stars(section),
        hint,
        shape,
        section.params(AstrometryParams, "astrometry"),
    )
    info = release_of(section)
    relative = QualityFlag.RELATIVE if info.relative else QualityFlag(0)
    sources, verdict = section.needed(SourceList, "source_list"), judge.judge_wcs(solution, _limits(section))
    with open_session(section.settings) as session:
        row = WorldCoordinates(
            image_id=sources.image_id,
            source_list_id=sources.id,
            catalog_id=release_row(session, info).id,
            provenance_id=section.provenance_id("world_coordinates"),
            data_version=section.versions["world_coordinates"],
            bitflag=int(sources.bitflag | verdict.flags | relative),
        ).take(solution)
        row = save(session, row, replace=True)
    section.products["wcs"] = solution
    residuals = place_residuals(load.sources(section), solution, catalog_stars(section))
    figures = metrics(solution)
    figures["fwhm_arcsec"] = load.psf(section).fwhm_pix * solution.pixel_scale_arcsec
    picture = charts.arrows(residuals, solution)
    return Made(str(row.id), None, figures, picture, row.bitflag, verdict.words)


# --- zero_point -----------------------------------------------------------------------------------


def _expected_zp(section: Section, band: str, params: PhotometryParams) -> float | None:
    """Return the zero point that this exposure would have in a clear sky, if the settings tell."""
    one_second_mag = params.zero_point_expected_mag.get(section.band)
    if one_second_mag is None:
        return None
    time_s = np.array([section.needed(Image, "image").exposure_time_s], float)
    airmass = np.array([section.exposure.airmass], float)  # None is NaN
    zp = float(clear_zero_point(one_second_mag, time_s, airmass, band, _limits(section))[0])
    return zp if np.isfinite(zp) else None


def _make_zero_point(section: Section) -> Made:
    params = section.params(PhotometryParams, "photometry")
    band = params.catalog_band or section.instrument.band_of(section.band)
    solution = calibrate(
        load.sources(section),
        load.wcs(section),
        catalog_stars(section),
        load.background(section),
        load.psf(section),
        band,
        params,
        expected_zp=_expected_zp(section, band, params),
        catalog_err_mag=common_error_mag(band, release_of(section).bands),
    )
    wcs_row = section.needed(WorldCoordinates, "world_coordinates")
    verdict = judge.judge_zero_point(solution, _limits(section))
    row = ZeroPoint(
        image_id=wcs_row.image_id,
        source_list_id=wcs_row.source_list_id,
        world_coordinates_id=wcs_row.id,
        catalog_id=wcs_row.catalog_id,
        filter=section.band,
        provenance_id=section.provenance_id("zero_point"),
        data_version=section.versions["zero_point"],
        bitflag=int(wcs_row.bitflag | verdict.flags),
    ).take(solution)
    with open_session(section.settings) as session:
        row = save_zero_point(session, row)
    section.products["zero_point"] = solution
    stars = zero_point_residuals(
        load.sources(section), load.wcs(section), catalog_stars(section), solution, params.reference_color
    )
    picture = charts.zero_points(stars, solution, params.reference_color)
    return Made(str(row.id), None, metrics(solution), picture, row.bitflag, verdict.words)


IMAGE_STEPS: tuple[Step, ...] = (
    Step(
        "exposure",
        "The raw section, read from the file the telescope wrote.",
        (),
        _make_exposure,
        lambda section: True,
        _facts_used,
    ),
    Step(
        "image",
        "Calibrated image in electrons, with flags and inverse background variance.",
        ("exposure",),
        _make_image,
        lambda section: section.has_file(Image, "image"),
        _masters_used,
        ("bias", "dark", "flat", "twilight_flat"),
    ),
    Step(
        "source_list",
        "Sources, background and point spread function.",
        ("image",),
        _make_source_list,
        lambda section: all(section.has_file(kind, "source_list") for kind in (SourceList, Psf, Background)),
    ),
    Step(
        "world_coordinates",
        "Astrometric solution.",
        ("source_list",),
        _make_world_coordinates,
        lambda section: section.row(WorldCoordinates, "world_coordinates") is not None,
        _catalog_used,
    ),
    Step(
        "zero_point",
        "Photometric solution.",
        ("source_list", "world_coordinates"),
        _make_zero_point,
        lambda section: section.row(ZeroPoint, "zero_point") is not None,
        _catalog_used,
        after=judge_night,
    ),
)
