"""A camera and a sky small enough to simulate in a test, everything about them known."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from seechange_core.frames import (
    Amplifier,
    Background,
    Box,
    CalibratedImage,
    ImageFrame,
    PsfModel,
    RawFrame,
    WcsSolution,
    ZeroPointSolution,
)

sys.path.append(str(Path(__file__).parents[1]))


@dataclass
class Camera:
    height: int = 256
    half: int = 128
    overscan: int = 24
    gains: tuple[float, float] = (2.0, 2.3)
    read_noises: tuple[float, float] = (5.0, 6.5)
    seed: int = 1
    level_adu: tuple[float, float] = (1000.0, 1100.0)
    row_jitter_adu: float = 0.0

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        h, w = self.shape
        y, x = np.mgrid[:h, :w]
        self.bias_e = 6 * np.sin(x / 9.0) + self.rng.normal(0, 2, (h, w))
        self.dark_e_per_s = 0.05 + 0.02 * self.rng.random((h, w))
        flat = 1 + 0.08 * np.cos((x - w / 2) / w * 2) * np.cos((y - h / 2) / h * 2)
        flat *= 1 + self.rng.normal(0, 0.01, (h, w))
        self.flat = flat / np.median(flat)

    @property
    def shape(self):
        return self.height, 2 * self.half

    @property
    def amplifiers(self):
        h, w, o = self.height, self.half, self.overscan
        raw = (Box(0, h, 0, w), Box(0, h, w + 2 * o, 2 * w + 2 * o))
        over = (Box(0, h, w, w + o), Box(0, h, w + o, w + 2 * o))
        image = (Box(0, h, 0, w), Box(0, h, w, 2 * w))
        return tuple(
            Amplifier(
                name, raw[i], over[i] if o else None, image[i], self.gains[i], self.read_noises[i], 60000.0
            )
            for i, name in enumerate("AB")
        )

    def expose(self, light_e=0.0, time_s=0.0, *, rounded=True, extra_e=0.0):
        """Expose to `light_e` electrons per unit response; `extra_e` is charge without photon noise."""
        h, w = self.shape
        mean = light_e * self.flat + self.dark_e_per_s * time_s
        charge = self.rng.poisson(mean) + self.bias_e + extra_e
        raw = np.zeros((h, w + 2 * self.overscan))
        jitter = self.row_jitter_adu * self.rng.normal(size=h)
        for i, amplifier in enumerate(self.amplifiers):
            level = self.level_adu[i] + 0.004 * np.arange(h) + jitter
            sigma = self.read_noises[i]
            pixels = charge[amplifier.image.slices] + self.rng.normal(0, sigma, amplifier.image.shape)
            raw[amplifier.raw.slices] = pixels / amplifier.gain + level[:, None]
            if amplifier.overscan:
                noise = self.rng.normal(0, sigma, amplifier.overscan.shape) / amplifier.gain
                raw[amplifier.overscan.slices] = noise + level[:, None]
        if rounded:
            raw = np.clip(np.rint(raw), 0, 65535).astype(np.uint16)
        return RawFrame(raw, self.amplifiers, time_s, {"OBJECT": "test"})

    def with_amplifiers(self, raw, **changes):
        return replace(raw, amplifiers=tuple(replace(a, **changes) for a in raw.amplifiers))


@pytest.fixture
def camera():
    return Camera()


@pytest.fixture
def make_camera():
    return Camera


class MoffatField:
    """A PSF with Moffat wings whose width grows linearly over the image; exact at any sub-pixel place."""

    BETA = 3.5

    def __init__(self, fwhm_low, fwhm_high, side, half=17):
        self.fwhms, self.side, self.half = (fwhm_low, fwhm_high), side, half
        v, u = np.mgrid[-half : half + 1, -half : half + 1]
        self.norms = [self._profile(u**2 + v**2, f).sum() for f in self.fwhms]

    def _profile(self, r2, fwhm):
        a2 = (fwhm / 2) ** 2 / (2 ** (1 / self.BETA) - 1)
        return (self.BETA - 1) / np.pi / a2 * (1 + r2 / a2) ** -self.BETA

    def at(self, dx, dy, x, y):
        share = 0.5 + 0.25 * ((x + y) / (self.side / 2) - 2)
        widths = zip(self.fwhms, self.norms, strict=True)
        first, second = (self._profile(dx**2 + dy**2, f) / n for f, n in widths)
        return (1 - share) * first + share * second

    def model(self, floor=0.0):
        half, middle = self.half, self.side / 2
        v, u = np.mgrid[-half : half + 1, -half : half + 1]
        at = [self.at(u, v, x, y) for x, y in ((middle, middle), (2 * middle, middle), (middle, 2 * middle))]
        planes = np.stack([at[0], at[1] - at[0], at[2] - at[0]]).astype(np.float32)
        return PsfModel(planes, 1, (middle, middle), (middle, middle), float(np.mean(self.fwhms)), 50, floor)

    def draw(self, x, y, flux, reach=40):
        image = np.zeros((self.side, self.side))
        for a, b, f in zip(x, y, flux, strict=True):
            x0, x1 = max(0, int(a) - reach), min(self.side, int(a) + reach + 1)
            y0, y1 = max(0, int(b) - reach), min(self.side, int(b) + reach + 1)
            if x0 < x1 and y0 < y1:
                yy, xx = np.mgrid[y0:y1, x0:x1]
                image[y0:y1, x0:x1] += f * self.at(xx - a, yy - b, a, b)
        return image


def tan_wcs(side, scale=0.27, rotation_deg=0.0, shift=(0.0, 0.0), ra=0.01, dec=20.0):
    s, r = scale / 3600, np.deg2rad(rotation_deg)
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec,
        "CRPIX1": side / 2 + shift[0], "CRPIX2": side / 2 + shift[1],
        "CD1_1": -s * np.cos(r), "CD1_2": s * np.sin(r), "CD2_1": s * np.sin(r), "CD2_2": s * np.cos(r),
    }  # fmt: skip
    return WcsSolution(cards, (side, side), error_mas=2.0)


@dataclass
class Sky:
    """Stars, galaxies (as clumps of points, so that any PSF shows them exactly) and transients."""

    side: int = 640
    n_stars: int = 300
    n_galaxies: int = 40
    n_transients: int = 80
    seed: int = 1
    sky_e: float = 1200.0
    read_noise_e: float = 5.0
    max_flux: float = 8e5

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.wcs = tan_wcs(self.side)
        rng, side = self.rng, self.side
        self.x, self.y = rng.uniform(-25, side + 25, (2, self.n_stars))
        self.flux = np.minimum(400 * (1 + rng.pareto(0.8, self.n_stars)), self.max_flux)
        self.gx, self.gy = rng.uniform(25, side - 25, (2, self.n_galaxies))
        self.g_flux = rng.uniform(3e3, 4e4, self.n_galaxies)
        self.g_size = rng.uniform(1.0, 3.5, self.n_galaxies)
        self.clumps = rng.normal(0, 1, (self.n_galaxies, 2, 25)) * self.g_size[:, None, None]
        self._place_transients()

    def _place_transients(self):
        """Half of them on galaxies, none within 30 pixels of another one."""
        places = list(zip(self.gx + self.rng.normal(0, 1.5, self.n_galaxies), self.gy, strict=True))
        places += list(self.rng.uniform(6, self.side - 7, (6 * self.n_transients, 2)))
        kept = []
        for k, (a, b) in enumerate(places):
            if len(kept) < self.n_transients and all(np.hypot(a - c, b - d) > 30 for c, d, _ in kept):
                kept.append((a, b, k < self.n_galaxies))
        self.tx, self.ty = np.array([k[:2] for k in kept]).T
        self.on_galaxy = np.array([k[2] for k in kept])
        self.snr = np.exp(self.rng.uniform(np.log(3), np.log(100), len(kept)))

    def transient_fluxes(self, psf):
        """Fluxes with the signal to noise `snr` on blank sky."""
        area = 1 / np.sum(psf.coefficients[0].astype(float) ** 2)
        noise2 = area * (self.sky_e + self.read_noise_e**2)
        return 0.5 * (self.snr**2 + np.sqrt(self.snr**4 + 4 * self.snr**2 * noise2))

    def image(self, fwhm, wcs=None, zp=25.0, transients=False, gain=1.0, floor=0.0, label="", vary=0.03):
        """Look at it: a CalibratedImage, its background, PSF, WCS and zero point known exactly."""
        wcs = wcs or self.wcs
        psf = MoffatField(fwhm * (1 - vary), fwhm * (1 + vary), self.side)
        factor = 10 ** (0.4 * (zp - 25.0))

        def place(x, y):
            return wcs.to_pixels(*self.wcs.to_sky(x, y))

        mean = psf.draw(*place(self.x, self.y), self.flux * factor)
        cx, cy = self.gx[:, None] + self.clumps[:, 0], self.gy[:, None] + self.clumps[:, 1]
        share = np.repeat(self.g_flux / self.clumps.shape[-1], self.clumps.shape[-1])
        mean += psf.draw(*place(cx.ravel(), cy.ravel()), share * factor, reach=20)
        model = psf.model(floor)
        if transients:
            mean += psf.draw(*place(self.tx, self.ty), self.transient_fluxes(model) * factor)
        variance = (self.sky_e + self.read_noise_e**2) / gain
        noise = self.rng.normal(0, np.sqrt(mean / gain + variance))
        shape = mean.shape
        frame = ImageFrame(
            data=(mean + self.sky_e + noise).astype(np.float32),
            weight=np.full(shape, 1 / variance, np.float32),
            flags=np.zeros(shape, np.uint16),
            exposure_time_s=60.0,
            gain=gain,
        )
        level = np.full((2, 2), self.sky_e, np.float32)
        background = Background(level, np.full((2, 2), variance**0.5, np.float32), self.side, shape)
        zero_point = ZeroPointSolution(zp, 0.002, "r", limiting_mag=23.0)
        return CalibratedImage(frame, background, model, wcs, zero_point, label)

    def static(self, x, y, radius=12.0):
        """Tell which positions no transient is near."""
        distance = np.hypot(np.asarray(x)[:, None] - self.tx, np.asarray(y)[:, None] - self.ty)
        return distance.min(axis=1) > radius

    def blank(self):
        """Mask pixels far from everything."""
        free = np.ones((self.side, self.side), bool)
        fluxes = np.concatenate([self.flux, self.g_flux, np.full(len(self.tx), 5e4)])
        xs, ys = np.concatenate([self.x, self.gx, self.tx]), np.concatenate([self.y, self.gy, self.ty])
        for a, b, f in zip(xs, ys, fluxes, strict=True):
            reach = 12 + int(min(25, f**0.5 / 25))
            rows = slice(max(0, int(b) - reach), max(0, int(b) + reach + 1))
            free[rows, max(0, int(a) - reach) : max(0, int(a) + reach + 1)] = False
        return free


def tilt(image, tilt_mag):
    """Brighten stars at the right edge by `tilt_mag`, fade them at the left, and let the image know it."""
    solution = replace(image.zero_point, spatial_mag=(tilt_mag, 0.0), shape=image.image.shape)
    y, x = np.indices(image.image.shape)
    factor = (10 ** (0.4 * (solution.zp_at(x, y) - solution.zp))).astype(np.float32)
    level = np.float32(image.background.level[0, 0])
    data, weight = level + (image.image.data - level) * factor, image.image.weight / factor**2
    return replace(image, image=replace(image.image, data=data, weight=weight), zero_point=solution)


@pytest.fixture(scope="session")
def make_sky():
    return Sky


@pytest.fixture(scope="session")
def tilted():
    return tilt


@pytest.fixture(scope="session")
def make_wcs():
    return tan_wcs
