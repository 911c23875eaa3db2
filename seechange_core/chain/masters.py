"""Building one master calibration frame of one section, and what it implies."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from seechange_core.chain.choice import read_masters
from seechange_core.chain.lineage import provenances, record_provenances
from seechange_core.chain.outcome import USED, Outcome, StepReport
from seechange_core.chain.raw_frames import RawFrames
from seechange_core.chain.walk import peak_mb, placed
from seechange_core.chain.wanted import FLATS, Frame, MasterKey, Plan, Planner, calibration_frames
from seechange_core.errors import BadDataError, SectionAbsent, SeeChangeError, Stop
from seechange_core.flags import ExposureFlag
from seechange_core.frames import MasterFrame
from seechange_core.instrument import get_instrument_instance
from seechange_core.products.calibrator import Calibrator, Content, frames_of, save_calibrator, set_frames
from seechange_core.products.exposure import Exposure
from seechange_core.products.place import Place
from seechange_core.products.shelf import Known
from seechange_core.qa.metrics import metrics
from seechange_core.qa.preview import thumb
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.combine import (
    BadPixelParams,
    CombineParams,
    FrameQuality,
    combine,
    find_bad_pixels,
)
from seechange_core.stages.illumination import IlluminationParams, illumination_of
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session
from seechange_core.storage.orm import now


def build_master(
    settings: Settings,
    instrument: str,
    kind: str,
    night: str,
    section_id: str,
    filter: str | None = None,  # noqa: A002 - what the field calls it
    redo: bool = False,
) -> StepReport:
    """Build one master frame of one section from a night's frames, and what it implies.

    A dark or flat implies a bad-pixel mask; a twilight flat also an illumination, where there is a flat
    of its filter to compare it with. It serves exposures of the same device, as far as the section's row
    holds. If a row ends within the night, the device with most frames gets the master, and exposures of
    the other one are served by other nights.

    Parameters
    ----------
    settings, instrument
        Whose.
    kind
        ``bias``, ``dark``, ``flat`` or ``twilight_flat``.
    night
        Local date, YYYY-MM-DD.
    section_id
        As text.
    filter
        Of a flat; ``array`` for those through a filter array.
    redo
        Build it again even if nothing changed.

    Returns
    -------
    StepReport
        Its `exposure` is the night (and the filter of a flat), its `table` the frames and what was made
        of each. Failures are reported, not raised.
    """
    start = time.perf_counter()
    key = MasterKey(kind, night, filter)
    with use_settings(settings):
        try:
            record_provenances(settings, instrument)
            return _Build(settings, instrument, key, section_id).run(redo, start)
        except Exception as error:  # noqa: BLE001 - the other sections must go on
            known = placed(error, key.label, section_id)
            outcome = Outcome.STOPPED if isinstance(known, Stop) else Outcome.FAILED
            return StepReport(
                key.label, section_id, kind, outcome, known.reason, str(known), time.perf_counter() - start
            )


@dataclass(frozen=True)
class _Work:
    """What was found in the database before building.

    Attributes
    ----------
    plan, exposures, used
        What is combined, and with what it is corrected.
    band
        Filter over the section; empty for a bias or dark.
    row
        The master, if it is there already.
    mask, illumination
        Data versions that must be made; None if there is nothing to do.
    flat
        What an illumination is made with.
    misdated
        Data versions of those that are there with other dates than the section's row allows now.
    outranked
        It is there, and another one of the night was made after it.
    """

    plan: Plan
    exposures: Sequence[Exposure]
    used: dict[str, Calibrator]
    band: str
    row: Calibrator | None
    mask: str | None
    illumination: str | None
    flat: Calibrator | None
    misdated: list[str]
    outranked: bool


@dataclass
class _Build:
    settings: Settings
    instrument: str
    key: MasterKey
    section: str

    def run(self, redo: bool, start: float) -> StepReport:
        work = self._look(redo)
        quality: dict[uuid.UUID, FrameQuality] = {}
        if work.row is None:
            row, frame, quality = self._combine(work)
        else:
            row, frame = work.row, _image(work.row.read(self._archive))
            if work.misdated:
                self._correct_dates(work)
            if work.outranked:
                self._put_first(work)
        with open_session(self.settings, read_only=True) as session:
            reasons = frames_of(session, row.id)
        if work.mask is not None:
            self._save("bad_pixels", self._bad_pixels(work, frame), work, work.mask, reasons)
        if work.illumination is not None and work.flat is not None:
            compared = self._compared(frame, work.flat)
            self._save("illumination", compared, work, work.illumination, reasons)
        made = work.row is None or work.mask is not None or work.illumination is not None
        return self._report(Outcome.DONE if made else Outcome.LOADED, row, frame, quality, start)

    # --- Looking ----------------------------------------------------------------------------------

    def _look(self, redo: bool) -> _Work:
        with open_session(self.settings, read_only=True) as session:
            frames = calibration_frames(session, self.instrument, [self.key.night], [self.key.kind])
            own = frames.get(self.key, [])
            planner = Planner(session, self.settings, self.instrument, own, [self.section])
            plan = planner.plan(self.key.kind, self.section, own)
            if plan is None:
                raise self._without_frames(own)
            exposures = self._exposures(session, plan)
            band = self._band(exposures)
            row = None
            if planner.is_there(plan.version) and not redo:
                row = session.scalar(select(Calibrator).where(Calibrator.data_version == plan.version))
            return _Work(
                plan,
                exposures,
                planner.shelf.rows(plan.used),
                band,
                row,
                *self._implied(planner, plan, band, redo or row is None),
                planner.misdated(planner.implied(self.key, self.section, plan), plan.validity),
                planner.shelf.outranks(plan.version),
            )

    def _without_frames(self, own: Sequence[Frame]) -> SeeChangeError:
        if own and not any(frame.bitflag & ExposureFlag.SECTIONS_LOST for frame in own):
            return SectionAbsent("the camera wrote the frames without it")
        return BadDataError(
            f"no {self.key.kind} frames of that night are registered", cure="ingest them first"
        )

    def _exposures(self, session: Session, plan: Plan) -> list[Exposure]:
        query = select(Exposure).where(Exposure.id.in_([frame.id for frame in plan.frames]))
        rows = {row.id: row for row in session.scalars(query)}
        return [rows[frame.id] for frame in plan.frames]

    def _band(self, exposures: Sequence[Exposure]) -> str:
        """Return the filter over the section in these exposures; empty if it does not matter."""
        if self.key.kind not in FLATS:
            return ""
        bands = {exposure.get_section_filter(self._section_id) or "" for exposure in exposures}
        if len(bands) > 1:
            raise BadDataError(
                f"its flats of that night were taken through {' and '.join(sorted(bands))}",
                cure="give each filter array a night of its own, or mark those of the other one bad",
            )
        return bands.pop()

    def _implied(
        self, planner: Planner, plan: Plan, band: str, anew: bool
    ) -> tuple[str | None, str | None, Calibrator | None]:
        """Return the data versions of the mask and illumination to make, and the flat for the latter."""
        if self.key.kind == "bias":
            return None, None, None
        mask: str | None = planner.mask_version(self.section, plan.version)
        if not anew and planner.is_there(str(mask)):
            mask = None
        known: Known | None = None
        if self.key.kind == "twilight_flat":
            known = planner.flat_for(self.section, plan.mjd, band)
        if known is None:
            return mask, None, None
        version = planner.illumination_version(self.section, plan.version, known.data_version)
        if not anew and planner.is_there(version):
            return mask, None, None
        return mask, version, planner.shelf.rows({"flat": known})["flat"]

    # --- Making -----------------------------------------------------------------------------------

    def _combine(self, work: _Work) -> tuple[Calibrator, MasterFrame, dict[uuid.UUID, FrameQuality]]:
        masters = read_masters(work.used, self._archive)
        with RawFrames(work.exposures, self._section_id) as frames:
            frame, judged = combine(self.key.kind, frames, masters, self._params)
        quality = {e.id: q for e, q in zip(work.exposures, judged, strict=True)}
        reasons = {i: q.reason for i, q in quality.items()} | work.plan.left_out
        return self._save(self.key.kind, frame, work, work.plan.version, reasons), frame, quality

    def _bad_pixels(self, work: _Work, frame: MasterFrame) -> MasterFrame:
        """Find bad pixels in a dark, or in a flat together with its dark."""
        params = self.settings.params(BadPixelParams, "bad_pixels", self.instrument)
        if self.key.kind not in FLATS:
            return find_bad_pixels(frame, None, params)
        dark = _image(work.used["dark"].read(self._archive)) if "dark" in work.used else None
        return find_bad_pixels(dark, frame, params)

    def _compared(self, twilight: MasterFrame, flat: Calibrator) -> MasterFrame:
        """Make the illumination of a twilight flat and a flat."""
        params = self.settings.params(IlluminationParams, "illumination", self.instrument)
        return illumination_of(twilight, _image(flat.read(self._archive)), params)

    def _save(
        self, kind: str, frame: MasterFrame, work: _Work, version: str, frames: Mapping[uuid.UUID, str]
    ) -> Calibrator:
        """Write a calibrator's file and record it with its frames."""
        row = Calibrator(
            kind=kind,
            instrument=self.instrument,
            section_id=self.section,
            filter="" if kind == "bad_pixels" else work.band,
            night=self.key.night,
            mjd=work.plan.mjd,
            validity_start=work.plan.validity.start,
            validity_end=work.plan.validity.end,
            origin="built",
            provenance_id=provenances(self.settings, self.instrument)[kind].id,
            data_version=version,
        )
        row.write(self._archive, frame, Place.of_master(self.instrument, self.key.night, self.section))
        with open_session(self.settings) as session:
            row = save_calibrator(session, row)
            set_frames(session, row, frames)
        return row

    def _correct_dates(self, work: _Work) -> None:
        """Give a master that is there, and what it implied, the validity that its section's row allows."""
        start, end = work.plan.validity
        with open_session(self.settings) as session:
            session.execute(
                update(Calibrator)
                .where(Calibrator.data_version.in_(work.misdated))
                .values(validity_start=start, validity_end=end)
            )

    def _put_first(self, work: _Work) -> None:
        """Let a master that is there, and is right again, be the last of its night."""
        with open_session(self.settings) as session:
            session.execute(
                update(Calibrator)
                .where(Calibrator.data_version == work.plan.version)
                .values(created_at=now())
            )

    @cached_property
    def _archive(self) -> Archive:
        return Archive(self.settings)

    @cached_property
    def _params(self) -> CombineParams:
        return self.settings.params(CombineParams, "combine", self.instrument)

    @cached_property
    def _section_id(self) -> int | str:
        return get_instrument_instance(self.instrument).section_id_of(self.section)

    # --- Telling ----------------------------------------------------------------------------------

    def _report(
        self,
        outcome: Outcome,
        row: Calibrator,
        frame: MasterFrame,
        quality: Mapping[uuid.UUID, FrameQuality],
        start: float,
    ) -> StepReport:
        with open_session(self.settings, read_only=True) as session:
            reasons = frames_of(session, row.id)
            query = select(Exposure.id, Exposure.name).where(Exposure.id.in_(list(reasons)))
            names = {row[0]: row[1] for row in session.execute(query.order_by(Exposure.mjd))}
        rejected = {names[i]: reasons[i] for i in names if reasons[i]}
        figures = {**metrics(frame), "n_rejected": float(len(rejected)), "peak_mb": round(peak_mb(), 1)}
        return StepReport(
            exposure=self.key.label,
            section=self.section,
            step=self.key.kind,
            outcome=outcome,
            message=_left_out(rejected, len(names)),
            seconds=time.perf_counter() - start,
            code_version=row.provenance_id,
            data_version=row.data_version,
            metrics=figures,
            preview=thumb(frame.data, frame.flags),
            product_id=str(row.id),
            path=row.filepath,
            table=_table(names, rejected, quality),
        )


def _image(content: Content) -> MasterFrame:
    """Return a calibrator's content, which is an image by its kind."""
    assert isinstance(content, MasterFrame)
    return content


def _left_out(rejected: Mapping[str, str], n: int) -> str:
    """Say in a line which frames were left out and why."""
    if not rejected:
        return ""
    told = "; ".join(f"{name}: {reason}" for name, reason in rejected.items())
    return f"{len(rejected)} of {n} frames left out: {told}"


def _table(
    names: Mapping[uuid.UUID, str], rejected: Mapping[str, str], quality: Mapping[uuid.UUID, FrameQuality]
) -> tuple[dict[str, Any], ...]:
    """List the frames, with what was measured if they were judged now, and the verdict."""
    rows = []
    for key, name in names.items():
        row: dict[str, Any] = {"frame": name}
        if key in quality:
            row["level_e"] = quality[key].level_e
            row["noise_ratio"] = [float(ratio) for ratio in np.atleast_1d(quality[key].noise_ratio)]
        rows.append({**row, "verdict": rejected.get(name, USED)})
    return tuple(rows)
