"""What references held: total fluxes do not depend on them, and what was the object's own is given back."""

import uuid

import numpy as np
import pytest

from seechange_core.chain.light_curve_table import LightCurveTable
from seechange_core.chain.reference_flux import InReference, notes_on_references, with_references

N, HOST, REFERENCE_ZP = 8, 4000.0, 27.0
RISE = 5
#: Fluxes of the object at the exposures the references are made of, and at four later ones.
OWN = np.array([0, 0, 0, 0, 0, 300, 900, 700, 500, 300, 200, 100], float)
MJD = 61000.0 + np.arange(len(OWN))


def observed(rng, noise, rise=RISE):
    """Subtract from each exposure a weighted coadd of the others, in other units at each epoch."""
    weight = rng.uniform(0.5, 2, N)
    zp = REFERENCE_ZP + rng.normal(0, 0.3, len(OWN))
    scale = 10 ** (0.4 * (zp - REFERENCE_ZP))
    light = HOST + OWN + rng.normal(0, noise, len(OWN))
    ids = [uuid.uuid4() for _ in OWN]
    references = {}
    for k, key in enumerate(ids):
        used = np.arange(N) != k
        level = np.sum((weight * light[:N])[used]) / np.sum(weight[used])
        references[key] = InReference(level, noise / np.sqrt(used.sum()), REFERENCE_ZP, MJD[:N][used])
    in_reference = np.array([references[key].flux for key in ids])
    text, nothing = np.full(len(OWN), "r"), np.zeros(len(OWN))
    error = np.full(len(OWN), max(noise, 1e-3) * np.sqrt(1 + 1 / (N - 1))) * scale
    curve = LightCurveTable(
        text, text, text, MJD, MJD, (light - in_reference) * scale, error, zp, nothing, nothing, nothing
    )
    return with_references(curve, ids, references, None if rise is None else MJD[rise]), scale


def test_fluxes_are_right_whichever_exposures_the_references_are_of():
    curve, scale = observed(np.random.default_rng(1), 0.0)
    assert curve.total_flux == pytest.approx((HOST + OWN) * scale)
    assert curve.own_flux == pytest.approx(OWN * scale, abs=1e-6)
    assert np.all(np.abs(curve.flux - OWN * scale) > 50 * scale)  # as they are counted from the references
    seen = OWN > 0
    assert curve.mag[seen] == pytest.approx(REFERENCE_ZP - 2.5 * np.log10(OWN[seen]))
    assert curve.n_reference.tolist() == [N - 1] * N + [N] * (len(OWN) - N)
    assert curve.n_reference_later.tolist() == [3] * RISE + [2] * 3 + [3] * 4
    (line,) = notes_on_references(curve)
    assert line.startswith("in r, 3 of the reference's 8 exposures are from after the first sighting: the ")


def test_leaving_one_of_n_equal_exposures_out_scales_its_change():
    """The known factor n / (n - 1), which the total flux does without."""
    light = HOST + OWN[:N]
    change = np.array([light[k] - np.delete(light, k).mean() for k in range(N)])
    assert change == pytest.approx(N / (N - 1) * (light - light.mean()))


def test_errors_are_those_of_the_exposure_and_of_the_level_before():
    rng = np.random.default_rng(2)
    pulls, total_pulls = [], []
    for _ in range(200):
        curve, scale = observed(rng, 30.0)
        pulls.append((curve.own_flux - OWN * scale) / curve.own_flux_err)
        total_pulls.append((curve.total_flux - (HOST + OWN) * scale) / curve.total_flux_err)
    # Of n equal exposures, the error of the difference is too large for the sum by 1 / (2 n).
    assert np.std(total_pulls) == pytest.approx(np.sqrt(1 - 1 / N), abs=0.05)
    later = np.array(pulls)[:, RISE:]
    assert abs(later.mean()) < 0.1
    assert later.std() == pytest.approx(1, abs=0.1)


def test_without_an_epoch_before_nothing_is_added_and_that_is_said():
    curve, _ = observed(np.random.default_rng(3), 10.0, rise=0)
    assert np.isnan(curve.in_reference_flux).all()
    assert curve.own_flux == pytest.approx(curve.flux)
    assert "no epoch before tells" in notes_on_references(curve)[0]
    unknown, _ = observed(np.random.default_rng(3), 10.0, rise=None)
    assert not unknown.in_reference_flux.any() and notes_on_references(unknown) == []
