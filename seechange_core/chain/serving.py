"""Which nights' calibration frames matter to some exposures, by the rows alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from seechange_core.chain.choice import not_marked_bad
from seechange_core.chain.wanted import ARRAY, BUILDS_ON, FLATS, KINDS, MasterKey
from seechange_core.products.exposure import Exposure
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.master_recipe import CombineParams
from seechange_core.storage.engine import open_session


@dataclass(frozen=True)
class _Group:
    """The frames of one master: their number and mean time, MJD (UTC)."""

    key: MasterKey
    n_frames: int
    mjd: float


def master_keys(settings: Settings, instrument: str) -> list[MasterKey]:
    """List the masters that the registered frames are for, there or not, in building order."""
    with use_settings(settings), open_session(settings, read_only=True) as session:
        keys = [group.key for group in _groups(session, instrument)]
    return sorted(keys, key=lambda key: (KINDS.index(key.kind), key.night, key.filter or ""))


def nights_serving(settings: Settings, instrument: str, names: Sequence[str]) -> list[str]:
    """List the nights whose masters some exposures are calibrated with, or build on.

    For each exposure, those of the nearest frames of each kind (and of its filter) before and after it,
    within the days that a master serves: a detector may have been exchanged on one side. And the nearest
    that such masters are corrected with. Nights with fewer frames than a master is made from do not count.
    If none of these can be made into a master, one of another night serves only if it is there already.

    Parameters
    ----------
    settings, instrument
        Whose.
    names
        Names of the exposures.
    """
    params = settings.params(CombineParams, "combine", instrument)
    columns = (Exposure.mjd_mid, Exposure.filter, Exposure.filter_array)
    query = select(*columns).where(Exposure.instrument == instrument, Exposure.name.in_(list(names)))
    with use_settings(settings), open_session(settings, read_only=True) as session:
        groups = [g for g in _groups(session, instrument) if g.n_frames >= params.min_frames]
        exposures = session.execute(query).all()
    todo: set[_Group] = set()
    for mjd, band, array in exposures:
        bands = {ARRAY, *([band] if array is None else array)}
        for side in ([g for g in groups if g.mjd <= mjd], [g for g in groups if g.mjd > mjd]):
            todo |= _nearest(side, mjd, KINDS, bands, params.validity_days)
    chosen: set[_Group] = set()
    while todo:
        group = todo.pop()
        chosen.add(group)
        needs = BUILDS_ON[group.key.kind]
        todo |= _nearest(groups, group.mjd, needs, {group.key.filter}, params.validity_days) - chosen
    return sorted({group.key.night for group in chosen})


def _nearest(
    groups: Iterable[_Group], mjd: float, kinds: Sequence[str], bands: set[str | None], days: float
) -> set[_Group]:
    """Return the group nearest to a time of each of some kinds, of flats in each of some filters."""
    found: dict[tuple[str, str | None], _Group] = {}
    for group in groups:
        kind, _, band = group.key
        if kind not in kinds or (kind in FLATS and band not in bands) or abs(group.mjd - mjd) > days:
            continue
        best = found.get((kind, band))
        if best is None or abs(group.mjd - mjd) < abs(best.mjd - mjd):
            found[kind, band] = group
    return set(found.values())


def _groups(session: Session, instrument: str) -> list[_Group]:
    """Return the groups of calibration frames that nobody marked bad."""
    through_array = Exposure.filter_array.is_not(None)
    same = (Exposure.type, Exposure.night, Exposure.filter, through_array)
    query = (
        select(*same, func.count(), func.avg(Exposure.mjd_mid))
        .where(Exposure.instrument == instrument, Exposure.type.in_(KINDS), not_marked_bad())
        .group_by(*same)
    )
    found: dict[MasterKey, _Group] = {}
    for kind, night, band, array, number, mjd in session.execute(query):
        key = MasterKey(kind, night, None if kind not in FLATS else ARRAY if array else band)
        before = found.get(key)  # frames without a filter of their own may name one
        total = number + (before.n_frames if before else 0)
        mean = mjd if before is None else (mjd * number + before.mjd * before.n_frames) / total
        found[key] = _Group(key, total, mean)
    return list(found.values())
