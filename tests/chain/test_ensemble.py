"""Choosing comparison stars, and tying images together by them, on images made up of tables."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.wcs import WCS

from seechange_core.chain import ensemble as module
from seechange_core.chain.ensemble import ComparisonChoice, ensemble_at
from seechange_core.chain.light_curve_table import LightCurveTable
from seechange_core.errors import NotFoundError
from seechange_core.flags import PixelFlag
from seechange_core.frames import ForcedFluxes, Sources, WcsSolution, ZeroPointSolution

RA, DEC = 150.0, 2.0
N_STARS, N_EPOCHS = 30, 12
TARGET, VARIABLE, SATURATED, BLENDED, FLAGGED, GALAXY, RARE = range(7)
SHAPE = (1000, 1000)
#: The PSF's own word on its error; here it does no harm at all.
FLOOR = 0.01


def plane(dx, dy):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [RA, DEC], [501 + dx, 501 + dy], [-1e-3 / 3.6, 1e-3 / 3.6]
    return WcsSolution(dict(wcs.to_header()), SHAPE)


class FakeEpoch:
    """An image that exists as its sources and zero point alone."""

    def __init__(self, number, sky, flux, rng, band="r", tilt_mag=0.0):
        self.flux, self.error = flux, np.sqrt(flux + 1e4 + (FLOOR * flux) ** 2)
        self.wcs = plane(*rng.uniform(-20, 20, 2))
        self.exposure = SimpleNamespace(name=f"e{number}", instrument="demo")
        zero_point = SimpleNamespace(zp=28.0 + rng.normal(0, 0.1), limiting_mag=20.0 + 0.01 * number)
        image = SimpleNamespace(section_id="0", filter=band, saturation_e=50000.0)
        self.rows = SimpleNamespace(zero_point=zero_point, image=image, psf=SimpleNamespace(floor=FLOOR))
        self.number, self.sky, self.tilt_mag = number, sky, tilt_mag

    def zp_at(self, ra, dec):
        solution = ZeroPointSolution(
            self.rows.zero_point.zp, 0.01, "r", spatial_mag=(self.tilt_mag, 0.0), shape=SHAPE
        )
        return solution.zp_at(*self.wcs.to_pixels(ra, dec))

    def sources(self, _archive):
        x, y = self.wcs.to_pixels(*self.sky)
        n, one = len(x), np.ones(len(x))
        flags = np.zeros(n, int)
        flags[FLAGGED] = PixelFlag.BAD_PIXEL
        peak = 1000.0 * one
        peak[SATURATED] = 45000.0 if self.number == 3 else 30000.0
        blended = np.arange(n) == BLENDED
        is_star = np.arange(n) != GALAXY
        table = Sources(
            x=x, y=y, x_err=one, y_err=one, flux_psf=self.flux, flux_psf_err=self.error, chi2=one,
            flux_aper=one[:, None], flux_aper_err=one[:, None], peak=peak, fwhm_pix=one, elongation=one,
            theta_rad=one, flags=flags, blended=blended, is_star=is_star,
        )  # fmt: skip
        seen = np.ones(n, bool)
        seen[RARE] = self.number > 4
        return table.select(np.flatnonzero(seen)), self.wcs


@pytest.fixture
def field(settings, monkeypatch):
    """Twelve images of a field under unequal skies; returns them and the true zero points."""
    rng = np.random.default_rng(3)
    columns, rows = np.meshgrid(np.arange(6), np.arange(5))
    x, y = 100.0 + 150 * columns.ravel(), 100.0 + 150 * rows.ravel()
    sky = plane(0, 0).to_sky(x, y)
    mag = rng.uniform(14, 16, N_STARS)
    true_zp = rng.normal(28, 0.1, N_EPOCHS)
    epochs = []
    for j, zp in enumerate(true_zp):
        now = mag.copy()
        now[VARIABLE] += 0.2 * np.sin(j)
        flux = 10 ** (-0.4 * (now - zp))
        flux += rng.normal(0, np.sqrt(flux + 1e4))
        epochs.append(FakeEpoch(j, sky, flux, rng))

    def force(_settings, epoch, ra, dec, on):
        assert on == "image"
        which = [int(np.argmin((sky[0] - r) ** 2 + (sky[1] - d) ** 2)) for r, d in zip(ra, dec, strict=True)]
        one = np.ones(len(which))
        flux, error = epoch.flux[which], epoch.error[which]
        return ForcedFluxes(one, one, flux, error, one, np.zeros(len(which), int), one)

    monkeypatch.setattr(module, "epochs_at", lambda *_: epochs)
    monkeypatch.setattr(module, "force_epoch", force)
    monkeypatch.setattr(module, "Archive", lambda _: None)
    return SimpleNamespace(
        settings=settings, epochs=epochs, zp=true_zp, sky=sky, ra=sky[0][TARGET], dec=sky[1][TARGET]
    )


def test_zero_points_come_from_steady_clean_stars(field):
    ours = ensemble_at(field.settings, field.ra, field.dec)
    zp = np.array([ours.zero_points[f"e{j}", "0"][:2] for j in range(N_EPOCHS)])
    offset = zp[:, 0] - field.zp
    assert np.std(offset) < 0.003
    assert np.abs((offset - offset.mean()) / zp[:, 1]).max() < 4
    # The catalog's zero points give the scale, on average.
    assert zp[:, 0].mean() == pytest.approx(np.mean([e.rows.zero_point.zp for e in field.epochs]))
    chosen = {
        int(np.argmin(np.hypot(field.sky[0] - r, field.sky[1] - d)))
        for r, d in zip(ours.stars.ra, ours.stars.dec, strict=True)
    }
    assert chosen == set(range(N_STARS)) - {TARGET, SATURATED, BLENDED, FLAGGED, GALAXY, RARE}
    (left_out,) = ours.stars.select(~ours.stars.used).rms_mag
    assert left_out == pytest.approx(0.2 / np.sqrt(2), rel=0.3)
    assert np.all(np.diff(ours.stars.mag) >= 0)
    assert len(ours.stars.brightest()) == 10
    (line,) = ours.describe()
    assert line.startswith("ensemble in r: 23 comparison stars of 14.")
    assert "1 variable ones left out" in line


def test_zero_points_that_vary_over_the_images_are_taken_at_the_stars_and_at_the_object(field):
    """Each image has a tilt of its own, known, of 60 mmag across; the object stands near a corner."""
    rng = np.random.default_rng(8)
    for epoch in field.epochs:
        epoch.tilt_mag = rng.normal(0, 0.03)
        x, _ = epoch.wcs.to_pixels(*field.sky)
        brighter = 10 ** (0.4 * epoch.tilt_mag * (x / 499.5 - 1))
        epoch.flux, epoch.error = epoch.flux * brighter, epoch.error * brighter
    ours = ensemble_at(field.settings, field.ra, field.dec)
    zp = np.array([ours.zero_points[f"e{j}", "0"].zp for j in range(N_EPOCHS)])
    x = np.array([e.wcs.to_pixels(field.ra, field.dec)[0] for e in field.epochs])
    tilts = np.array([e.tilt_mag for e in field.epochs]) * (x / 499.5 - 1)
    assert np.std(tilts) > 0.015
    assert np.std(zp - field.zp - tilts) < 0.003


def test_errors_of_the_light_curve_are_what_steady_stars_show(field):
    ours = ensemble_at(field.settings, field.ra, field.dec)
    flux = np.array([e.flux[TARGET] for e in field.epochs])
    error = np.array([e.error[TARGET] for e in field.epochs])
    text = np.array([e.exposure.name for e in field.epochs])
    zero = np.zeros(N_EPOCHS)
    section = np.full(N_EPOCHS, "0")
    curve = LightCurveTable(text, section, text, zero, zero, flux, error, zero, zero, zero, zero)
    on_images, on_differences = ours.apply(curve, "image"), ours.apply(curve, "difference")
    assert on_images.flux_err == pytest.approx(np.sqrt(flux + 1e4), rel=0.1)
    assert np.array_equal(on_differences.flux_err, error)
    assert np.array_equal(on_images.zp, on_differences.zp)
    assert np.std(on_images.mag) == pytest.approx(np.mean(on_images.mag_err), rel=0.4)
    # An exposure without comparison stars keeps its flux and has no magnitude.
    unknown = ours.apply(replace(curve, exposure=np.full(N_EPOCHS, "other")), "image")
    assert np.isnan(unknown.mag).all()
    assert np.array_equal(unknown.flux, flux)


def test_each_filter_has_its_own(field):
    for epoch in field.epochs[::2]:
        epoch.rows.image.filter = "g"
    ours = ensemble_at(field.settings, field.ra, field.dec)
    assert len(ours.zero_points) == N_EPOCHS
    assert [line[:14] for line in ours.describe()] == ["ensemble in g:", "ensemble in r:"]


def test_the_choice_can_be_narrowed(field):
    near = ComparisonChoice(radius_arcmin=6.0, max_stars=5)
    ours = ensemble_at(field.settings, field.ra, field.dec, near)
    assert len(ours.stars) == 5
    with pytest.raises(NotFoundError, match="are too few"):
        ensemble_at(field.settings, field.ra, field.dec, ComparisonChoice(radius_arcmin=1e-3))


def test_no_image_no_ensemble(field, monkeypatch):
    monkeypatch.setattr(module, "epochs_at", lambda *_: [])
    with pytest.raises(NotFoundError, match="no image covers"):
        ensemble_at(field.settings, field.ra, field.dec)
