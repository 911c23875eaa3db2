"""A person's word on an exposure, a section of it, or an object: recorded, acted on, and taken back."""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.chain.lineage import provenances
from seechange_core.chain.objects import regroup_exposure
from seechange_core.chain.quality import judge_night
from seechange_core.chain.section import Section
from seechange_core.errors import NotFoundError, UserError
from seechange_core.flags import ExposureFlag
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image, image_parents
from seechange_core.products.object import Object, objects_named
from seechange_core.products.outcome import StepOutcome
from seechange_core.products.reference import Reference
from seechange_core.products.verdict import (
    OF_EXPOSURES,
    OF_OBJECTS,
    UNDO,
    Verdict,
    apply_verdicts,
    judged,
    settle_verdicts,
    verdicts_on,
)
from seechange_core.settings import Settings, use_settings
from seechange_core.storage.engine import open_session
from seechange_core.storage.rows import take_turns


@dataclass(frozen=True)
class VerdictRow:
    """One thing that was said.

    Attributes
    ----------
    target
        Name of the exposure or object, as it was called then.
    section
        Empty: the whole exposure, or an object.
    word
        bad, good, real, bogus, or undo.
    reason, said_by, said_at
        Why, who, and when (UTC).
    counts
        Whether it is what holds now.
    """

    target: str
    section: str
    word: str
    reason: str
    said_by: str
    said_at: datetime
    counts: bool


@dataclass(frozen=True)
class Marked:
    """What a verdict came to.

    Attributes
    ----------
    target, section
        What was judged.
    holds
        What counts of it now; None if nothing does.
    n_objects
        Objects at the place that was judged: one, or one for each of several settings.
    references
        Region and filter of the present references that were made with what is now bad.
    """

    target: str
    section: str
    holds: VerdictRow | None
    n_objects: int = 0
    references: tuple[tuple[str, str], ...] = ()


def mark(
    settings: Settings,
    target: str,
    word: str,
    reason: str,
    *,
    section: str | None = None,
    by: str | None = None,
) -> Marked:
    """Record what a person says of an exposure, of one section of it, or of an object.

    A bad exposure or section is left out of references built from now on, of objects, of forced photometry,
    of light curves, of candidates and of its night's transparency; a bogus object of candidates, of searches
    by position and of forced photometry: until that is taken back, no new flux of it is measured, and then
    all that were left out are, as soon as a section that covers it is processed again. The word holds for the
    exposure, the section, or the place on the sky: products and objects that are made again, even with other
    settings, find it there. The last word counts.

    Parameters
    ----------
    settings
        Whose.
    target
        Name of an exposure or of an object.
    word
        bad or good of an exposure, real or bogus of an object; ``undo`` takes the last word back, so that
        the one before it counts again.
    reason
        Why, in words.
    section
        Of a science exposure: this section only.
    by
        Who says it; the name of the user by default.

    Raises
    ------
    NotFoundError
        If there is no such exposure, object or section.
    UserError
        If there is no reason, the word does not fit the target, or there is nothing to undo.
    """
    if not reason.strip():
        raise UserError("a verdict needs a reason", cure='say why: --reason "..."')
    said = Verdict(word=word, reason=reason.strip(), said_by=by or _user())
    with use_settings(settings):
        with open_session(settings) as session:
            take_turns(session, "verdicts")
            take_turns(session, "objects")  # one that is made meanwhile would not hear of it
            exposure, found = _target(session, target)
            _check_word(word, OF_OBJECTS if exposure is None else OF_EXPOSURES, target)
            if exposure is not None:
                _check_section(exposure, section)
                marked = _mark_exposure(session, settings, exposure, section or "", said)
            elif found is not None and section is None:
                marked = _mark_object(session, found, said)
            else:
                raise UserError("an object has no sections", cure="leave --section out")
        if exposure is not None and exposure.type == "science":
            _judge_again(settings, exposure, section)
    return marked


def verdict_history(settings: Settings, target: str) -> list[VerdictRow]:
    """Return all that was said of an exposure and its sections, or of an object, in the order of time.

    Raises
    ------
    NotFoundError
        If there is no such exposure or object.
    """
    with use_settings(settings), open_session(settings, read_only=True) as session:
        exposure, found = _target(session, target)
        if exposure is not None:
            return [_row(v, target) for v in _said_of(session, exposure)]
        return [_row(v, v.object_name or target) for v in (verdicts_on(session, found) if found else [])]


def standing_verdicts(settings: Settings) -> list[VerdictRow]:
    """Return what holds now of exposures and sections, the earliest said first."""
    query = (
        select(Verdict, Exposure.name)
        .join(Exposure, Exposure.id == Verdict.exposure_id)
        .where(Verdict.counts.is_(True))
        .order_by(Verdict.created_at, Verdict.id)
    )
    with use_settings(settings), open_session(settings, read_only=True) as session:
        return [_row(verdict, name) for verdict, name in session.execute(query)]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        raise UserError("nobody knows who you are", cure="say it: --by NAME") from None


def _target(session: Session, name: str) -> tuple[Exposure | None, Object | None]:
    exposure = session.scalar(select(Exposure).where(Exposure.name == name))
    found = None if exposure is not None else next(iter(objects_named(session, name)), None)
    if exposure is None and found is None:
        raise NotFoundError(
            f"there is no exposure or object {name!r}", cure="`seechange show` and `candidates` list them"
        )
    return exposure, found


def _check_word(word: str, known: Sequence[str], target: str) -> None:
    if word not in (*known, UNDO):
        kind = "an exposure" if known is OF_EXPOSURES else "an object"
        raise UserError(f"{target} is {kind}, which cannot be {word!r}", cure=f"say {' or '.join(known)}")


def _check_section(exposure: Exposure, section: str | None) -> None:
    if section is None:
        return
    if exposure.type != "science":
        raise UserError(
            f"{exposure.name} is a {exposure.type}: it counts as a whole", cure="leave --section out"
        )
    known = [str(s) for s in exposure.instrument_object.get_section_ids()]
    if section not in known:
        raise NotFoundError(
            f"{exposure.instrument} has no such section",
            exposure=exposure.name,
            section=section,
            cure=f"its sections are {', '.join(known)}",
        )


def _said_of(session: Session, exposure: Exposure, section: str | None = None) -> list[Verdict]:
    query = select(Verdict).where(Verdict.exposure_id == exposure.id)
    if section is not None:
        query = query.where(Verdict.section_id == section)
    return list(session.scalars(query.order_by(Verdict.created_at, Verdict.id)))


def _settle(session: Session, said: Verdict, earlier: list[Verdict]) -> Verdict | None:
    """Add what is said now to what was said before; return what holds."""
    if said.word == UNDO and not any(row.counts for row in earlier):
        raise UserError("nothing was said that could be undone", cure="seechange mark NAME shows what was")
    session.add(said)
    session.flush()
    return settle_verdicts([*earlier, said])


def _mark_exposure(
    session: Session, settings: Settings, exposure: Exposure, section: str, said: Verdict
) -> Marked:
    said.exposure_id, said.section_id = exposure.id, section
    holds = _settle(session, said, _said_of(session, exposure, section))
    is_bad = holds is not None and holds.word == "bad"
    if not section:
        bit = int(ExposureFlag.MARKED_BAD)
        exposure.bitflag = exposure.bitflag | bit if is_bad else exposure.bitflag & ~bit
        exposure.bad_reason = holds.reason if holds is not None and is_bad else None
    session.flush()
    if exposure.type == "science":
        regroup_exposure(session, exposure.id)
    made_with = _references_with(session, settings, exposure, section) if is_bad else ()
    return Marked(exposure.name, section, _holding(holds, exposure.name), references=made_with)


def _references_with(
    session: Session, settings: Settings, exposure: Exposure, section: str
) -> tuple[tuple[str, str], ...]:
    query = (
        select(Reference.region, Reference.filter)
        .join(image_parents, image_parents.c.coadd_id == Reference.image_id)
        .join(Image, Image.id == image_parents.c.parent_id)
        .where(
            Image.exposure_id == exposure.id,
            Reference.provenance_id == provenances(settings, exposure.instrument)["reference"].id,
        )
        .distinct()
        .order_by(Reference.region, Reference.filter)
    )
    if section:
        query = query.where(Image.section_id == section)
    return tuple((region, band) for region, band in session.execute(query))


def _mark_object(session: Session, found: Object, said: Verdict) -> Marked:
    said.object_name, said.ra, said.dec = found.name, found.ra, found.dec
    holds = _settle(session, said, verdicts_on(session, found))
    (objects,) = judged(session, [said])
    apply_verdicts(session, objects)
    return Marked(found.name, "", _holding(holds, found.name), n_objects=len(objects))


def _judge_again(settings: Settings, exposure: Exposure, section: str | None) -> None:
    """Let the transparency of the night follow: an exposure more or less to compare with."""
    query = select(StepOutcome.section_id).distinct()
    query = query.where(
        StepOutcome.exposure_id == exposure.id,
        StepOutcome.step == "zero_point",
        StepOutcome.status == "done",
    )
    with open_session(settings, read_only=True) as session:
        sections = sorted(session.scalars(query))
    known = {str(i) for i in exposure.instrument_object.get_section_ids()}
    for name in sections:
        if name in known and section in (None, name):
            judge_night(Section.open(settings, exposure.name, name))


def _holding(verdict: Verdict | None, target: str) -> VerdictRow | None:
    return None if verdict is None else _row(verdict, target)


def _row(verdict: Verdict, target: str) -> VerdictRow:
    return VerdictRow(
        target=target,
        section=verdict.section_id,
        word=verdict.word,
        reason=verdict.reason,
        said_by=verdict.said_by,
        said_at=verdict.created_at,
        counts=verdict.counts,
    )
