"""Judging one section by its truth, on analytic cases whose verdict is known."""

import numpy as np
import pytest

from seechange_core.frames import Sources, WcsSolution
from seechange_core.verify.sections import TruthRows, position_errors_mas

SHAPE = (400, 500)
SCALE = 0.27 / 3600


def solution(ra=150.0, dec=2.0, scale=SCALE, rotation_deg=0.0) -> WcsSolution:
    c, s = scale * np.cos(np.radians(rotation_deg)), scale * np.sin(np.radians(rotation_deg))
    cards = {
        **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg"},
        **{"CRVAL1": ra, "CRVAL2": dec, "CRPIX1": 250.5, "CRPIX2": 200.5},
        **{"CD1_1": -c, "CD1_2": s, "CD2_1": s, "CD2_2": c},
    }
    return WcsSolution(cards, SHAPE, rms_mas=9.0, n_matched=20, n_catalog=30, error_mas=2.0)


def truth(wcs: WcsSolution, n=40, zp=30.0, seed=1, **columns) -> TruthRows:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(5, 490, n), rng.uniform(5, 390, n)
    ra, dec = wcs.to_sky(x, y)
    values = {
        "object_id": np.arange(n),
        "kind": np.full(n, "star"),
        **{"x": x, "y": y, "ra": ra, "dec": dec},
        "flux_e": rng.uniform(1e5, 1e6, n),
        "masked": np.zeros(n, bool),
        "saturated": np.zeros(n, bool),
    }
    return TruthRows(**{**values, **columns}, zp=zp)


def sources(rows: TruthRows, flux_psf, **columns) -> Sources:
    n = len(rows.x)
    values = {
        name: np.zeros(n, field.type is not bool and float)
        for name, field in Sources.__dataclass_fields__.items()
    }
    return Sources(**{**values, **columns, "flux_psf": flux_psf})


@pytest.mark.parametrize(("ra", "dec"), [(150.0, 2.0), (0.0, -30.0), (12.0, 89.0), (359.9999, 60.0)])
def test_a_perfect_solution_has_no_errors(ra, dec):
    wcs = solution(ra, dec)
    errors = position_errors_mas(wcs, truth(wcs))
    assert errors.shape == (80,)
    assert np.abs(errors).max() < 1e-3


@pytest.mark.parametrize(("ra", "dec"), [(150.0, 2.0), (0.0, -30.0), (200.0, 85.0)])
def test_a_shift_is_measured_in_true_angles_with_its_sign(ra, dec):
    """100 mas east and 50 mas south, also across RA 0 and near the pole."""
    rows = truth(solution(ra, dec))
    ours = solution(ra + 100 / 3.6e6 / np.cos(np.radians(dec)), dec - 50 / 3.6e6)
    errors = position_errors_mas(ours, rows)
    assert errors[:40] == pytest.approx(100, abs=0.5)
    assert errors[40:] == pytest.approx(-50, abs=0.5)


def test_a_rotation_gives_the_rms_that_geometry_says():
    wcs = solution()
    rows = truth(wcs, n=2000)
    angle = 1e-4
    errors = position_errors_mas(solution(rotation_deg=np.degrees(angle)), rows)
    radius = np.hypot(rows.x - 249.5, rows.y - 199.5) * SCALE * 3.6e6
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(angle * np.sqrt(np.mean(radius**2) / 2), rel=0.01)


def test_only_stars_judge_positions():
    wcs = solution()
    kinds = np.array(["star"] * 10 + ["galaxy"] * 20 + ["asteroid"] * 10)
    assert len(position_errors_mas(wcs, truth(wcs, kind=kinds))) == 20
