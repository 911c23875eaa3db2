"""Judging one section by its truth, on analytic cases whose verdict is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from seechange_core.frames import ImageFrame, PsfModel, Sources, SubtractionFrame, WcsSolution
from seechange_core.settings import load_settings
from seechange_core.verify import sections
from seechange_core.verify.sections import (
    TruthRows,
    judge_changes,
    position_errors_mas,
    zero_point_error_mag,
)

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


def sources(rows: TruthRows, **columns) -> Sources:
    """Lone, clean stars at the true places with the true fluxes, unless a column says otherwise."""
    n = len(rows.x)
    values = {name: np.ones(n) for name in Sources.__dataclass_fields__}
    values |= {"x": rows.x, "y": rows.y, "flux_psf": rows.flux_e, "flux_psf_err": rows.flux_e / 200}
    values |= {"flags": np.zeros(n, int), "blended": np.zeros(n, bool), "is_star": np.ones(n, bool)}
    return Sources(**{**values, **columns})


# --- Positions ------------------------------------------------------------------------------------


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


# --- Magnitudes -----------------------------------------------------------------------------------


def test_the_right_zero_point_has_no_error_and_a_wrong_one_its_own():
    rows = truth(solution())
    assert zero_point_error_mag(sources(rows), 30.0, rows) == pytest.approx((0, 0), abs=1e-9)
    assert zero_point_error_mag(sources(rows), 30.02, rows)[0] == pytest.approx(0.02)


def test_what_psf_fluxes_leave_out_and_the_zero_point_puts_back_cancels():
    rows = truth(solution())
    ours = sources(rows, flux_psf=0.98 * rows.flux_e)
    assert zero_point_error_mag(ours, 30 + 2.5 * np.log10(0.98), rows)[0] == pytest.approx(0, abs=1e-9)


def test_its_error_is_that_of_a_median():
    """Of many surveys of 200 stars with 20 mmag of scatter, the medians scatter as told."""
    rng = np.random.default_rng(2)
    rows = truth(solution(), n=200)
    found = []
    for _ in range(100):
        flux = rows.flux_e * 10 ** (0.4 * rng.normal(0, 0.02, 200))
        found.append(zero_point_error_mag(sources(rows, flux_psf=flux, flux_psf_err=flux / 200), 30.0, rows))
    medians, errors = np.array(found).T
    assert np.std(medians) == pytest.approx(np.median(errors), rel=0.25)


@pytest.mark.parametrize(
    ("column", "value"), [("flags", 1), ("blended", True), ("is_star", False), ("flux_psf_err", 1e9)]
)
def test_stars_that_cannot_judge_are_left_out(column, value):
    """Half of them are 0.3 mag off, and are flagged, blended, not stars or faint."""
    rows = truth(solution())
    odd = np.arange(40) % 2 == 0
    clean = sources(rows)
    marked = np.where(odd, value, getattr(clean, column))
    ours = sources(rows, flux_psf=np.where(odd, 1.3, 1.0) * rows.flux_e, **{column: marked})
    assert zero_point_error_mag(ours, 30.0, rows)[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("column", ["masked", "saturated"])
def test_stars_on_defects_or_saturated_are_left_out(column):
    odd = np.arange(40) % 4 != 0
    rows = truth(solution(), **{column: odd})
    ours = sources(rows, flux_psf=np.where(odd, 0.5, 1.0) * rows.flux_e)
    assert zero_point_error_mag(ours, 30.0, rows)[0] == pytest.approx(0, abs=1e-9)


def test_too_few_stars_say_nothing():
    rows = truth(solution(), n=2)
    assert np.isnan(zero_point_error_mag(sources(rows), 30.0, rows)).all()


# --- Changes --------------------------------------------------------------------------------------

SIGMA_E = 5.0


def gaussian_psf(fwhm_pix=3.0, size=21) -> PsfModel:
    y, x = np.mgrid[:size, :size] - size // 2
    stamp = np.exp(-4 * np.log(2) * (x**2 + y**2) / fwhm_pix**2)
    return PsfModel(
        (stamp / stamp.sum())[None].astype(np.float32), 0, (250.0, 200.0), (250.0, 200.0), fwhm_pix, n_stars=9
    )


@pytest.fixture
def judged(monkeypatch):
    """Judge one analytic difference: ``judged(truth, measured places, scores)``."""

    def judge(rows: TruthRows, measured, scores, zp=30.0):
        rng = np.random.default_rng(4)
        data = rng.normal(0, SIGMA_E, SHAPE)
        psf = gaussian_psf()
        # Our flux scale differs from the truth's by the zero points.
        flux = rows.flux_e * 10 ** (0.4 * (zp - rows.zp))
        for x, y, own in zip(rows.x, rows.y, flux, strict=True):
            data[int(y) - 10 : int(y) + 11, int(x) - 10 : int(x) + 11] += own * psf.coefficients[0]
        frame = ImageFrame(
            data=data.astype(np.float32),
            weight=np.full(SHAPE, SIGMA_E**-2, np.float32),
            flags=np.zeros(SHAPE, np.uint16),
            exposure_time_s=60.0,
            gain=1.0,
            saturation_e=1e6,
        )
        difference = SubtractionFrame(frame, frame.data, psf, frame.data, 1.0)
        wcs = solution()
        epoch = SimpleNamespace(
            difference=SimpleNamespace(id=None, read_subtraction=lambda _: difference),
            rows=SimpleNamespace(
                wcs=SimpleNamespace(solution=lambda: wcs), zero_point=SimpleNamespace(zp=zp)
            ),
            exposure=SimpleNamespace(instrument="demo"),
        )
        places = np.array(measured, float).reshape(-1, 2), np.array(scores, float)
        monkeypatch.setattr(sections, "_good_measurements", lambda *_: places)
        return judge_changes(load_settings(environ={}), epoch, rows)

    return judge


def on_grid(kinds, flux_e, **columns) -> TruthRows:
    """Objects on whole pixels far from each other."""
    n = len(kinds)
    x, y = 60.0 + 60 * (np.arange(n) % 6), 60.0 + 60 * (np.arange(n) // 6)
    ra, dec = solution().to_sky(x, y)
    places = {"x": x, "y": y, "ra": ra, "dec": dec}
    return truth(solution(), n=n, kind=np.array(kinds), flux_e=np.array(flux_e, float), **places, **columns)


def test_transients_are_found_or_not_and_measured(judged):
    """Two lit ones, one of them detected; one unlit; our zero point 0.1 mag fainter than the truth's."""
    rows = on_grid(["transient"] * 3, [3000, 2000, 0])
    changes = judged(rows, [(60.9, 59.2)], [40.0], zp=29.9)
    t = changes.transients
    assert list(t.found) == [True, False, False]
    assert t.true_flux_e == pytest.approx(rows.flux_e * 10**-0.04)
    assert np.all(np.abs(t.flux_e - t.true_flux_e) < 4 * t.flux_err_e)
    # Noise of a matched filter: sigma / sqrt(sum of the PSF squared).
    expected = SIGMA_E / np.sqrt(np.sum(gaussian_psf().coefficients[0] ** 2))
    assert t.flux_err_e[2] == pytest.approx(expected, rel=0.1)
    # What is new brings photons of its own: 4/3 of them count for a Gaussian PSF.
    assert np.all(t.flux_err_e[:2] > t.flux_err_e[2])
    assert np.all(t.flux_err_e[:2] < np.hypot(1.05 * expected, np.sqrt(1.5 * t.true_flux_e[:2])))
    assert t.snr == pytest.approx(t.true_flux_e / t.flux_err_e)
    assert (changes.n_false_positive, changes.n_false_negative) == (0, 0)


def test_what_lies_on_nothing_that_changed_is_false(judged):
    """Variables and asteroids are true changes; stars, and transients that are not lit yet, are not."""
    kinds = ["variable", "asteroid", "star", "transient", "galaxy"]
    rows = on_grid(kinds, [500, 500, 9000, 0, 9000])
    measured = [*zip(rows.x, rows.y, strict=True), (400.0, 300.0)]
    changes = judged(rows, measured, [9, 8, -7, 6, 5, -5.5])
    assert (changes.n_false_positive, changes.n_false_negative) == (2, 2)
    assert sorted(changes.false_snr) == [-7, -5.5, 5, 6]


def test_the_dark_lobe_beside_a_transient_is_no_find(judged):
    rows = on_grid(["transient"], [3000])
    assert list(judged(rows, [(60.5, 60.0)], [-12.0]).transients.found) == [False]


def test_a_section_where_nothing_happened_is_judged_too(judged):
    rows = on_grid(["star"], [1000])
    changes = judged(rows, [], [])
    assert len(changes.transients.found) == 0
    assert len(changes.false_snr) == 0
