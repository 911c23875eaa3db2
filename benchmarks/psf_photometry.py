"""PSF photometry against the truth: forced at true positions, and of the sources that were found.

Forced: the isolated stars of the simulation at their true positions, and as many more, drawn with the true
PSF and their own photon noise into empty places of the calibrated image, as make `PER_BIN` in each bin of
S/N. Isolated: the light of all other objects, undetected ones included, changes the fit by less than
`CONTAMINATION` sigma. The PSF, its floor, the background and the weights are the pipeline's own. A flux is
compared with the true light within half a PSF stamp, which is what the model defines as all of it.

Per bin: ``bias`` is the mean pull of 95 % of the fluxes and ``width`` the scatter of the pulls (from the
median absolute deviation; ``tails`` is the share beyond 4 sigma), ``error_limit`` the scatter over the
Cramer-Rao error of a fit with the true PSF and the true variance of every pixel.
"""

import math
import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.nddata import NDData
from astropy.table import QTable
from scipy.spatial import cKDTree

from benchmarks import ccds, peers
from seechange_core.flags import UNUSABLE
from seechange_core.frames import ImageFrame, PsfModel
from seechange_core.numerics.background import level_map
from seechange_core.numerics.psf import evaluate
from seechange_core.numerics.scene import fit_scene
from seechange_core.simulate.psf import PsfField
from seechange_core.simulate.truth import true_sky_e
from seechange_core.stages.extract import Extraction, ExtractParams, extract
from seechange_core.stages.force import ForceParams, force

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

PER_BIN = 2400
CONTAMINATION = 0.05
BINS = ((0.0, 3.0), (3.0, 5.0), (5.0, 10.0), (10.0, 30.0), (30.0, 100.0), (100.0, 1000.0))
_TIMED_SOURCES = 5000
_PEER_SOURCES = 1000


class Truth:
    """The true PSF and sky of a CCD, and how much other objects disturb a fit."""

    def __init__(self, ccd: ccds.Ccd, image: ImageFrame) -> None:
        camera = ccd.world.camera
        observation = ccd.world.observations[0].under(camera, ccd.section)
        self.ccd, self.shape = ccd, image.shape
        self.field: PsfField = observation.psf_field(camera)
        self.offset = camera.focal_offset(ccd.section)
        self.response = np.clip(camera.detector(ccd.section).response, 0.3, None)
        self.sky = true_sky_e(camera, ccd.world.observations[0], ccd.section).astype(np.float32)
        self.weight = np.where(image.flags & np.uint16(UNUSABLE), np.float32(0), image.weight)

    def draw(self, x: Float, y: Float, flux_e: Float) -> Float:
        """Return the light of stars, (H, W) electrons."""
        light = np.zeros(self.shape)
        self.field.draw(light, x, y, flux_e, self.offset)
        return light

    def enclosed(self, x: Float, y: Float, radius_pix: float) -> Float:
        """Return the share of a star's light within a radius."""
        fwhm, _, _ = self.field.shape_at(x + self.offset[0], y + self.offset[1])
        grid = np.linspace(fwhm.min(), fwhm.max() + 1e-6, 7)
        shares = [replace(self.field, fwhm_pix=f).enclosed(radius_pix) for f in grid]
        return np.interp(fwhm, grid, shares)

    def limit(self, x: Float, y: Float, flux_e: Float) -> Float:
        """Return the Cramer-Rao error of the fluxes of stars alone on the sky, electrons."""
        half = math.ceil(4 * self.field.fwhm_pix)
        errors = np.empty(len(x))
        # The shape varies slowly: at a grid's place and phase it is what it is anywhere near.
        for k in range(len(x)):
            column, row = int(np.rint(x[k])), int(np.rint(y[k]))
            profile = self._profile(column // 256, row // 256, half)
            variance = 1 / np.median(self._near(self.weight, column, row))
            light = flux_e[k] * profile / self.response[row, column]
            errors[k] = 1 / math.sqrt(np.sum(profile**2 / (variance + light)))
        return errors

    def _profile(self, i: int, j: int, half: int) -> Float:
        key = (i, j)
        if key not in self._profiles:
            x, y = i * 256.0 + 128, j * 256.0 + 128
            self._profiles[key] = self.field.stamp(
                x + self.offset[0], y + self.offset[1], 2 * half + 1, 0.25, 0.25
            )
        return self._profiles[key]

    @property
    def _profiles(self) -> dict[tuple[int, int], Float]:
        return self.__dict__.setdefault("_cache", {})

    def _near(self, image: Any, column: int, row: int) -> Any:
        part = image[max(0, row - 10) : row + 11, max(0, column - 10) : column + 11]
        return part[part > 0] if (part > 0).any() else np.ones(1)

    def disturbance(self, x: Float, y: Float, own: Any = None) -> Float:
        """Return how much all other objects add to a flux fitted at places, in sigma of the sky alone.

        Parameters
        ----------
        x, y
            (n,) places, pixels.
        own
            (n,) rows of the truth that are the places' own objects.
        """
        table = self.ccd.truth
        others = np.c_[np.asarray(table["x"]), np.asarray(table["y"])]
        flux = np.asarray(table["flux_e"])
        reach, kernel = self._kernel()
        pairs = cKDTree(np.c_[x, y]).sparse_distance_matrix(cKDTree(others), reach, output_type="coo_matrix")
        added = flux[pairs.col] * np.interp(pairs.data, np.arange(len(kernel)), kernel)
        if own is not None:
            added[np.asarray(own)[pairs.row] == pairs.col] = 0.0
        middle = np.array([self.shape[1] / 2]), np.array([self.shape[0] / 2])
        return np.bincount(pairs.row, added, len(x)) / float(self.limit(*middle, np.zeros(1))[0])

    def _kernel(self) -> tuple[float, Float]:
        """Return out to where, and by pixels of distance, what a star of flux 1 adds to a fit next to it."""
        reach = 150
        light = np.zeros((61, reach + 61))
        self.field.draw(light, 30.0, 30.0, 1e6, (self.shape[1] / 2, self.shape[0] / 2))
        half = 20
        profile = light[30 - half : 31 + half, 30 - half : 31 + half]
        moved = [light[30 - half : 31 + half, 30 - half + d : 31 + half + d] for d in range(reach)]
        return float(reach), np.array([np.sum(profile * m) for m in moved]) / np.sum(profile**2)


@dataclass(frozen=True, eq=False)
class Sample:
    """Stars on an image whose flux is known.

    Attributes
    ----------
    data
        (H, W) float32, electrons.
    x, y, flux_e, snr
        (n,) true values; the S/N is what the Cramer-Rao limit allows.
    """

    data: npt.NDArray[np.float32]
    x: Float
    y: Float
    flux_e: Float
    snr: Float


def true_stars(truth: Truth, image: ImageFrame) -> Sample:
    """Return the isolated stars of the simulation on the image as it is."""
    table = truth.ccd.truth
    x, y, flux = (np.asarray(table[name], float) for name in ("x", "y", "flux_e"))
    fit = (np.asarray(table["kind"]) == "star") & ~np.asarray(table["saturated"]) & _inside(truth, x, y)
    rows = np.flatnonzero(fit)
    rows = rows[truth.disturbance(x[rows], y[rows], rows) < CONTAMINATION]
    x, y, flux = x[rows], y[rows], flux[rows]
    return Sample(image.data, x, y, flux, flux / truth.limit(x, y, flux))


def added_stars(truth: Truth, image: ImageFrame, low: float, high: float, rng: Any) -> Sample:
    """Return stars of an S/N between limits, drawn into empty places of an image."""
    # Far enough apart not to disturb each other.
    step = max((18 if high > 100 else 9) * truth.field.fwhm_pix, 40.0)
    ny, nx = (int(side // step) for side in truth.shape)
    x, y = (a.ravel() for a in np.meshgrid((np.arange(nx) + 0.5) * step, (np.arange(ny) + 0.5) * step))
    x, y = x + rng.uniform(-step / 8, step / 8, x.size), y + rng.uniform(-step / 8, step / 8, x.size)
    empty = (truth.disturbance(x, y) < CONTAMINATION) & _inside(truth, x, y)
    x, y = x[empty], y[empty]
    share = rng.uniform(0, 1, len(x))
    snr = low * (high / low) ** share if low > 0 else high * share
    flux = snr * truth.limit(x, y, 0 * x)
    for _ in range(6):
        flux = snr * truth.limit(x, y, flux)
    # No brighter than 80 % of what a pixel holds.
    peak = float(truth.field.stamp(0, 0, 3).max())
    flux = np.minimum(flux, 0.8 * image.saturation_e / peak)
    light = truth.draw(x, y, flux)
    lit = light > 0
    noisy = image.data.copy()
    noisy[lit] += rng.poisson(light[lit] * truth.response[lit]) / truth.response[lit]
    return Sample(noisy, x, y, flux, flux / truth.limit(x, y, flux))


def _inside(truth: Truth, x: Float, y: Float) -> Bool:
    """Tell which places are far from the edge and from unusable pixels, to a fit radius."""
    edge = 5 * truth.field.fwhm_pix
    height, width = truth.shape
    inside = (x > edge) & (y > edge) & (x < width - edge) & (y < height - edge)
    reach = math.ceil(2.2 * truth.field.fwhm_pix)
    for k in np.flatnonzero(inside):
        j, i = int(np.rint(y[k])), int(np.rint(x[k]))
        inside[k] = np.all(truth.weight[j - reach : j + reach + 1, i - reach : i + reach + 1] > 0)
    return inside


@dataclass(frozen=True, eq=False)
class Pulls:
    """What was measured of stars: (n,) each."""

    snr: Float
    difference: Float
    error: Float
    limit: Float


def figures(found: Pulls) -> dict[str, float]:
    """Return the figures of the module's docstring, per bin of S/N."""
    values: dict[str, float] = {}
    for low, high in BINS:
        rows = (found.snr >= low) & (found.snr < high) & (found.error > 0)
        if np.count_nonzero(rows) < 20:
            continue
        pulls = found.difference[rows] / found.error[rows]
        scale = found.difference[rows] / found.limit[rows]
        name = f"snr{low:.0f}_{high:.0f}" if high < 1000 else f"snr{low:.0f}"
        middle = np.sort(pulls)[len(pulls) // 40 : len(pulls) - len(pulls) // 40]
        values |= {
            f"{name}_n": float(len(pulls)), f"{name}_bias_sigma": float(middle.mean()),
            f"{name}_width": _scatter(pulls), f"{name}_tails": float(np.mean(np.abs(pulls) > 4)),
            f"{name}_error_limit": _scatter(scale),
        }  # fmt: skip
    return values


def _scatter(values: Float) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def forced(truth: Truth, sample: Sample, image: ImageFrame, found: Extraction, measure: Any) -> Pulls:
    """Measure a sample with ``measure(data, x, y) -> flux, error`` and compare it with the truth."""
    data = sample.data - level_map(found.background)
    flux, error = measure(data, sample.x, sample.y)
    true = sample.flux_e * truth.enclosed(sample.x, sample.y, found.psf.size // 2)
    return Pulls(sample.snr, flux - true, error, truth.limit(sample.x, sample.y, sample.flux_e))


def our_forced(image: ImageFrame, psf: PsfModel, data: Any, x: Float, y: Float) -> tuple[Float, Float]:
    """Force with the pipeline's own stage."""
    fluxes = force(data, image.weight, image.flags, psf, x, y, image.gain, ForceParams())
    return fluxes.flux, fluxes.flux_err


def photutils_forced(image: ImageFrame, psf: PsfModel, data: Any, x: Float, y: Float) -> tuple[Float, Float]:
    """Force with photutils and our PSF, on its grid of models; errors as its manual says, from the data."""
    # Of the extra `bench`: only who measures the peer needs it.
    from photutils.psf import GriddedPSFModel, PSFPhotometry  # noqa: PLC0415
    from photutils.utils import calc_total_error  # noqa: PLC0415

    height, width = image.shape
    nodes = [(i, j) for j in np.linspace(0, height - 1, 9) for i in np.linspace(0, width - 1, 5)]
    stamps = np.array([evaluate(psf, i, j)[0] for i, j in nodes], float)
    model = GriddedPSFModel(NDData(stamps, meta={"grid_xypos": nodes, "oversampling": 1}))
    model.x_0.fixed = model.y_0.fixed = True
    mask = (image.flags & np.uint16(UNUSABLE) > 0) | (image.weight <= 0)
    background = 1 / np.sqrt(np.where(mask, 1, image.weight))
    error = calc_total_error(data.astype(float), background.astype(float), image.gain)
    side = 2 * math.ceil(2 * psf.fwhm_pix) + 1
    photometry = PSFPhotometry(model, (side, side), aperture_radius=psf.fwhm_pix)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = photometry(data, mask=mask, error=error, init_params=QTable({"x": x, "y": y}))
    return np.asarray(table["flux_fit"], float), np.asarray(table["flux_err"], float)


def free(truth: Truth, found: Extraction) -> dict[str, float]:
    """Compare fluxes and positions of the isolated stars that were found with the truth."""
    sample = true_stars(truth, ImageFrame(truth.sky, truth.weight, np.zeros(truth.shape, np.uint16), 1.0))
    sources = found.sources
    distance, at = cKDTree(np.c_[sources.x, sources.y]).query(np.c_[sample.x, sample.y])
    near = distance < 0.5 * found.psf.fwhm_pix
    at = at[near]
    x, y, flux = sample.x[near], sample.y[near], sample.flux_e[near]
    snr, limit = sample.snr[near], truth.limit(x, y, flux)
    true = flux * truth.enclosed(x, y, found.psf.size // 2)
    values = figures(Pulls(snr, sources.flux_psf[at] - true, sources.flux_psf_err[at], limit))
    for low, high in BINS[2:]:
        rows = (snr >= low) & (snr < high)
        if np.count_nonzero(rows) < 20:
            continue
        name = f"snr{low:.0f}_{high:.0f}" if high < 1000 else f"snr{low:.0f}"
        offsets = np.r_[
            (sources.x[at] - x)[rows] / sources.x_err[at][rows],
            (sources.y[at] - y)[rows] / sources.y_err[at][rows],
        ]
        values[f"{name}_position_width"] = _scatter(offsets)
    return values


def measure_all(ccd: ccds.Ccd, image: ImageFrame, found: Extraction, per_bin: int, measure: Any) -> Pulls:
    """Force stars of the simulation and added ones, until every bin has enough."""
    truth = Truth(ccd, image)
    rng = np.random.default_rng([ccd.seed, 77])
    parts = [forced(truth, true_stars(truth, image), image, found, measure)]
    for low, high in BINS:
        n = np.count_nonzero((parts[0].snr >= low) & (parts[0].snr < high))
        for _ in range(20):
            if n >= per_bin:
                break
            sample = added_stars(truth, image, low, high, rng)
            parts.append(forced(truth, sample, image, found, measure))
            n += len(sample.x)
    return Pulls(
        *(np.concatenate([getattr(p, f) for p in parts]) for f in ("snr", "difference", "error", "limit"))
    )


def fit_all(data: Any, weight: Any, psf: PsfModel, x: Float, y: Float, flux: Float, gain: float) -> Any:
    """Fit all sources of an image as extraction does."""
    params = ExtractParams()
    return fit_scene(
        data, weight, psf, x, y, flux, radius_pix=params.fit_radius_fwhm * psf.fwhm_pix, gain=gain,
        passes=params.fit_passes, max_shift_pix=max(1.0, 0.4 * psf.fwhm_pix),
    ).fits  # fmt: skip


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Measure one CCD."""
    ccd = ccds.load(kind, seed)
    image = ccd.image()
    found = extract(image, ExtractParams())
    data = image.data - level_map(found.background)
    truth = Truth(ccd, image)
    rng = np.random.default_rng(seed)
    sources = found.sources
    start = (
        sources.x + rng.normal(0, 0.2, len(sources)), sources.y + rng.normal(0, 0.2, len(sources)),
        np.maximum(sources.flux_psf, 0) * rng.uniform(0.8, 1.2, len(sources)),
    )  # fmt: skip
    _, cost = peers.timed(fit_all, data, truth.weight, found.psf, *start, image.gain)
    quality = {"sources": float(len(sources)), "floor_percent": 100 * found.psf.floor} | free(truth, found)
    table = [peers.row("PSF photometry of all sources", kind, seed, cost, quality)]
    height, width = image.shape
    places = rng.uniform(0, width, _TIMED_SOURCES), rng.uniform(0, height, _TIMED_SOURCES)
    _, cost = peers.timed(our_forced, image, found.psf, data, *places)
    ours = figures(measure_all(ccd, image, found, PER_BIN, partial(our_forced, image, found.psf)))
    few = tuple(p[:_PEER_SOURCES] for p in places)
    _, theirs = peers.timed(photutils_forced, image, found.psf, data, *few)
    theirs = peers.Cost(theirs.cpu_s * _TIMED_SOURCES / _PEER_SOURCES, theirs.mb)
    peer = figures(measure_all(ccd, image, found, 300, partial(photutils_forced, image, found.psf)))
    table.append(
        peers.row("PSF photometry, forced, 5000", kind, seed, cost, ours, "photutils, our PSF", theirs, peer)
    )
    return table
