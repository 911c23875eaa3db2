"""What references held: total fluxes do not depend on them, and what was the object's own is given back."""

import uuid
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.wcs import WCS

from seechange_core.chain.ensemble import EnsembleZeroPoints, EpochZeroPoint
from seechange_core.chain.light_curve_table import LightCurveTable
from seechange_core.chain.reference_flux import (
    InReference,
    notes_on_references,
    rise_of,
    subtracted_at,
    with_references,
)
from seechange_core.frames import WcsSolution, ZeroPointSolution
from seechange_core.products import Image

N, HOST, REFERENCE_ZP = 8, 4000.0, 27.0
RISE = 5
#: Fluxes of the object at the exposures the references are made of, and at four later ones.
OWN = np.array([0, 0, 0, 0, 0, 300, 900, 700, 500, 300, 200, 100], float)
WHOLE = uuid.UUID(int=7)
MJD = 61000.0 + np.arange(len(OWN))


def observed(rng, noise, rise=RISE, weight=None):
    """Subtract from each exposure a weighted coadd of the others, in other units at each epoch."""
    weight = rng.uniform(0.5, 2, N) if weight is None else weight
    zp = REFERENCE_ZP + rng.normal(0, 0.3, len(OWN))
    scale = 10 ** (0.4 * (zp - REFERENCE_ZP))
    light = HOST + OWN + rng.normal(0, noise, len(OWN))
    ids = [uuid.uuid4() for _ in OWN]
    references = {}
    for k, key in enumerate(ids):
        used = np.arange(N) != k
        level = np.sum((weight * light[:N])[used]) / np.sum(weight[used])
        error, coadd = noise / np.sqrt(used.sum()), WHOLE if used.all() else uuid.uuid4()
        references[key] = InReference(coadd, level, error, REFERENCE_ZP, MJD[:N][used])
    in_reference = np.array([references[key].flux for key in ids])
    text, nothing = np.full(len(OWN), "r"), np.zeros(len(OWN))
    error = np.full(len(OWN), max(noise, 1e-3) * np.sqrt(1 + 1 / (N - 1))) * scale
    curve = LightCurveTable(
        text, text, text, MJD, MJD, (light - in_reference) * scale, error, zp, nothing, nothing, nothing,
        band=text,
    )  # fmt: skip
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
    assert line.startswith("in r, 3 of the reference's 8 exposures show the object: the ")


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


def test_without_a_level_before_all_epochs_are_counted_from_one_reference():
    """Those that leave their own exposure out would be off by n / (n - 1) of what they changed."""
    flat = np.mean((HOST + OWN)[:N])
    for rise in (0, None):
        curve, scale = observed(np.random.default_rng(3), 0.0, rise=rise, weight=np.ones(N))
        assert curve.own_flux == pytest.approx((HOST + OWN - flat) * scale, abs=1e-6)
        assert np.abs(curve.flux - (HOST + OWN - flat) * scale).max() > 50
        assert not curve.in_reference_flux[N:].any()  # as they are counted from the whole one
        notes = notes_on_references(curve)
        assert notes == [] if rise is None else "no epoch tells" in notes[0]


def test_one_reference_for_all_changes_nothing_and_needs_no_flux():
    ids = [uuid.uuid4() for _ in OWN]
    text, zero = np.full(len(OWN), "r"), np.zeros(len(OWN))
    curve = LightCurveTable(text, text, text, MJD, MJD, OWN, OWN + 1, zero, zero, zero, zero)
    unknown = InReference(WHOLE, np.nan, np.nan, REFERENCE_ZP, MJD[:N])
    found = with_references(curve, ids, dict.fromkeys(ids, unknown), None)
    np.testing.assert_array_equal(found.own_flux, OWN)
    # Where another one was subtracted, and nothing tells what it held, nothing can be said.
    other = {ids[0]: replace(unknown, coadd=uuid.uuid4())}
    found = with_references(curve, ids, dict.fromkeys(ids, unknown) | other, None)
    assert np.isnan(found.own_flux[0]) and np.isfinite(found.own_flux[1:]).all()


CATALOG_OFF = np.array([0.0, 0.05, -0.05, 0.1, 0.02, -0.08])


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_star_of_constant_light_has_one_magnitude_whatever_the_catalog_said(ensemble):
    """Six nights of zero points off by up to 0.1 mag, two references of other zero points, common stars."""
    rng, pulls, mags = np.random.default_rng(6), [], []
    n, light, noise, ratio_err = len(CATALOG_OFF), 2e5, 300.0, 3e-4
    true_zp = 25 + rng.normal(0, 0.2, n)
    ids, coadds = [uuid.uuid4() for _ in range(n)], [uuid.uuid4(), uuid.uuid4()]
    text, zero = np.array([f"e{k}" for k in range(n)]), np.zeros(n)
    for _ in range(100):
        ref_zp = np.array([26.0, 26.3])
        ref = light * 10 ** (0.4 * (ref_zp - 25)) * (1 + rng.normal(0, 1e-4, 2))
        which = np.arange(n) % 2
        new = light * 10 ** (0.4 * (true_zp - 25)) + rng.normal(0, noise, n)
        # The catalogs' zero points, and the ratio that common stars correct them by.
        catalog = true_zp + CATALOG_OFF
        ratio = 10 ** (-0.4 * CATALOG_OFF) * (1 + rng.normal(0, ratio_err, n))
        subtracted = ref[which] * 10 ** (0.4 * (catalog - ref_zp[which])) * ratio
        row = [
            Image(zp_change_mag=[2.5 * np.log10(r)], zp_err=0.02).zero_point(ZeroPointSolution(z, 0.05, "r"))
            for r, z in zip(ratio, catalog, strict=True)
        ]
        curve = LightCurveTable(
            text, text, np.full(n, "r"), MJD[:n], zero, new - subtracted, np.full(n, noise),
            np.array([z.zp for z in row]), np.array([z.zp_err for z in row]), zero, zero,
            band=np.full(n, "r"),
        )  # fmt: skip
        held = {
            i: InReference(coadds[k], ref[k], 1.0, ref_zp[k], MJD[k : k + 1] - 10)
            for i, k in zip(ids, which, strict=True)
        }
        curve = with_references(curve, ids, held, None)
        if ensemble:
            tied = {(e, e): EpochZeroPoint(z, 1e-4, 0.0, 0.0) for e, z in zip(text, true_zp, strict=True)}
            curve = EnsembleZeroPoints(tied, None).apply(curve, "difference")
        mags.append(curve.total_mag)
        unit = 10 ** (0.4 * (curve.zp - 25))
        pulls.append(
            (curve.total_flux - light * unit) / np.hypot(curve.total_flux_err, ratio_err * light * unit)
        )
    assert np.abs(np.mean(mags, axis=0) - (25 - 2.5 * np.log10(light))).max() < 1e-3
    assert np.std(pulls) == pytest.approx(1, abs=0.1)
    assert np.median(curve.total_mag_err) < 0.003


def test_a_slow_rise_is_counted_from_before_it_began():
    """By a third of a sigma each night: the first detection comes two weeks late."""
    rng, pulls, shares = np.random.default_rng(7), [], []
    mjd = 61000 + np.arange(40.0)
    own, error = np.clip(np.arange(40.0) - 5, 0, None) * 30, np.full(40, 100.0)
    text, zero = np.full(40, "r"), np.zeros(40)
    for _ in range(100):
        light = HOST + own + rng.normal(0, 100, 40)
        level, ids = light[30:].mean(), [uuid.uuid4() for _ in mjd]
        first = mjd[np.argmax(np.abs(light - HOST) > 500)]
        curve = LightCurveTable(text, text, text, mjd, mjd, light - level, error, zero, zero, zero, zero)
        held = InReference(WHOLE, level, 30.0, 0.0, mjd[30:])
        found = with_references(curve, ids, dict.fromkeys(ids, held), first)
        pulls.append(((found.own_flux - own) / found.own_flux_err)[30:])
        of_share = found.own_flux[30:].mean() - own[30:].mean()
        shares.append(of_share / np.hypot(found.in_reference_flux_err[30], 100 / np.sqrt(10)))
    assert abs(np.mean(pulls)) < 0.2
    assert np.std(pulls) == pytest.approx(1, abs=0.1)
    assert abs(np.mean(shares)) < 0.5
    assert np.std(shares) < 1.4


def seen_in(light, mjd, error, inputs, band="r"):
    """Subtract the mean of some epochs; return rise, curve, ids, references of what is found at 5 sigma."""
    flux, ids = light - light[inputs].mean(), [uuid.uuid4() for _ in mjd]
    text, zero = np.full(len(mjd), band), np.zeros(len(mjd))
    curve = LightCurveTable(
        text, text, text, mjd, mjd, flux, np.full(len(mjd), error), zero + 25, zero, zero, zero
    )
    held = InReference(uuid.uuid4(), light[inputs].mean(), 1.0, 25.0, mjd[inputs])
    references = dict.fromkeys(ids, held)
    sightings = [(band, t, s) for t, s in zip(mjd, flux / error, strict=True) if abs(s) > 5]
    return with_references(curve, ids, references, None), ids, references, sightings


def rise(sightings, curve, ids, references):
    session = SimpleNamespace(execute=lambda _: sightings)
    found = SimpleNamespace(id=uuid.uuid4(), first_mjd=min(t for _, t, _ in sightings))
    return rise_of(session, found, curve, ids, references)


@pytest.mark.parametrize(
    ("sightings", "last_input", "at"),
    [
        ([(1, 9.0), (5, 9.0)], 9, 1),  # brighter at once
        ([(1, -9.0), (5, 9.0)], 9, 5),  # what was missing at first is its own light in the reference
        ([(1, -9.0), (5, 9.0)], 4, 1),  # the reference is older than its rise: a variable
        ([(1, -9.0), (5, -9.0)], 9, 1),  # it faded, and nothing tells since when it shone
        ([(1, -9.0), (5, 9.0), (7, -9.0)], 9, 1),  # it faded again, below the reference: a variable
    ],
)
def test_an_object_is_quiet_until_it_is_first_seen_to_be_brighter(sightings, last_input, at):
    curve, ids, references, _ = seen_in(HOST + OWN, MJD, 30.0, np.arange(last_input + 1))
    assert rise([("r", MJD[k], s) for k, s in sightings], curve, ids, references) == MJD[at]


def test_a_rise_counts_from_before_what_every_filter_saw():
    """In g it is missing at first, for the reference holds it; that of r is older, and sees a variable."""
    g, ids, references, _ = seen_in(HOST + OWN, MJD, 30.0, np.arange(9), "g")
    r, more, older, _ = seen_in(HOST + OWN, MJD, 30.0, np.arange(3))
    columns = {f.name: np.concatenate([getattr(g, f.name), getattr(r, f.name)]) for f in fields(g)}
    both = LightCurveTable(**columns)
    of_g = [("g", MJD[1], -9.0), ("g", MJD[5], 9.0)]
    for of_r, at in (([("r", MJD[6], 9.0)], 5), ([("r", MJD[2], -9.0), ("r", MJD[6], 9.0)], 2)):
        assert rise([*of_g, *of_r], both, ids + more, references | older) == MJD[at]


def test_variables_are_not_taken_for_light_in_their_own_reference():
    """RR Lyrae stars of +-300 electrons, error 20, a reference of the same season; beside them supernovae."""
    rng, fooled, right = np.random.default_rng(11), 0, 0
    n = 200
    for _ in range(n):
        mjd = 61000 + np.sort(rng.uniform(0, 60, 25))
        inputs = np.sort(rng.choice(25, 6, replace=False))
        wave = ((mjd / rng.uniform(0.45, 0.7) + rng.uniform()) % 1) * -600 + 300
        curve, ids, references, sightings = seen_in(2000 + wave + rng.normal(0, 20, 25), mjd, 20.0, inputs)
        at = rise(sightings, curve, ids, references)
        fooled += at > sightings[0][1]
        days = np.clip((mjd - 61025) / 18, 0, None)
        supernova = 2000 + 900 * days**2
        late = np.flatnonzero(days > 0.7)[:6]
        curve, ids, references, sightings = seen_in(supernova + rng.normal(0, 20, 25), mjd, 20.0, late)
        own = with_references(curve, ids, references, rise(sightings, curve, ids, references))
        off = (own.own_flux - (supernova - 2000)) / own.own_flux_err
        right += bool(np.all(np.abs(off) < 4.5))
    assert fooled < 0.03 * n
    assert right > 0.9 * n


class OnePlane:
    """A coadd on disk as far as it matters: weights, in units of its zero point."""

    def __init__(self, left, weight, zp):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 2.0]
        wcs.wcs.crpix, wcs.wcs.cdelt = [1 - left, 51], [-1e-3 / 3.6, 1e-3 / 3.6]
        astrometry = WcsSolution(dict(wcs.to_header()), weight.shape)
        frame = SimpleNamespace(shape=weight.shape, weight=weight, flags=np.zeros(weight.shape, np.uint16))
        self.image = SimpleNamespace(open=lambda _: frame)
        self.wcs = SimpleNamespace(solution=lambda: astrometry)
        self.zero_point = SimpleNamespace(solution=lambda: ZeroPointSolution(zp, 0.01, "r"))


def test_of_overlapping_references_the_one_that_was_subtracted_there_counts():
    """Two overlap by half; the deeper one is shallow in its left part, and its electrons are smaller ones."""
    deep = np.full((100, 100), 4.0, np.float32)
    deep[:, :20] = 0.5
    a, b = OnePlane(0, np.full((100, 100), 1.0, np.float32), 25.0), OnePlane(50, deep / 10**0.8, 26.0)
    for column, expected in ((20, a), (55, a), (80, b), (120, b)):
        ra, dec = a.wcs.solution().to_sky(column, 50)
        assert subtracted_at([a, b], None, float(ra), float(dec)) is expected
        assert subtracted_at([b, a], None, float(ra), float(dec)) is expected
