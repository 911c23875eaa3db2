"""The night at a glance: what there is of a night, put together, drawn as a page, and kept."""

from dataclasses import dataclass, field
from pathlib import Path

from seechange_core.chain.incoming import list_incoming
from seechange_core.chain.night_candidates import night_candidates
from seechange_core.chain.night_rows import night_rows, night_version
from seechange_core.errors import NotFoundError
from seechange_core.qa.night import FileAside, Night, Problem, by_filter, headline
from seechange_core.qa.report_page import draw_page
from seechange_core.qa.report_picture import draw_picture
from seechange_core.settings import Settings
from seechange_core.storage.archive import Archive
from seechange_core.storage.orm import now


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written.

    Attributes
    ----------
    path
        Of the page, relative to the data root.
    version
        Changes with anything that is told of the night.
    figures
        The headline, units in the names.
    filters
        Medians of each filter, a row each.
    failures
        What failed, by step and reason.
    picture
        PNG of at most 10 kB; None if nothing was observed.
    """

    path: str
    version: str
    figures: dict[str, float] = field(default_factory=dict)
    filters: tuple[dict[str, float | str | None], ...] = ()
    failures: tuple[Problem, ...] = ()
    picture: bytes | None = None


def night_report(settings: Settings, instrument: str, night: str) -> str:
    """Make the report of a night: one page of HTML that needs nothing else.

    Parameters
    ----------
    settings
        Whose; what was made under other ones does not count.
    instrument, night
        Which, the night as YYYY-MM-DD.

    Raises
    ------
    NotFoundError
        If no exposure of that night is registered.
    """
    return draw_page(tell_night(settings, instrument, night))


def tell_night(settings: Settings, instrument: str, night: str) -> Night:
    """Put together what a report tells; parameters and errors as of `night_report`."""
    rows = night_rows(settings, instrument, night)
    if not rows.exposures:
        raise NotFoundError(
            f"there are no science exposures of {instrument} in the night of {night}",
            cure="`seechange show` lists what was ingested",
        )
    harvest = night_candidates(settings, night, [exposure.name for exposure in rows.exposures])
    files = list_incoming(settings, instrument)
    return Night(
        instrument=instrument,
        night=night,
        made_at=now(),
        **rows._asdict(),
        files=tuple(FileAside(f.state, f.address, f.reason, f.message) for f in files),
        candidates=harvest.shown,
        n_candidates=harvest.n_confirmed,
        n_unconfirmed=harvest.n_unconfirmed,
        n_bogus=harvest.n_bogus,
    )


def write_night_report(settings: Settings, instrument: str, night: str) -> WrittenReport:
    """Make the report of a night and keep it as ``reports/<instrument>/<night>.html`` under the data root.

    Parameters and errors as of `night_report`.
    """
    version = night_version(settings, instrument, night)  # what changes from now on makes another one
    told = tell_night(settings, instrument, night)
    page = draw_page(told)
    path = report_path(instrument, night)

    def write(temporary: Path) -> None:
        temporary.write_text(page, encoding="utf-8")

    Archive(settings).write(path, write)
    return WrittenReport(
        path=path,
        version=version,
        figures=headline(told),
        filters=tuple({"filter": band, **values} for band, values in by_filter(told).items()),
        failures=tuple(problem for problem in told.problems if problem.outcome == "failed"),
        picture=draw_picture(told),
    )


def report_path(instrument: str, night: str) -> str:
    """Return where the report of a night is kept, relative to the data root."""
    return f"reports/{instrument}/{night}.html"
