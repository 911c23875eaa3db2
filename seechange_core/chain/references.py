"""References: which regions of the sky have images for one, and building one."""

import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np
from sqlalchemy import select

from seechange_core.chain.choice import not_marked_bad
from seechange_core.chain.coadds import measure_coadd, save_coadd
from seechange_core.chain.lineage import provenances, record_provenances
from seechange_core.chain.load import CalibratedRows, rows_of_reference, rows_of_zero_points
from seechange_core.chain.outcome import Outcome, StepReport
from seechange_core.chain.quality import meanings
from seechange_core.chain.section import has_file
from seechange_core.chain.walk import peak_mb, placed
from seechange_core.errors import NoReference, Stop
from seechange_core.flags import UNFIT
from seechange_core.frames import CalibratedImage, WcsSolution
from seechange_core.instrument import get_instrument_instance
from seechange_core.numerics.regions import region_named, region_wcs, regions_overlapping
from seechange_core.products.exposure import Exposure
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.place import Place
from seechange_core.products.psf import Psf
from seechange_core.products.reference import Reference
from seechange_core.products.source_list import SourceList
from seechange_core.products.world_coordinates import WorldCoordinates
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.provenance import digest
from seechange_core.qa.metrics import metrics
from seechange_core.qa.preview import thumb
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.reference import (
    CoaddResult,
    InputFacts,
    ReferenceParams,
    coadd,
    coadds_without_each,
    select_inputs,
)
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session


@dataclass(frozen=True)
class Candidate:
    """A calibrated image that a reference could be made from, if it has none of the `UNFIT` flags."""

    exposure: str
    exposure_id: uuid.UUID
    zero_point_id: uuid.UUID
    filter: str
    regions: tuple[str, ...]
    corners: tuple[tuple[float, ...], tuple[float, ...]]
    facts: InputFacts
    bitflag: int

    @property
    def is_fit(self) -> bool:
        """Whether it does no harm to a reference."""
        return not self.bitflag & UNFIT


def candidates_for_references(
    settings: Settings, instrument: str, nights: Sequence[str] | None = None
) -> list[Candidate]:
    """List the calibrated images under the present settings, of certain nights if told so."""
    params = settings.params(ReferenceParams, "reference", instrument)
    query = (
        select(Exposure.name, Exposure.id, ZeroPoint, WorldCoordinates, Psf.fwhm_pix)
        .join(StepOutcome, StepOutcome.exposure_id == Exposure.id)
        .join(ZeroPoint, ZeroPoint.data_version == StepOutcome.data_version)
        .join(WorldCoordinates, WorldCoordinates.id == ZeroPoint.world_coordinates_id)
        .join(SourceList, SourceList.id == ZeroPoint.source_list_id)
        .join(Psf, Psf.data_version == SourceList.data_version)
        .where(
            Exposure.instrument == instrument,
            not_marked_bad(),
            StepOutcome.step == "zero_point",
            StepOutcome.status == "done",
            StepOutcome.provenance_id == provenances(settings, instrument)["zero_point"].id,
        )
        .order_by(Exposure.mjd, StepOutcome.section_id)
    )
    if nights is not None:
        query = query.where(Exposure.night.in_(list(nights)))
    found = []
    with open_session(settings, read_only=True) as session:
        for name, exposure_id, zero_point, wcs, fwhm_pix in session.execute(query):
            ra, dec = (tuple(c[i] for c in wcs.corners or []) for i in (0, 1))
            regions = regions_overlapping(ra, dec, params.region_size_deg)
            limit = np.nan if zero_point.limiting_mag is None else zero_point.limiting_mag
            facts = InputFacts(name, fwhm_pix * wcs.pixel_scale_arcsec, limit)
            names = tuple(region.name for region in regions)
            bits = zero_point.bitflag
            found.append(
                Candidate(name, exposure_id, zero_point.id, zero_point.filter, names, (ra, dec), facts, bits)
            )
    return found


def references_wanted(
    settings: Settings, instrument: str, region: str | None = None, band: str | None = None
) -> list[tuple[str, str]]:
    """List the regions and filters that have images fit for a reference, whether or not there is one."""
    with use_settings(settings):
        fit = [c for c in candidates_for_references(settings, instrument) if c.is_fit]
    found = {(r, c.filter) for c in fit for r in c.regions}
    return sorted(f for f in found if region in (None, f[0]) and band in (None, f[1]))


def build_reference(
    settings: Settings,
    instrument: str,
    region: str,
    filter: str,  # noqa: A002 - what the field calls it
    leave_one_out: bool = False,
    redo: bool = False,
    nights: Sequence[str] | None = None,
) -> list[StepReport]:
    """Build the reference of a region and filter from its best images, and calibrate it like an image.

    Parameters
    ----------
    settings, instrument
        Whose.
    region, filter
        Which.
    leave_one_out
        Also build, for each image in it, the reference without that image.
    redo
        Build again even if the same images were used before.
    nights
        Take images of these nights only.

    Returns
    -------
    list of StepReport
        The reference first; `exposure` is the region, `section` the filter. Failures are reported, not
        raised.
    """
    start = time.perf_counter()
    reports: list[StepReport] = []
    with use_settings(settings):
        try:
            record_provenances(settings, instrument)
            build = _Build(settings, instrument, region, filter, nights)
            for report in build.run(leave_one_out, redo):
                reports.append(report)  # noqa: PERF402 - what was made before an error must be told
        except Exception as error:  # noqa: BLE001 - other regions must go on
            reports.append(_ended(error, region, region, filter, time.perf_counter() - start))
    return reports


def _ended(error: Exception, label: str, region: str, band: str, seconds: float) -> StepReport:
    """Report a stop or a failure."""
    known = placed(error, region, band)
    outcome = Outcome.STOPPED if isinstance(known, Stop) else Outcome.FAILED
    return StepReport(label, band, "reference", outcome, known.reason, str(known), seconds)


class _Build:
    def __init__(
        self, settings: Settings, instrument: str, region: str, band: str, nights: Sequence[str] | None
    ) -> None:
        self.settings, self.instrument, self.region, self.band = settings, instrument, region, band
        self.archive = Archive(settings)
        self.place = Place.of_reference(instrument, region, band)
        self.params = settings.params(ReferenceParams, "reference", instrument)
        self.provenance = provenances(settings, instrument)["reference"].id
        every = candidates_for_references(settings, instrument, nights)
        self.inputs = self._choose([c for c in every if region in c.regions and c.filter == band])

    def _choose(self, candidates: list[Candidate]) -> list[Candidate]:
        """Choose whole exposures by the medians of their sections' figures."""
        if not candidates:
            raise NoReference(
                "no calibrated image covers it",
                cure="process exposures of this field through zero_point first",
            )
        bits = reduce(or_, (c.bitflag for c in candidates))
        candidates = [c for c in candidates if c.is_fit]
        if not candidates:
            raise NoReference(
                f"every calibrated image of it is flagged: {meanings(bits & UNFIT)}",
                cure="wait for better ones, or raise the limits under `quality`",
            )
        sections: dict[str, list[Candidate]] = defaultdict(list)
        for c in candidates:
            sections[c.exposure].append(c)
        facts = [
            InputFacts(
                name,
                float(np.median([c.facts.fwhm_arcsec for c in of])),
                float(np.median([c.facts.limiting_mag for c in of])),
            )
            for name, of in sections.items()
        ]
        chosen = select_inputs(facts, self.params).chosen
        names = [facts[i].label for i in chosen]
        return [c for name in names for c in sections[name]]

    def run(self, leave_one_out: bool, redo: bool) -> Iterator[StepReport]:
        with open_session(self.settings, read_only=True) as session:
            rows = rows_of_zero_points(session, [c.zero_point_id for c in self.inputs])
        wanted = [None, *range(len(rows))] if leave_one_out else [None]
        missing = [i for i in wanted if redo or self._existing(rows, i) is None]
        for index in wanted:
            if index not in missing and (row := self._existing(rows, index)) is not None:
                yield self._report(Outcome.LOADED, row, {}, None, 0.0)
        if not missing:
            return
        images = [
            r.read(self.archive, f"{c.exposure}/{r.image.section_id}")
            for r, c in zip(rows, self.inputs, strict=True)
        ]
        grid = self._grid(rows)
        if None in missing:
            start = time.perf_counter()
            yield self._finish(coadd(images, grid, self.params), rows, None, start)
        if leave_one_out:
            yield from self._without_each(images, grid, rows, missing)

    def _without_each(
        self,
        images: list[CalibratedImage],
        grid: WcsSolution,
        rows: list[CalibratedRows],
        missing: Sequence[int | None],
    ) -> Iterator[StepReport]:
        start = time.perf_counter()
        for index, result in enumerate(coadds_without_each(images, grid, self.params)):
            if index in missing:
                try:
                    yield self._finish(result, rows, index, start)
                except Exception as error:  # noqa: BLE001 - the others must go on
                    label = f"{self.region} without {images[index].label}"
                    yield _ended(error, label, self.region, self.band, time.perf_counter() - start)
            start = time.perf_counter()

    def _grid(self, rows: list[CalibratedRows]) -> WcsSolution:
        scale = get_instrument_instance(self.instrument).pixel_scale_arcsec
        if scale is None:
            scale = float(np.median([r.wcs.pixel_scale_arcsec for r in rows]))
        region = region_named(self.region, self.params.region_size_deg)
        return region_wcs(region, scale, [c.corners for c in self.inputs])

    def _used(self, rows: list[CalibratedRows], left_out: int | None) -> list[CalibratedRows]:
        return [row for i, row in enumerate(rows) if i != left_out]

    def _version(self, rows: list[CalibratedRows], left_out: int | None) -> str:
        used = sorted(row.zero_point.data_version for row in self._used(rows, left_out))
        without = "" if left_out is None else rows[left_out].zero_point.data_version
        return digest(self.provenance, self.region, self.band, used, without)

    def _existing(self, rows: list[CalibratedRows], left_out: int | None) -> Reference | None:
        """Return the reference made of these images if it is there with all its files."""
        version = self._version(rows, left_out)
        with open_session(self.settings, read_only=True) as session:
            row = session.scalar(select(Reference).where(Reference.data_version == version))
            parts = rows_of_reference(session, row) if row is not None else None
        if parts is None or not all(has_file(part, self.archive) for part in parts.files):
            return None
        return row

    def _finish(
        self, result: CoaddResult, rows: list[CalibratedRows], left_out: int | None, start: float
    ) -> StepReport:
        """Calibrate a coadd like an image, and save it."""
        used = self._used(rows, left_out)
        coadd = measure_coadd(self.settings, self.instrument, self.band, result, used)
        row = Reference(
            ref_set=self.params.ref_set,
            instrument=self.instrument,
            region=self.region,
            filter=self.band,
            left_out_exposure_id=None if left_out is None else rows[left_out].image.exposure_id,
            n_images=len({r.image.exposure_id for r in used}),
            provenance_id=self.provenance,
            data_version=self._version(rows, left_out),
        )
        row, image = save_coadd(self.settings, self.place, coadd, used, row)
        numbers = {
            **metrics(coadd.found.sources),
            **metrics(coadd.found.psf),
            **metrics(coadd.zero_point),
            "n_images": row.n_images,
            "clipped_fraction": float(np.mean(result.clipped_fraction)),
            "peak_mb": round(peak_mb(), 1),
        }
        picture = thumb(result.image.data, result.image.flags)
        return self._report(Outcome.DONE, row, numbers, picture, time.perf_counter() - start, image.filepath)

    def _report(
        self,
        outcome: Outcome,
        row: Reference,
        numbers: dict[str, float],
        picture: bytes | None,
        seconds: float,
        path: str | None = None,
    ) -> StepReport:
        return StepReport(
            exposure=self.region,
            section=self.band,
            step="reference",
            outcome=outcome,
            seconds=seconds,
            code_version=self.provenance,
            data_version=row.data_version,
            metrics=numbers or {"n_images": row.n_images},
            preview=picture,
            product_id=str(row.id),
            path=path,
        )
