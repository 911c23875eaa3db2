"""Small charts and strips: light, quick, and right."""

import io
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from seechange_core.qa.charts import arrows, beside, histogram, small_png, zero_points
from seechange_core.qa.preview import Marks, preview, thumb
from seechange_core.qa.samples import (
    PlaceResiduals,
    place_residuals,
    score_counts,
    zero_point_residuals,
)
from seechange_core.qa.strips import FluxCurve, curve_panels, triplet_strip


def decode(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def blue(picture):
    return np.argwhere(picture[..., 2] - picture[..., 0] > 60)


def check(png):
    assert len(png) <= 10_000
    picture = decode(png)
    assert min(picture.shape[:2]) > 100
    assert np.any(picture < 100)
    return picture


def test_arrows_point_from_the_catalog_to_the_star(field):
    x, y = np.array([256.0, 768, 512, 512]), np.array([512.0, 512, 256, 768])
    along = 20 * np.array([[1.0, -1, 0, 0], [0, 0, 1, -1]])
    stars = PlaceResiduals(x, y, -along[0], along[1], *along)
    picture = check(arrows(stars, field.wcs))
    # The field is drawn at the left, row 0 at its bottom, 158 pixels wide.
    for column, row, way in zip(4 + x * 158 / 1024, 178 - y * 158 / 1024, along.T, strict=True):
        near = blue(picture) - (row, column)
        near = near[np.abs(near).max(axis=1) < 14]
        mean = near.mean(axis=0)[::-1] * (1, -1)
        assert mean @ way / 20 > 1.5  # the dot at its foot counts as well
        assert abs(mean @ way[::-1]) / 20 < 0.8


def test_charts_of_a_field_are_small(field):
    check(arrows(place_residuals(field.sources, field.wcs, field.catalog), field.wcs))
    stars = zero_point_residuals(field.sources, field.wcs, field.catalog, field.zero_point)
    check(zero_points(stars, field.zero_point))
    nothing = field.sources.select(np.zeros(0, int))
    check(arrows(place_residuals(nothing, field.wcs, field.catalog), field.wcs))
    check(
        zero_points(
            zero_point_residuals(nothing, field.wcs, field.catalog, field.zero_point), field.zero_point
        )
    )


def test_scores_are_counted_in_their_bins():
    score = np.array([[0.0, 0.05, -0.05, 4.95], [99.0, -99.0, np.nan, 5.0]], np.float32)
    flags = np.zeros(score.shape, np.uint16)
    flags[0, 3] = 1
    counts = score_counts(score, flags).counts
    assert counts.sum() == 5
    assert (counts[50], counts[49], counts[75], counts[-1], counts[0]) == (1, 1, 1, 1, 1)
    unit = score_counts(np.random.default_rng(1).normal(size=(500, 500)).astype(np.float32))
    np.testing.assert_allclose(unit.counts[40:60], unit.normal[40:60], rtol=0.1)
    check(small_png(histogram(unit)))
    check(small_png(histogram(score_counts(np.zeros((9, 9), np.float32)))))


def test_strips_show_the_best_first_and_the_good_before_the_bad(found):
    n = len(found.detections)
    check(triplet_strip(found.stamps, found.detections.score))
    # Its brightest pixels tell which detection is in the first column.
    weak = int(np.argmin(np.abs(found.detections.score)))
    bright = replace(found.stamps, sub=found.stamps.sub.copy(), new=found.stamps.new.copy())
    bright.sub[weak], bright.new[weak] = np.nan, np.nan
    first = check(triplet_strip(bright, found.detections.score, np.arange(n) == weak))[:, :50]
    slate = (np.abs(first - (44, 52, 70)) < 12).all(axis=2)
    assert slate.mean() > 0.3
    noise = np.random.default_rng(2).normal(size=found.stamps.new.shape).astype(np.float32)
    assert (
        len(triplet_strip(replace(found.stamps, new=noise, ref=noise, sub=noise), found.detections.score))
        <= 10_000
    )


def test_curves_are_drawn_to_scale():
    mjd, band = np.array([60000.0, 60005.0, 60010.0]), np.array(["i", "i", "i"])
    flux, error = np.array([0.0, 100.0, np.nan]), np.array([0.1, 0.1, 0.1])
    curve = FluxCurve("obj2026abcdefghi", mjd, flux, error, band)
    picture = np.asarray(curve_panels([curve], 60010.0, panel=(118, 84))).astype(int)
    points = blue(picture[:80])
    low, high = points[points[:, 1] < 30].mean(axis=0), points[points[:, 1] > 30].mean(axis=0)
    assert low[0] > 65
    assert high[0] < 25
    assert high[1] == pytest.approx(58, abs=6)
    many = [replace(curve, label=str(k)) for k in range(12)]
    check(small_png(curve_panels(many, 60000.0)))


def test_all_pictures_of_a_large_section_together_are_quick(field, found):
    rng = np.random.default_rng(3)
    data = rng.normal(1500, 39, (4096, 2048)).astype(np.float32)
    score = rng.normal(size=data.shape).astype(np.float32)
    flags, marks = np.zeros(data.shape, np.uint16), Marks(*rng.uniform(0, 2048, (2, 100)))
    stars = zero_point_residuals(field.sources, field.wcs, field.catalog, field.zero_point)

    def everything():
        for picture in (data, data, score):
            thumb(picture, flags, marks)
        beside(thumb(score, flags, signed=True), histogram(score_counts(score, flags)))
        arrows(place_residuals(field.sources, field.wcs, field.catalog), field.wcs)
        zero_points(stars, field.zero_point)
        triplet_strip(found.stamps, found.detections.score)
        triplet_strip(found.stamps, found.detections.score)

    everything()
    start = time.process_time()
    everything()
    assert time.process_time() - start < 1.0  # 0.3 s on a quiet core


def test_large_pictures_enlarge_small_images_and_show_signs():
    data = np.random.default_rng(4).normal(0, 1, (200, 100))
    data[150, 20], data[50, 80] = 90, -90
    picture = np.asarray(
        preview(data, marks=[Marks(np.array([20.0]), np.array([50.0]), 6, (1, 2, 3))], signed=True)
    )
    assert picture.shape == (800, 400, 3)
    assert picture[800 - 4 * 150 - 2, 4 * 20 + 1].tolist() == [255, 255, 255]
    assert picture[800 - 4 * 50 - 2, 4 * 80 + 1].tolist() == [0, 0, 0]
    ring = np.argwhere((picture == (1, 2, 3)).all(axis=2))
    np.testing.assert_allclose((ring.min(axis=0) + ring.max(axis=0)) / 2, (800 - 4 * 50.5, 4 * 20.5), atol=1)
    assert np.ptp(ring[:, 0]) == pytest.approx(48, abs=3)
