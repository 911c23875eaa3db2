"""Master calibration frames: which can be built from the frames at hand, and building one of a section."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.chain.choice import mask_version, not_marked_bad
from seechange_core.chain.lineage import provenances, record_provenances
from seechange_core.chain.outcome import Outcome, StepReport
from seechange_core.chain.section import has_file
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

    A night that has got more frames since is listed again, and so is a master whose file is lost, or
    whose bad-pixel mask is not what the present settings make.

    Parameters
    ----------
    settings, instrument
        Whose.
    nights
        Only these local dates; None for all.
    """
    with use_settings(settings), open_session(settings, read_only=True) as session:
        query = select(Exposure.type, Exposure.night, Exposure.filter).where(
            Exposure.instrument == instrument, Exposure.type.in_(KINDS), not_marked_bad()
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
    keys, archive = provenances(settings, instrument), Archive(settings)
    for section in map(str, get_instrument_instance(instrument).get_section_ids()):
        exposures = _exposures(session, instrument, key, section)
        used = _needed_rows(session, settings, instrument, key, section)
        version = _version(keys[key.kind].id, section, exposures, used)
        mask = mask_version(keys["bad_pixels"].id, section, version)
        needed = [version] if key.kind == "bias" else [version, mask]
        if exposures and not all(_existing(session, archive, v) for v in needed):
            return False
    return True


def _existing(session: Session, archive: Archive, version: str) -> Calibrator | None:
    """Return the master of a data version if it is there with its file."""
    row = session.scalar(select(Calibrator).where(Calibrator.data_version == version))
    return row if row is not None and has_file(row, archive) else None


def _exposures(session: Session, instrument: str, key: MasterKey, section: str) -> list[Exposure]:
    """Return the frames to combine, the earliest first; not those that came without this section."""
    query = select(Exposure).where(
        Exposure.instrument == instrument,
        Exposure.type == key.kind,
        Exposure.night == key.night,
        not_marked_bad(),
    )
    if key.filter is not None:
        query = query.where(Exposure.filter == key.filter)
    rows = session.scalars(query.order_by(Exposure.mjd))
    return [row for row in rows if section not in (row.unreadable_sections or {})]


def _needed_rows(
    session: Session, settings: Settings, instrument: str, key: MasterKey, section: str
) -> dict[str, Calibrator]:
    """Return the masters that this one builds on, those nearest in time; missing ones are absent."""
    exposures = _exposures(session, instrument, key, section)
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
            exposures = _exposures(session, self.instrument, self.key, self.section)
            used = _needed_rows(session, self.settings, self.instrument, self.key, self.section)
            if not exposures:
                raise BadDataError(
                    f"no {self.key.kind} frames of that night are registered", cure="ingest them first"
                )
            version = _version(self._provenance(self.key.kind), self.section, exposures, used)
            mask = mask_version(self._provenance("bad_pixels"), self.section, version)
            row = _existing(session, self._archive, version)
            has_mask = self.key.kind == "bias" or _existing(session, self._archive, mask) is not None
        params = self.settings.params(CombineParams, "combine", self.instrument)
        if row is not None and not redo:
            frame, outcome = row.read(self._archive), Outcome.LOADED
        else:
            row, frame = self._combine(exposures, used, version, params)
            has_mask, outcome = self.key.kind == "bias", Outcome.DONE
        if not has_mask:
            self._mask(mask, frame, exposures, used, params)
            outcome = Outcome.DONE
        return self._report(outcome, row, frame, start)

    def _combine(
        self,
        exposures: Sequence[Exposure],
        used: dict[str, Calibrator],
        version: str,
        params: CombineParams,
    ) -> tuple[Calibrator, MasterFrame]:
        masters = Masters(**{kind: r.read(self._archive) for kind, r in used.items()})
        frames = RawFrames(exposures, get_instrument_instance(self.instrument).section_id_of(self.section))
        frame = combine(self.key.kind, frames, masters, params)
        row = self._row(self.key.kind, version, exposures, params)
        row.write(self._archive, frame, self._place)
        with open_session(self.settings) as session:
            row = save(session, row, replace=True)
            set_frames(session, row, [e.id for e in exposures])
        return row, frame

    def _provenance(self, kind: str) -> str:
        return provenances(self.settings, self.instrument)[kind].id

    @property
    def _archive(self) -> Archive:
        return Archive(self.settings)

    @property
    def _place(self) -> Place:
        return Place.of_master(self.instrument, self.key.night, self.section)

    def _row(
        self,
        kind: str,
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
            provenance_id=self._provenance(kind),
            data_version=version,
        )

    def _mask(
        self,
        version: str,
        frame: MasterFrame,
        exposures: Sequence[Exposure],
        used: dict[str, Calibrator],
        params: CombineParams,
    ) -> None:
        """Find bad pixels in a dark, or in a flat together with its dark."""
        is_flat = self.key.kind == "flat"
        dark = (used["dark"].read(self._archive) if "dark" in used else None) if is_flat else frame
        mask = find_bad_pixels(
            dark,
            frame if is_flat else None,
            self.settings.params(BadPixelParams, "bad_pixels", self.instrument),
        )
        made = self._row("bad_pixels", version, exposures, params)
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
