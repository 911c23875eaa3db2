"""Choosing among calibrators: by section, device, filter and nearest valid date, with few queries."""

import os
import uuid
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from seechange_core.products.calibrator import Calibrator, calibrator_frames
from seechange_core.products.devices import Devices
from seechange_core.products.exposure import Exposure
from seechange_core.storage.archive import Archive

#: What is looked at first: so many days around the exposures. Calibrators are mostly of the same night.
NEAR_DAYS = 2.0
#: One found this near is the nearest, and all of its night are among those looked at.
SURE_DAYS = 1.0
#: The frames of a master lie within so many days of its own time: they are of one night.
NIGHT_DAYS = 1.5


class Known(NamedTuple):
    """What is needed of a calibrator's row to choose it; `provenance_id` and so on as in `Calibrator`."""

    id: uuid.UUID
    kind: str
    section_id: str
    filter: str
    night: str
    mjd: float
    validity_start: float
    validity_end: float | None
    origin: str
    data_version: str
    filepath: str | None
    bitflag: int
    created_at: datetime

    @property
    def rank(self) -> tuple[datetime, int]:
        """Of those that serve equally, the one recorded last is the greatest."""
        return self.created_at, self.id.int

    def serves(self, mjd: float) -> bool:
        """Tell whether it is good and valid at an MJD (UTC)."""
        return (
            not self.bitflag
            and self.validity_start <= mjd
            and (self.validity_end is None or mjd < self.validity_end)
        )


_COLUMNS = [getattr(Calibrator, name) for name in Known._fields]


@dataclass
class _Group:
    """The calibrators of one kind, section and filter."""

    rows: list[Known] = field(default_factory=list)
    mjds: list[float] = field(default_factory=list)
    nights: dict[str, list[Known]] = field(default_factory=dict)

    def add(self, row: Known) -> None:
        place = bisect(self.mjds, row.mjd)
        self.rows.insert(place, row)
        self.mjds.insert(place, row.mjd)
        self.nights.setdefault(row.night, []).append(row)

    def nearest(self, mjd: float, serves: Callable[[Known, float], bool]) -> Known | None:
        """Return the nearest that serves an MJD; of several as near, the one added last."""
        found: Known | None = None
        for row in self._outward(mjd):
            if found is not None and abs(row.mjd - mjd) > abs(found.mjd - mjd):
                break
            if (found is None or row.rank > found.rank) and serves(row, mjd):
                found = row
        return found

    def _outward(self, mjd: float) -> Iterator[Known]:
        """Go through the rows from a time on, the nearer ones first."""
        after = bisect(self.mjds, mjd)
        before = after - 1
        while before >= 0 or after < len(self.rows):
            if after == len(self.rows) or (before >= 0 and mjd - self.mjds[before] <= self.mjds[after] - mjd):
                yield self.rows[before]
                before -= 1
            else:
                yield self.rows[after]
                after += 1


class Shelf:
    """The calibrators of an instrument that exposures of some days could be calibrated with.

    Those that we built under other provenances than the present ones are not on it; supplied ones all are.
    One that we built serves exposures of the device it was made with, as the rows of the sections tell
    now; one that was supplied serves those of the dates that it was supplied for.

    Parameters
    ----------
    session
        An open session, which must stay open as long as the shelf is asked.
    instrument
        Whose.
    provenances
        Ids of the present provenances of all kinds that we build.
    mjds
        Times of the exposures, MJD (UTC).
    sections
        Only of these sections; None for all.

    Attributes
    ----------
    devices
        Between which dates each section was one device.
    """

    def __init__(
        self,
        session: Session,
        instrument: str,
        provenances: Iterable[str],
        mjds: Iterable[float],
        sections: Sequence[str] | None = None,
    ) -> None:
        times = [float(mjd) for mjd in mjds]
        self._session = session
        self.devices = Devices(session, instrument, sections)
        self._pure: dict[uuid.UUID, bool] = {}
        self._span = (min(times), max(times)) if times else (0.0, 0.0)
        self._conditions: list[ColumnElement[bool]] = [
            Calibrator.instrument == instrument,
            or_(Calibrator.origin == "supplied", Calibrator.provenance_id.in_(list(provenances))),
        ]
        if sections is not None:
            self._conditions.append(Calibrator.section_id.in_(list(sections)))
        self._groups: dict[tuple[str, str, str], _Group] = {}
        self._versions: dict[str, Known] = {}
        self._complete: set[str] = set()
        if times:
            first, last = self._span
            self._take(Calibrator.mjd.between(first - NEAR_DAYS, last + NEAR_DAYS))

    def nearest(self, kind: str, section: str, mjd: float, band: str = "") -> Known | None:
        """Return the good calibrator nearest in time among those that serve at an MJD (UTC), or None.

        Of those built for the same night, the one made last: it knows of frames that came later. Of
        those as near, the one that was added last.

        Parameters
        ----------
        kind, section
            What is asked for.
        mjd
            Middle of the exposure to calibrate, within the days of the shelf.
        band
            Name of the filter, for kinds that have one.
        """
        group = self._groups.get((kind, section, band))
        found = group.nearest(mjd, self._serves) if group is not None else None
        if kind not in self._complete and (found is None or abs(found.mjd - mjd) > SURE_DAYS):
            self._take_all(kind)
            return self.nearest(kind, section, mjd, band)
        if group is None or found is None or found.origin != "built":
            return found
        tonight = (r for r in group.nights[found.night] if r.origin == "built" and self._serves(r, mjd))
        return max(tonight, key=lambda row: row.rank)

    def outranks(self, data_version: str) -> bool:
        """Tell whether another one, built later for the same night, is used instead of a data version."""
        known = self._versions.get(data_version)
        if known is None or known.origin != "built":
            return False
        same = self._groups[known.kind, known.section_id, known.filter].nights[known.night]
        return any(row.origin == "built" and not row.bitflag and row.rank > known.rank for row in same)

    def by_nearness(self, kind: str, section: str, mjd: float, band: str = "") -> list[Known]:
        """Return all good calibrators that serve at an MJD (UTC), the nearest first."""
        if kind not in self._complete:
            self._take_all(kind)
        group = self._groups.get((kind, section, band), _Group())
        rows = [row for row in group.rows if self._serves(row, mjd)]
        return sorted(rows, key=lambda row: (abs(row.mjd - mjd), -row.created_at.timestamp(), -row.id.int))

    def version(self, data_version: str) -> Known | None:
        """Return the calibrator of a data version, good or not, if it is among those looked at."""
        return self._versions.get(data_version)

    def rows(self, chosen: Mapping[str, Known]) -> dict[str, Calibrator]:
        """Fetch the whole rows of some that were chosen."""
        query = select(Calibrator).where(Calibrator.id.in_([known.id for known in chosen.values()]))
        found = {row.id: row for row in self._session.scalars(query)} if chosen else {}
        return {name: found[known.id] for name, known in chosen.items()}

    def _serves(self, row: Known, mjd: float) -> bool:
        """Tell whether one is good, valid at an MJD, and of the device that the section was then."""
        if not row.serves(mjd):
            return False
        if row.origin != "built":
            return True
        return self.devices.same(row.section_id, row.mjd, mjd) and self._is_of_one_device(row)

    def _is_of_one_device(self, row: Known) -> bool:
        """Tell whether no frame of one that we built was of another device than its mean time says.

        It was made before the row of the section ended in the middle of its night. Only masters so near
        to an end are looked at more closely.
        """
        span = self.devices.span(row.section_id, row.mjd)
        if min(row.mjd - span.start, span.end - row.mjd) > NIGHT_DAYS:
            return True
        if row.id not in self._pure:
            columns = calibrator_frames.c
            query = (
                select(func.min(Exposure.mjd_mid), func.max(Exposure.mjd_mid))
                .join(calibrator_frames, Exposure.id == columns.exposure_id)
                .where(columns.calibrator_id == row.id, columns.rejected_because == "")
            )
            times = [mjd for mjd in self._session.execute(query).one() if mjd is not None]
            self._pure[row.id] = all(span.holds(mjd) for mjd in times)
        return self._pure[row.id]

    def _take_all(self, kind: str) -> None:
        """Look at all of a kind that are valid at any time of the shelf's days."""
        first, last = self._span
        end = Calibrator.validity_end
        valid = and_(Calibrator.validity_start <= last, or_(end.is_(None), end > first))
        self._take(and_(Calibrator.kind == kind, valid))
        self._complete.add(kind)

    def _take(self, condition: ColumnElement[bool]) -> None:
        for row in self._session.execute(select(*_COLUMNS).where(*self._conditions, condition)):
            known = Known(*row)
            if known.data_version not in self._versions:
                self._versions[known.data_version] = known
                self._groups.setdefault((known.kind, known.section_id, known.filter), _Group()).add(known)


def is_here(known: Known, archive: Archive) -> bool:
    """Tell whether the file of a calibrator is here, or on the server: nothing is fetched to know it.

    What a server cannot tell counts as no: planning does not depend on the network.
    """
    if known.filepath is None:
        return False
    # The plain look first: there are thousands to look at, and nearly all are here.
    here = any(os.path.isfile(f"{root}/{known.filepath}") for root in archive.roots)  # noqa: PTH113
    return here or archive.seems_to_be_somewhere(known.filepath)
