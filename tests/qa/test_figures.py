import io

import numpy as np
import pytest
from PIL import Image

from seechange_core.qa import figures
from seechange_core.qa.style import to_png


def check(figure, tmp_path, name):
    png = to_png(figure, dpi=110)
    (tmp_path / f"{name}.png").write_bytes(png)
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    assert min(picture.shape) > 200
    assert 0.01 < np.mean(picture < 200) < 0.9
    assert len(png) < 400_000


def test_psf_variation(field, tmp_path):
    figure = figures.psf_variation(field.psf, field.image.shape)
    check(figure, tmp_path, "psf")
    low, high = (float(word) for word in figure.axes[0].get_title(loc="left").split()[:3:2])
    assert low < 3.5 < high


def test_wcs_residuals_show_the_scatter_they_were_given(field, tmp_path):
    figure = figures.wcs_residuals(field.sources, field.wcs, field.catalog)
    check(figure, tmp_path, "wcs")
    east, north = figure.axes[1].lines[2].get_data()
    assert np.std(east) == pytest.approx(0.04 * 270, rel=0.2)
    assert np.std(north) == pytest.approx(0.04 * 270, rel=0.2)
    assert abs(np.mean(east)) < 3
    # x runs west: an arrow to the east points left, by the same length in milliarcseconds.
    quiver = figure.axes[0].collections[0]
    np.testing.assert_allclose(quiver.U, -np.asarray(east), atol=1e-3)
    np.testing.assert_allclose(quiver.V, north, atol=1e-3)


def test_zero_point_scatter(field, tmp_path):
    figure = figures.zero_point_scatter(field.sources, field.wcs, field.catalog, field.zero_point)
    check(figure, tmp_path, "zp")
    assert "30.100" in figure.axes[0].get_title(loc="left")


def test_score_histogram(tmp_path):
    rng = np.random.default_rng(1)
    score = rng.normal(size=(500, 500)).astype(np.float32)
    score[:20] = 0
    figure = figures.score_histogram(score)
    check(figure, tmp_path, "score")
    mean, sigma = figure.axes[0].get_title(loc="left").replace("mean ", "").split(", σ ")
    assert float(mean) == pytest.approx(0, abs=0.01)
    assert float(sigma) == pytest.approx(1, abs=0.01)
    check(figures.score_histogram(np.zeros((10, 10), np.float32)), tmp_path, "empty_score")


def test_nothing_to_show_is_no_error(field):
    nothing = np.zeros(0, int)
    for figure in (
        figures.wcs_residuals(field.sources.select(nothing), field.wcs, field.catalog),
        figures.zero_point_scatter(field.sources.select(nothing), field.wcs, field.catalog, field.zero_point),
    ):
        assert to_png(figure, dpi=50)
