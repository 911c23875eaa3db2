"""Materialize assets from Python: what the command line, the demo and scripts do.

The same assets, jobs and instance as in the web UI; only the workers are shared by all runs of a
`Runner`, and it tells its watcher of every section as it is finished.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol, Self

import dagster as dg

from seechange_assets import calibrators, partitions, references, reports
from seechange_assets.chain import asset_key, steps_through
from seechange_assets.definitions import define, sections_of
from seechange_assets.home import open_instance, process_tag
from seechange_assets.resources import Workers
from seechange_core import chain as core
from seechange_core.chain import StepReport
from seechange_core.errors import PipelineError
from seechange_core.kernel_cache import FIRST_RUN, is_cold
from seechange_core.pool import WorkerPool
from seechange_core.settings import Settings

#: What Dagster calls a Ctrl-C inside and outside its own code.
INTERRUPTS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


class Watcher(Protocol):
    """Is told how work goes on, e.g. a progress bar."""

    def expect(self, tasks: int) -> None:
        """So many more tasks will come."""

    def hear(self, reports: Sequence[StepReport]) -> None:
        """One task has ended so."""

    def say(self, words: str) -> None:
        """There is something to tell that is about no single task."""


class Runner:
    """Runs jobs in this process, on one pool of workers.

    Parameters
    ----------
    settings
        What to run under.
    jobs
        Sections worked on at once; 0 takes one per core.
    watcher
        Is told how many tasks there will be, and of each section, master or reference as it ends.
    verbose
        Print Dagster's own log to standard error.

    Raises
    ------
    SettingsError
        On entering, if a stage's parameter is not known or impossible.

    Examples
    --------
    >>> with Runner(settings) as runner:  # doctest: +SKIP
    ...     reports = runner.process("demo", ["demo_20250101_030000_sci"])
    """

    def __init__(
        self, settings: Settings, jobs: int = 0, watcher: Watcher | None = None, verbose: bool = False
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._watcher = watcher
        self._level = "DEBUG" if verbose else "CRITICAL"
        self._stack = ExitStack()
        self._heard: list[StepReport] = []

    def __enter__(self) -> Self:
        core.check_settings(self._settings)  # a wrong parameter would fail every section, one by one
        self.instance = self._stack.enter_context(open_instance(self._settings))
        self.pool = self._stack.enter_context(WorkerPool(self._jobs))
        self._defs = define(self._settings, Workers(self.pool, self._hear))
        if self._watcher is not None and is_cold():
            self._watcher.say(FIRST_RUN)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def register(self, instrument: str, exposures: Iterable[str]) -> list[str]:
        """Add exposures to the partitions, and return those that are new."""
        return partitions.register(self.instance, instrument, "exposure", exposures)

    def register_masters(self, instrument: str) -> None:
        """Add the nights that calibration frames are registered of to the partitions."""
        names: dict[str, list[str]] = {}
        for key in core.master_keys(self._settings, instrument):
            names.setdefault(calibrators.dimension(key[0]), []).append(calibrators.partition(*key))
        for dimension, keys in names.items():
            partitions.register(self.instance, instrument, dimension, keys)

    def register_references(self, instrument: str, wanted: Iterable[tuple[str, str]]) -> None:
        """Add the regions and filters of references to the partitions."""
        wanted = list(wanted)
        partitions.register(self.instance, instrument, "region", [region for region, _ in wanted])
        partitions.register(self.instance, instrument, "filter", [band for _, band in wanted])

    def process(
        self,
        instrument: str,
        exposures: Sequence[str],
        sections: Sequence[str] | None = None,
        through: str | None = None,
        redo: bool = False,
    ) -> list[StepReport]:
        """Take exposures through the chain, one run for each and range of sections.

        Parameters
        ----------
        instrument, exposures
            Names.
        sections
            Section ids; None takes all.
        through
            Name of the last step; None goes to the end.
        redo
            Make again what is there already.

        Returns
        -------
        list of StepReport
            Of every section and step, as they were finished.
        """
        self.register(instrument, exposures)
        names = steps_through(through)
        config = {f"{instrument}_chain": {"config": {"redo": redo}}}
        job = f"{instrument}_process"
        ranges, n_sections = _ranges(instrument, sections)
        reports: list[StepReport] = []
        self._expect(len(exposures) * n_sections)
        for exposure in exposures:
            for first, last in ranges:
                span = tuple(partitions.key(exposure=exposure, section=s) for s in (first, last))
                reports += self._run(job, instrument, names, span, config)
        return reports

    def build_masters(
        self, instrument: str, nights: Sequence[str] | None = None, sections: Sequence[str] | None = None
    ) -> list[StepReport]:
        """Build the master frames that can be built from what was ingested.

        There is one run for each and range of sections.

        Parameters
        ----------
        instrument
            Name.
        nights
            Nights (YYYY-MM-DD); None takes all.
        sections
            Section ids; None takes all.
        """
        ranges, n_sections = _ranges(instrument, sections)
        reports: list[StepReport] = []
        wanted = core.look_for_masters(self._settings, instrument, nights, sections)
        expected = {master.key for master in wanted}
        self._expect(len(expected) * n_sections)
        for kind in core.BUILDS_ON:
            if reports:  # a new bias makes a new dark possible
                wanted = core.look_for_masters(self._settings, instrument, nights, sections)
            now = [master for master in wanted if master.key[0] == kind]
            self._expect(len({master.key for master in now}.difference(expected)) * n_sections)
            for master in now:
                dimension, name = self._register_master(instrument, master)
                job, tags = calibrators.job_name(instrument, kind), calibrators.run_tags(instrument, master)
                for ends in ranges:
                    span = tuple(partitions.key(**{dimension: name, "section": s}) for s in ends)
                    reports += self._run(job, instrument, [kind], span, {}, tags)
        return reports

    def build_references(
        self,
        instrument: str,
        wanted: Sequence[tuple[str, str]],
        leave_one_out: bool = False,
        redo: bool = False,
        nights: Sequence[str] = (),
        without: Sequence[str] = (),
        use: bool = False,
    ) -> list[StepReport]:
        """Build references, in one run for each filter and contiguous range of regions.

        Parameters
        ----------
        instrument
            Name.
        wanted
            Regions and filters.
        leave_one_out
            Also make, for each exposure that goes in, the reference without it.
        redo
            Make again what is there already.
        nights
            Only images of these nights (YYYY-MM-DD); none given takes all.
        without
            Names of exposures not to take.
        use
            Use what is made from now on, whatever was used before.
        """
        self._expect(len(wanted))
        self.register_references(instrument, wanted)
        order = self.instance.get_dynamic_partitions(partitions.set_name(instrument, "region"))
        options = {"redo": redo, "leave_one_out": leave_one_out, "use": use}
        options |= {"nights": list(nights), "without": list(without)}
        config = {f"{instrument}_{references.NAME}": {"config": options}}
        reports: list[StepReport] = []
        for band in dict.fromkeys(band for _, band in wanted):
            regions = {region for region, own in wanted if own == band}
            for first, last in contiguous(order, regions):
                span = tuple(partitions.key(region=r, filter=band) for r in (first, last))
                job = f"{instrument}_references"
                reports += self._run(job, instrument, [references.NAME], span, config)
        return reports

    def report(self, instrument: str, night: str) -> None:
        """Make the report of a night (YYYY-MM-DD)."""
        partitions.register(self.instance, instrument, reports.DIMENSION, [night])
        job = f"{instrument}_reports"
        result = self._defs.resolve_job_def(job).execute_in_process(
            run_config={"loggers": {"console": {"config": {"log_level": self._level}}}},
            instance=self.instance,
            partition_key=night,
            tags=process_tag(),
            raise_on_error=False,
        )
        self._check(result, job)

    def _register_master(self, instrument: str, master: core.WantedMaster) -> tuple[str, str]:
        """Add a master to the partitions, and return its dynamic dimension and its key there."""
        dimension, name = calibrators.dimension(master.key[0]), calibrators.partition(*master.key)
        partitions.register(self.instance, instrument, dimension, [name])
        return dimension, name

    def _hear(self, reports: Sequence[StepReport]) -> None:
        self._heard.extend(reports)
        # A reference says how many there will be without one of its images.
        self._expect(sum(int(report.metrics.get(core.LEFT_TO_LEAVE_OUT, 0)) for report in reports))
        if self._watcher is not None:
            self._watcher.hear(reports)

    def _expect(self, tasks: int) -> None:
        if self._watcher is not None and tasks:
            self._watcher.expect(tasks)

    def _run(
        self,
        job: str,
        instrument: str,
        assets: Sequence[str],
        span: tuple[dg.MultiPartitionKey, ...],
        config: dict[str, Any],
        more_tags: Mapping[str, str] | None = None,
    ) -> list[StepReport]:
        """Run some assets over a range of partitions, and return what was reported."""
        first, last = span
        single = first == last
        self._heard = []
        over = {
            name: value
            for name, value in first.keys_by_dimension.items()
            if last.keys_by_dimension[name] == value
        }
        tags = (
            process_tag()
            | dict(more_tags or {})
            | ({} if single else {f"seechange/{name}": key for name, key in over.items()})
        )
        result = self._defs.resolve_job_def(job).execute_in_process(
            run_config={"ops": config, "loggers": {"console": {"config": {"log_level": self._level}}}},
            instance=self.instance,
            partition_key=first if single else None,
            tags=tags if single else tags | {partitions.RANGE_START: first, partitions.RANGE_END: last},
            asset_selection=[asset_key(instrument, name) for name in assets],
            raise_on_error=False,
        )
        self._check(result, job)
        return self._heard

    def _check(self, result: dg.ExecuteInProcessResult, job: str) -> None:
        """Raise what is not the fate of a section: an interrupt, or a bug between Dagster and us."""
        if result.success:
            return
        failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
        if failures and all(failure.user_failure_data is not None for failure in failures):
            return  # our own word that some sections failed: the reports have them
        causes = [failure.error.cause or failure.error for failure in failures if failure.error]
        run = self.instance.get_run_by_id(result.run_id)
        if run is not None and any(cause.cls_name in INTERRUPTS for cause in causes):
            self.instance.report_run_canceled(run, message="interrupted by a person")
            raise KeyboardInterrupt
        words = "; ".join(" ".join(cause.message.split()) for cause in causes) or "no reason given"
        raise PipelineError(
            f"run {result.run_id} of {job} failed: {words}",
            cure="see it in the web UI (seechange ui), and report it",
        )


def _ranges(instrument: str, sections: Sequence[str] | None) -> tuple[list[tuple[str, str]], int]:
    """Return the contiguous ranges of some sections of an instrument, or of all, and their number."""
    every = sections_of(instrument)
    chosen = set(every if sections is None else sections)
    return contiguous(every, chosen), len(chosen)


def contiguous(order: Sequence[str], chosen: set[str]) -> list[tuple[str, str]]:
    """Split a choice into ranges (first and last) that are contiguous in an order."""
    ranges: list[tuple[str, str]] = []
    for before, name in zip((None, *order), order, strict=False):
        if name not in chosen:
            continue
        if before in chosen and ranges:
            ranges[-1] = (ranges[-1][0], name)
        else:
            ranges.append((name, name))
    return ranges
