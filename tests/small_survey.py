"""A small simulated survey, taken through the chain once and copied by every test that changes it.

Two sections of 512 pixels, two reference exposures and three others, few calibration frames. The
snapshots are made by whichever worker needs them first and lie on disk for all.
"""

import fcntl
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time
from sqlalchemy import func, select, text

from seechange_assets.home import make_home
from seechange_assets.run import Runner
from seechange_core import chain
from seechange_core.catalogs.importer import import_table
from seechange_core.chain import Outcome, StepReport
from seechange_core.products.exposure import Exposure
from seechange_core.products.ingest import ingest
from seechange_core.settings import Settings, load_settings, use_settings
from seechange_core.simulate import SurveyOptions, SurveyTruth, load_truth, simulate_survey
from seechange_core.storage.archive import Archive, sha256_of
from seechange_core.storage.engine import dispose_engines, open_session
from seechange_core.storage.migrate import upgrade
from seechange_core.storage.orm import Base

OPTIONS = SurveyOptions(
    seed=5,
    sections=2,
    section_size_pix=512,
    exposures=5,
    nights=3,
    reference_exposures=2,
    n_bias=3,
    n_dark=3,
    n_flat=3,
    star_density=14,
    transients=14,
    transient_bright_mag=19.5,
    transient_faint_mag=22.0,
    variables=2,
    asteroids=0,
    satellites=0,
)
SETTINGS = """\
path:
  data_root: [data, survey]
instruments:
  demo: {sections: 2, section_size_pix: 512}
photometry:
  catalog_color: g-r
reference:
  min_images: 1  # there are two exposures for it, and a test may leave one of them out
"""
SECTIONS = ("0", "1")
STEP_NAMES = tuple(step.name for step in chain.STEPS)
THROUGH_ZERO_POINT = STEP_NAMES[: STEP_NAMES.index("zero_point") + 1]


@dataclass
class Survey:
    """One copy of the survey: a folder with settings, raw files, products and database."""

    root: Path

    @cached_property
    def settings(self) -> Settings:
        """Its settings."""
        return load_settings(self.root / "seechange.yaml", environ={})

    @property
    def raw(self) -> Path:
        """Folder of its raw files."""
        return self.root / "survey" / "raw"

    @cached_property
    def truth(self) -> SurveyTruth:
        """What was put in."""
        return load_truth(self.root / "survey")

    @cached_property
    def science(self) -> list[str]:
        """Names of the simulated science exposures, the earliest first: two of the reference, then three."""
        return sorted(path.stem for path in self.raw.glob("*_sci.fits"))[: OPTIONS.exposures]

    def changed(self, **blocks: Any) -> Settings:
        """Return the settings with some blocks replaced."""
        return self.settings.model_copy(update=blocks)

    def ingest(self, *paths: Path) -> list[Exposure]:
        """Register raw files."""
        return [ingest(path, self.settings) for path in paths]

    def walk(
        self, exposure: str, section: str, steps: tuple[str, ...] | None = None, **options: Any
    ) -> dict[str, StepReport]:
        """Walk a section under these or other settings; return the reports by step."""
        settings = options.pop("settings", self.settings)
        reports = chain.walk(settings, exposure, section, steps, **options)
        return {report.step: report for report in reports}

    def outcomes(self, exposure: str, section: str, **options: Any) -> dict[str, str]:
        """Walk a section; return the outcomes by step."""
        return {step: str(r.outcome) for step, r in self.walk(exposure, section, **options).items()}

    def status(self, settings: Settings | None = None, **which: str) -> dict[str, chain.queries.StatusRow]:
        """Return what the database says of one section under the settings, by step."""
        rows = chain.status(settings or self.settings, [which["exposure"]])
        return {r.step: r for r in rows if r.current and r.section == which["section"]}

    def rows(self, query: Any) -> list[Any]:
        """Return what a query selects."""
        with use_settings(self.settings), open_session(self.settings, read_only=True) as session:
            return list(session.scalars(query))

    def counts(self) -> dict[str, int]:
        """Count the rows of every table."""
        with open_session(self.settings, read_only=True) as session:
            return {
                table.name: session.scalar(select(func.count()).select_from(table)) or 0
                for table in Base.metadata.sorted_tables
            }

    def files(self) -> dict[str, int]:
        """Return every product file with its time of change."""
        found = (self.root / "data" / "demo").rglob("*")
        return {str(p.relative_to(self.root)): p.stat().st_mtime_ns for p in found if p.is_file()}

    def mark_references(self, bad: bool) -> None:
        """Let a person call all references bad, or good again."""
        with open_session(self.settings) as session:
            session.execute(text('UPDATE "references" SET bitflag = :flag'), {"flag": int(bad)})

    def bias_pixels(self, section: int) -> np.ndarray:
        """Raw pixels of a section without light: bias and read noise."""
        return fits.getdata(min(self.raw.glob("*_bias.fits")), section + 1, do_not_scale_image_data=True)

    def variant(self, name: str, edit: Callable[[fits.HDUList], None], minutes: float = 30.0) -> Path:
        """Write a copy of the third science exposure, taken some minutes later, after an edit."""
        target = self.raw / f"{name}.fits"
        with fits.open(self.raw / f"{self.science[2]}.fits", do_not_scale_image_data=True) as units:
            later = Time(units[0].header["MJD-OBS"] + minutes / 1440, format="mjd", scale="utc")
            units[0].header["DATE-OBS"], units[0].header["MJD-OBS"] = later.isot, later.mjd
            edit(units)
            units.writeto(target, output_verify="ignore")
        return target


def assert_whole(survey: Survey) -> None:
    """Check that every row's file is there and is what its checksum says, and that nothing is half-made."""
    archive = Archive(survey.settings)
    with use_settings(survey.settings), open_session(survey.settings, read_only=True) as session:
        for mapper in Base.registry.mappers:
            kind = mapper.class_
            if not {"filepath", "checksum"} <= set(mapper.columns.keys()):
                continue
            for row in session.scalars(select(kind)):
                assert row.filepath is not None
                assert sha256_of(archive.find(row.filepath, download=False)) == row.checksum
        if session.get_bind().dialect.name == "sqlite":
            assert session.execute(text("PRAGMA foreign_key_check")).all() == []
    assert not list(survey.root.rglob(".partial-*"))


# --- Snapshots ------------------------------------------------------------------------------------


def _start(root: Path) -> None:
    """Simulate; register and process what the reference is made from, and build it."""
    simulate_survey(root / "survey", OPTIONS)
    (root / "seechange.yaml").write_text(SETTINGS, encoding="utf-8")
    survey = Survey(root)
    settings = survey.settings
    upgrade(settings)
    make_home(settings)
    catalogs = settings.data_root / "catalogs"
    import_table(root / "survey" / "catalog.ecsv", "simulated", catalogs, epoch=2016.0)
    calibration = [p for p in sorted(survey.raw.iterdir()) if not p.stem.endswith("_sci")]
    survey.ingest(*calibration, *(survey.raw / f"{name}.fits" for name in survey.science[:2]))
    with use_settings(settings), Runner(settings, jobs=1) as runner:
        reports = runner.build_masters("demo")
        reports += runner.process("demo", survey.science[:2], through="zero_point")
        reports += runner.build_references("demo", chain.references_wanted(settings, "demo"))
    assert all(r.outcome is Outcome.DONE for r in reports), [r.message for r in reports if r.message]


def _process(root: Path) -> None:
    """Register the other exposures and process all of them."""
    survey = Survey(root)
    survey.ingest(*(survey.raw / f"{name}.fits" for name in survey.science))
    with use_settings(survey.settings), Runner(survey.settings, jobs=1) as runner:
        reports = runner.process("demo", survey.science)
    told = [
        [r.exposure, r.section, r.step, str(r.outcome), r.reason, r.data_version, r.code_version]
        for r in reports
    ]
    (root / "reports.json").write_text(json.dumps(told), encoding="utf-8")


@contextmanager
def _home(root: Path) -> Iterator[None]:
    """Let Dagster's instance be the survey's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(root / "data" / "dagster"))
        yield
    dispose_engines()


def copy_survey(source: Path, target: Path) -> Path:
    """Copy a survey that others may be looking at: databases as of one moment, without what readers leave."""
    databases = ("*.db", "*.db-*")
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*databases))
    for path in source.rglob(databases[0]):
        with (
            closing(sqlite3.connect(path, timeout=60)) as old,
            closing(sqlite3.connect(target / path.relative_to(source))) as new,
        ):
            old.backup(new)
    return target


@pytest.fixture(scope="session")
def snapshots(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Folder with the survey ``started`` (all but the last three exposures) and ``processed``."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if hasattr(request.config, "workerinput") else base
    folder = base / "small_survey"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, make in (("started", _start), ("processed", _process)):
            if (folder / name).exists():
                continue
            making = folder / "making"
            shutil.rmtree(making, ignore_errors=True)
            if name == "started":
                making.mkdir()
            else:
                copy_survey(folder / "started", making)
            with _home(making):
                make(making)
            making.rename(folder / name)
    return folder


@pytest.fixture
def processed(snapshots: Path) -> Iterator[Survey]:
    """The processed survey, to look at: tests that change anything take `own`."""
    with _home(snapshots / "processed"):
        survey = Survey(snapshots / "processed")
        with use_settings(survey.settings):
            yield survey


@pytest.fixture
def own(snapshots: Path, tmp_path: Path) -> Iterator[Survey]:
    """A copy of the processed survey, the test's own."""
    yield from _own(snapshots / "processed", tmp_path)


@pytest.fixture
def started(snapshots: Path, tmp_path: Path) -> Iterator[Survey]:
    """A copy of the survey with masters and reference, where the last three exposures are still to come."""
    yield from _own(snapshots / "started", tmp_path)


def _own(source: Path, folder: Path) -> Iterator[Survey]:
    root = copy_survey(source, folder / "survey")
    with _home(root):
        survey = Survey(root)
        with use_settings(survey.settings):
            yield survey
    shutil.rmtree(root)
