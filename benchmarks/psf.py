"""The PSF over a section against the true one: ours and PSFEx, on the same pixels.

At a grid of positions, at all sub-pixel phases, a star is drawn with the true PSF and with the model. Both
are normalised to the same light within 3 FWHM and the model is put where it matches best; then

* ``residual``: sqrt(sum (model - true)^2) / sqrt(sum true^2) within that circle, the middle one of the grid,
  and the worst tenth's; ``peak`` is the largest deviation over the true peak;
* ``fwhm_error``: of the model's FWHM at the grid's places, both measured alike on centred stamps;
* ``flux_error``: of a flux fitted with the model (weights of a faint star) against one with the true PSF:
  the mean over the grid and the scatter.

``residual_limit`` is what photon noise of the stars used leaves to a model that is free in every pixel.
"""

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from scipy.ndimage import map_coordinates

from benchmarks import ccds, peers
from seechange_core.frames import ImageFrame, PsfModel
from seechange_core.numerics import psf as psf_of
from seechange_core.simulate.psf import PsfField
from seechange_core.stages import extract as stage

_ROWS, _COLUMNS = 15, 8
_RADIUS_FWHM = 3.0
_PARTS = ("choose_stars", "make_psf", "refine_psf")


class Truth:
    """The true PSF on the section's pixels."""

    def __init__(self, ccd: ccds.Ccd) -> None:
        camera = ccd.world.camera
        observation = ccd.world.observations[0].under(camera, ccd.section)
        self.field: PsfField = observation.psf_field(camera)
        self.offset = camera.focal_offset(ccd.section)
        self.shape = camera.height, camera.width

    def star(self, x: float, y: float, size: int) -> Any:
        """Return a star of flux 1 on the pixels around (x, y)."""
        column, row = math.floor(x + 0.5), math.floor(y + 0.5)
        place = column + self.offset[0], row + self.offset[1]
        return self.field.stamp(place[0] + x - column, place[1] + y - row, size, x - column, y - row)


class OurPsf:
    """Our model, as the chain draws with it."""

    def __init__(self, model: PsfModel) -> None:
        self.model = model

    def star(self, x: float, y: float, size: int, dx: float = 0.0, dy: float = 0.0) -> Any:
        """Return the model at (x, y), moved by (dx, dy), on the pixels around (x, y)."""
        # Drawn at the place itself, moved by a fraction of a pixel: the model's polynomial is evaluated once.
        here = psf_of.constant(psf_of.evaluate(self.model, x, y)[0])
        half = size // 2
        at = np.array([half + x - math.floor(x + 0.5) + dx]), np.array([half + y - math.floor(y + 0.5) + dy])
        return psf_of.draw(here, *at, np.ones(1), (size, size)).astype(float)


class PsfexPsf:
    """A .psf file of PSFEx, drawn as SExtractor does: Lanczos-4 on the model's own sampling."""

    def __init__(self, path: Path) -> None:
        with fits.open(path) as file:
            self.header = dict(file[1].header)
            self.masks = np.asarray(file[1].data["PSF_MASK"][0], float)

    @property
    def n_stars(self) -> int:
        """How many stars it is made from."""
        return int(self.header["ACCEPTED"])

    def star(self, x: float, y: float, size: int, dx: float = 0.0, dy: float = 0.0) -> Any:
        """Return the model at (x, y), moved by (dx, dy), on the pixels around (x, y)."""
        h = self.header
        u = (x + 1 - h["POLZERO1"]) / h["POLSCAL1"]
        v = (y + 1 - h["POLZERO2"]) / h["POLSCAL2"]
        degree = h["POLDEG1"]
        terms = [u**i * v**j for j in range(degree + 1) for i in range(degree + 1 - j)]
        model = np.tensordot(terms, self.masks, 1)
        across = np.arange(size) - size // 2
        step = h["PSF_SAMP"]
        column, row = math.floor(x + 0.5), math.floor(y + 0.5)
        along = _lanczos((across - (x + dx - column)) / step + model.shape[1] // 2, model.shape[1])
        up = _lanczos((across - (y + dy - row)) / step + model.shape[0] // 2, model.shape[0])
        return up @ model @ along.T / step**2


def _lanczos(at: Any, n: int) -> Any:
    """Return the (len(at), n) matrix that interpolates n samples at positions, Lanczos-4."""
    t = at[:, None] - np.arange(n)[None, :]
    kernel = np.where(np.abs(t) < 4, np.sinc(t) * np.sinc(t / 4), 0)
    total = kernel.sum(axis=1, keepdims=True)
    return kernel / np.where(np.abs(total) > 0.5, total, 1)


def compare(model: Any, truth: Truth, fwhm_pix: float, seed: int = 0) -> dict[str, float]:
    """Return the figures of the module's docstring, in percent (positions in millipixels)."""
    rng = np.random.default_rng(seed)
    height, width = truth.shape
    radius = _RADIUS_FWHM * fwhm_pix
    size = 2 * math.ceil(radius) + 1
    steps = np.arange(size) - size // 2
    found: dict[str, list[float]] = {"residual": [], "peak": [], "fwhm": [], "flux": [], "move": []}
    for y in (np.arange(_ROWS) + 0.5) * height / _ROWS:
        for x in (np.arange(_COLUMNS) + 0.5) * width / _COLUMNS:
            x_at, y_at = x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5)
            column, row = math.floor(x_at + 0.5), math.floor(y_at + 0.5)
            inside = np.hypot(steps[None] - (x_at - column), steps[:, None] - (y_at - row)) <= radius
            true = truth.star(x_at, y_at, size) * inside
            true /= true.sum()
            drawn, move = _matched(model, true, inside, x_at, y_at, size)
            found["residual"].append(np.sqrt(np.sum((drawn - true) ** 2) / np.sum(true**2)))
            found["peak"].append(np.abs(drawn - true).max() / true.max())
            found["flux"].append(np.sum(drawn * true) / np.sum(drawn**2) - 1)
            found["move"].append(np.hypot(*move))
            whole = float(np.rint(x)), float(np.rint(y))
            widths = [_fwhm(p.star(*whole, size)) for p in (model, truth)]
            found["fwhm"].append(widths[0] / widths[1] - 1)
    percent = {name: 100 * np.array(values) for name, values in found.items()}
    return {
        "residual_pct": float(np.median(percent["residual"])),
        "residual_p90_pct": float(np.percentile(percent["residual"], 90)),
        "peak_pct": float(np.median(percent["peak"])),
        "fwhm_error_pct": float(np.median(np.abs(percent["fwhm"]))),
        "fwhm_bias_pct": float(np.mean(percent["fwhm"])),
        "flux_error_pct": float(np.mean(percent["flux"])),
        "flux_scatter_pct": float(np.std(percent["flux"])),
        "centre_mpix": 10 * float(np.sqrt(np.mean(percent["move"] ** 2))),
    }


def _fwhm(stamp: Any) -> float:
    """Return the diameter of the circle with the area above half the peak; the stamp is splined."""
    fine = 20
    reach = np.arange(-4 * fine, 4 * fine + 1) / fine
    while True:
        places = np.meshgrid(reach + stamp.shape[0] // 2, reach + stamp.shape[1] // 2, indexing="ij")
        values = map_coordinates(stamp, places, order=5, mode="constant")
        if values[0].max() < 0.4 * values.max() or reach[-1] > stamp.shape[0] // 2:
            break
        reach = np.arange(2 * reach[0] * fine, 2 * reach[-1] * fine + 1) / fine
    steepness = np.hypot(*np.gradient(values))
    above = np.clip((values - values.max() / 2) / np.maximum(steepness, 1e-9) + 0.5, 0, 1)
    return float(2 * np.sqrt(above.sum() / np.pi) / fine)


def _matched(model: Any, true: Any, inside: Any, x: float, y: float, size: int) -> tuple[Any, Any]:
    """Return the model, of unit sum, put where it matches best, and how far it was moved."""

    def draw(dx: float, dy: float) -> Any:
        stamp = model.star(x, y, size, dx, dy) * inside
        return stamp / stamp.sum()

    move = np.zeros(2)
    for _ in range(2):
        h = 0.02
        drawn = draw(*move)
        slopes = [
            (draw(*(move + e)) - draw(*(move - e))) / (2 * h) for e in (np.array([h, 0]), np.array([0, h]))
        ]
        basis = np.stack([drawn.ravel(), *(s.ravel() for s in slopes)], axis=1)
        move = move + np.linalg.lstsq(basis, (true - drawn).ravel(), rcond=None)[0][1:]
    return draw(*move), move


def ours(kind: str, seed: int) -> tuple[PsfModel, dict[str, float], dict[str, Any]]:
    """Extract, and return the PSF, the CPU seconds of its parts, and the stars it was made from."""
    image = ccds.load(kind, seed).image()
    spent = dict.fromkeys(_PARTS, 0.0)
    results: dict[str, Any] = {}
    kept = {name: getattr(stage, name) for name in _PARTS}

    def clocked(name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            results[name] = kept[name](*arguments, **options)
            spent[name] += time.process_time() - start
            results[f"{name} arguments"] = arguments
            return results[name]

        return call

    try:
        for name in _PARTS:
            setattr(stage, name, clocked(name))
        psf = stage.extract(image, stage.ExtractParams()).psf
    finally:
        for name, function in kept.items():
            setattr(stage, name, function)
    scene, weight = results["refine_psf arguments"][:2]
    rows = results["refine_psf"].stars
    fitted = scene.fits
    stars = {
        "x": fitted.x[rows], "y": fitted.y[rows], "flux": fitted.flux[rows],
        "variance": float(1 / np.median(weight[weight > 0])),
    }  # fmt: skip
    return psf, spent, stars


def residual_limit_pct(stars: dict[str, Any], psf: PsfModel, truth: Truth, fwhm_pix: float) -> float:
    """Return the residual that photon noise of the stars leaves, each pixel a polynomial of its own."""
    radius = _RADIUS_FWHM * fwhm_pix
    size = 2 * math.ceil(radius) + 1
    height, width = truth.shape
    profile = truth.star(width // 2, height // 2, size).ravel()
    steps = np.arange(size) - size // 2
    inside = np.hypot(steps[None], steps[:, None]).ravel() <= radius
    flux = stars["flux"][:, None]
    inverse = flux**2 / (stars["variance"] + flux * profile[None, inside])
    basis = psf_of.terms_at(psf, stars["x"], stars["y"])
    covariance = np.linalg.inv(np.einsum("np,na,nb->pab", inverse, basis, basis))
    y, x = np.mgrid[0:_ROWS, 0:_COLUMNS] + 0.5
    at = psf_of.terms_at(psf, x.ravel() * width / _COLUMNS, y.ravel() * height / _ROWS)
    variance = np.einsum("ga,pab,gb->g", at, covariance, at)
    return 100 * float(np.median(np.sqrt(variance / np.sum(profile**2))))


_SEX = {
    "DETECT_THRESH": "4", "ANALYSIS_THRESH": "4", "DETECT_MINAREA": "5", "BACK_SIZE": "128",
    "CATALOG_TYPE": "FITS_LDAC", "WEIGHT_TYPE": "MAP_WEIGHT", "WEIGHT_IMAGE": "weight.fits",
    "MAG_ZEROPOINT": "0", "VERBOSE_TYPE": "QUIET",
    "PARAMETERS_NAME": "want.param", "CATALOG_NAME": "found.ldac", "FILTER": "N",
}  # fmt: skip


def psfex(kind: str, seed: int) -> tuple[PsfexPsf, peers.Cost, peers.Cost]:
    """Run SExtractor and PSFEx (degree 2, all else as it comes), and return the model and both costs."""
    return psfex_of(ccds.load(kind, seed).image(), kind)


def psfex_of(image: ImageFrame, kind: str) -> tuple[PsfexPsf, peers.Cost, peers.Cost]:
    """Do so with an image, of stars as wide as those of a kind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fits.writeto(folder / "image.fits", image.data)
        fits.writeto(folder / "weight.fits", image.weight)
        side = 45 if kind == "fine" else 25
        want = ["X_IMAGE", "Y_IMAGE", "FLUX_APER(1)", "FLUXERR_APER(1)", "FLUX_RADIUS", "SNR_WIN",
                "ELONGATION", "FLAGS", "FLUX_MAX", f"VIGNET({side},{side})"]  # fmt: skip
        (folder / "want.param").write_text("\n".join(want))
        options = {
            **_SEX, "GAIN": str(image.gain), "SATUR_LEVEL": str(0.8 * image.saturation_e),
            "PHOT_APERTURES": "15" if kind == "fine" else "6",
        }  # fmt: skip
        command = [str(peers.program("source-extractor", "sex")), "image.fits"]
        found = peers.run_program(command + [w for k, v in options.items() for w in (f"-{k}", v)], folder)
        options = {
            "PSFVAR_DEGREES": "2", "PSF_SIZE": "45,45", "CHECKIMAGE_TYPE": "NONE", "CHECKPLOT_DEV": "NULL",
            "WRITE_XML": "N", "NTHREADS": "1", "VERBOSE_TYPE": "QUIET",
        }  # fmt: skip
        command = ["psfex", "found.ldac"]
        made = peers.run_program(command + [w for k, v in options.items() for w in (f"-{k}", v)], folder)
        return PsfexPsf(folder / "found.psf"), found, made


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Return the rows of one CCD: see `benchmarks`."""
    truth = Truth(ccds.load(kind, seed))
    fwhm_pix = truth.field.fwhm_pix
    (model, spent, stars), cost = peers.timed(ours, kind, seed)
    cost = cost._replace(cpu_s=sum(spent.values()))
    quality = compare(OurPsf(model), truth, fwhm_pix)
    quality["residual_limit_pct"] = residual_limit_pct(stars, model, truth, fwhm_pix)
    quality["n_stars"] = model.n_stars
    if peers.program("psfex") is None or peers.program("source-extractor", "sex") is None:
        return [peers.row("psf", kind, seed, cost, quality)]
    theirs, _, peer_cost = psfex(kind, seed)
    peer_quality = {**compare(theirs, truth, fwhm_pix), "n_stars": theirs.n_stars}
    return [peers.row("psf", kind, seed, cost, quality, "PSFEx", peer_cost, peer_quality)]
