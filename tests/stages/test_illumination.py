import numpy as np
import pytest

from seechange_core.errors import BadDataError, PixelsError
from seechange_core.frames import MasterFrame
from seechange_core.stages.illumination import IlluminationParams, illumination_of

PARAMS = IlluminationParams()
SHAPE = (512, 1024)


def coordinates(shape=SHAPE):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return 2 * (x + 0.5) / shape[1] - 1, 2 * (y + 0.5) / shape[0] - 1


def dome_error(shape=SHAPE):
    """Of the dome's light: a gradient of 3 % and 2 % from the middle to the corners."""
    u, v = coordinates(shape)
    dome = 1 + 0.015 * (0.8 * u + 0.6 * v) - 0.02 * (u**2 + v**2) / 2
    return dome / np.median(dome)


def flats(seed=1, shape=SHAPE, level_e=30000, n=7, error=None):
    """A twilight and a dome flat of the same response, with the noise of n frames each."""
    rng = np.random.default_rng(seed)
    u, v = coordinates(shape)
    response = (1 - 0.1 * (u**2 + v**2)) * (1 + rng.normal(0, 0.01, shape))
    error = dome_error(shape) if error is None else error
    made = []
    for kind, truth in (("twilight_flat", response), ("flat", response * error)):
        mean = truth / np.median(truth)
        variance = mean / level_e / n
        data = mean + rng.normal(0, 1, shape) * np.sqrt(variance)
        made.append(MasterFrame(kind, data.astype(np.float32), variance.astype(np.float32),
                                np.zeros(shape, np.uint16), n, 5.0))  # fmt: skip
    return made


def true_illumination(error=None):
    truth = 1 / (dome_error() if error is None else error)
    return truth / np.median(truth)


def test_an_error_of_the_domes_light_is_removed_to_a_thousandth():
    made = illumination_of(*flats(), PARAMS)
    assert np.ptp(true_illumination()) > 0.035
    assert np.abs(made.data / true_illumination() - 1).max() < 5e-4
    assert made.kind == "illumination"
    assert np.median(made.data) == pytest.approx(1, abs=1e-6)
    assert made.data.dtype == made.variance.dtype == np.float32
    assert not made.flags.any()
    assert made.n_frames == 7


def test_its_error_bars_are_right():
    rms = []
    for seed in range(40):
        frames = flats(seed=seed, shape=(256, 256), level_e=5000, error=dome_error((256, 256)))
        made = illumination_of(*frames, IlluminationParams(smooth_pix=16))
        truth = 1 / dome_error((256, 256))
        rms.append(((made.data - truth / np.median(truth)) / np.sqrt(made.variance))[::16, ::16])
    # Values of one surface are correlated: 40 surfaces of 15 coefficients give the width to 3 %.
    assert np.sqrt(np.mean(np.square(rms))) == pytest.approx(1, abs=0.08)


def test_bad_pixels_dust_and_dead_corners_leave_no_trace():
    twilight, flat = flats()
    rng = np.random.default_rng(3)
    u, _ = coordinates()
    twilight.data[rng.random(SHAPE) < 0.01] = 0.0
    flat.data[rng.random(SHAPE) < 0.01] = np.nan
    flat.data[100:120, 300:330] *= 0.9  # a grain that was not there at twilight
    twilight.data[:, 700] *= 3
    flat.flags[:, :100], flat.data[:, :100] = 2, 1.0
    made = illumination_of(twilight, flat, PARAMS)
    inside = u > -0.8  # what lies beyond is extrapolated
    assert np.abs(made.data / true_illumination() - 1)[inside].max() < 1e-3


def test_small_sections_get_a_simpler_surface():
    made = illumination_of(*flats(shape=(128, 96), error=np.ones((128, 96))), PARAMS)
    assert np.abs(made.data - 1).max() < 2e-3


def test_flats_that_tell_nothing_are_refused():
    twilight, flat = flats()
    with pytest.raises(PixelsError, match=r"\(512, 1024\) pixels, the flat \(128, 96\)"):
        illumination_of(twilight, flats(shape=(128, 96), error=np.ones((128, 96)))[1], PARAMS)
    flat.flags[:] = 2
    with pytest.raises(BadDataError, match=r"only 0\.0% of the pixels"):
        illumination_of(twilight, flat, PARAMS)


def test_inputs_are_not_edited():
    frames = flats()
    before = [f.data.copy() for f in frames]
    illumination_of(*frames, PARAMS)
    for frame, old in zip(frames, before, strict=True):
        np.testing.assert_array_equal(frame.data, old)
