"""What people ask for, whatever the instrument: find what it concerns, and have a `Runner` make it.

The commands of `seechange` are these functions with a progress bar, and scripts can call them too.
"""

from collections.abc import Sequence

from seechange_assets.definitions import instruments_of, sections_of
from seechange_assets.run import Runner, Watcher
from seechange_core import chain as core
from seechange_core.chain import StepReport
from seechange_core.errors import NotFoundError
from seechange_core.settings import Settings, get_settings


def process_exposures(
    names: Sequence[str] | None = None,
    *,
    sections: Sequence[str] | None = None,
    through: str | None = None,
    outdated: bool = False,
    redo: bool = False,
    jobs: int = 0,
    progress: Watcher | None = None,
    settings: Settings | None = None,
) -> list[StepReport]:
    """Take exposures through the chain, first building the master frames that are missing.

    Those of the nights nearest to the exposures that have calibration frames, kind by kind, and of the
    nights that these build on.

    Parameters
    ----------
    names
        Names of exposures; None takes all science exposures there are.
    sections
        Section ids; None takes all.
    through
        Name of the last step; None goes to the end.
    outdated
        Of these, take those that the present settings would make differently.
    redo
        Make products of the chain again that are there and up to date.
    jobs
        Sections worked on at once; 0 takes one per core.
    progress
        Is told of every task.
    settings
        None takes the process's.

    Returns
    -------
    list of StepReport
        Of masters, sections and steps, as they were finished.

    Raises
    ------
    NotFoundError
        If there is no such exposure, section or step.
    """
    settings = settings or get_settings()
    _check_step(through)
    by_instrument: dict[str, list[str]] = {}
    for exposure in core.exposures(settings, names or None):
        by_instrument.setdefault(exposure.instrument, []).append(exposure.name)
    for instrument, chosen in by_instrument.items():
        _check_instrument(settings, instrument)
        _check_sections(instrument, sections)
        if outdated:
            old = {row.name for row in core.outdated_exposures(settings, instrument)}
            by_instrument[instrument] = [name for name in chosen if name in old]
    reports: list[StepReport] = []
    with Runner(settings, jobs, progress) as runner:
        for instrument, exposures in by_instrument.items():
            if not exposures:
                continue
            nights = core.nights_serving(settings, instrument, exposures)
            reports += runner.build_masters(instrument, nights, sections or None)
            reports += runner.process(instrument, exposures, sections or None, through, redo)
            wanted = core.references_wanted(settings, instrument, exposures)
            runner.register_references(instrument, wanted)
    return reports


def build_references(
    *,
    instrument: str | None = None,
    regions: Sequence[str] | None = None,
    band: str | None = None,
    leave_one_out: bool = False,
    nights: Sequence[str] = (),
    without: Sequence[str] = (),
    use: bool = False,
    redo: bool = False,
    jobs: int = 0,
    progress: Watcher | None = None,
    settings: Settings | None = None,
) -> list[StepReport]:
    """Build the references that the calibrated images allow.

    Parameters
    ----------
    instrument
        None takes the first one configured.
    regions, band
        Only these sky regions, only this filter.
    leave_one_out
        Also make, for each exposure that goes in, the reference without it.
    nights
        Only images of these nights (YYYY-MM-DD); none given takes all.
    without
        Names of exposures not to take.
    use
        Use what is made from now on, whatever was used before.
    redo
        Make references again that are there and up to date.
    jobs, progress, settings
        As for `process_exposures`.

    Raises
    ------
    NotFoundError
        If a region or filter was asked for that has no calibrated images, or an exposure is not known.
    """
    settings = settings or get_settings()
    _check_exposures(settings, without)
    instrument = instrument or instruments_of(settings)[0]
    _check_instrument(settings, instrument)
    possible = core.references_wanted(settings, instrument)
    wanted = [
        (region, own)
        for region, own in possible
        if (not regions or region in regions) and band in (None, own)
    ]
    missing = set(regions or ()) - {region for region, _ in wanted}
    if missing or (band and not wanted):
        asked = ", ".join(sorted(missing)) or f"filter {band}"
        known = ", ".join(f"{region} in {own}" for region, own in possible) or "none yet"
        raise NotFoundError(f"no calibrated images for a reference of {asked}", cure=f"there are: {known}")
    with Runner(settings, jobs, progress) as runner:
        return runner.build_references(instrument, wanted, leave_one_out, redo, nights, without, use)


def make_report(instrument: str, night: str, settings: Settings | None = None) -> str:
    """Make the report of a night, and return the path of the page.

    Parameters
    ----------
    instrument, night
        Which, the night as YYYY-MM-DD.
    settings
        None takes the process's.

    Raises
    ------
    NotFoundError
        If there is no such instrument, or no exposure of that night.
    """
    settings = settings or get_settings()
    _check_instrument(settings, instrument)
    if not core.exposures(settings, instrument=instrument, night=night, with_bad=True):
        raise NotFoundError(
            f"there are no science exposures of {instrument} in the night of {night}",
            cure="`seechange show` lists what was ingested",
        )
    with Runner(settings) as runner:
        runner.report(instrument, night)
    return str(settings.data_root / core.report_path(instrument, night))


def register_exposures(
    names: Sequence[str], instruments: Sequence[str], settings: Settings | None = None
) -> None:
    """Add exposures, and the nights of their instruments' masters, to the partitions that the web UI shows.

    Parameters
    ----------
    names
        Names of science exposures that have been ingested.
    instruments
        Whose calibration frames may have been ingested.
    settings
        None takes the process's.
    """
    settings = settings or get_settings()
    with Runner(settings) as runner:
        by_instrument: dict[str, list[str]] = {}
        for exposure in core.exposures(settings, names) if names else ():
            by_instrument.setdefault(exposure.instrument, []).append(exposure.name)
        for instrument, exposures in by_instrument.items():
            runner.register(instrument, exposures)
        for instrument in instruments:
            runner.register_masters(instrument)


def _check_exposures(settings: Settings, names: Sequence[str]) -> None:
    if names:
        core.exposures(settings, names)


def _check_step(name: str | None) -> None:
    known = [step.name for step in core.STEPS]
    if name is not None and name not in known:
        raise NotFoundError(f"there is no step {name!r}", cure=f"the steps are {', '.join(known)}")


def _check_instrument(settings: Settings, name: str) -> None:
    known = instruments_of(settings)
    if name not in known:
        raise NotFoundError(
            f"instrument {name!r} is not among those in use: {', '.join(known)}",
            cure=f"add it to the settings: instruments: {{{name}: {{}}}}",
        )


def _check_sections(instrument: str, sections: Sequence[str] | None) -> None:
    known = sections_of(instrument)
    for section in sections or ():
        if section not in known:
            raise NotFoundError(
                f"{instrument} has no section {section!r}", cure=f"its sections are {', '.join(known)}"
            )
