"""Bad calibration frames are rejected for the reason that is theirs, good ones are not."""

from dataclasses import replace

import numpy as np
import pytest

from seechange_core.errors import BadDataError, DeadSection, HeaderError
from seechange_core.frames import Masters, Prepared
from seechange_core.stages.combine import CombineParams, combine, judge_frames

PARAMS = CombineParams(do_bias=False, do_dark=False)
NO_MASTERS = Masters()


def reasons(kind, frames, params=PARAMS):
    return [q.reason for q in judge_frames(kind, frames, NO_MASTERS, params)]


def expose(camera, kind, *, n=1, **changes):
    settings = {"bias": (0, 0), "dark": (0, 300), "flat": (20000, 3), "twilight_flat": (20000, 3)}[kind]
    return [camera.expose(*settings, **changes) for _ in range(n)]


def slope_e(camera, size_e):
    """A gradient from -size to +size along the section's diagonal."""
    y, x = np.mgrid[: camera.shape[0], : camera.shape[1]]
    return size_e * (x / camera.shape[1] + y / camera.shape[0] - 1)


def noisy(camera, frame, sigma_adu):
    extra = np.rint(camera.rng.normal(0, sigma_adu, frame.data.shape))
    return replace(frame, data=np.clip(frame.data + extra, 0, 65535).astype(np.uint16))


def with_jump(frame, adu):
    """From half its height on, the left amplifier reads more; its overscan does not know."""
    data = frame.data.copy()
    data[data.shape[0] // 2 :, : frame.amplifiers[0].raw.x1] += adu
    return replace(frame, data=data)


@pytest.mark.parametrize("kind", ["bias", "dark", "flat", "twilight_flat"])
@pytest.mark.parametrize("n", [3, 4, 5, 12])
def test_good_frames_are_not_rejected(make_camera, kind, n):
    for seed in range(3):
        camera = make_camera(seed=seed)
        assert reasons(kind, expose(camera, kind, n=n)) == [""] * n


@pytest.mark.parametrize("kind", ["bias", "dark"])
def test_good_frames_without_overscan_are_not_rejected(make_camera, kind):
    """Their zero level is one of whole ADU, and wanders."""
    for seed in range(3):
        camera = make_camera(seed=seed, overscan=0)
        frames = []
        for _ in range(7):
            camera.level_adu = tuple(1000 + camera.rng.normal(0, 3, 2))
            frames += expose(camera, kind)
        assert reasons(kind, frames) == [""] * 7


@pytest.mark.parametrize("kind", ["bias", "dark"])
def test_a_wrong_level(camera, kind):
    frames = expose(camera, kind, n=5) + expose(camera, kind, n=2, extra_e=60.0)
    found = reasons(kind, frames)
    assert found[:5] == [""] * 5
    for reason in found[5:]:
        assert reason.startswith("level of amplifier")
        seen = float(reason.split(" e-")[0].split()[-1])
        assert seen * (300 if kind == "dark" else 1) == pytest.approx(60, abs=20)


def test_one_amplifier_with_a_wrong_level(camera):
    frames = expose(camera, "bias", n=6)
    odd = frames[4].data.copy()
    odd[frames[4].amplifiers[1].raw.slices] += 9
    frames[4] = replace(frames[4], data=odd)
    found = reasons("bias", frames)
    assert [bool(r) for r in found] == [False] * 4 + [True, False]
    assert "level of amplifier B" in found[4]


@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
def test_noisy_frames(camera, kind):
    frames = expose(camera, kind, n=6)
    sigma_adu = {"bias": 4, "dark": 4, "flat": 90}[kind]
    frames[1], frames[3] = noisy(camera, frames[1], sigma_adu), noisy(camera, frames[3], sigma_adu)
    found = reasons(kind, frames)
    assert [bool(r) for r in found] == [False, True, False, True, False, False]
    assert all("times noisier than the others', 1.3 allowed" in found[i] for i in (1, 3))


def test_frozen_electronics(camera):
    """A frame that repeats its rows is quieter than electronics can be."""
    frames = expose(camera, "bias", n=5)
    level = np.rint(np.median(frames[2].data, axis=0)).astype(np.uint16)
    frames[2] = replace(frames[2], data=np.tile(level, (camera.height, 1)))
    found = reasons("bias", frames)
    assert [bool(r) for r in found] == [False, False, True, False, False]


def test_saturated_frames(camera):
    frames = expose(camera, "dark", n=5)
    data = frames[0].data.copy()
    data[:20] = 65535
    frames[0] = replace(frames[0], data=data)
    found = reasons("dark", frames)
    assert found[0] == "7.8% of amplifier A is saturated"
    assert found[1:] == [""] * 4
    flats = [*expose(camera, "flat", n=4), camera.expose(115000, 3)]
    found = reasons("flat", flats)
    assert found[:4] == [""] * 4
    assert found[4].startswith("too bright: amplifier A has 11")


def test_flats_beyond_the_linear_range(camera):
    frames = [
        camera.with_amplifiers(camera.expose(e, 3), non_linear_adu=30000.0) for e in (2e4, 4e4, 5e4, 7e4)
    ]
    found = reasons("flat", frames)
    assert found[:3] == [""] * 3
    assert "it is linear up to 57999" in found[3]  # (30000 - 1000) ADU of 2 e-


def test_flats_without_light(camera):
    frames = [camera.expose(0, 3), *expose(camera, "flat", n=3), camera.expose(800, 3)]
    found = reasons("flat", frames)
    assert found[0].startswith("no light: ")
    assert found[4].startswith("too faint: 8")
    assert found[1:4] == [""] * 3


def test_wrong_exposure_times(camera, make_camera):
    frames = [*expose(camera, "bias", n=3), camera.expose(0, 20)]
    assert reasons("bias", frames) == ["", "", "", "it was exposed for 20 s, a bias is not"]
    frames = [*expose(camera, "dark", n=3), camera.expose(0, 0)]
    assert reasons("dark", frames) == ["", "", "", "its exposure time is 0 s"]
    # The header says 300 s, the shutter of the dark slide knew of 3000 s.
    wrong = replace(camera.expose(0, 30000), exposure_time_s=300)
    found = reasons("dark", [*expose(camera, "dark", n=4), wrong])
    assert found[:4] == [""] * 4
    assert "level" in found[4]
    plain = make_camera(overscan=0)
    found = reasons("dark", [*expose(plain, "dark", n=4), plain.expose(0, 60)])
    assert found == [""] * 4 + ["its exposure time is 60 s, only 300 s fits while the bias level is in"]


def test_frames_of_another_layout(camera, make_camera):
    other = make_camera(height=128)
    frames = [other.expose(), *expose(camera, "bias", n=4)]
    assert reasons("bias", frames) == ["it has (128, 304) pixels, the others (256, 304)"] + [""] * 4
    swapped = camera.expose()
    a, b = swapped.amplifiers
    frames[0] = replace(swapped, amplifiers=(replace(a, raw=b.raw), replace(b, raw=a.raw)))
    assert "its amplifiers lie elsewhere" in reasons("bias", frames)[0]


def test_frames_that_cannot_be_read(camera):
    class Frames(list):
        def __getitem__(self, index):
            if index == 1:
                raise HeaderError("GAIN is missing", cure="set it")
            return super().__getitem__(index)

    frames = Frames(expose(camera, "bias", n=5))
    lost = np.full(frames[0].data.shape, np.nan)
    list.__setitem__(frames, 3, replace(frames[0], data=lost))
    found = reasons("bias", frames)
    assert found[1] == "cannot be used: GAIN is missing (set it)"
    assert "no pixel has a finite value" in found[3]
    assert [bool(r) for r in found] == [False, True, False, True, False]
    assert combine("bias", frames, NO_MASTERS, PARAMS).frame.n_frames == 3


def test_frames_that_are_not_raw(camera):
    frames = expose(camera, "bias", n=4)
    frames[2] = replace(frames[2], prepared=Prepared(steps=1 | 2))
    assert reasons("bias", frames)[2] == "it is not raw: the observatory did overscan, bias"


@pytest.mark.parametrize("kind", ["bias", "dark"])
def test_light_that_leaks_in(camera, kind):
    """Eight electrons to either side: below two sigma of the read noise, so no pixel would be clipped."""
    frames = expose(camera, kind, n=7)
    frames[2] = expose(camera, kind, extra_e=slope_e(camera, 8.0))[0]
    found = reasons(kind, frames)
    assert [bool(r) for r in found] == [False, False, True, False, False, False, False]
    assert "around x " in found[2]
    assert "allowed" in found[2]


@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
def test_half_of_an_amplifier_jumped(camera, kind):
    frames = expose(camera, kind, n=6)
    jump_adu = 300 if kind == "flat" else 3
    frames[5] = with_jump(frames[5], jump_adu)
    found = reasons(kind, frames)
    assert [bool(r) for r in found] == [False] * 5 + [True]
    assert "around x " in found[5]


def test_a_flat_through_a_cloud_is_no_twilight_flat(camera):
    frames = expose(camera, "twilight_flat", n=6)
    flat = camera.flat
    y, x = np.mgrid[:256, :256] / 256
    camera.flat = flat * (1 + 0.3 * x)
    frames[0] = expose(camera, "twilight_flat")[0]
    camera.flat = flat * (1 + 0.03 * np.sin(9 * y))
    frames[3] = expose(camera, "twilight_flat")[0]
    found = reasons("twilight_flat", frames)
    assert [bool(r) for r in found] == [True, False, False, True, False, False]
    assert "from edge to edge" in found[0]
    assert float(found[0].split("by ")[1].split("%")[0]) == pytest.approx(26, abs=3)
    assert "around x " in found[3]


@pytest.mark.parametrize("kind", ["bias", "dark", "flat"])
@pytest.mark.parametrize("n", [5, 10, 20])
def test_two_fifths_of_the_frames_may_be_bad(make_camera, kind, n):
    """All in the same way or each in its own: every bad one is rejected, and no good one."""
    for seed, way in enumerate(("level", "noise", "gradient", "mixed")):
        camera = make_camera(seed=seed)
        frames = expose(camera, kind, n=n)
        bad = camera.rng.permutation(n)[: 2 * n // 5]
        for k, i in enumerate(bad):
            this = ("level", "noise", "gradient")[k % 3] if way == "mixed" else way
            if kind == "flat" and this == "level":
                frames[i] = camera.expose(1000, 3)
            elif this == "noise":
                frames[i] = noisy(camera, frames[i], 90 if kind == "flat" else 8)
            else:
                size = 40.0 if kind != "flat" else 2000.0
                extra = size if this == "level" else slope_e(camera, size)
                frames[i] = expose(camera, kind, extra_e=extra)[0]
        found = reasons(kind, frames)
        assert [i for i, r in enumerate(found) if r] == sorted(bad), (way, found)


def test_what_was_rejected_is_told_with_the_master_or_the_failure(camera):
    frames = [*expose(camera, "bias", n=4), camera.expose(0, 20)]
    made = combine("bias", frames, NO_MASTERS, PARAMS)
    assert made.frame.n_frames == 4
    assert [bool(q.reason) for q in made.quality] == [False] * 4 + [True]
    assert made.quality[0].noise_ratio == pytest.approx([1, 1], abs=0.05)
    with pytest.raises(BadDataError, match=r"2 good bias frames of 4.*frame 2, 3: it was exposed for 20 s"):
        combine("bias", [*frames[:2], frames[4], frames[4]], NO_MASTERS, PARAMS)


def test_defective_and_dead_amplifiers(camera):
    def broken(frame, **changes):
        a, b = frame.amplifiers
        return replace(frame, amplifiers=(a, replace(b, **changes)))

    frames = [broken(f, defective=True) for f in expose(camera, "bias", n=4)]
    master = combine("bias", frames, NO_MASTERS, PARAMS).frame
    assert not master.flags[:, :128].any()
    assert (master.flags[:, 128:] == 2).all()
    camera.flat[:, 128:] = 0
    master = combine("flat", expose(camera, "flat", n=4), NO_MASTERS, PARAMS).frame
    assert np.median(master.data[:, :128] / camera.flat[:, :128]) == pytest.approx(
        1 / np.median(camera.flat[:, :128]), rel=1e-3
    )
    assert (master.flags[:, 128:] == 2).all()
    frames = [camera.with_amplifiers(camera.expose(), defective=True) for _ in range(3)]
    with pytest.raises(DeadSection, match="all its amplifiers are defective"):
        combine("bias", frames, NO_MASTERS, PARAMS)
