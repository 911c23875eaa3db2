"""What a run is given: the settings, and workers to carry out its tasks.

A run from the web UI opens its own pool of workers and closes it at the end. The command line lends
one pool to all its runs, and hears of each section as it is finished.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from seechange_assets.home import process_tag
from seechange_core.chain import StepReport
from seechange_core.errors import SeeChangeError
from seechange_core.kernel_cache import FIRST_RUN, is_cold
from seechange_core.pool import WorkerPool

Listener = Callable[[Sequence[StepReport]], None]
"""Is told the reports of every section (or master, or reference) as it is finished."""


def _nobody(_reports: Sequence[StepReport]) -> None:
    return None


@dataclass(frozen=True)
class Workers:
    """Carries out the tasks of a run.

    Attributes
    ----------
    pool
        The worker processes.
    listener
        Is told of each task as it ends.
    """

    pool: WorkerPool
    listener: Listener = field(default=_nobody)

    def reports(
        self,
        function: Callable[..., Iterator[StepReport] | Sequence[StepReport] | StepReport],
        tasks: Mapping[str, tuple[Any, ...]],
        crashed: Callable[[str, SeeChangeError], Sequence[StepReport]],
    ) -> Iterator[tuple[str, Sequence[StepReport], str]]:
        """Carry out a task for every partition.

        Parameters
        ----------
        function
            What to call in the workers: one of the core's, or every worker would import Dagster. The listener
            hears of each report of a generator as it comes.
        tasks
            Its arguments, by partition key.
        crashed
            What to report for a partition whose task gave no reports of its own.

        Yields
        ------
        partition, reports, trace
            As they finish; `trace` is the traceback of a crash.
        """
        partitions = list(tasks)
        heard: dict[int, list[StepReport]] = {}
        for result in self.pool.run(function, list(tasks.values())):
            partition = partitions[result.index]
            value = result.value if result.error is None else crashed(partition, result.error)
            reports = [value] if isinstance(value, StepReport) else list(value or ())
            if reports:
                self.listener(reports)
            if result.more:
                heard.setdefault(result.index, []).extend(reports)
            else:
                yield partition, [*heard.pop(result.index, ()), *reports], result.trace


@dg.resource(
    config_schema={
        "jobs": dg.Field(
            int, default_value=0, description="Sections worked on at once; 0 takes one per core."
        )
    },
    description="Worker processes, opened for the run and closed with it.",
)
def own_workers(context: dg.InitResourceContext) -> Iterator[Workers]:
    """Open a pool for one run."""
    if is_cold() and context.log is not None:
        context.log.info(FIRST_RUN)
    if context.instance is not None and context.run is not None:
        # Whoever finds the run unfinished later, after a power cut say, can tell that nobody works on it.
        context.instance.add_run_tags(context.run.run_id, process_tag())
    with WorkerPool(context.resource_config["jobs"]) as pool:
        yield Workers(pool)
