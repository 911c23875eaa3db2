from dataclasses import replace

import numpy as np
import pytest

from seechange_core.errors import HeaderError
from seechange_core.frames import Amplifier, Box, Crosstalk, LinearityLaw, RawFrame
from seechange_core.numerics import detector


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
