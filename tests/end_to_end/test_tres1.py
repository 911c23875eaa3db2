"""A real night: raw lights of the transiting planet TrES-1 b, to the dip in its light.

Runs where ``SEECHANGE_REAL_DATA`` names a folder with ``tres1/`` and ``catalogs/``.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from seechange_assets.cli import run
from seechange_core import chain
from seechange_core.chain.light_curves import all_epochs
from seechange_core.settings import Settings, load_settings, use_settings
from seechange_core.storage.engine import dispose_engines

ROOT = Path(os.environ.get("SEECHANGE_REAL_DATA", "/nowhere"))
YAML = Path(__file__).parents[2] / "docs" / "tres1.yaml"
TARGET = 286.0409, 36.6325
sys.path.append(str(Path(__file__).parents[2]))
#: Each light needs a reference without it. A reference of the deepest 6 needs 6 more that leave one out; of
#: all 27 lights it would be 27: a minute of work more.
REFERENCE_IMAGES = 6

pytestmark = pytest.mark.skipif(not (ROOT / "tres1").is_dir(), reason="SEECHANGE_REAL_DATA is not set")


@pytest.fixture(scope="module")
def night(tmp_path_factory) -> Iterator[Settings]:
    """The night, processed as the README says."""
    folder = tmp_path_factory.mktemp("tres1")
    options = yaml.safe_load(YAML.read_text())
    options["path"]["data_root"] = str(folder / "data")
    options["instruments"]["tres1"]["parameters"]["reference"]["max_images"] = REFERENCE_IMAGES
    (folder / "tres1.yaml").write_text(yaml.safe_dump(options))
    tycho = ["catalog", "import", str(ROOT / "catalogs" / "tres1_tycho2.ecsv"), "--name", "tycho2"]
    with use_settings(load_settings(folder / "tres1.yaml", environ={})) as settings:
        for command in (
            ["init"],
            [*tycho, "--epoch", "2000", "--column", "mag_VT=VT"],
            ["ingest", str(ROOT / "tres1")],
        ):
            assert run(command) == 0, command
        _process(settings)
        yield settings
    dispose_engines()


def _process(settings: Settings) -> None:
    """Do what `process` and `reference build --leave-one-out` do, without the workers' start and Dagster."""
    names = [exposure.name for exposure in chain.exposures(settings)]
    steps = [step.name for step in chain.STEPS]
    solved = steps[: steps.index("zero_point") + 1]
    for kind, night, band in chain.masters_wanted(settings, "tres1"):
        _check([chain.build_master(settings, "tres1", kind, night, "0", band)])
    for name in names:
        _check(chain.walk(settings, name, "0", solved))
    for region, band in chain.references_wanted(settings, "tres1"):
        _check(chain.build_reference(settings, "tres1", region, band, leave_one_out=True))
    for name in names:
        _check(chain.walk(settings, name, "0", [*solved, "subtraction"]))


def _check(reports: list[chain.StepReport]) -> None:
    assert all(report.outcome.has_product for report in reports), reports[-1].message


@pytest.fixture(scope="module")
def ensemble(night) -> chain.EnsembleZeroPoints:
    return chain.ensemble_at(night, *TARGET)


def test_every_light_has_a_wcs_and_a_zero_point(night):
    epochs = all_epochs(night, "image")
    assert len(epochs) == 27
    # Tycho-2's positions are good to 60 mas, its motions over 12 years unknown here: some 150 mas in all,
    # as found; 250 is a tenth of a pixel.
    assert max(e.rows.wcs.rms_mas for e in epochs) < 250
    assert min(e.rows.wcs.n_matched for e in epochs) >= 10
    # Tycho's magnitudes are no better than 0.1 mag here, but shared by all lights.
    assert np.ptp([e.rows.zero_point.zp for e in epochs]) < 0.6


def test_the_ensemble_is_steady_to_a_few_millimagnitudes(ensemble):
    stars = ensemble.stars.brightest()
    assert len(ensemble.zero_points) == 27
    assert ensemble.stars.used.sum() >= 30
    assert len(stars) == 10
    # Photon noise is 3 to 5 mmag, scintillation in 60 s with a small telescope 1 to 2.
    assert np.median(stars.rms_mag) < 0.008
    assert stars.rms_mag.max() < 0.012
    assert max(image.zp_err for image in ensemble.zero_points.values()) < 0.002


def test_the_transit_is_there_on_images_and_on_differences(night, ensemble):
    from benchmarks import transit

    known = transit.EPHEMERIDES["tres1"]
    curves = {on: transit.light_of(night, known, ensemble, on) for on in transit.KINDS}
    for bjd, light, error in curves.values():
        assert len(bjd) == 27
        assert np.isfinite(light).all()
        assert (error > 0).all()
    found = {on: transit.fit_transit(known, *curve) for on, curve in curves.items()}
    for fit in found.values():
        assert 0.015 < fit.depth < 0.03
        assert fit.depth > 4 * fit.depth_err
        assert abs(fit.middle - known.middle) < 0.01
    # The same photons, measured in two ways.
    assert np.corrcoef(curves["image"][1], curves["difference"][1])[0, 1] > 0.8
    assert abs(found["image"].depth - found["difference"].depth) < 0.005


def test_the_command_prints_and_draws_it(night, tmp_path, capsys):
    file = tmp_path / "tres1.png"
    place = ["--ra", str(TARGET[0]), "--dec", str(TARGET[1])]
    assert run(["lightcurve", *place, "--on", "image", "--ensemble", "--plot", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("tres1-") == 27
    assert captured.err.startswith("ensemble in F2: ")
    assert file.read_bytes().startswith(b"\x89PNG")
