import io
import time

import numpy as np
import pytest
from PIL import Image

from seechange_core.qa.preview import FLAG_COLORS, MARK_COLOR, Marks, preview, stretch, thumb


def decode(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_thumbnails_are_small_fast_and_true(field):
    image = field.image
    marks = Marks(np.array([200.0]), np.array([900.0]))
    thumb(image.data, image.flags, marks)
    start = time.process_time()
    png = thumb(image.data, image.flags, marks)
    assert time.process_time() - start < 0.5  # 0.05 s on a quiet core
    assert len(png) <= 10_000
    picture = decode(png)
    side = picture.shape[0]
    assert side >= 128
    # Row 0 is at the bottom: the saturated block at (620, 620) and the mark at y = 900 lie above the middle.
    at = picture[side - 1 - 620 * side // 1024, 620 * side // 1024]
    assert tuple(at) == FLAG_COLORS[0][1]
    marked = np.argwhere((picture == MARK_COLOR).all(axis=2))
    assert marked[:, 0].mean() / side == pytest.approx(1 - 900 / 1024, abs=0.03)
    assert marked[:, 1].mean() / side == pytest.approx(200 / 1024, abs=0.03)
    # The bad columns show from top to bottom.
    column = picture[:, 301 // round(1024 / side)]
    assert np.mean((column == FLAG_COLORS[2][1]).all(axis=1)) > 0.9


@pytest.mark.parametrize("shape", [(1, 1), (5, 3000), (2048, 4096), (17, 13)])
def test_any_shape_and_content_fits(shape):
    rng = np.random.default_rng(3)
    assert len(thumb(rng.normal(size=shape))) <= 10_000
    for value in (np.nan, 0.0, -3.0, np.inf):
        png = thumb(np.full(shape, value))
        assert decode(png).ndim == 3


def test_limit_is_kept_even_when_tight():
    noise = np.random.default_rng(3).normal(size=(1024, 1024))
    assert len(thumb(noise, max_bytes=1500)) <= 1500


def test_stars_stand_out_in_order(field):
    small = np.asarray(preview(field.image.data, max_side_pix=1024))
    assert small.shape == (1024, 1024, 3)
    bright = np.argsort(field.sources.flux_psf)[-20:]
    rows, columns = (
        1023 - np.rint(field.sources.y[bright]).astype(int),
        np.rint(field.sources.x[bright]).astype(int),
    )
    assert np.median(small[rows, columns]) > 200
    assert np.median(small) < 90


def test_stretch_is_monotonic_and_within_bounds():
    values = np.linspace(-50, 5000, 1000)
    result = stretch(values)
    assert result.min() >= 0
    assert result.max() <= 1
    assert np.all(np.diff(result) >= 0)


def test_inputs_are_not_edited(field):
    before = field.image.data.copy(), field.image.flags.copy()
    thumb(field.image.data, field.image.flags)
    np.testing.assert_array_equal(before[0], field.image.data)
    np.testing.assert_array_equal(before[1], field.image.flags)
