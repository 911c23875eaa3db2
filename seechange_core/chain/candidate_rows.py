"""What changed, best first: the good detections of a night, one entry for each thing that they are of."""

import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from seechange_core.chain.could_see import exposures_that_could
from seechange_core.chain.identify import Known, Sightings, known_movers, known_variables
from seechange_core.chain.kinds import KINDS, Kind, kind_of
from seechange_core.chain.lineage import provenances
from seechange_core.chain.seen import Seen, looked_for, seen_by
from seechange_core.flags import QualityFlag, names
from seechange_core.frames import Float, Int
from seechange_core.numerics.tracklets import Detections, Tracklet, find_tracklets
from seechange_core.products.exposure import Exposure
from seechange_core.products.measurement import Measurement
from seechange_core.products.object import Object
from seechange_core.products.verdict import Verdict, standing_on
from seechange_core.qa.ranking import interest
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.associate import AssociateParams
from seechange_core.storage.engine import open_session

Found = TypeVar("Found", Object, Exposure)
#: Rows asked for at once by their ids.
_CHUNK = 500


@dataclass(frozen=True)
class CandidateRow:
    """One thing that changed: its best detection of the night, and what else is known of it.

    Attributes
    ----------
    object
        Name; of what moves, that of the first of its objects.
    kind
        ``new``: light where the reference has no source; ``brightened``: a source of the reference is
        brighter; ``faded``: light is missing; ``variable``: both were seen, or a table knows it; ``mover``: a
        table knows it, or it moved between exposures.
    known
        What the tables say, the distance from there in brackets; empty if nothing.
    ra, dec, exposure, section, night, mjd_mid, filter, score, mag, mag_err
        Of its best detection; score in sigma, signed; the magnitude is that of the light that came or, where
        the score is negative, went.
    around, change_mag
        What the reference shows there, in words; and by how much what was there is fainter (negative:
        brighter), None if nothing was or as much is missing.
    n_epochs, hours
        Exposures in which it was seen, of all nights, and the time from the first to the last; of what
        moves, in this night.
    n_possible
        These, and all others of the same nights and filter that would have shown it as bright as it was at
        its best: where the measured depth at its place is fainter.
    n_sightings
        All sightings of the object that there are.
    rate_arcsec_h, angle_deg
        Motion found in this night's exposures, and towards where, from north through east; None if none was.
    verdict, reason, said_by
        A person's: real or bogus, and why; empty if nobody said anything.
    quality
        What is bad about the image of the best detection.
    members
        Names of the objects that it was found as: several of what moves.
    measurement_id, cutouts_id
        Of its best detection.
    """

    object: str
    kind: Kind
    known: str
    ra: float
    dec: float
    exposure: str
    section: str
    night: str
    mjd_mid: float
    filter: str
    score: float
    mag: float | None
    mag_err: float | None
    around: str
    change_mag: float | None
    n_epochs: int
    n_possible: int
    hours: float
    n_sightings: int
    rate_arcsec_h: float | None
    angle_deg: float | None
    verdict: str
    reason: str
    said_by: str
    quality: str
    members: tuple[str, ...]
    measurement_id: uuid.UUID
    cutouts_id: uuid.UUID


@dataclass(frozen=True)
class Selection:
    """Which candidates are wanted.

    Attributes
    ----------
    min_epochs, min_hours
        Seen in so many exposures at least, the first and the last so far apart.
    unconfirmed
        Also seen in fewer, where no other exposure could have shown it (`CandidateRow.n_possible`).
    min_score
        Of the best detection, sigma.
    bright, faint
        Limits of its magnitude.
    kinds
        Only these.
    real
        Only what a person called real.
    with_bogus
        Also what a person called bogus.
    """

    min_epochs: int = 2
    min_hours: float = 0.0
    min_score: float = 0.0
    bright: float | None = None
    faint: float | None = None
    kinds: Collection[Kind] = KINDS
    real: bool = False
    with_bogus: bool = False
    unconfirmed: bool = False

    def takes(self, row: CandidateRow) -> bool:
        """Tell whether a candidate is wanted."""
        return (
            self.is_confirmed(row)
            and row.hours >= self.min_hours
            and abs(row.score) >= self.min_score
            and (self.bright is None or (row.mag is not None and row.mag >= self.bright))
            and (self.faint is None or (row.mag is not None and row.mag <= self.faint))
            and row.kind in self.kinds
            and (row.verdict == "real" or not self.real)
            and (row.verdict != "bogus" or self.with_bogus)
        )

    def is_confirmed(self, row: CandidateRow) -> bool:
        """Tell whether a candidate was seen often enough, or as often as it could have been."""
        return row.n_epochs >= self.min_epochs or (self.unconfirmed and row.n_epochs >= row.n_possible)


def candidates(
    settings: Settings,
    night: str | None = None,
    *,
    limit: int | None = None,
    selection: Selection | None = None,
) -> list[CandidateRow]:
    """List what changed under the present settings, best first.

    Good detections of one object are one candidate, and so are those of different objects that lie on a line
    run through at a steady rate in one night: an asteroid. Sections and exposures that a person called bad
    do not count.

    Parameters
    ----------
    settings
        Whose.
    night
        Local date, YYYY-MM-DD; None for all nights.
    limit
        At most so many.
    selection
        Which; what was seen in two exposures at least by default.

    Raises
    ------
    NotFoundError, FileDamagedError, UserError
        If a table of known objects that the settings name is missing or cannot be read.
    """
    chosen = selection or Selection()
    rows = [row for row in all_candidates(settings, night) if chosen.takes(row)]
    return rows if limit is None else rows[:limit]


def all_candidates(settings: Settings, night: str | None = None) -> list[CandidateRow]:
    """List all candidates, whatever speaks against them, best first; parameters as `candidates`."""
    with use_settings(settings):
        with open_session(settings, read_only=True) as session:
            instruments = session.scalars(select(Exposure.instrument).distinct()).all()
            made = [provenances(settings, i) for i in instruments]
            query = seen_by([of["measurement"].id for of in made])
            tonight = query if night is None else query.where(Exposure.night == night)
            rows = [Seen(*row) for row in session.execute(tonight)]
            objects = _rows(session, Object, {row.object_id for row in rows})
            every = rows if night is None else _all_nights(session, query, list(objects))
            exposures = _rows(session, Exposure, {row.exposure_id for row in rows})
            said = standing_on(session, list(objects.values()))
            history: dict[uuid.UUID, list[Seen]] = defaultdict(list)
            for row in every:
                history[row.object_id].append(row)
            could = exposures_that_could(
                session, looked_for(rows, history), [of["detections"].id for of in made]
            )
        found = _Night(settings, rows, exposures, objects, history, said, could).candidates()
    ranks = interest(
        np.array([row.score for row in found]),
        np.array([row.n_epochs for row in found]),
        np.array([KINDS.index(row.kind) for row in found], int),
        np.array([row.known != "" for row in found], bool),
    )
    return [found[i] for i in np.argsort(-ranks, kind="stable")]


def _all_nights(session: Session, query: Select[Any], ids: Sequence[uuid.UUID]) -> list[Seen]:
    found = []
    for start in range(0, len(ids), _CHUNK):
        part = query.where(Measurement.object_id.in_(ids[start : start + _CHUNK]))
        found += [Seen(*row) for row in session.execute(part)]
    return found


def _rows(session: Session, kind: type[Found], ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Found]:
    """Return rows of a table by their ids."""
    wanted, found = sorted(ids), list[Found]()
    for start in range(0, len(wanted), _CHUNK):
        found += session.scalars(select(kind).where(kind.id.in_(wanted[start : start + _CHUNK])))
    return {row.id: row for row in found}


@dataclass(frozen=True)
class _Night:
    """The detections of a night (or of all), and what is known around them."""

    settings: Settings
    rows: list[Seen]
    exposures: dict[uuid.UUID, Exposure]
    objects: dict[uuid.UUID, Object]
    history: dict[uuid.UUID, list[Seen]]
    said: dict[uuid.UUID, Verdict]
    could: dict[uuid.UUID, set[uuid.UUID]]

    def candidates(self) -> list[CandidateRow]:
        """Put the detections together to things, and describe each."""
        if not self.rows:
            return []
        seen = self._sightings()
        lines: dict[int, Tracklet] = {}
        for rows, line in self._lines(seen):
            lines |= {int(rows[k]): line for k in line.members}
        groups: dict[object, list[int]] = defaultdict(list)
        for i, row in enumerate(self.rows):
            groups[id(lines[i]) if i in lines else row.object_id].append(i)
        for number, group in enumerate(groups.values()):
            seen.thing[group] = number
        movers, variables = known_movers(self.settings, seen), known_variables(self.settings, seen)
        return [
            self._row(group, lines.get(group[0]), _most(movers, group), _most(variables, group))
            for group in groups.values()
        ]

    def _sightings(self) -> Sightings:
        numbers = {key: i for i, key in enumerate(self.exposures)}
        return Sightings(
            exposure=np.array([numbers[row.exposure_id] for row in self.rows]),
            mjd_mid=np.array([row.mjd_mid for row in self.rows]),
            ra=np.array([row.ra for row in self.rows]),
            dec=np.array([row.dec for row in self.rows]),
            # What fades does not move: it has no magnitude.
            mag=_floats([row.mag if (row.flux or 0.0) > 0 else None for row in self.rows]),
            sites=[self.exposures[row.exposure_id].site for row in self.rows],
            err_arcsec=_errors(self.rows),
            thing=np.arange(len(self.rows)),
            steady=np.array([self._is_steady(row) for row in self.rows]),
        )

    def _lines(self, seen: Sightings) -> list[tuple[Int, Tracklet]]:
        """Return what moves in each night: the numbers of its detections, and lines that index these."""
        nights: dict[str, list[int]] = defaultdict(list)
        for i, row in enumerate(self.rows):
            # What fades has no magnitude: what is gone from the reference does not move.
            if row.flux is not None and row.flux > 0:
                nights[row.night].append(i)
        found = []
        for members in nights.values():
            rows = np.array(members)
            there = Detections(
                mjd=seen.mjd_mid[rows],
                exposure=seen.exposure[rows],
                ra=seen.ra[rows],
                dec=seen.dec[rows],
                err_arcsec=seen.err_arcsec[rows],
                mag=seen.mag[rows],
                steady=seen.steady[rows],
            )
            found += [(rows, line) for line in find_tracklets(there)]
        return found

    def _is_steady(self, row: Seen) -> bool:
        """Tell whether something was seen at this place in another night."""
        return any(abs(seen.mjd_mid - row.mjd_mid) > 0.5 for seen in self.history[row.object_id])

    def _row(self, group: list[int], line: Tracklet | None, mover: str, variable: str) -> CandidateRow:
        best = self.rows[max(group, key=lambda i: abs(self.rows[i].score))]
        members = list(dict.fromkeys(self.rows[i].object_id for i in group))
        first = self.objects[members[0]]
        every = [self.rows[i] for i in group] + (self.history[first.id] if line is None else [])
        times = {seen.exposure_id: seen.mjd_mid for seen in every}
        possible = times.keys() | (self.could.get(first.id, set()) if line is None else set())
        instrument = self.exposures[best.exposure_id].instrument
        there = best.around(self.settings.params(AssociateParams, "associate", instrument))
        moves = bool(mover) or line is not None
        said = next((self.said[key] for key in members if key in self.said), None)
        return CandidateRow(
            object=first.name,
            kind=kind_of((seen.score for seen in every), there, moves=moves, in_table=bool(variable)),
            known=mover or variable,
            ra=first.ra if line is None else best.ra,
            dec=first.dec if line is None else best.dec,
            exposure=best.exposure,
            section=best.section,
            night=best.night,
            mjd_mid=best.mjd_mid,
            filter=best.filter,
            score=best.score,
            mag=best.mag,
            mag_err=best.mag_err,
            around=there.words(),
            change_mag=there.change_mag,
            n_epochs=len(times),
            n_possible=len(possible),
            hours=24 * (max(times.values()) - min(times.values())),
            n_sightings=sum(self.objects[key].n_sightings for key in members),
            rate_arcsec_h=None if line is None else line.rate_arcsec_h,
            angle_deg=None if line is None else line.angle_deg,
            verdict="" if said is None else said.word,
            reason="" if said is None else said.reason,
            said_by="" if said is None else said.said_by,
            quality=" ".join(names(best.bitflag, QualityFlag)),
            members=tuple(self.objects[key].name for key in members),
            measurement_id=best.measurement_id,
            cutouts_id=best.cutouts_id,
        )


def _floats(values: Sequence[float | None]) -> Float:
    return np.array([np.nan if value is None else value for value in values], float)


def _errors(rows: Sequence[Seen]) -> Float:
    """Return the errors of positions, arcsec; a usual one where the fit gave none."""
    errors = _floats([row.position_err_arcsec for row in rows])
    return np.where(np.isfinite(errors), errors, 0.3)


def _most(known: Sequence[Known | None], group: Sequence[int]) -> str:
    """Return what a group's detections are known as, if half of them at least are: of the nearest."""
    there = [entry for i in group if (entry := known[i]) is not None]
    return min(there).words if there and 2 * len(there) >= len(group) else ""
