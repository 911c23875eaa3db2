"""The cuts that tests of detection do not reach."""

import numpy as np
import pytest

from seechange_core.frames import Detections, Stamps
from seechange_core.numerics.psf import constant
from seechange_core.stages.measure import BadReason, MeasureParams, measure

SIZE = 41


def gaussian(fwhm=4.0):
    index = np.arange(SIZE) - SIZE // 2
    stamp = np.exp(-4 * np.log(2) * (index**2 + index[:, None] ** 2) / fwhm**2)
    return (stamp / stamp.sum()).astype(np.float32)


def measured(static_e, change_e, **params):
    """One detection in the middle of a stamp: a star of `static_e` that changed by `change_e` electrons."""
    stamp = gaussian()
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 3, (SIZE, SIZE)).astype(np.float32)
    stamps = Stamps(
        new=(stamp * (static_e + change_e) + noise)[None],
        ref=(stamp * static_e)[None],
        sub=(stamp * change_e + noise)[None],
        new_flags=np.zeros((1, SIZE, SIZE), np.uint16),
        sub_weight=np.full((1, SIZE, SIZE), 1 / 9, np.float32),
        x0=np.array([100]),
        y0=np.array([200]),
    )
    one = np.array([1.0])
    found = Detections(
        x=120 * one,
        y=220 * one,
        x_err=0.1 * one,
        y_err=0.1 * one,
        score=np.sign(change_e) * 20 * one,
        flux_psf=change_e * one,
        flux_psf_err=50 * one,
        flags=np.zeros(1, np.int64),
    )
    return measure(stamps, found, constant(stamp), MeasureParams(**params))


@pytest.mark.parametrize(("change", "is_small"), [(1000, True), (-1000, True), (3000, False), (-3000, False)])
def test_a_change_by_a_small_part_of_a_star_is_doubtful(change, is_small):
    result = measured(20_000, change)
    assert bool(result.bad_reasons[0] & BadReason.SMALL_CHANGE) is is_small
    assert bool(result.is_bad[0]) is is_small


def test_small_changes_are_kept_when_asked_for():
    assert not measured(20_000, 1000, min_change=0.0).is_bad[0]


def test_nothing_there_before_is_no_small_change():
    assert not measured(0, 1000).is_bad[0]
