"""A crowded field without any catalog: frames of the Galactic bulge, calibrated on their own best one.

Its microlensing event rose within the second night (MJD 56471.9 to 56472.8), stayed high to 56480.1, fell
by half in the following day, and was down a fortnight later.

Runs where ``SEECHANGE_REAL_DATA`` names a folder with ``kb13475/``.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from seechange_assets.cli import run
from seechange_core import chain
from seechange_core.chain.bootstrap import bootstrap_catalog
from seechange_core.chain.catalogs import catalog_of
from seechange_core.chain.light_curves import LightCurveTable
from seechange_core.chain.load import rows_of_zero_points
from seechange_core.flags import UNUSABLE
from seechange_core.numerics.matching import match_sky
from seechange_core.products import CatalogRelease, Exposure, Image, WorldCoordinates, ZeroPoint
from seechange_core.settings import Settings, load_settings, use_settings
from seechange_core.storage.archive import Archive
from seechange_core.storage.engine import dispose_engines, open_session

ROOT = Path(os.environ.get("SEECHANGE_REAL_DATA", "/nowhere"))
YAML = Path(__file__).parents[2] / "docs" / "kb13475.yaml"
STEPS = ("exposure", "image", "source_list")
CALIBRATED = (*STEPS, "world_coordinates", "zero_point")
PIXEL_MAS = 310.0
#: None of them is among the sharpest frames, which the reference is made of.
EPOCHS = (9, 17, 30, 45)
#: Of the 62: the sharpest, those in the worst seeing, and the epochs.
FRAMES = sorted({1, 7, 11, 12, 20, 21, 27, 47, 53, 56, 4, 19, 25, 28, 37, 48, *EPOCHS})

pytestmark = pytest.mark.skipif(not (ROOT / "kb13475").is_dir(), reason="SEECHANGE_REAL_DATA is not set")


@pytest.fixture(scope="module")
def season(tmp_path_factory) -> Iterator[Settings]:
    """The frames, processed as docs/kb13475.yaml says, without the workers' start and Dagster."""
    folder = tmp_path_factory.mktemp("kb13475")
    text = YAML.read_text().replace("../seechange_data/kb13475", str(folder / "data"))
    (folder / "kb13475.yaml").write_text(text)
    with use_settings(load_settings(folder / "kb13475.yaml", environ={})) as settings:
        files = [str(ROOT / "kb13475" / f"AKB13475I{number:04d}.fits.gz") for number in FRAMES]
        assert run(["init"]) == run(["ingest", *files]) == 0
        exposures = chain.exposures(settings)
        for steps in (STEPS, CALIBRATED):
            for exposure in exposures:
                report = chain.walk(settings, exposure.name, "0", steps)[-1]
                assert report.outcome.has_product, f"{exposure.name}: {report.message}"
            if steps == STEPS:
                bootstrap_catalog(settings, exposures, "kb13475")
        yield settings
    dispose_engines()


def test_every_frame_calibrates_relative_to_the_best_one(season):
    with open_session(season, read_only=True) as session:
        rows = rows_of_zero_points(session, list(session.scalars(select(ZeroPoint.id))))
        (release,) = session.scalars(select(CatalogRelease))
    assert len(rows) == len(FRAMES)
    assert release.is_relative
    rms = np.array([row.wcs.rms_mas for row in rows]) / PIXEL_MAS
    assert np.median(rms) < 0.3 and rms.max() < 0.7
    assert max(row.wcs.error_mas for row in rows) < 0.05 * PIXEL_MAS
    for row in rows:
        # Where there are a hundred without neighbours, these alone are fitted; in the worst seeing, of 2.6
        # arcsec, there are hardly more.
        s = row.source_list.read(Archive(season))
        alone = ~s.blended & ((s.flags & int(UNUSABLE)) == 0) & (s.snr >= 20)
        assert row.wcs.n_matched > 0.5 * np.count_nonzero(alone) > 40
    assert np.median([row.zero_point.zp_err for row in rows]) < 0.01


def test_bright_stars_repeat_from_frame_to_frame(season):
    stars = catalog_of(season).query(273.8708, -25.285, 1.0, "I", None, 2013.5)
    bright = stars.select(np.argsort(stars.mag)[:100])
    with open_session(season, read_only=True) as session:
        rows = rows_of_zero_points(session, list(session.scalars(select(ZeroPoint.id))))
    mags = np.full((len(rows), len(bright)), np.nan)
    for i, row in enumerate(rows):
        s, wcs = row.source_list.read(Archive(season)), row.wcs.solution()
        s = s.select(s.flags == 0)
        ra, dec = wcs.to_sky(s.x, s.y)
        pairs = match_sky(ra, dec, bright.ra, bright.dec, 0.5)
        east = (ra[pairs.first] - bright.ra[pairs.second]) * np.cos(np.deg2rad(25.285))
        north = dec[pairs.first] - bright.dec[pairs.second]
        assert 3.6e6 * np.hypot(np.median(east), np.median(north)) < 0.1 * PIXEL_MAS
        zp = row.zero_point.solution().zp_at(s.x[pairs.first], s.y[pairs.first])
        mags[i, pairs.second] = zp - 2.5 * np.log10(s.flux_psf[pairs.first])
    often = np.count_nonzero(np.isfinite(mags), axis=0) > 0.65 * len(rows)
    assert np.count_nonzero(often) > 25
    mags = mags[:, often] - np.nanmedian(mags[:, often], axis=0)
    scatter = 1.4826 * np.nanmedian(np.abs(mags), axis=0)
    assert np.median(scatter) < 0.03


@pytest.fixture(scope="module")
def changes(season) -> tuple[Settings, list[dict[str, float]], LightCurveTable]:
    """Differences of frames before, in and after the event from the sharpest ones, and its light curve."""
    (wanted,) = chain.references_wanted(season, "kb13475")
    reports = chain.build_reference(season, "kb13475", *wanted)
    assert [report.outcome.has_product for report in reports] == [True], reports
    figures = []
    for number in EPOCHS:
        walked = chain.walk(season, f"AKB13475I{number:04d}", "0", (*CALIBRATED, "subtraction", "detections"))
        assert walked[-1].outcome.has_product, walked[-1].message
        figures.append({k: v for report in walked for k, v in report.metrics.items()})
    return season, figures, chain.position_light_curve(season, *_place_of_event(season))


def _place_of_event(settings: Settings) -> tuple[float, float]:
    """Return where most has changed in the frame of the maximum.

    Headers know the pointing to ten arcseconds, and the catalog has it from the frame it was made of.
    """
    with open_session(settings, read_only=True) as session:
        query = (
            select(Image, WorldCoordinates)
            .join(WorldCoordinates, WorldCoordinates.image_id == Image.new_image_id)
            .join(Exposure, Exposure.id == Image.exposure_id)
            .where(Image.type == "difference", Exposure.name == f"AKB13475I{EPOCHS[1]:04d}")
        )
        image, wcs = session.execute(query).one()
    score = image.read_subtraction(Archive(settings)).score
    y, x = np.unravel_index(np.argmax(score), score.shape)
    ra, dec = wcs.solution().to_sky(float(x), float(y))
    return float(ra), float(dec)


def test_differences_of_a_crowded_field_have_the_noise_that_is_promised(changes):
    _, figures, _ = changes
    scatter = np.array([f["score_sigma"] for f in figures])
    assert np.all((scatter > 0.7) & (scatter < 1.5))
    assert 0.8 < np.median(scatter) < 1.2
    # Without the fine mesh there are a hundred and more in every frame.
    assert np.median([f["n_detections"] for f in figures]) < 45


def test_the_event_rises_and_falls_as_it_did(changes):
    _, _, curve = changes
    assert [int(name[-4:]) for name in curve.exposure] == list(EPOCHS)
    scale = 10 ** (0.4 * (25.0 - curve.zp))
    flux, error = curve.flux * scale, curve.flux_err * scale
    before, high, falling, down = flux
    assert high - before > 50
    assert high - falling > 50
    assert falling - down > 80
    assert np.all(error < 20)
