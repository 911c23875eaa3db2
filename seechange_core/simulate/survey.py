"""A whole survey on disk: science exposures, calibration frames, catalog and truth."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from astropy.table import Table, vstack

from seechange_core.simulate.calibration import dark_time_s, simulate_calibration
from seechange_core.simulate.camera import Camera
from seechange_core.simulate.cameras import Frame, Unit, format_of
from seechange_core.simulate.cameras.layout import SectionId
from seechange_core.simulate.catalog import make_catalog
from seechange_core.simulate.files import (
    SurveyTruth,
    claim_folder,
    load_truth,
    write_catalog,
    write_raw,
    write_table,
)
from seechange_core.simulate.observation import Observation, plan_observations
from seechange_core.simulate.options import SurveyOptions
from seechange_core.simulate.populate import make_sky
from seechange_core.simulate.section import RawSection, simulate_section
from seechange_core.simulate.sky import Sky
from seechange_core.simulate.truth import write_calibrators

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
    """One raw file to make: what its header says, its number among its kind, and its name."""

    frame: Frame
    number: int
    file: str

    @property
    def kind(self) -> str:
        """What it shows."""
        return self.frame.kind

    @property
    def mjd_start(self) -> float:
        """When it begins."""
        return self.frame.mjd_start


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

    ``raw/*.fits`` (science, bias, dark, dome and twilight flats; ``.fits.fz`` of cameras that compress),
    ``catalog.ecsv``, and under ``truth/``: ``objects.parquet``, ``exposures.parquet``,
    ``epochs.parquet``, ``plan.json`` and, when asked for, ``calibrators/`` (`write_calibrators`). The
    columns are described at `SurveyTruth`, the flux scale at `simulate_section`.

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
    if options.calibrators:
        write_calibrators(out / "truth" / "calibrators", world.camera)
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
    camera, options = world.camera, world.camera.options
    counts = {
        "bias": options.n_bias,
        "dark": options.n_dark,
        "flat": options.n_flat,
        "twilight_flat": options.n_twilight,
    }
    frames = [(kind, index) for kind, count in counts.items() for index in range(count)]
    length_s = [dark_time_s(camera, kind) + READOUT_S for kind, _ in frames]
    mjd = world.observations[0].mjd_start - CALIBRATION_ENDS_H / 24 - sum(length_s) / 86400
    names = format_of(options.camera).file_name
    tasks = []
    for order, ((kind, index), seconds) in enumerate(zip(frames, length_s, strict=True)):
        time_s = dark_time_s(camera, kind)
        frame = Frame(kind, order, mjd, time_s, options.ra_deg, options.dec_deg, 1.0)
        tasks.append(Task(frame, index, names(frame)))
        mjd += seconds / 86400
    for o in world.observations:
        order = len(frames) + o.index
        frame = Frame("science", order, o.mjd_start, o.exposure_time_s, o.header_ra, o.header_dec, o.airmass)
        tasks.append(Task(frame, o.index, names(frame)))
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
    sections = ((s, simulate_calibration(camera, task.kind, task.number, s)) for s in camera.sections)
    _write(out, camera, task, sections)
    return _Made(task, None, [])


def _make_science(out: Path, world: World, task: Task) -> _Made:
    camera, observation = world.camera, world.observations[task.number]
    epochs, exposures = [], []

    def keep_truth(section: SectionId, made: RawSection) -> None:
        made.truth.add_column(task.file, name="file", index=0)
        made.truth.add_column(section, name="section", index=1)
        epochs.append(made.truth)
        exposures.append({"file": task.file, **made.summary})

    def expose() -> Iterator[tuple[SectionId, Any]]:
        for section in camera.sections:
            made = simulate_section(camera, world.sky, observation, section)
            keep_truth(section, made)
            yield section, made.raw

    _write(out, camera, task, expose())
    return _Made(task, vstack(epochs), exposures)


def _write(out: Path, camera: Camera, task: Task, sections: Iterable[tuple[SectionId, Any]]) -> None:
    """Write a raw file section by section, holding one of them at a time."""
    form = format_of(camera.options.camera)

    def units() -> Iterator[Unit]:
        for section, raw in sections:
            yield from form.units(camera, task.frame, section, raw)

    cards = form.primary_cards(camera, task.frame)
    write_raw(out / "raw" / task.file, cards, units(), compressed=form.COMPRESSED)
