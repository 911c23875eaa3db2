from dataclasses import replace

import numpy as np
import pytest

from seechange_core.errors import HeaderError
from seechange_core.flags import PixelFlag
from seechange_core.frames import Amplifier, Box, Crosstalk, LinearityLaw, Masters, RawFrame
from seechange_core.numerics import detector
from seechange_core.stages.preprocess import PreprocessParams, preprocess


def section(noise_adu=2.0, gain=3.0, jitter=0.0, height=400, width=100, overscan=30, rounded=True, seed=1):
    """Two amplifiers with their overscans, levels 1000 and 1200 ADU, nothing but noise."""
    rng = np.random.default_rng(seed)
    data = np.empty((height, 2 * (width + overscan)))
    rows = jitter * rng.normal(size=(height, 1))
    data[:, : width + overscan] = 1000.3 + rows
    data[:, width + overscan :] = 1200.7 + rows
    data += rng.normal(0, noise_adu, data.shape)
    data = np.rint(data).astype(np.uint16) if rounded else data
    boxes = (0, width), (width + 2 * overscan, 2 * (width + overscan))
    overs = (width, width + overscan), (width + overscan, width + 2 * overscan)
    amplifiers = tuple(
        Amplifier(
            *(name, Box(0, height, *boxes[i]), Box(0, height, *overs[i])),
            *(Box(0, height, i * width, (i + 1) * width), gain, noise_adu * gain, 60000.0),
            mirrored=i == 1,
        )
        for i, name in enumerate("AB")
    )
    return RawFrame(data, amplifiers, 10.0)


@pytest.mark.parametrize("noise", [0.4, 0.7, 2.0, 10.0])
@pytest.mark.parametrize("jitter", [0.0, 3.0])
def test_overscan_tells_level_and_noise(noise, jitter):
    raw = section(noise, jitter=jitter, overscan=50)
    for amplifier, level in zip(raw.amplifiers, (1000.3, 1200.7), strict=True):
        pedestal = detector.overscan_pedestals(raw)[amplifier.name]
        expected = np.hypot(noise, 12**-0.5)
        assert pedestal.noise_adu == pytest.approx(expected, rel=0.03 if noise > 0.5 else 0.12)
        assert pedestal.n_pixels > 0.99 * 400 * 50
        error = np.hypot(noise / np.sqrt(400 * 50), jitter / np.sqrt(400))
        assert np.mean(pedestal.level_adu) == pytest.approx(level, abs=4 * error + 0.03)
        predicted = detector.read_variance_e2(raw, amplifier, pedestal)
        signal = detector.signal_electrons(raw, amplifier, pedestals=detector.overscan_pedestals(raw))
        total = predicted + pedestal.variance_adu * amplifier.gain**2
        assert np.std(signal) == pytest.approx(np.sqrt(total), rel=0.025)


def test_read_noise_without_a_usable_overscan():
    raw = section(2.0, gain=3.0)
    amplifier = raw.amplifiers[0]
    assert detector.read_variance_e2(raw, amplifier, None) == pytest.approx(36 + 9 / 12)
    few = detector.Pedestal(np.zeros(400), 0.0, 5.0, 100)
    assert detector.read_variance_e2(raw, amplifier, few) == pytest.approx(36 + 9 / 12)
    as_floats = replace(raw, data=raw.data.astype(np.float32))
    assert detector.read_variance_e2(as_floats, amplifier, None) == pytest.approx(36 + 9 / 12)
    assert detector.read_variance_e2(section(rounded=False), amplifier, None) == pytest.approx(36)


def test_signal_is_read_in_any_rows_with_all_steps():
    raw = section(30.0, jitter=3.0)
    crosstalk = Crosstalk(("A", "B"), np.array([[0, 0.1], [0.2, 0]]))
    measured = np.array([[0.0, 10, 100], [0, 50, 200]])
    law = LinearityLaw(("A", "B"), measured, measured * [1, 1.2, 1.5])
    pedestals = detector.overscan_pedestals(raw)
    settings = {"pedestals": pedestals, "crosstalk": crosstalk, "linearity": law}
    signals = {a.name: raw.data[a.raw.slices] - pedestals[a.name].level_adu[:, None] for a in raw.amplifiers}
    for amplifier, other, share in zip(raw.amplifiers, "BA", (0.1, 0.2), strict=True):
        clean = signals[amplifier.name] - share * signals[other][:, ::-1]
        i = "AB".index(amplifier.name)
        inside = (clean > 0) & (clean < measured[i, -1])
        expected = 3 * np.interp(clean, measured[i], law.true_adu[i])
        whole = detector.signal_electrons(raw, amplifier, **settings)
        np.testing.assert_allclose(whole[inside], expected[inside], atol=0.01)
        for rows in (slice(3, 50), slice(None, None, 7), slice(200, None)):
            part = detector.signal_electrons(raw, amplifier, **settings, rows=rows)
            np.testing.assert_array_equal(part, whole[rows])
    keeps = detector.signal_electrons(raw, raw.amplifiers[1], pedestals=None)
    np.testing.assert_allclose(keeps, 3.0 * raw.data[raw.amplifiers[1].raw.slices])
    for step in ("crosstalk", "linearity"):
        with pytest.raises(HeaderError, match="needs the zero level"):
            detector.signal_electrons(raw, raw.amplifiers[0], pedestals=None, **{step: settings[step]})


def test_what_is_not_finite_is_not_a_number():
    raw = section(rounded=False)
    raw.data[5, 5], raw.data[6, 6] = np.inf, np.nan
    signal = detector.signal_electrons(raw, raw.amplifiers[0], pedestals=None)
    assert np.isnan(signal[5, 5])
    assert np.isnan(signal[6, 6])
    assert np.isnan(signal).sum() == 2
    assert not np.isnan(raw.data[5, 5])


def test_silence_is_told_from_a_low_read_noise():
    assert not detector.is_silent(*first(section(0.5)))
    assert not detector.is_silent(*first(section(0.3, gain=5.0)))
    assert detector.is_silent(*first(section(0.0)))
    quiet = section(2.0)
    quiet.data[quiet.amplifiers[0].raw.slices] = 1000
    assert detector.is_silent(*first(quiet))
    quiet = replace(quiet, data=np.full(quiet.data.shape, np.nan))
    assert detector.is_silent(*first(quiet))


def first(raw):
    return raw, raw.amplifiers[0]


# --- What falls on an overscan --------------------------------------------------------------------

SPOILED = (slice(0, 20), slice(200, 201), slice(300, 310), slice(600, 640), slice(1180, 1200))


def tall(jitter=0.0, noise=2.0, drift=None, sky_e=0.0, seed=1, height=1200):
    """One amplifier of 300 columns with 50 of overscan, gain 4, and its true zero levels."""
    rng = np.random.default_rng(seed)
    zero = 1000.3 + jitter * rng.normal(size=height)
    if drift is not None:
        zero += drift(np.arange(height))
    data = rng.normal(0, noise, (height, 350)) + zero[:, None]
    data[:, :300] += rng.poisson(sky_e, (height, 300)) / 4
    boxes = Box(0, height, 0, 300), Box(0, height, 300, 350), Box(0, height, 0, 300)
    return RawFrame(data, (Amplifier("A", *boxes, 4.0, 4 * noise, 60000.0),), 10.0), zero


def measured(raw, trim_pix=0):
    whole = replace(raw, data=np.rint(raw.data).astype(np.uint16))
    return detector.overscan_pedestal(whole, raw.amplifiers[0], trim_pix)


@pytest.mark.parametrize("contamination", [-20.0, 5.0, 300.0, 30000.0])
@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_spoiled_rows_are_found_and_harm_no_other(contamination, jitter):
    raw, zero = tall(jitter, sky_e=400)
    clean = measured(raw).level_adu - zero
    where = np.zeros(zero.size, dtype=bool)
    for rows in SPOILED:
        raw.data[rows, 300:] += contamination
        where[rows] = True
    pedestal = measured(raw)
    assert np.all(pedestal.spoiled[where])
    assert np.mean(pedestal.spoiled[~where]) < 0.01
    error = pedestal.level_adu - zero
    assert np.std(error[~where]) < 1.1 * np.std(clean)
    assert np.sqrt(pedestal.variance_adu) == pytest.approx(np.std(error[~where]), rel=0.25)
    assert np.std(error[where]) < jitter + 0.2
    assert pedestal.noise_adu == pytest.approx(np.hypot(2, 12**-0.5), rel=0.03)


@pytest.mark.parametrize("sky_e", [0, 400, 4000])
@pytest.mark.parametrize(
    "drift",
    [
        lambda y: 40 * np.exp(-y / 10),
        lambda y: 50.0 * (y > 500),
        lambda y: 0.02 * y,
        lambda y: 30.0 * (y % 97 == 5),
        lambda y: 5 * np.sin(y / 10),
    ],
    ids=["start", "step", "ramp", "jumps", "wave"],
)
def test_true_changes_of_the_zero_level_are_no_contamination(drift, sky_e):
    raw, zero = tall(drift=drift, sky_e=sky_e)
    pedestal = measured(raw)
    assert np.mean(pedestal.spoiled) < 0.01
    error = pedestal.level_adu - zero
    assert np.std(error) < 0.3  # a row's own
    assert np.max(np.abs(error[~pedestal.spoiled])) < 2.5


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.7, 2.0, 10.0])
@pytest.mark.parametrize("jitter", [0.0, 3.0])
def test_clean_rows_are_not_spoiled_and_their_levels_are_means(noise, jitter):
    raw, zero = tall(jitter, noise, sky_e=400, height=4096)
    pedestal = measured(raw)
    assert np.count_nonzero(pedestal.spoiled) <= 4
    if jitter == 0.0 and noise > 0.5:
        least = np.hypot(noise, 12**-0.5) / np.sqrt(50 * 31)
        assert np.std(pedestal.level_adu - zero) < 1.1 * least


def test_deferred_charge_is_trimmed_on_the_side_of_the_image():
    raw, zero = tall(height=4096)
    raw.data[:, 300] += 4
    raw.data[:, 301] += 1.5
    assert np.mean(measured(raw).level_adu - zero) == pytest.approx(5.5 / 50, abs=0.02)
    assert np.mean(measured(raw, 2).level_adu - zero) == pytest.approx(0, abs=0.02)
    left = replace(raw.amplifiers[0], raw=Box(0, 4096, 50, 350), overscan=Box(0, 4096, 0, 50))
    mirrored = replace(raw, data=raw.data[:, ::-1], amplifiers=(left,))
    assert np.mean(measured(mirrored, 2).level_adu - zero) == pytest.approx(0, abs=0.02)
    upright = replace(
        raw,
        data=raw.data.T,
        amplifiers=(replace(left, raw=Box(0, 300, 0, 4096), overscan=Box(300, 350, 0, 4096)),),
    )
    assert np.ptp(measured(upright, 2).level_adu) == 0
    assert measured(upright, 2).level_adu[0] == pytest.approx(1000.3, abs=0.02)
    assert measured(upright).level_adu[0] == pytest.approx(1000.3 + 5.5 / 50, abs=0.02)
    assert measured(raw, 2).n_pixels > 0.99 * 4096 * 48
    assert measured(raw, 1000).n_pixels > 0.99 * 4096 * 25  # half of them stay


def test_image_rows_beside_a_spoiled_overscan_are_flagged():
    raw, _ = tall(sky_e=400)
    raw.data[300:310, 300:] += 300
    image = preprocess(raw, Masters(), PreprocessParams(missing_calibrator="skip", do_cosmic_rays=False))
    assert np.all(image.flags[300:310] == PixelFlag.BAD_PIXEL)
    assert np.all(image.weight[300:310] == 0)
    assert np.count_nonzero(image.flags) == 10 * 300
    assert np.mean(image.data[300:310]) == pytest.approx(400, abs=3)
