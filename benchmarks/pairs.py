"""The differences everything about change is measured on: one sky, eight exposures before, two after.

Eight dithered raw exposures make the reference, before any transient goes off. Two later ones are new: one
taken in worse and one in better seeing than the reference. Both show the same transients, of S/N 3 to 100, on
the cores and arms of galaxies, on and near bright stars, at edges, on bad pixels and alone. The kinds are
those of `ccds`; seeds from 100 up are never used to tune anything. What is made is kept and used again.
"""

import hashlib
import pickle
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from astropy.table import Table
from sqlalchemy import select

import seechange_core
from benchmarks import ccds
from benchmarks.ccds import KINDS, made_once
from seechange_core import chain
from seechange_core.chain.coadds import measure_coadd
from seechange_core.chain.load import CalibratedRows, rows_of_zero_points
from seechange_core.frames import CalibratedImage, Float32, WcsSolution
from seechange_core.numerics.regions import Region, region_wcs
from seechange_core.numerics.sky import bounding_cone, footprint
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image
from seechange_core.products.zero_point import ZeroPoint
from seechange_core.settings import Settings, use_settings
from seechange_core.simulate import SurveyOptions, SurveyTruth, World, load_truth, make_world
from seechange_core.simulate.section import expected_light
from seechange_core.simulate.sky import Sky
from seechange_core.stages.reference import ReferenceParams, coadd
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import open_session

ORDERS = ("worse", "better")
N_REFERENCE = 8
HOME = Path(__file__).parent / "out" / "pairs"
STEPS = ("exposure", "image", "source_list", "world_coordinates", "zero_point")


def options(kind: str, seed: int) -> SurveyOptions:
    """Return what a pair is simulated from: the CCD of `ccds`, ten times, with transients."""
    rng = np.random.default_rng([seed, KINDS.index(kind), 7])
    middle = float(rng.uniform(1.15, 1.35) if kind == "fine" else rng.uniform(1.75, 2.0))
    spread = 0.25 if kind == "fine" else 0.2
    before = middle + rng.uniform(-0.08, 0.08, N_REFERENCE)
    seeing = tuple(round(float(s), 3) for s in (*before, middle + spread, middle - spread))
    return _changed(
        ccds.options(kind, seed),
        exposures=N_REFERENCE + 2, reference_exposures=N_REFERENCE, nights=2, night_gap_days=6,
        cadence_min=4.0, seeing_arcsec=seeing, dither_arcsec=12.0 if kind == "fine" else 30.0,
        transients=200, transient_bright_mag=19.2 if kind == "fine" else 17.0,
        transient_faint_mag=23.4 if kind == "fine" else 21.2, n_bias=7, n_flat=7,
    )  # fmt: skip


def _changed(of: SurveyOptions, **changes: object) -> SurveyOptions:
    """Return other options."""
    return SurveyOptions(**{**of.model_dump(), **changes})


@dataclass(frozen=True, eq=False)
class Pair:
    """A reference and two new images with their truth.

    Attributes
    ----------
    kind, seed, folder, settings
        As of `ccds.Ccd`.
    exposures
        Names: those of the reference, then the new one in worse and the one in better seeing.
    """

    kind: str
    seed: int
    folder: Path
    settings: Settings
    exposures: tuple[str, ...]
    section: str

    @cached_property
    def survey(self) -> SurveyTruth:
        """The truth tables."""
        return load_truth(self.folder / "sky")

    @cached_property
    def world(self) -> World:
        """Camera, observations and sky."""
        return make_world(self.survey.options)

    def exposure(self, order: str) -> str:
        """Return the name of a new exposure."""
        return self.exposures[N_REFERENCE + ORDERS.index(order)]

    def new(self, order: str) -> CalibratedImage:
        """Return a new image as our own pipeline made it from raw."""
        return self._kept(f"new_{order}")

    def reference(self) -> CalibratedImage:
        """Return our coadd of the other exposures, calibrated like an image."""
        return self._kept("reference")

    def inputs(self, whole: bool = True) -> list[CalibratedImage]:
        """Return the images the reference is made of; if not whole, pixels are read where they are sliced."""
        return [_read(self, name, whole) for name in self.exposures[:N_REFERENCE]]

    def make_reference(self) -> CalibratedImage:
        """Make the reference with the present code; `reference` returns what was made first."""
        return _make_reference(self)

    def renew_reference(self) -> None:
        """Keep a reference that the present code has made, if the one that is kept is not."""
        stamp, code = self.folder / "reference.made_by", code_of([])
        if not stamp.exists() or stamp.read_text() != code:
            _keep(self, "reference", self.make_reference())
            stamp.write_text(code)

    def transients(self, order: str) -> Table:
        """Return the transients on the section: x, y, ra, dec, flux_e, place, on_masked, saturated."""
        epochs, objects = self.survey.epochs, self.survey.objects
        name = self.survey.exposures["file"][N_REFERENCE + ORDERS.index(order)]
        rows = epochs[(epochs["file"] == name) & (epochs["kind"] == "transient")]
        places = dict(zip(objects["id"], objects["place"], strict=True))
        rows["place"] = [places[i] for i in rows["id"]]
        return rows

    def static(self, order: str) -> Float32:
        """Return what a new image would show without transients and noise, (H, W) electrons, sky included."""
        return self._kept(f"static_{order}")

    def _kept(self, name: str):  # noqa: ANN202 - frames of several types
        return pickle.loads((self.folder / f"{name}.pickle").read_bytes())


def load(kind: str, seed: int, home: Path | None = None) -> Pair:
    """Return a pair, simulated and processed the first time it is asked for.

    Parameters
    ----------
    kind
        ``fine`` or ``coarse``.
    seed
        From `ccds.UNSEEN` up: for figures, not for tuning.
    home
        Where pairs are kept; `HOME` if None.

    Raises
    ------
    RuntimeError
        If an image cannot be made.
    """
    folder = (home or HOME) / f"{kind}_{seed}"
    what = options(kind, seed)
    settings = made_once(
        folder, what, lambda part, settings: _process(_pair(kind, seed, part, settings, what))
    )
    return _pair(kind, seed, folder, settings, what)


def _pair(kind: str, seed: int, folder: Path, settings: Settings, what: SurveyOptions) -> Pair:
    with open_session(settings, read_only=True) as session:
        query = select(Exposure.name).where(Exposure.type == "science").order_by(Exposure.mjd)
        names = tuple(session.scalars(query))
    return Pair(kind, seed, folder, settings, names, what.section_names[0])


def _process(pair: Pair) -> None:
    """Make masters, images and the reference, and keep what is asked for most."""
    settings, camera = pair.settings, pair.survey.options.camera
    with use_settings(settings):
        for key in chain.masters_wanted(settings, camera):
            chain.build_master(settings, camera, key.kind, key.night, pair.section, key.filter)
        for name in pair.exposures:
            for report in chain.walk(settings, name, pair.section, STEPS):
                if not report.outcome.has_product:
                    raise RuntimeError(f"{name}: {report.step} {report.outcome}: {report.message}")
    for order in ORDERS:
        _keep(pair, f"new_{order}", _read(pair, pair.exposure(order)))
        _keep(pair, f"static_{order}", _static(pair, order))
    _keep(pair, "reference", _make_reference(pair))


def code_of(others: Iterable[Path]) -> str:
    """Return what tells the pipeline's code, and that of some other files, from all other code."""
    sources = [*Path(seechange_core.__file__).parent.rglob("*.py"), *others]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()


def _keep(pair: Pair, name: str, frame: object) -> None:
    (pair.folder / f"{name}.pickle").write_bytes(pickle.dumps(frame))


def _rows(pair: Pair, exposure: str) -> CalibratedRows:
    with open_session(pair.settings, read_only=True) as session:
        query = (
            select(ZeroPoint.id)
            .join(Image, Image.id == ZeroPoint.image_id)
            .join(Exposure, Exposure.id == Image.exposure_id)
            .where(Exposure.name == exposure, Image.section_id == pair.section)
            .order_by(ZeroPoint.id.desc())
        )
        return rows_of_zero_points(session, [session.scalars(query).first()])[0]


def _read(pair: Pair, exposure: str, whole: bool = True) -> CalibratedImage:
    return _rows(pair, exposure).read(Archive(pair.settings), f"{exposure}/{pair.section}", whole)


def _static(pair: Pair, order: str) -> Float32:
    camera, observations, sky = pair.world
    objects = sky.objects[sky.objects["kind"] != "transient"]
    observation = observations[N_REFERENCE + ORDERS.index(order)]
    light = expected_light(camera, Sky(objects, sky.epoch_mjd), observation, pair.section)
    return np.asarray(light, np.float32)


def _make_reference(pair: Pair) -> CalibratedImage:
    """Coadd, then calibrate like an image."""
    rows = [_rows(pair, name) for name in pair.exposures[:N_REFERENCE]]
    inputs = pair.inputs()
    result = coadd(inputs, grid_of(inputs), ReferenceParams())
    band = str(pair.survey.exposures["filter"][0])
    with use_settings(pair.settings):
        found = measure_coadd(pair.settings, pair.survey.options.camera, band, result, rows)
    return CalibratedImage(
        result.image, found.found.background, found.found.psf, result.grid, found.zero_point, "reference"
    )


def grid_of(inputs: list[CalibratedImage]) -> WcsSolution:
    """Return pixels of the inputs' own scale over all they cover."""
    corners = [footprint(i.wcs.wcs, i.wcs.shape) for i in inputs]
    ra, dec, radius_deg = bounding_cone(*corners[0])
    region = Region("all", ra, dec, 3 * radius_deg / float(np.cos(np.deg2rad(dec))), 3 * radius_deg)
    scale = float(np.median([i.wcs.pixel_scale_arcsec for i in inputs]))
    return region_wcs(region, scale, corners)


def main() -> None:
    """Make the pairs that are named: ``python -m benchmarks.pairs fine 1 2 coarse 1``."""
    kind = KINDS[0]
    for word in sys.argv[1:]:
        if word in KINDS:
            kind = word
        else:
            print(load(kind, int(word)).folder)


if __name__ == "__main__":
    main()
