from types import SimpleNamespace

import numpy as np
import pytest

from seechange_core.simulate.camera import SimulatedAmplifier
from seechange_core.simulate.charge import add_cosmic_rays, bleed


def two_amplifiers():
    pair = tuple(
        SimulatedAmplifier(name, 2.0, 5.0, bias, 0.0) for name, bias in (("A", 1000.0), ("B", 2000.0))
    )
    return SimpleNamespace(amplifiers=pair)


def test_bleeding_conserves_charge_and_stays_in_its_column():
    charge = np.full((200, 20), 100.0, np.float32)
    charge[100, 4] = 1e6
    detector = two_amplifiers()
    before = charge.sum(dtype=float)
    bleed(charge, detector)
    well = detector.amplifiers[0].full_well_e
    assert charge.sum(dtype=float) == pytest.approx(before, rel=1e-5)
    assert charge.max() == pytest.approx(well)
    assert (charge[:, :4] == 100).all()
    assert (charge[:, 5:] == 100).all()
    up, down = (charge[101:, 4] > 100).sum(), (charge[:100, 4] > 100).sum()
    assert up == down == pytest.approx((1e6 / well - 1) / 2, abs=1)


def test_bleeding_loses_charge_only_over_the_edges_and_leaves_unsaturated_images_alone():
    charge = np.full((50, 20), 100.0, np.float32)
    untouched = charge.copy()
    bleed(charge, two_amplifiers())
    assert np.array_equal(charge, untouched)
    charge[2, 15] = 1e6
    bleed(charge, two_amplifiers())
    well = two_amplifiers().amplifiers[1].full_well_e
    assert charge[:3, 15] == pytest.approx(well)
    assert charge.sum(dtype=float) < 1e6


def test_cosmic_rays_leave_tracks_with_the_charge_of_particles():
    """Many hits: their number is Poisson's, tracks are long and thin, charges those of silicon."""
    rng = np.random.default_rng(5)
    charge = np.zeros((1024, 1024), np.float32)
    count = add_cosmic_rays(charge, 400, rng)
    assert count == pytest.approx(400, abs=80)
    hit = charge > 20
    assert 3 < hit.sum() / count < 30
    assert 500 < np.median(charge[charge > 100]) < 3000
    assert add_cosmic_rays(np.zeros((10, 10), np.float32), 0.0, rng) == 0


def test_the_same_generator_gives_the_same_tracks():
    first, again = np.zeros((2, 300, 300), np.float32)
    add_cosmic_rays(first, 20, np.random.default_rng(1))
    add_cosmic_rays(again, 20, np.random.default_rng(1))
    assert np.array_equal(first, again)
    assert first.any()
