import numpy as np

from seechange_core.numerics.inpaint import fill_unusable


def test_usable_pixels_stay_and_a_plane_is_continued():
    y, x = np.mgrid[:60, :70].astype(np.float32)
    plane = 100 + 0.5 * x - 0.3 * y
    usable = np.random.default_rng(1).random(plane.shape) > 0.05
    broken = np.where(usable, plane, np.nan).astype(np.float32)
    filled = fill_unusable(broken, usable)
    assert np.array_equal(filled[usable], plane[usable])
    assert np.abs(filled - plane)[2:-2, 2:-2].max() < 0.6


def test_large_holes_take_the_level_around_them():
    image = np.full((101, 120), 7, np.float32)
    usable = np.ones(image.shape, bool)
    usable[20:70, 30:90] = False
    usable[:, :5] = False
    image[~usable] = np.nan
    assert np.allclose(fill_unusable(image, usable), 7, atol=1e-4)


def test_nothing_usable_gives_the_default():
    nothing = np.full((9, 12), np.nan, np.float32)
    assert np.all(fill_unusable(nothing, np.zeros((9, 12), bool), default=3.0) == 3)
