import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from seechange_core.numerics.spline import quintic_coefficients
from seechange_core.numerics.spline_reading import STEP_PIX, read_spline

SOURCE, TARGET = (90, 120), (100, 110)


def grid(scale, angle_deg, mirrored):
    """Where target pixels fall in the source: about its middle, beyond its edges too."""
    i, j = np.indices([-(-n // STEP_PIX) + 1 for n in TARGET]) * STEP_PIX
    u, v, angle = (j - 55.0) * (-1 if mirrored else 1), i - 50.0, np.deg2rad(angle_deg)
    x = 59.317 + scale * (np.cos(angle) * u - np.sin(angle) * v)
    y = 45.637 + scale * (np.sin(angle) * u + np.cos(angle) * v)
    return x, y, np.full(x.shape, scale**2)


@pytest.mark.parametrize("scale", [1.0003, 0.99, 0.6, 1.7])
@pytest.mark.parametrize("angle_deg", [0.1, 30, 90.1, 180, 270.2])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_source_of_any_orientation_and_scale_is_read_as_by_scipy(scale, angle_deg, mirrored):
    rng = np.random.default_rng(3)
    image = rng.normal(0, 1, SOURCE).astype(np.float32)
    weight = rng.uniform(1, 2, SOURCE).astype(np.float32)
    flags = rng.choice([0, 1], SOURCE, p=[0.9, 0.1]).astype(np.uint16)
    nodes = grid(scale, angle_deg, mirrored)
    out, out_weight = np.zeros((2, *TARGET), np.float32)
    out_flags = np.full(TARGET, 2, np.uint16)
    read_spline(quintic_coefficients(image), weight, flags, *nodes, out, out_weight, out_flags)
    i, j = np.indices(TARGET) / STEP_PIX
    x, y = (map_coordinates(n, [i, j], order=1) for n in nodes[:2])
    inside = (x >= -0.5) & (y >= -0.5) & (x < SOURCE[1] - 0.5) & (y < SOURCE[0] - 0.5)
    truth = scale**2 * map_coordinates(image.astype(float), [y, x], order=5, mode="mirror")
    assert inside.mean() > 0.3
    assert out[inside] == pytest.approx(truth[inside], abs=2e-5)
    nearest = (y[inside] + 0.5).astype(int), (x[inside] + 0.5).astype(int)
    assert (out_flags[inside] == flags[nearest]).all()
    usable = flags[nearest] == 0
    assert out_weight[inside][usable] == pytest.approx(weight[nearest][usable] / scale**2, rel=1e-6)
    assert not out[~inside].any()
    assert (out_flags[~inside] == 2).all()
