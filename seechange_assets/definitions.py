"""The one place that assembles everything Dagster is told."""

from typing import Any

import dagster as dg

from seechange_assets.calibrators import master_assets
from seechange_assets.chain import chain_assets
from seechange_assets.incoming import incoming_asset, incoming_sensor
from seechange_assets.jobs import instrument_jobs
from seechange_assets.references import reference_asset
from seechange_assets.reports import report_asset, report_schedule
from seechange_assets.resources import own_workers
from seechange_assets.schedules import masters_schedule
from seechange_assets.window import window_schedule
from seechange_core import chain as core
from seechange_core.errors import SettingsError
from seechange_core.instrument import get_instrument_instance
from seechange_core.settings import Settings, get_settings

#: The instrument of those who have configured none.
DEFAULT_INSTRUMENT = "demo"


def instruments_of(settings: Settings) -> list[str]:
    """Name the instruments in use."""
    return list(settings.instruments) or [DEFAULT_INSTRUMENT]


def sections_of(instrument: str) -> list[str]:
    """Name an instrument's sections as Dagster's keys."""
    return [str(section) for section in get_instrument_instance(instrument).get_section_ids()]


def instrument_assets(settings: Settings, instrument: str) -> list[dg.AssetsDefinition]:
    """Make all assets of one instrument."""
    provenances = core.provenances(settings, instrument)
    sections = sections_of(instrument)
    return [
        chain_assets(settings, instrument, sections, provenances),
        *master_assets(settings, instrument, sections, provenances),
        reference_asset(settings, instrument, provenances["reference"]),
        report_asset(instrument),
        *([incoming_asset(settings, instrument)] if instrument in settings.incoming else []),
    ]


def define(settings: Settings, workers: Any = own_workers) -> dg.Definitions:
    """Assemble the assets, jobs, schedules and resources under some settings.

    Parameters
    ----------
    settings
        Which instruments there are, and what their code versions are made of.
    workers
        The resource that carries out tasks: by default each run opens its own processes.
    """
    names = instruments_of(settings)
    _check_incoming(settings, names)
    return dg.Definitions(
        assets=[asset for name in names for asset in instrument_assets(settings, name)],
        jobs=[job for name in names for job in instrument_jobs(name)],
        schedules=[
            *(masters_schedule(settings, name, sections_of(name)) for name in names),
            *(report_schedule(settings, name) for name in names),
            *(window_schedule(settings, name, sections_of(name)) for name in names),
        ],
        sensors=[
            incoming_sensor(settings, name, sections_of(name)) for name in names if name in settings.incoming
        ],
        resources={"settings": settings, "workers": workers},
        executor=dg.in_process_executor,
    )


def _check_incoming(settings: Settings, names: list[str]) -> None:
    for name in settings.incoming:
        if name not in names:
            raise SettingsError(
                f"incoming.{name}: this instrument is not among those in use: {', '.join(names)}",
                cure=f"add it to the settings: instruments: {{{name}: {{}}}}",
            )


@dg.definitions
def defs() -> dg.Definitions:
    """Assemble under the settings of this process: what the web UI, the daemon and their runs load."""
    return define(get_settings())
