"""Light curves against the truth, on cases whose verdict is known."""

import numpy as np
import pytest

from seechange_core.chain.light_curve_table import LightCurveTable
from seechange_core.verify.summary import TransientCurve, curve_pulls

N = 200


def test_pulls_of_light_curves_do_not_depend_on_the_place_in_a_patchy_exposure():
    """Clouds' patches are in electrons and local zero points alike: electrons of S/N 1000 show no excess."""
    rng = np.random.default_rng(3)
    mjd, true_mean, our_mean = np.arange(N, dtype=float), 30.0 + rng.normal(0, 0.1, N), np.full(N, 29.7)
    patches = rng.normal(0, 0.02, N)
    true_flux = 10 ** (-0.4 * (18.0 - true_mean - patches))
    flux = true_flux * 10 ** (0.4 * (our_mean - true_mean))
    error = flux / 1000
    zeros, names = np.zeros(N), np.array([f"e{i}" for i in range(N)])
    table = LightCurveTable(
        exposure=names, section=np.full(N, "0"), filter=np.full(N, "r"), mjd_mid=mjd, bjd_tdb=mjd,
        flux=rng.normal(flux, error), flux_err=error, zp=our_mean + patches, zp_err=zeros,
        flags=zeros, quality=zeros,
    )  # fmt: skip
    curve = TransientCurve("obj", 1, table, mjd, true_mean - 2.5 * np.log10(true_flux))
    found = curve_pulls([curve], {(name, "0"): zp for name, zp in zip(names, our_mean, strict=True)})
    assert found.n == N
    assert found.median == pytest.approx(0, abs=4 * found.median_err)
    assert found.width == pytest.approx(1, abs=4 * found.width_err)
