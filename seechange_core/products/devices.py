"""Between which dates a section was one and the same device: what its masters can serve."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.instrument import get_instrument_instance
from seechange_core.instrument.sensor_section import SensorSection

#: Properties of a section that what we make of its raw pixels depends on.
DETECTOR_PROPERTIES = ("gain", "read_noise", "saturation_limit", "non_linearity_limit", "defective")

_Stored = tuple[float, float, dict[str, Any]]


class Span(NamedTuple):
    """From when on (MJD, UTC; included) and until when (excluded) one row of a section holds."""

    start: float
    end: float

    def holds(self, mjd: float) -> bool:
        """Tell whether an MJD lies in it."""
        return self.start <= mjd < self.end


class Devices:
    """The rows of a camera's sections, as the database has them now, with the hard-coded ones between them.

    Every row counts as a device of its own, whatever changed: a CCD was exchanged, repaired, or its
    electronics were set otherwise.

    Parameters
    ----------
    session
        An open session; it is asked once, here.
    instrument
        The camera's name.
    sections
        Only of these sections; None for all.
    """

    def __init__(self, session: Session, instrument: str, sections: Sequence[str] | None = None) -> None:
        self._camera = get_instrument_instance(instrument)
        columns = ("section_id", "validity_start", "validity_end", *DETECTOR_PROPERTIES)
        query = select(*(getattr(SensorSection, name) for name in columns)).where(
            SensorSection.instrument == instrument
        )
        if sections is not None:
            query = query.where(SensorSection.section_id.in_(list(sections)))
        self._stored: dict[str, list[_Stored]] = {}
        for section, start, end, *values in session.execute(query.order_by(SensorSection.id)):
            own = {n: v for n, v in zip(DETECTOR_PROPERTIES, values, strict=True) if v is not None}
            self._stored.setdefault(section, []).append((*_limits(start, end), own))
        for rows in self._stored.values():
            rows.sort(key=lambda row: row[0])
        self._spans: dict[str, list[Span]] = {}
        self._properties: dict[tuple[str, Span], dict[str, Any]] = {}

    def span(self, section: str, mjd: float) -> Span:
        """Return between which dates the row holds that a section has at an MJD (UTC)."""
        known = self._spans.setdefault(section, [])
        found = next((span for span in known if span.holds(mjd)), None)
        if found is None:
            row = self._row(section, mjd)
            found = Span(row[0], row[1]) if row is not None else self._between(section, mjd)
            known.append(found)
        return found

    def same(self, section: str, one_mjd: float, other_mjd: float) -> bool:
        """Tell whether a section was the same device at two times."""
        return self.span(section, one_mjd).holds(other_mjd)

    def fullest(self, section: str, mjds: Iterable[float]) -> Span:
        """Return the span with most of some times, at least one; of those with as many, the later one."""
        spans = [self.span(section, mjd) for mjd in mjds]
        if len(set(spans)) == 1:
            return spans[0]
        return max(spans, key=lambda span: (spans.count(span), span.start))

    def properties(self, section: str, mjd: float) -> dict[str, Any]:
        """Return the `DETECTOR_PROPERTIES` that the database has otherwise than the camera's own code."""
        key = (section, self.span(section, mjd))
        if key not in self._properties:
            row = self._row(section, mjd)
            own = {} if row is None else row[2]
            coded = self._camera.hard_coded_section(self._camera.section_id_of(section), mjd) if own else None
            self._properties[key] = {n: value for n, value in own.items() if value != getattr(coded, n)}
        return self._properties[key]

    def _row(self, section: str, mjd: float) -> _Stored | None:
        """Return the stored row that holds; of several, the one that began last."""
        rows = self._stored.get(section, ())
        return next((row for row in reversed(rows) if row[0] <= mjd < row[1]), None)

    def _between(self, section: str, mjd: float) -> Span:
        """Return how long the camera's own row holds, where the database has none."""
        coded = self._camera.hard_coded_section(self._camera.section_id_of(section), mjd)
        start, end = _limits(coded.validity_start, coded.validity_end)
        rows = self._stored.get(section, ())
        return Span(
            max([start, *(row[1] for row in rows if row[1] <= mjd)]),
            min([end, *(row[0] for row in rows if row[0] > mjd)]),
        )


def _limits(start: float | None, end: float | None) -> tuple[float, float]:
    return -math.inf if start is None else start, math.inf if end is None else end
