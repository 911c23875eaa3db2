"""Which master frames the registered calibration frames allow, and what each would be made from."""

import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.chain.choice import illumination_version, mask_version, not_marked_bad, shelf_of
from seechange_core.chain.lineage import provenances
from seechange_core.instrument import get_instrument_instance
from seechange_core.numerics.timing import mjd_to_iso
from seechange_core.products.devices import Span
from seechange_core.products.exposure import Exposure
from seechange_core.products.shelf import Known, Shelf, is_here
from seechange_core.provenance import digest
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.master_recipe import NEEDS, CombineParams
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

#: Kinds of master frames made of raw frames, in the order in which they build on each other.
KINDS = tuple(NEEDS)
FLATS = ("flat", "twilight_flat")
#: What each kind builds on: what its frames are corrected with; a twilight flat is compared with a flat, too.
BUILDS_ON = {kind: (*needs, "flat") if kind == "twilight_flat" else needs for kind, needs in NEEDS.items()}
#: Stands for the filter in the key of flats through a filter array: one exposure is for all its filters.
ARRAY = "array"
#: Dates in the database that differ by less are the same, days.
SAME_DAYS = 1e-6


class MasterKey(NamedTuple):
    """A master frame to build for all sections: its kind, night and (flats only) filter or ``array``."""

    kind: str
    night: str
    filter: str | None

    @property
    def label(self) -> str:
        """Night and filter in one word."""
        return "_".join(part for part in (self.night, self.filter) if part)


class Frame(NamedTuple):
    """What is needed of a calibration exposure's row to plan with it; fields as in `Exposure`."""

    id: uuid.UUID
    type: str
    night: str
    filter: str | None
    filter_array: list[str] | None
    mjd_mid: float
    exp_time: float
    checksum: str | None
    unreadable_sections: dict[str, str] | None
    bitflag: int
    created_at: datetime

    @property
    def key(self) -> MasterKey:
        """The master it goes into."""
        if self.type not in FLATS:
            return MasterKey(self.type, self.night, None)
        return MasterKey(self.type, self.night, ARRAY if self.filter_array else self.filter)


def calibration_frames(
    session: Session, instrument: str, nights: Iterable[str] | None = None, kinds: Sequence[str] = KINDS
) -> dict[MasterKey, list[Frame]]:
    """Return the calibration exposures that nobody marked bad, by the master they go into, earliest first."""
    query = select(*(getattr(Exposure, name) for name in Frame._fields)).where(
        Exposure.instrument == instrument, Exposure.type.in_(kinds), not_marked_bad()
    )
    if nights is not None:
        query = query.where(Exposure.night.in_(list(nights)))
    found: dict[MasterKey, list[Frame]] = {}
    for row in session.execute(query.order_by(Exposure.mjd)):
        frame = Frame(*row)
        found.setdefault(frame.key, []).append(frame)
    return found


class Plan(NamedTuple):
    """What one master of one section would be made from.

    Attributes
    ----------
    frames
        Those to combine, the earliest first: of one device, and not those that came without this section.
    mjd
        Their mean time, MJD (UTC).
    used
        The calibrators to correct them with, by the names of `frames.Masters`; missing ones are absent.
    version
        Data version of the master.
    validity
        Between which dates it serves, MJD (UTC).
    left_out
        Why frames of another device are left out, by their ids.
    """

    frames: list[Frame]
    mjd: float
    used: dict[str, Known]
    version: str
    validity: Span
    left_out: dict[uuid.UUID, str]


class Planner:
    """Plans masters of an instrument.

    Parameters
    ----------
    session
        An open session, which must stay open.
    settings, instrument
        Whose.
    frames
        All that will be planned with.
    sections
        Of these sections.
    """

    def __init__(
        self,
        session: Session,
        settings: Settings,
        instrument: str,
        frames: Iterable[Frame],
        sections: Sequence[str] | None = None,
    ) -> None:
        self._ids = {name: key.id for name, key in provenances(settings, instrument).items()}
        times = [frame.mjd_mid for frame in frames]
        self.shelf: Shelf = shelf_of(session, instrument, self._ids, times, sections)
        self.params = settings.params(CombineParams, "combine", instrument)
        self._archive = Archive(settings)

    def needs(self, kind: str) -> list[str]:
        """Name the calibrators that frames of a kind are corrected with, as the settings ask."""
        possible = ("crosstalk", "linearity", *NEEDS[kind])
        return [name for name in possible if getattr(self.params, f"do_{name}")]

    def plan(self, kind: str, section: str, frames: Sequence[Frame]) -> Plan | None:
        """Plan the master of a section; None without frames.

        A night in which one row of the section ends and another begins (e.g. of a CCD that was exchanged)
        gives one master, of the device with most frames; of as many, of the later one.
        """
        came = [frame for frame in frames if section not in (frame.unreadable_sections or ())]
        if not came:
            return None
        devices = self.shelf.devices
        span = devices.fullest(section, [frame.mjd_mid for frame in came])
        usable = [frame for frame in came if span.holds(frame.mjd_mid)]
        left_out = {f.id: _other_device(f.mjd_mid, span) for f in came if not span.holds(f.mjd_mid)}
        mjd = sum(frame.mjd_mid for frame in usable) / len(usable)
        nearest = {name: self.shelf.nearest(name, section, mjd) for name in self.needs(kind)}
        used = {name: known for name, known in nearest.items() if known is not None}
        sums = sorted([str(frame.checksum), frame.mjd_mid, frame.exp_time] for frame in usable)
        made_with = {name: known.data_version for name, known in used.items()}
        changed = devices.properties(section, mjd)
        # A camera whose own code has it all keeps the versions that its masters have.
        version = digest(self._ids[kind], section, sums, made_with, *([changed] if changed else []))
        days = self.params.validity_days
        validity = Span(max(mjd - days, span.start), min(mjd + days, span.end))
        return Plan(usable, mjd, used, version, validity, left_out)

    def mask_version(self, section: str, master: str) -> str:
        """Name the data version of the bad-pixel mask that goes with a dark's or flat's."""
        return mask_version(self._ids["bad_pixels"], section, master)

    def flat_for(self, section: str, mjd: float, band: str) -> Known | None:
        """Return the flat that twilight flats of a time are compared with, or None."""
        return self.shelf.nearest("flat", section, mjd, band)

    def illumination_version(self, section: str, twilight: str, flat: str) -> str:
        """Name the data version of the illumination of a twilight flat and a flat."""
        return illumination_version(self._ids["illumination"], section, twilight, flat)

    def is_there(self, version: str) -> bool:
        """Tell whether a calibrator of this data version is there with its file."""
        known = self.shelf.version(version)
        return known is not None and is_here(known, self._archive)

    def implied(self, key: MasterKey, section: str, plan: Plan) -> list[str]:
        """Name the data versions of a planned master and of what it implies.

        The illumination of a twilight flat through a filter array is known once the flat is there.
        """
        versions = [plan.version]
        if key.kind == "bias":
            return versions
        versions.append(self.mask_version(section, plan.version))
        known = self.shelf.version(plan.version)
        band = known.filter if known is not None else key.filter or ""
        if key.kind == "twilight_flat" and band != ARRAY:
            flat = self.flat_for(section, plan.mjd, band)
            if flat is not None:
                versions.append(self.illumination_version(section, plan.version, flat.data_version))
        return versions

    def misdated(self, versions: Iterable[str], validity: Span) -> list[str]:
        """Name those of some data versions that are there, but with another validity."""
        found = []
        for version in versions:
            known = self.shelf.version(version)
            if known is not None:
                dates = (known.validity_start, math.inf if known.validity_end is None else known.validity_end)
                if any(abs(a - b) >= SAME_DAYS for a, b in zip(dates, validity, strict=True)):
                    found.append(version)
        return found

    def row_without_file(self, version: str) -> str | None:
        """Return the id of the calibrator of a data version if only its file is missing."""
        known = self.shelf.version(version)
        return None if known is None or is_here(known, self._archive) else str(known.id)


@dataclass(frozen=True)
class WantedMaster:
    """A master that can be built and is not there yet in some section.

    Attributes
    ----------
    key
        Which.
    version
        Hash of what is to be there in all sections: the master as it would be made now, the mask and
        illumination it implies; and of which files are lost. The very same files lost once more give the
        same hash.
    frames_since
        When the last calibration frame of its night was registered.
    lacking
        Kinds of masters that it needs and some section has none of.
    """

    key: MasterKey
    version: str
    frames_since: datetime
    lacking: frozenset[str]


def masters_wanted(
    settings: Settings,
    instrument: str,
    nights: Iterable[str] | None = None,
    sections: Sequence[str] | None = None,
) -> list[MasterKey]:
    """List the masters that the registered frames allow and that are not there yet, in building order.

    A night that has got more frames since is listed again, and so is a master whose file is lost, or
    whose bad-pixel mask or illumination is not what the present settings make. So is one of whose section
    the rows have changed since: if it was made of frames of two devices, or its validity is to be
    corrected; and one that another, made of frames or calibrators that no longer count, stands before.

    Parameters
    ----------
    settings, instrument
        Whose.
    nights
        Only these local dates; None for all.
    sections
        Only those missing in one of these sections; None for all.
    """
    return [wanted.key for wanted in look_for_masters(settings, instrument, nights, sections)]


def look_for_masters(
    settings: Settings,
    instrument: str,
    nights: Iterable[str] | None = None,
    sections: Sequence[str] | None = None,
    registered_since: datetime | None = None,
) -> list[WantedMaster]:
    """As `masters_wanted`, with what is known of each.

    Parameters
    ----------
    settings, instrument, nights, sections
        As for `masters_wanted`.
    registered_since
        Only nights of which a calibration frame was registered since then.
    """
    with use_settings(settings), open_session(settings, read_only=True) as session:
        frames = calibration_frames(session, instrument, nights)
        latest = _latest(frames)
        if registered_since is not None:
            frames = {key: of for key, of in frames.items() if latest[key.night] >= registered_since}
        only = sections
        if sections is None:
            sections = [str(s) for s in get_instrument_instance(instrument).get_section_ids()]
        own = [frame for of in frames.values() for frame in of]
        planner = Planner(session, settings, instrument, own, only)
        ordered = sorted(frames, key=lambda k: (KINDS.index(k.kind), k.night, k.filter or ""))
        found = (_look(planner, key, frames[key], sections, latest[key.night]) for key in ordered)
        return [wanted for wanted in found if wanted is not None]


def _look(
    planner: Planner, key: MasterKey, frames: Sequence[Frame], sections: Sequence[str], latest: datetime
) -> WantedMaster | None:
    """Tell what is known of a master unless it is there in all sections."""
    plans = {section: planner.plan(key.kind, section, frames) for section in sections}
    known = {section: plan for section, plan in plans.items() if plan is not None}
    versions = {section: planner.implied(key, section, plan) for section, plan in known.items()}
    missing = [v for of in versions.values() for v in of if not planner.is_there(v)]
    dates = {s: plan.validity for s, plan in known.items() if planner.misdated(versions[s], plan.validity)}
    outranked = sorted(s for s, plan in known.items() if planner.shelf.outranks(plan.version))
    if not missing and not dates and not outranked:
        return None
    masters = [name for name in planner.needs(key.kind) if name in KINDS]
    lacking = {name for plan in known.values() for name in masters if name not in plan.used}
    lost = sorted(row for row in map(planner.row_without_file, missing) if row is not None)
    extra = [part for part in (dates, outranked) if part]
    return WantedMaster(key, digest(versions, lost, *extra), latest, frozenset(lacking))


def _other_device(mjd: float, used: Span) -> str:
    """Say why a frame is not combined with those of a device that were used."""
    when = f"before {mjd_to_iso(used.start)}" if mjd < used.start else f"after {mjd_to_iso(used.end)}"
    return f"taken {when}, when the section had another row (another device)"


def _latest(frames: Mapping[MasterKey, Sequence[Frame]]) -> dict[str, datetime]:
    """Tell when the last frame of each night was registered, UTC."""
    latest: dict[str, datetime] = {}
    for key, of in frames.items():
        # SQLite keeps no time zone.
        times = [f.created_at if f.created_at.tzinfo else f.created_at.replace(tzinfo=UTC) for f in of]
        latest[key.night] = max(times + ([latest[key.night]] if key.night in latest else []))
    return latest
