"""Raw frames of many exposures: each file is read once, memory is bounded, and nothing is left behind."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seechange_core.chain.raw_frames import RawFrames
from seechange_core.errors import FileDamagedError, PipelineError
from seechange_core.frames import Amplifier, Box, Masters, RawFrame
from seechange_core.stages.combine import CombineParams, combine

AMPLIFIER = Amplifier("A", Box(0, 64, 0, 64), Box(0, 64, 64, 80), Box(0, 64, 0, 64), 2.0, 5.0, 6e4)


class FakeExposure:
    """What `RawFrames` asks of an Exposure."""

    def __init__(self, number, dtype=np.uint16, fails=False):
        rng = np.random.default_rng(number)
        data = np.rint(rng.normal(1000, 2.5, (64, 80))).astype(dtype)
        self.frame = RawFrame(data, (AMPLIFIER,), float(number), {"NUMBER": number})
        self.fails = fails
        self.reads = 0

    def load_raw_frame(self, section_id):
        self.reads += 1
        assert section_id == "N4"
        if self.fails:
            raise FileDamagedError("cut short", cure="copy it again")
        return replace(self.frame, data=self.frame.data.copy())


class BigExposure(FakeExposure):
    """As the fake one, with more pixels; made when they are asked for."""

    def __init__(self, number):
        self.number = number

    def load_raw_frame(self, section_id):
        rng = np.random.default_rng(self.number)
        box = AMPLIFIER.raw._replace(y1=1024, x1=512)
        amplifier = replace(AMPLIFIER, raw=box, image=box, overscan=Box(0, 1024, 512, 544))
        data = rng.integers(990, 1011, (1024, 544), dtype=np.uint16)
        return RawFrame(data, (amplifier,), 0.0)


def scratch_files(folder):
    """Files of a folder that this process has open, those without a name too."""
    links = (fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink())
    return [link for link in links if link.is_relative_to(folder)]


@pytest.mark.parametrize("in_memory_mb", [0, 0.025, 100])
def test_each_file_is_read_once_and_comes_back_as_it_was(tmp_path, in_memory_mb):
    exposures = [FakeExposure(i, dtype) for i, dtype in enumerate((np.uint16, np.float32, np.int32, ">i2"))]
    with RawFrames(exposures, "N4", scratch=tmp_path, in_memory_mb=in_memory_mb) as frames:
        for _ in range(3):
            for i in (3, 0, 1, 2, -1):
                np.testing.assert_array_equal(frames[i].data, exposures[i].frame.data)
                assert frames[i].data.dtype == exposures[i].frame.data.dtype
                assert frames[i].header == exposures[i].frame.header
        assert [e.reads for e in exposures] == [1, 1, 1, 1]
        assert len(frames) == 4
        assert [f.exposure_time_s for f in frames[1:3]] == [1, 2]
        with pytest.raises(IndexError):
            frames[4]
        assert len(scratch_files(tmp_path)) == (0 if in_memory_mb == 100 else 1)


def test_memory_holds_one_frame_at_a_time(tmp_path):
    exposures = [FakeExposure(i) for i in range(5)]
    with RawFrames(exposures, "N4", scratch=tmp_path, in_memory_mb=0) as frames:
        kept = [frames[i].data for i in range(5)]
        assert all(isinstance(data, np.memmap) for data in kept)
        with pytest.raises(ValueError, match="read-only"):
            kept[0][0, 0] = 1


def test_the_scratch_file_has_no_name_and_goes_with_the_frames(tmp_path):
    exposures = [FakeExposure(i) for i in range(3)]
    with (
        pytest.raises(ZeroDivisionError),
        RawFrames(exposures, "N4", scratch=tmp_path, in_memory_mb=0) as frames,
    ):
        assert frames[0].data.shape == (64, 80)
        # A process that is killed leaves no file, because there is none to see even now.
        assert list(tmp_path.iterdir()) == []
        assert scratch_files(tmp_path)
        raise ZeroDivisionError
    assert scratch_files(tmp_path) == []


def test_a_file_that_cannot_be_used_says_so_each_time_and_is_read_once(tmp_path):
    exposures = [FakeExposure(0), FakeExposure(1, fails=True)]
    with RawFrames(exposures, "N4", scratch=tmp_path) as frames:
        for _ in range(2):
            with pytest.raises(FileDamagedError, match="cut short"):
                frames[1]
    assert exposures[1].reads == 1


def test_a_scratch_folder_that_takes_nothing_is_named(tmp_path):
    lost = tmp_path / "lost"
    with (
        RawFrames([FakeExposure(0)], "N4", scratch=lost, in_memory_mb=0) as frames,
        pytest.raises(PipelineError, match=r"no room for raw frames in .*lost.*TMPDIR"),
    ):
        frames[0]


def test_a_full_disk_is_an_error_and_not_a_crash():
    """``/dev/full`` behaves as a full disk does."""
    frames = RawFrames([FakeExposure(0)], "N4", in_memory_mb=0)
    with Path("/dev/full").open("r+b", buffering=0) as full:
        frames._scratch._file = full
        with pytest.raises(PipelineError, match="no room for raw frames"):
            frames[0]


def test_a_master_is_the_same_from_scratch_file_and_from_memory(tmp_path):
    exposures = [FakeExposure(i) for i in range(6)]
    for exposure in exposures:
        exposure.frame = replace(exposure.frame, exposure_time_s=0.0)
    plain = combine("bias", [e.frame for e in exposures], Masters(), CombineParams()).frame
    with RawFrames(exposures, "N4", scratch=tmp_path, in_memory_mb=0) as frames:
        master = combine("bias", frames, Masters(), CombineParams()).frame
    np.testing.assert_array_equal(master.data, plain.data)
    assert {e.reads for e in exposures} == {1}


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    peaks = {}
    params = CombineParams(strip_mb=4)
    for n in (3, 8, 32):  # the first one warms up
        with RawFrames([BigExposure(i) for i in range(n)], "N4", scratch=tmp_path, in_memory_mb=1) as frames:
            tracemalloc.start()
            try:
                master, quality = combine("bias", frames, Masters(), params)
                peaks[n] = tracemalloc.get_traced_memory()[1] / 2**20
            finally:
                tracemalloc.stop()
        assert master.n_frames == len(quality) == n
    # 32 frames are 34 MB as the camera wrote them and 64 MB as electrons.
    assert peaks[32] < 1.2 * peaks[8] < 30
