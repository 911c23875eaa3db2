"""The CCDs everything is measured on: seeded, realistic, 2048 x 4096 pixels, with their truth.

Two kinds. ``fine``: DECam's pixels of 0.263", seeing 1.0-1.5", some 5600 stars to 24.5 mag and 2200 galaxies.
``coarse``: LS4's pixels of 1", stars 1.6-2.2 pixels wide. Both with distortion, a varying elliptical PSF, a
sky gradient, cosmic rays, bad columns and saturated stars that bleed. Seeds from 100 up are never used
to tune anything. What is made is kept in a folder and used again.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from astropy.table import Table
from sqlalchemy import select

from seechange_core import chain, simulate
from seechange_core.catalogs import LocalCatalog, import_table
from seechange_core.chain import provenances
from seechange_core.errors import NotFoundError
from seechange_core.frames import CatalogStars, ImageFrame, Masters, PointingHint, RawFrame
from seechange_core.numerics.timing import decimal_year
from seechange_core.products.calibrator import Calibrator
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image
from seechange_core.products.ingest import ingest
from seechange_core.settings import Settings, load_settings, use_settings
from seechange_core.simulate import SurveyOptions, SurveyTruth, World, load_truth, make_world, simulate_survey
from seechange_core.simulate.charge import add_cosmic_rays
from seechange_core.simulate.section import collect, cosmic_ray_hits, expected_light, section_rng
from seechange_core.stages.astrometry import query_radius_deg
from seechange_core.stages.photometry import PhotometryParams
from seechange_core.stages.preprocess import PreprocessParams
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session
from seechange_core.storage.migrate import upgrade

KINDS = ("fine", "coarse")
#: Seeds below this may be looked at while tuning, those from it up may not.
UNSEEN = 100
_MADE_BY = "simulator"
HOME = Path(__file__).parent / "out" / "ccds"


def options(kind: str, seed: int) -> SurveyOptions:
    """Return what a CCD is simulated from."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    common = {
        "seed": seed, "exposures": 1, "nights": 1, "n_bias": 9, "n_dark": 5, "n_flat": 9, "transients": 0,
        "variables": 0, "asteroids": 0, "satellites": 0.0, "clouds": False, "cosmic_rays": 1.0,
        "flat_gradient": 0.0, "pointing_error": True,
    }  # fmt: skip
    if kind == "fine":
        own = {
            "camera": "decam", "section_names": ("N4",), "band": "r", "exposure_time_s": 90.0,
            "star_density": 19.0, "galaxy_density": 3.5, "faint_mag": 24.5,
            "seeing_arcsec": (round(float(rng.uniform(1.0, 1.5)), 3),), "catalog_faint_mag": 21.0,
        }  # fmt: skip
    else:
        own = {
            "camera": "ls4", "section_names": ("NE_A",), "exposure_time_s": 45.0, "star_density": 3.3,
            "galaxy_density": 1.5, "faint_mag": 22.5,
            "seeing_arcsec": (round(float(rng.uniform(1.6, 2.2)), 3),), "catalog_faint_mag": 20.0,
        }  # fmt: skip
    return SurveyOptions(**common, **own)


@dataclass(frozen=True, eq=False)
class Ccd:
    """One simulated CCD, its files and its truth.

    Attributes
    ----------
    kind, seed
        See the module.
    folder
        Holds ``sky/`` (the simulated survey), ``data/`` and the settings.
    settings, exposure, section
        What to process.
    """

    kind: str
    seed: int
    folder: Path
    settings: Settings
    exposure: str
    section: str

    @cached_property
    def survey(self) -> SurveyTruth:
        """The truth tables."""
        return load_truth(self.folder / "sky")

    @property
    def truth(self) -> Table:
        """One row per object: kind, x, y (0-based pixels), ra, dec, flux_e, on_masked, saturated."""
        return self.survey.epochs

    @property
    def summary(self) -> dict[str, float]:
        """True numbers: zp, color_term, sky_e, seeing_fwhm_pix, ..."""
        row = self.survey.exposures[0]
        return {name: row[name] for name in row.colnames}

    @cached_property
    def world(self) -> World:
        """Camera, observation and sky."""
        return make_world(self.survey.options)

    @cached_property
    def row(self) -> Exposure:
        """The exposure's row, detached."""
        with open_session(self.settings, read_only=True) as session:
            found = session.scalars(select(Exposure).where(Exposure.name == self.exposure)).one()
            with use_settings(self.settings):
                found.update_instrument(session)
        return found

    @cached_property
    def _image_row(self) -> Image:
        with open_session(self.settings, read_only=True) as session:
            return session.scalars(
                select(Image).where(
                    Image.exposure_id == self.row.id,
                    Image.section_id == self.section,
                    Image.provenance_id == provenances(self.settings, self.row.instrument)["image"].id,
                )
            ).one()

    def raw(self) -> RawFrame:
        """Read the raw section."""
        with use_settings(self.settings):
            return self.row.load_raw_frame(self.section)

    def masters(self) -> Masters:
        """Read the calibrators its image was made with."""
        ids = {kind: getattr(self._image_row, f"{kind}_id") for kind in Masters.__dataclass_fields__}
        with open_session(self.settings, read_only=True) as session:
            used = {kind: session.get_one(Calibrator, i) for kind, i in ids.items() if i is not None}
        return Masters(**{kind: row.read(Archive(self.settings)) for kind, row in used.items()})

    def image(self) -> ImageFrame:
        """Read the calibrated image, as the present code makes it."""
        return self._image_row.read(Archive(self.settings))

    @property
    def preprocess_params(self) -> PreprocessParams:
        """Parameters the image was made with."""
        return self.settings.params(PreprocessParams, "preprocess", self.row.instrument)

    @property
    def hint(self) -> PointingHint:
        """What the header says about the pointing."""
        return self.row.get_pointing_hint(self.section)

    @property
    def band(self) -> str:
        """The filter."""
        return str(self.summary["filter"])

    def catalog(self) -> CatalogStars:
        """Return the reference stars around the section, in its filter, at its time."""
        params = self.settings.params(PhotometryParams, "photometry", self.row.instrument)
        hint, shape = self.hint, (self.world.camera.height, self.world.camera.width)
        year = decimal_year(self.row.mjd_mid)
        store = LocalCatalog(self.settings.data_root / "catalogs", "sim")
        radius = query_radius_deg(hint, shape)
        return store.query(hint.ra, hint.dec, radius, self.band, params.catalog_color, year)

    def expected(self) -> Any:
        """Return the noiseless truth, (H, W) float64 electrons of a perfect detector, sky included."""
        return expected_light(self.world.camera, self.world.sky, self.world.observations[0], self.section)

    def cosmic_ray_e(self) -> Any:
        """Return what cosmic rays left, (H, W) float32 electrons: the same draw as the raw file's."""
        camera, observation = self.world.camera, self.world.observations[0]
        rng = section_rng(camera, 1, observation.index, camera.ccd(self.section).number)
        detector = camera.detector(self.section)
        seconds = camera.options.exposure_time_s
        charge = collect(self.expected(), detector, seconds, rng)
        before = charge.copy()
        add_cosmic_rays(charge, cosmic_ray_hits(camera, observation.exposure_time_s), rng)
        return charge - before


def load(kind: str, seed: int, home: Path | None = None) -> Ccd:
    """Return a CCD, simulated, with its masters built and its image made the first time it is asked for.

    Parameters
    ----------
    kind
        ``fine`` or ``coarse``.
    seed
        From `UNSEEN` up: for figures, not for tuning.
    home
        Where CCDs are kept; `HOME` if None.

    Raises
    ------
    RuntimeError
        If its image cannot be made.
    """
    folder = (home or HOME) / f"{kind}_{seed}"
    what = options(kind, seed)
    settings = made_once(folder, what, lambda _, settings: _process(settings, what))
    # It may have been made by other code.
    _process(settings, what)
    return Ccd(kind, seed, folder, settings, _science(settings), what.section_names[0])


def made_once(folder: Path, what: SurveyOptions, process: Callable[[Path, Settings], None]) -> Settings:
    """Return the settings of a simulated survey's folder, made if the present simulator has not made it.

    Parameters
    ----------
    folder
        Where it is kept.
    what
        What to simulate.
    process
        What else belongs into the folder: called with it and its settings once its files are ingested.
    """
    if not _is_whole(folder, what):
        # Made beside and renamed: of several processes that want the same one, the last one's stays.
        part = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(part, ignore_errors=True)
        process(part, _ingested(part, what))
        (part / _MADE_BY).write_text(_simulator())
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    settings = load_settings(folder / "seechange.yaml")
    # It may have been made before the latest revision.
    upgrade(settings)
    return settings


def _is_whole(folder: Path, what: SurveyOptions) -> bool:
    """Tell whether a CCD lies there that the present simulator made with these options."""
    try:
        return load_truth(folder / "sky").options == what and (folder / _MADE_BY).read_text() == _simulator()
    except (NotFoundError, FileNotFoundError):
        return False


@cache
def _simulator() -> str:
    """Return what tells one simulator from another: the hash of its code."""
    sources = sorted(Path(simulate.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _ingested(folder: Path, what: SurveyOptions) -> Settings:
    simulate_survey(folder / "sky", what)
    values = {"path": {"data_root": ["data", "sky"]}, "catalog": "sim"}
    (folder / "seechange.yaml").write_text(yaml.safe_dump(values))
    settings = load_settings(folder / "seechange.yaml")
    upgrade(settings)
    with use_settings(settings):
        import_table(folder / "sky" / "catalog.ecsv", "sim", settings.data_root / "catalogs", epoch=2016.0)
        for path in sorted((folder / "sky" / "raw").iterdir()):
            ingest(path, settings)
    return settings


def _process(settings: Settings, what: SurveyOptions) -> None:
    """Make masters and image, if the present code has not."""
    camera, section = what.camera, what.section_names[0]
    with use_settings(settings):
        for key in chain.masters_wanted(settings, camera):
            chain.build_master(settings, camera, key.kind, key.night, section, key.filter)
        reports = chain.walk(settings, _science(settings), section, ("exposure", "image"))
    for report in reports:
        if not report.outcome.has_product:
            raise RuntimeError(f"{report.exposure}: {report.step} {report.outcome}: {report.message}")


def _science(settings: Settings) -> str:
    with open_session(settings, read_only=True) as session:
        return session.scalars(select(Exposure.name).where(Exposure.type == "science")).one()


def main() -> None:
    """Make the CCDs that are named: ``python -m benchmarks.ccds fine 1 2 coarse 1``."""
    kind = KINDS[0]
    for word in sys.argv[1:]:
        if word in KINDS:
            kind = word
        else:
            print(load(kind, int(word)).folder)


if __name__ == "__main__":
    main()
