"""A whole survey on disk: science exposures, calibration frames, catalog and truth."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from astropy.table import Table, vstack

from seechange_core.simulate.calibration import dark_time_s, simulate_calibration
from seechange_core.simulate.camera import Camera
from seechange_core.simulate.catalog import make_catalog
from seechange_core.simulate.files import (
    SurveyTruth,
    claim_folder,
    file_name,
    load_truth,
    primary_cards,
    write_catalog,
    write_raw,
    write_table,
)
from seechange_core.simulate.observation import Observation, plan_observations
from seechange_core.simulate.options import SurveyOptions
from seechange_core.simulate.populate import make_sky
from seechange_core.simulate.section import section_cards, simulate_section
from seechange_core.simulate.sky import Sky

Progress = Callable[[int, int, str], None]

READOUT_S = 25.0
#: Calibration frames end this long before the first science exposure.
CALIBRATION_ENDS_H = 1.0


class World(NamedTuple):
    """Everything that a survey's options determine."""

    camera: Camera
    observations: list[Observation]
    sky: Sky


class Task(NamedTuple):
    """One raw file to make."""

    kind: str
    number: int
    mjd_start: float

    @property
    def file(self) -> str:
        """Its name."""
        return file_name(self.kind, self.mjd_start)


class _Made(NamedTuple):
    task: Task
    epochs: Table | None
    exposures: list[dict[str, Any]]


@lru_cache(maxsize=2)
def make_world(options: SurveyOptions) -> World:
    """Make the camera, the plan of exposures and the sky of a survey; the same options give the same world.

    Raises
    ------
    SettingsError
        If the field cannot be observed as asked.
    """
    camera = Camera(options)
    observations = plan_observations(camera)
    return World(camera, observations, make_sky(camera, observations))


def simulate_survey(
    out: Path, options: SurveyOptions | None = None, progress: Progress | None = None, *, jobs: int = 1
) -> SurveyTruth:
    """Write a survey to a folder.

    ``raw/*.fits`` (science, bias, dark, flat), ``catalog.ecsv``, and under ``truth/``:
    ``objects.parquet``, ``exposures.parquet``, ``epochs.parquet`` and ``plan.json``. The columns are
    described at `SurveyTruth`, the flux scale at `simulate_section`.

    Parameters
    ----------
    out
        Folder; made if missing. A survey of the same options there is written over.
    options
        What to simulate; every option has a default.
    progress
        Called as ``progress(files done, files in all, name of the last)``.
    jobs
        Processes; the files do not depend on their number.

    Returns
    -------
    The truth, as `load_truth` reads it.

    Raises
    ------
    UserError
        If the folder holds something else (`SettingsError`: if the field cannot be observed as asked).
    """
    options = options or SurveyOptions()
    out = Path(out)
    world = make_world(options)
    tasks = list_tasks(world)
    claim_folder(out, options)
    write_catalog(make_catalog(world.camera, world.sky), out / "catalog.ecsv")
    made = []
    for done, result in enumerate(_run(out, options, tasks, jobs), start=1):
        made.append(result)
        if progress is not None:
            progress(done, len(tasks), result.task.file)
    made.sort(key=lambda result: result.task.mjd_start)
    write_table(world.sky.objects, out / "truth" / "objects.parquet")
    write_table(Table([row for m in made for row in m.exposures]), out / "truth" / "exposures.parquet")
    write_table(vstack([m.epochs for m in made if m.epochs is not None]), out / "truth" / "epochs.parquet")
    return load_truth(out)


def list_tasks(world: World) -> list[Task]:
    """List a survey's files in order of time: the calibration frames lie in the first afternoon."""
    options = world.camera.options
    counts = {"bias": options.n_bias, "dark": options.n_dark, "flat": options.n_flat}
    frames = [(kind, index) for kind, count in counts.items() for index in range(count)]
    length_s = [dark_time_s(world.camera, kind) + READOUT_S for kind, _ in frames]
    mjd = world.observations[0].mjd_start - CALIBRATION_ENDS_H / 24 - sum(length_s) / 86400
    tasks = []
    for (kind, index), seconds in zip(frames, length_s, strict=True):
        tasks.append(Task(kind, index, mjd))
        mjd += seconds / 86400
    tasks += [Task("science", o.index, o.mjd_start) for o in world.observations]
    return tasks


def _run(out: Path, options: SurveyOptions, tasks: list[Task], jobs: int) -> Iterator[_Made]:
    if jobs <= 1:
        for task in tasks:
            yield _make_file(out, options, task)
        return
    # A forked copy of a process with threads may hang: start from a clean one.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(max_workers=min(jobs, len(tasks)), mp_context=context) as pool:
        futures = [pool.submit(_make_file, out, options, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _make_file(out: Path, options: SurveyOptions, task: Task) -> _Made:
    """Make one raw file; runs in a worker process."""
    world = make_world(options)
    if task.kind == "science":
        return _make_science(out, world, task)
    camera = world.camera
    time_s = dark_time_s(camera, task.kind)
    cards = primary_cards(options, task.kind, task.mjd_start, time_s, options.ra_deg, options.dec_deg, 1.0)
    sections = [
        (simulate_calibration(camera, task.kind, task.number, s), section_cards(camera, s))
        for s in range(options.sections)
    ]
    write_raw(out / "raw" / task.file, cards, sections)
    return _Made(task, None, [])


def _make_science(out: Path, world: World, task: Task) -> _Made:
    observation = world.observations[task.number]
    made = [
        simulate_section(world.camera, world.sky, observation, s)
        for s in range(world.camera.options.sections)
    ]
    cards = primary_cards(
        world.camera.options, "science", observation.mjd_start, observation.exposure_time_s,
        observation.header_ra, observation.header_dec, observation.airmass,
    )  # fmt: skip
    write_raw(out / "raw" / task.file, cards, [(m.raw, m.cards) for m in made])
    epochs = []
    for number, m in enumerate(made):
        m.truth.add_column(task.file, name="file", index=0)
        m.truth.add_column(number, name="section", index=1)
        epochs.append(m.truth)
    return _Made(task, vstack(epochs), [{"file": task.file, **m.summary} for m in made])
