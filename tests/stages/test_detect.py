"""Detection, cutouts and measurement of changes with known truth."""

from dataclasses import fields, replace

import numpy as np
import pytest

from seechange_core.flags import PixelFlag
from seechange_core.frames import Detections
from seechange_core.stages.cut import CutParams, cut
from seechange_core.stages.detect import DetectParams, detect
from seechange_core.stages.measure import BadReason, MeasureParams, measure
from seechange_core.stages.subtract import SubtractParams, subtract

DITHER = {"rotation_deg": 0.3, "shift": (13.37, -8.61)}


class Night:
    def __init__(self, make_sky, make_wcs, seed, new_fwhm, ref_fwhm):
        self.sky = make_sky(seed=seed, n_stars=250, n_transients=80)
        self.new = self.sky.image(new_fwhm, transients=True)
        ref = self.sky.image(ref_fwhm, make_wcs(self.sky.side, **DITHER), zp=24.8, gain=5.0)
        self.sub = subtract(self.new, [ref], SubtractParams())
        self.truth = self.sky.transient_fluxes(self.new.psf)
        self.found = detect(self.sub, DetectParams())
        self.stamps = cut(self.new, self.sub, self.found, CutParams())
        self.measured = measure(self.stamps, self.found, self.sub.psf, MeasureParams())

    def match(self, table):
        distance = np.hypot(table.x[:, None] - self.sky.tx, table.y[:, None] - self.sky.ty)
        return distance.argmin(axis=1), distance.min(axis=1)


@pytest.fixture(scope="module")
def nights(make_sky, make_wcs):
    pairs = [(5.0, 4.0), (4.0, 5.0), (4.4, 4.4), (2.8, 3.2)]
    return [Night(make_sky, make_wcs, seed, *pair) for seed, pair in enumerate(pairs, start=31)]


def test_complete_and_pure(nights):
    false, missed, bright = 0, 0, 0
    for n in nights:
        _, distance = n.match(n.found)
        false += np.count_nonzero(distance > 8)
        y, x = np.rint(n.sky.ty).astype(int), np.rint(n.sky.tx).astype(int)
        seen = (n.sub.image.weight[y, x] > 0) & (n.sky.snr > 9) & (np.minimum(x, y) > 3)
        seen &= (np.maximum(x, y) < n.sky.side - 4) & ~n.sky.on_galaxy
        for a, b in zip(n.sky.tx[seen], n.sky.ty[seen], strict=True):
            missed += not np.any(np.hypot(n.found.x - a, n.found.y - b) < 2)
        bright += np.count_nonzero(seen)
    assert bright > 80
    assert missed <= 1
    assert false <= 1


@pytest.mark.parametrize("what", ["found", "measured"])
def test_positions_and_fluxes_by_pulls(nights, what):
    position, flux, loud = [], [], []
    for n in nights:
        table = getattr(n, what)
        index, distance = n.match(table)
        ok = (distance < 2) & (np.abs(n.found.score) > 8)
        x, y = n.sky.tx[index], n.sky.ty[index]
        position += [((table.x - x) / table.x_err)[ok], ((table.y - y) / table.y_err)[ok]]
        flux.append(((table.flux_psf - n.truth[index]) / table.flux_psf_err)[ok])
        very = ok & (n.found.score > 60)
        loud += [(table.x - x)[very], (table.y - y)[very]]
    position, flux = np.concatenate(position), np.concatenate(flux)
    assert len(flux) > 120
    assert np.std(position) == pytest.approx(1, abs=0.15)
    assert abs(np.median(position)) < 0.15
    assert np.std(flux) == pytest.approx(1, abs=0.15)
    assert abs(np.median(flux)) < 0.25
    assert np.sqrt(np.mean(np.concatenate(loud) ** 2)) < 0.05


def test_ordered_and_repeatable(nights):
    for n in nights:
        assert np.all(np.diff(np.abs(n.found.score)) <= 0)
        again = detect(n.sub, DetectParams())
        assert all(
            np.array_equal(getattr(again, f.name), getattr(n.found, f.name)) for f in fields(Detections)
        )


def test_what_faded_is_found_with_its_sign(nights):
    n = nights[0]
    upside = replace(n.sub, image=replace(n.sub.image, data=-n.sub.image.data), score=-n.sub.score)
    found = detect(upside, DetectParams())
    assert np.allclose(np.sort(found.score), np.sort(-n.found.score))
    strong = np.abs(found.score) > 8
    assert np.all(found.flux_psf[strong] * found.score[strong] > 0)
    index = np.argmax(np.abs(found.score))
    assert found.flux_psf[index] == pytest.approx(-n.found.flux_psf[0], rel=0.02)
    measured = measure(cut(n.new, upside, found, CutParams()), found, n.sub.psf, MeasureParams())
    assert measured.flux_psf[index] == pytest.approx(found.flux_psf[index], rel=0.02)


def test_flags_near_a_peak_are_reported(nights):
    n = nights[0]
    flags = n.sub.image.flags.copy()
    x, y = int(n.found.x[0]), int(n.found.y[0])
    flags[y + 1, x] |= PixelFlag.COSMIC_RAY
    found = detect(replace(n.sub, image=replace(n.sub.image, flags=flags)), DetectParams())
    assert found.flags[0] & PixelFlag.COSMIC_RAY
    assert not n.found.flags[0] & PixelFlag.COSMIC_RAY


def test_nothing_found_is_an_empty_table(nights):
    n = nights[0]
    found = detect(n.sub, DetectParams(threshold=1e6))
    stamps = cut(n.new, n.sub, found, CutParams())
    measured = measure(stamps, found, n.sub.psf, MeasureParams())
    assert len(found) == len(measured) == len(stamps.sub) == 0


def test_stamps_show_the_same_place_and_nan_outside(nights):
    n = nights[0]
    corner = n.found.select(np.array([0]))
    corner = replace(corner, x=np.array([2.0]), y=np.array([n.sky.side - 3.0]))
    stamps = cut(n.new, n.sub, corner, CutParams(size_pix=21))
    assert stamps.sub.shape == (1, 21, 21)
    assert (stamps.x0[0], stamps.y0[0]) == (-8, n.sky.side - 13)
    outside = np.ones((21, 21), bool)
    outside[:13, 8:] = False
    for plane in (stamps.new, stamps.ref, stamps.sub):
        assert np.array_equal(np.isnan(plane[0]), outside)
    assert np.all(stamps.new_flags[0][outside] == PixelFlag.OUT_OF_BOUNDS)
    assert np.all(stamps.sub_weight[0][outside] == 0)
    assert np.array_equal(stamps.sub[0][~outside], n.sub.image.data[-13:, :13].ravel())
    assert np.isfinite(measure(stamps, corner, n.sub.psf, MeasureParams()).n_bad[0])


def test_real_changes_pass_the_cuts(nights):
    bad, total = 0, 0
    for n in nights:
        _, distance = n.match(n.found)
        bad += np.count_nonzero(n.measured.is_bad[distance < 2])
        total += np.count_nonzero(distance < 2)
        assert np.nanmedian(n.measured.chi2[distance < 2]) == pytest.approx(1, abs=0.12)
        strong = (distance < 2) & (n.found.score > 20)
        ratio = n.measured.flux_aper[strong] / n.measured.flux_psf[strong]
        assert np.median(ratio) == pytest.approx(1, abs=0.02)
        assert np.median(n.measured.fwhm_pix[strong] / n.sub.psf.fwhm_pix) == pytest.approx(1.05, abs=0.12)
    assert bad / total < 0.06


def _drawn(n, make):
    """Put a shape at a quiet place of an empty difference."""
    data = np.random.default_rng(1).normal(0, 1, n.sub.image.data.shape) / np.sqrt(
        np.median(n.sub.image.weight)
    )
    y, x = np.mgrid[: n.sky.side, : n.sky.side]
    data = data + make(x - 300.0, y - 300.0) * 600
    weight = np.full(data.shape, np.median(n.sub.image.weight), np.float32)
    flags = np.zeros(data.shape, np.uint16)
    image = replace(n.sub.image, data=data.astype(np.float32), weight=weight, flags=flags)
    one = n.found.select(np.array([0]))
    one = replace(one, x=np.array([300.0]), y=np.array([300.0]), score=np.array([30.0]))
    sub = replace(n.sub, image=image)
    return measure(cut(n.new, sub, one, CutParams()), one, n.sub.psf, MeasureParams())


def test_artefacts_fail_the_cut_that_names_them(nights):
    n = nights[0]
    width = n.sub.psf.fwhm_pix / 2.3548

    def blob(dx, dy, sx, sy):
        return np.exp(-0.5 * ((dx / sx) ** 2 + (dy / sy) ** 2))

    good = _drawn(n, lambda dx, dy: blob(dx, dy, width, width))
    assert good.bad_reasons[0] & ~int(BadReason.BAD_PIXELS) == 0
    trail = _drawn(n, lambda dx, dy: blob(dx, dy, 5 * width, width))
    assert trail.bad_reasons[0] & (BadReason.ELONGATED | BadReason.NO_FIT)
    spike = _drawn(n, lambda dx, dy: 2 * blob(dx, dy, 0.4, 0.4))
    assert spike.bad_reasons[0] & (BadReason.TOO_NARROW | BadReason.NO_FIT)
    ghost = _drawn(n, lambda dx, dy: blob(dx, dy, 3 * width, 3 * width))
    assert ghost.bad_reasons[0] & (BadReason.TOO_WIDE | BadReason.NO_FIT)
    dipole = _drawn(n, lambda dx, dy: blob(dx, dy, width, width) - blob(dx - 4, dy, width, width))
    assert dipole.bad_reasons[0] & BadReason.NEGATIVE
    assert dipole.negative_fraction[0] > 0.4
    assert dipole.negative_flux_fraction[0] > 0.4
