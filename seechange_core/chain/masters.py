"""Master calibration frames: which can be built from the frames at hand, and building one of a section."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.chain.lineage import provenances, record_provenances
from seechange_core.chain.outcome import Outcome, StepReport
from seechange_core.chain.walk import peak_mb, placed
from seechange_core.errors import BadDataError, Stop
from seechange_core.frames import MasterFrame, Masters, RawFrame
from seechange_core.instrument import SectionId, get_instrument_instance
from seechange_core.products.base import save
from seechange_core.products.calibrator import Calibrator, find_calibrator, set_frames
from seechange_core.products.exposure import Exposure
from seechange_core.products.place import Place
from seechange_core.provenance import digest
from seechange_core.qa.metrics import metrics
from seechange_core.qa.preview import thumb
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.combine import BadPixelParams, CombineParams, combine, find_bad_pixels
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

#: Kinds of master frames made of raw frames, in the order in which they build on each other.
KINDS = ("bias", "dark", "flat")
_NEEDS: dict[str, tuple[str, ...]] = {"bias": (), "dark": ("bias",), "flat": ("bias", "dark")}


class MasterKey(NamedTuple):
    """A master frame to build for all sections: its kind, night and (flats only) filter."""

    kind: str
    night: str
    filter: str | None


def masters_wanted(
    settings: Settings, instrument: str, nights: Iterable[str] | None = None
) -> list[MasterKey]:
    """List the masters that the registered frames allow and that are not there yet, in building order.

    A night that has got more frames since is listed again.

    Parameters
    ----------
    settings, instrument
        Whose.
    nights
        Only these local dates; None for all.
    """
    with use_settings(settings), open_session(settings, read_only=True) as session:
        query = select(Exposure.type, Exposure.night, Exposure.filter).where(
            Exposure.instrument == instrument, Exposure.type.in_(KINDS), Exposure.bitflag == 0
        )
        if nights is not None:
            query = query.where(Exposure.night.in_(list(nights)))
        found = {
            MasterKey(kind, night, band if kind == "flat" else None)
            for kind, night, band in session.execute(query.distinct())
        }
        ordered = sorted(found, key=lambda k: (KINDS.index(k.kind), k.night, k.filter or ""))
        return [key for key in ordered if not _is_built(session, settings, instrument, key)]


def _is_built(session: Session, settings: Settings, instrument: str, key: MasterKey) -> bool:
    provenance = provenances(settings, instrument)[key.kind].id
    exposures = _exposures(session, instrument, key)
    for section in map(str, get_instrument_instance(instrument).get_section_ids()):
        rows = _needed_rows(session, settings, instrument, key, section)
        version = _version(provenance, section, exposures, rows)
        if session.scalar(select(Calibrator.id).where(Calibrator.data_version == version)) is None:
            return False
    return True


def _exposures(session: Session, instrument: str, key: MasterKey) -> list[Exposure]:
    query = select(Exposure).where(
        Exposure.instrument == instrument,
        Exposure.type == key.kind,
        Exposure.night == key.night,
        Exposure.bitflag == 0,
    )
    if key.filter is not None:
        query = query.where(Exposure.filter == key.filter)
    return list(session.scalars(query.order_by(Exposure.mjd)))


def _needed_rows(
    session: Session, settings: Settings, instrument: str, key: MasterKey, section: str
) -> dict[str, Calibrator]:
    """Return the masters that this one builds on, those nearest in time; missing ones are absent."""
    exposures = _exposures(session, instrument, key)
    mjd = float(np.mean([e.mjd_mid for e in exposures])) if exposures else 0.0
    keys = provenances(settings, instrument)
    found = {}
    for kind in _NEEDS[key.kind]:
        row = find_calibrator(
            session, kind, instrument=instrument, section_id=section, mjd=mjd, provenance_id=keys[kind].id
        )
        if row is not None:
            found[kind] = row
    return found


def _version(
    provenance: str, section: str, exposures: Sequence[Exposure], used: dict[str, Calibrator]
) -> str:
    frames = sorted(str(e.checksum) for e in exposures)
    return digest(provenance, section, frames, {kind: row.data_version for kind, row in used.items()})


def build_master(
    settings: Settings,
    instrument: str,
    kind: str,
    night: str,
    section_id: str,
    filter: str | None = None,  # noqa: A002 - what the field calls it
    redo: bool = False,
) -> StepReport:
    """Build one master frame of one section from a night's frames, and the bad-pixel mask it implies.

    Parameters
    ----------
    settings, instrument
        Whose.
    kind
        ``bias``, ``dark`` or ``flat``.
    night
        Local date, YYYY-MM-DD.
    section_id
        As text.
    filter
        Of a flat.
    redo
        Build it again even if nothing changed.

    Returns
    -------
    StepReport
        Its `exposure` is the night (and the filter of a flat). Failures are reported, not raised.
    """
    start = time.perf_counter()
    key = MasterKey(kind, night, filter)
    label = "_".join(part for part in (night, filter) if part)
    with use_settings(settings):
        try:
            record_provenances(settings, instrument)
            return _Build(settings, instrument, key, section_id, label).run(redo, start)
        except Exception as error:  # noqa: BLE001 - the other sections must go on
            known = placed(error, label, section_id)
            outcome = Outcome.STOPPED if isinstance(known, Stop) else Outcome.FAILED
            return StepReport(
                label, section_id, kind, outcome, known.reason, str(known), time.perf_counter() - start
            )


@dataclass
class _Build:
    settings: Settings
    instrument: str
    key: MasterKey
    section: str
    label: str

    def run(self, redo: bool, start: float) -> StepReport:
        with open_session(self.settings, read_only=True) as session:
            exposures = _exposures(session, self.instrument, self.key)
            used = _needed_rows(session, self.settings, self.instrument, self.key, self.section)
        if not exposures:
            raise BadDataError(
                f"no {self.key.kind} frames of that night are registered", cure="ingest them first"
            )
        provenance = provenances(self.settings, self.instrument)[self.key.kind].id
        version = _version(provenance, self.section, exposures, used)
        row = self._existing(version)
        if row is not None and not redo:
            frame = row.read(self._archive)
            return self._report(Outcome.LOADED, row, frame, start)
        params = self.settings.params(CombineParams, "combine", self.instrument)
        masters = Masters(**{kind: r.read(self._archive) for kind, r in used.items()})
        frames = RawFrames(exposures, get_instrument_instance(self.instrument).section_id_of(self.section))
        frame = combine(self.key.kind, frames, masters, params)
        row = self._row(self.key.kind, provenance, version, exposures, params)
        row.write(self._archive, frame, self._place)
        with open_session(self.settings) as session:
            row = save(session, row, replace=True)
            set_frames(session, row, [e.id for e in exposures])
        if self.key.kind != "bias":
            self._mask(row, frame, exposures, used, params)
        return self._report(Outcome.DONE, row, frame, start)

    @property
    def _archive(self) -> Archive:
        return Archive(self.settings)

    @property
    def _place(self) -> Place:
        return Place.of_master(self.instrument, self.key.night, self.section)

    def _existing(self, version: str) -> Calibrator | None:
        with open_session(self.settings, read_only=True) as session:
            row = session.scalar(select(Calibrator).where(Calibrator.data_version == version))
        return row if row is not None and self._archive.exists(row.file) else None

    def _row(
        self,
        kind: str,
        provenance: str,
        version: str,
        exposures: Sequence[Exposure],
        params: CombineParams,
    ) -> Calibrator:
        mjd = float(np.mean([e.mjd_mid for e in exposures]))
        return Calibrator(
            kind=kind,
            instrument=self.instrument,
            section_id=self.section,
            filter=(self.key.filter or "") if kind == "flat" else "",
            night=self.key.night,
            mjd=mjd,
            validity_start=mjd - params.validity_days,
            validity_end=mjd + params.validity_days,
            origin="built",
            provenance_id=provenance,
            data_version=version,
        )

    def _mask(
        self,
        row: Calibrator,
        frame: MasterFrame,
        exposures: Sequence[Exposure],
        used: dict[str, Calibrator],
        params: CombineParams,
    ) -> None:
        """Find bad pixels in a new dark, or in a new flat together with its dark."""
        is_flat = self.key.kind == "flat"
        dark = (used["dark"].read(self._archive) if "dark" in used else None) if is_flat else frame
        mask = find_bad_pixels(
            dark,
            frame if is_flat else None,
            self.settings.params(BadPixelParams, "bad_pixels", self.instrument),
        )
        provenance = provenances(self.settings, self.instrument)["bad_pixels"].id
        made = self._row(
            "bad_pixels", provenance, digest(provenance, self.section, row.data_version), exposures, params
        )
        made.write(self._archive, mask, self._place)
        with open_session(self.settings) as session:
            made = save(session, made, replace=True)
            set_frames(session, made, [e.id for e in exposures])

    def _report(self, outcome: Outcome, row: Calibrator, frame: MasterFrame, start: float) -> StepReport:
        return StepReport(
            exposure=self.label,
            section=self.section,
            step=self.key.kind,
            outcome=outcome,
            seconds=time.perf_counter() - start,
            code_version=row.provenance_id,
            data_version=row.data_version,
            metrics={**metrics(frame), "peak_mb": round(peak_mb(), 1)},
            preview=thumb(frame.data, frame.flags),
            product_id=str(row.id),
            path=row.filepath,
        )


class RawFrames(Sequence[RawFrame]):
    """One section of several exposures, each read when it is asked for: memory holds one at a time."""

    def __init__(self, exposures: Sequence[Exposure], section_id: SectionId) -> None:
        self.exposures = exposures
        self.section_id = section_id

    def __len__(self) -> int:
        return len(self.exposures)

    @overload
    def __getitem__(self, index: int) -> RawFrame: ...
    @overload
    def __getitem__(self, index: slice) -> "RawFrames": ...

    def __getitem__(self, index: int | slice) -> "RawFrame | RawFrames":
        if isinstance(index, slice):
            return RawFrames(self.exposures[index], self.section_id)
        return self.exposures[index].load_raw_frame(self.section_id)
