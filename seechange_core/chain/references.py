"""References: building one for a region of the sky and a filter."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sqlalchemy import select

from seechange_core.chain.coadds import measure_coadd, save_coadd
from seechange_core.chain.lineage import provenances, record_provenances
from seechange_core.chain.load import CalibratedRows, rows_of_reference, rows_of_zero_points
from seechange_core.chain.outcome import USED, Outcome, StepReport
from seechange_core.chain.reference_inputs import candidates_for_references, choose_inputs
from seechange_core.chain.section import has_file
from seechange_core.chain.walk import peak_mb, placed
from seechange_core.errors import Stop
from seechange_core.frames import CalibratedImage, WcsSolution
from seechange_core.instrument import get_instrument_instance
from seechange_core.numerics.regions import region_named, region_wcs
from seechange_core.products.place import Place
from seechange_core.products.reference import Reference, references_used, use_reference
from seechange_core.provenance import digest
from seechange_core.qa.metrics import metrics
from seechange_core.qa.preview import thumb
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.reference import CoaddResult, ReferenceParams, coadd, coadds_without_each
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

#: Figure of a reference that is being made with those without each image: how many of these are to come.
LEFT_TO_LEAVE_OUT = "n_without_one"


def build_reference(
    settings: Settings,
    instrument: str,
    region: str,
    filter: str,  # noqa: A002 - what the field calls it
    leave_one_out: bool = False,
    redo: bool = False,
    nights: Sequence[str] | None = None,
    without: Sequence[str] = (),
    use: bool = False,
) -> list[StepReport]:
    """Build the reference of a region and filter, and return all reports; see `reference_reports`."""
    options = (leave_one_out, redo, nights, without, use)
    return list(reference_reports(settings, instrument, region, filter, *options))


def reference_reports(
    settings: Settings,
    instrument: str,
    region: str,
    filter: str,  # noqa: A002 - what the field calls it
    leave_one_out: bool = False,
    redo: bool = False,
    nights: Sequence[str] | None = None,
    without: Sequence[str] = (),
    use: bool = False,
) -> Iterator[StepReport]:
    """Build the reference of a region and filter from its best images, and calibrate it like an image.

    The first one of a region and filter is used at once. One of other images is a proposal beside it:
    nothing is subtracted from it until someone says so (`use`, or `use_references`).

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
    without
        Names of exposures not to take.
    use
        Use it from now on, whatever was used before.

    Yields
    ------
    StepReport
        The reference first, then those that leave an image out, as they are made; `exposure` is the region
        (and what is left out), `section` the filter. Failures are reported, not raised.
    """
    start = time.perf_counter()
    with use_settings(settings):
        try:
            record_provenances(settings, instrument)
            build = _Build(settings, instrument, region, filter, nights, without)
            yield from build.run(leave_one_out, redo, use)
        except Exception as error:  # noqa: BLE001 - other regions must go on
            yield _ended(error, region, region, filter, time.perf_counter() - start)


def _ended(error: Exception, label: str, region: str, band: str, seconds: float) -> StepReport:
    """Report a stop or a failure."""
    known = placed(error, region, band)
    outcome = Outcome.STOPPED if isinstance(known, Stop) else Outcome.FAILED
    return StepReport(label, band, "reference", outcome, known.reason, str(known), seconds)


class _Build:
    def __init__(
        self,
        settings: Settings,
        instrument: str,
        region: str,
        band: str,
        nights: Sequence[str] | None,
        without: Sequence[str],
    ) -> None:
        self.settings, self.instrument, self.region, self.band = settings, instrument, region, band
        self.archive = Archive(settings)
        self.place = Place.of_reference(instrument, region, band)
        self.params = settings.params(ReferenceParams, "reference", instrument)
        self.provenance = provenances(settings, instrument)["reference"].id
        every = candidates_for_references(settings, instrument, nights, region, band)
        choice = choose_inputs(every, self.params, without)
        self.inputs, self.rejected = choice.inputs, choice.rejected

    def run(self, leave_one_out: bool, redo: bool, use: bool) -> Iterator[StepReport]:
        with open_session(self.settings, read_only=True) as session:
            rows = rows_of_zero_points(session, [c.zero_point_id for c in self.inputs])
        wanted = [None, *range(len(rows))] if leave_one_out else [None]
        missing = [i for i in wanted if redo or self._existing(rows, i) is None]
        for index in wanted:
            if index not in missing and (row := self._existing(rows, index)) is not None:
                if index is None:
                    self._put_to_use(row, use)
                report = self._report(Outcome.LOADED, row, index)
                yield self._announcing(report) if leave_one_out and index is None else report
        if not missing:
            return
        images = [
            row.read(self.archive, f"{c.exposure}/{c.section}", whole=False)
            for row, c in zip(rows, self.inputs, strict=True)
        ]
        grid = self._grid(rows)
        if None in missing:
            start = time.perf_counter()
            report = self._finish(coadd(images, grid, self.params), rows, None, start, use)
            yield self._announcing(report) if leave_one_out else report
        if leave_one_out:
            yield from self._without_each(images, grid, rows, missing)

    def _announcing(self, report: StepReport) -> StepReport:
        """Add how many reports there will be of references without one image."""
        return replace(report, metrics=report.metrics | {LEFT_TO_LEAVE_OUT: len(self.inputs)})

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
                    seconds = time.perf_counter() - start
                    yield _ended(error, self._label(index), self.region, self.band, seconds)
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
        self,
        result: CoaddResult,
        rows: list[CalibratedRows],
        left_out: int | None,
        start: float,
        use: bool = False,
    ) -> StepReport:
        """Calibrate a coadd like an image, and save it."""
        used = self._used(rows, left_out)
        coadd = measure_coadd(self.settings, self.instrument, self.band, result, used)
        whole = None if left_out is None else self._existing(rows, None)
        row = Reference(
            ref_set=self.params.ref_set,
            instrument=self.instrument,
            region=self.region,
            filter=self.band,
            left_out_exposure_id=None if left_out is None else rows[left_out].image.exposure_id,
            whole_id=None if whole is None else whole.id,
            n_images=len({r.image.exposure_id for r in used}),
            provenance_id=self.provenance,
            data_version=self._version(rows, left_out),
        )
        row, image = save_coadd(self.settings, self.place, coadd, used, row)
        if left_out is None:
            self._put_to_use(row, use)
        numbers = {
            **metrics(coadd.found.sources),
            **metrics(coadd.found.psf),
            **metrics(coadd.zero_point),
            "n_images": row.n_images,
            "clipped_fraction": float(np.mean(result.clipped_fraction)),
            "peak_mb": round(peak_mb(), 1),
        }
        report = self._report(Outcome.DONE, row, left_out, numbers, result)
        picture = thumb(result.image.data, result.image.flags)
        seconds = time.perf_counter() - start
        return replace(report, preview=picture, path=image.filepath, seconds=seconds)

    def _put_to_use(self, row: Reference, use: bool) -> None:
        """Let it be the one used if it is the first one, or if a person asked for it."""
        with open_session(self.settings) as session:
            use_reference(session, row, "built to be used" if use else None, first_only=not use)

    def _label(self, left_out: int | None) -> str:
        """Name the region, and what is left out."""
        if left_out is None:
            return self.region
        c = self.inputs[left_out]
        return f"{self.region} without {c.exposure}/{c.section}"

    def _report(
        self,
        outcome: Outcome,
        row: Reference,
        left_out: int | None,
        numbers: dict[str, float] | None = None,
        result: CoaddResult | None = None,
    ) -> StepReport:
        return StepReport(
            exposure=self._label(left_out),
            section=self.band,
            step="reference",
            outcome=outcome,
            message=self._state(row) if left_out is None else "",
            code_version=self.provenance,
            data_version=row.data_version,
            metrics=numbers or {"n_images": row.n_images},
            product_id=str(row.id),
            table=self._table(result) if result is not None and left_out is None else (),
        )

    def _state(self, row: Reference) -> str:
        """Say whether it is used."""
        with open_session(self.settings, read_only=True) as session:
            used = references_used(session, self.provenance, [self.region], self.band)
        if used and used[0] == row.id:
            return ""
        return f"a proposal: not used until `seechange reference use --region {self.region}`"

    def _table(self, result: CoaddResult) -> tuple[dict[str, Any], ...]:
        """List the images that went in with what was measured on each, and the exposures that did not."""
        taken = [
            {
                "frame": f"{c.exposure}/{c.section}",
                "fwhm_arcsec": c.facts.fwhm_arcsec,
                "limiting_mag": c.facts.limiting_mag,
                "sky_mag": c.facts.sky_mag,
                "clipped_fraction": float(clipped),
                "verdict": USED,
            }
            for c, clipped in zip(self.inputs, result.clipped_fraction, strict=True)
        ]
        return *taken, *({"frame": name, "verdict": why} for name, why in self.rejected.items())
