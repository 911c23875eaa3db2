"""Background, detection, deblending, apertures and shapes: ours, sep and SExtractor on the same pixels.

Peers search with a Gaussian of the true seeing, at the threshold where it has 4 sigma. Completeness of ours
is also told at each peer's purity: there the two can be compared.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sep
from astropy.io import fits

from benchmarks import ccds
from benchmarks.peers import Cost, program, row, run_program, timed
from benchmarks.source_truth import Truth, at_purity, background_quality, score, truth_of
from seechange_core.frames import ImageFrame
from seechange_core.numerics.aperture import adaptive_moments, sum_circles
from seechange_core.numerics.background import level_map
from seechange_core.numerics.flag_sums import flags_within
from seechange_core.stages.extract import ExtractParams, detect, extract

Float = npt.NDArray[np.float64]

_STEP = "background, detection, shapes"
_RADII_FWHM = (1.0, 2.0, 3.0, 5.0)
_PEER_SIGMA = 4.0
_PEER_AREA = 3
_RIM_PIX = 8.0
#: Ours is searched this deep to be cut at a peer's purity.
_DEEP_SIGMA = 3.75
_COLUMNS = (
    "XWIN_IMAGE", "YWIN_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO", "FLUX_APER(4)", "FLUXERR_APER(4)", "FLAGS",
    "A_IMAGE", "B_IMAGE", "THETA_IMAGE", "FLUX_MAX", "FWHM_IMAGE", "CLASS_STAR",
)  # fmt: skip


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Measure one CCD."""
    ccd = ccds.load(kind, seed)
    image = ccd.image()
    truth = truth_of(ccd, image)
    cost = timed(ours, image, _RADII_FWHM)[1]
    deepest = extract(image, ExtractParams(detection_sigma=_DEEP_SIGMA)).sources
    deep = (deepest.x, deepest.y, deepest.snr)
    whole = extract(image, ExtractParams())
    quality = _quality(truth, whole.sources.x, whole.sources.y, level_map(whole.background))
    found = []
    for name, peer in (("sep", _sep), ("SExtractor", _sextractor)):
        measured = peer(image, truth)
        if measured is None:
            continue
        x, y, level, theirs = measured
        their_quality = _quality(truth, x, y, level)
        inside = _inside(deep[0], deep[1], truth)
        kept = at_purity(truth, *(column[inside] for column in deep), their_quality["purity"])
        cut = score(truth, *(column[inside][kept] for column in deep[:2]))
        same = {f"{k}_at_its_purity": v for k, v in cut.items() if k.startswith("complete")}
        found.append(row(_STEP, kind, seed, cost, {**quality, **same}, name, theirs, their_quality))
    return found or [row(_STEP, kind, seed, cost, quality)]


def ours(image: ImageFrame, radii_fwhm: tuple[float, ...]) -> int:
    """Do with our bricks what the peers do; return the number of sources."""
    field, peaks, _ = detect(image, ExtractParams())
    fwhm = float(np.median(peaks.fwhm_pix))
    adaptive_moments(field.data, field.weight, peaks.x, peaks.y, fwhm, max_shift_pix=0.5 * fwhm)
    sum_circles(field.data, field.weight, peaks.x, peaks.y, fwhm * np.array(radii_fwhm))
    flags_within(image.flags, peaks.x, peaks.y, fwhm)
    return len(peaks)


def _inside(x: Float, y: Float, truth: Truth) -> npt.NDArray[np.bool_]:
    """Return what is not at the rim, where sources beyond it are seen that the truth does not list."""
    height, width = truth.sky.shape
    return np.minimum.reduce([x, y, width - 1 - x, height - 1 - y]) >= _RIM_PIX


def _quality(truth: Truth, x: Float, y: Float, level: npt.NDArray[np.float32]) -> dict[str, float]:
    inside = _inside(x, y, truth)
    return {**score(truth, x[inside], y[inside]), **background_quality(truth, level)}


def _kernel(fwhm_pix: float) -> Float:
    half = int(np.ceil(2 * fwhm_pix / 2.3548))
    taps = np.exp(-0.5 * (np.arange(-half, half + 1) * 2.3548 / fwhm_pix) ** 2)
    kernel: Float = np.outer(taps, taps) / taps.sum() ** 2
    return kernel


def _threshold(kernel: Float) -> float:
    """Return the threshold in sigmas of single pixels, as both peers want it."""
    return float(_PEER_SIGMA * np.sqrt(np.sum(kernel**2)))


def sep_sources(
    data: npt.NDArray[np.float32], bad: npt.NDArray[np.bool_], fwhm: float
) -> tuple[Float, Float, npt.NDArray[np.float32]]:
    """Run sep: background, extraction, windowed centroids, apertures, Kron fluxes."""
    sep.set_extract_pixstack(4_000_000)
    sky = sep.Background(data, mask=bad, bw=64, bh=64)
    left, kernel = data - sky.back(), _kernel(fwhm)
    found = sep.extract(
        left, _threshold(kernel), err=sky.rms(), mask=bad, minarea=_PEER_AREA, filter_kernel=kernel,
        filter_type="conv", deblend_nthresh=32, deblend_cont=0.005,
    )  # fmt: skip
    half, _ = sep.flux_radius(left, found["x"], found["y"], 6 * found["a"], 0.5, mask=bad, subpix=5)
    x, y, _ = sep.winpos(left, found["x"], found["y"], 2 / 2.3548 * half, mask=bad)
    for radius in _RADII_FWHM:
        sep.sum_circle(left, found["x"], found["y"], radius * fwhm, err=sky.rms(), mask=bad)
    return x, y, sky.back()


def _sep(image: ImageFrame, truth: Truth) -> tuple[Float, Float, npt.NDArray[np.float32], Cost]:
    data = np.where(np.isfinite(image.data), image.data, np.float32(0))
    found, cost = timed(sep_sources, data, image.weight <= 0, truth.fwhm_pix)
    return *found, cost


def _sextractor(image: ImageFrame, truth: Truth) -> tuple[Float, Float, npt.NDArray[np.float32], Cost] | None:
    path = program("source-extractor", "sex")
    if path is None:
        return None
    kernel = _kernel(truth.fwhm_pix)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fits.writeto(folder / "image.fits", np.where(np.isfinite(image.data), image.data, np.float32(0)))
        fits.writeto(folder / "weight.fits", image.weight)
        (folder / "columns").write_text("\n".join(_COLUMNS) + "\n")
        lines = [" ".join(f"{value:.6f}" for value in line) for line in kernel]
        (folder / "kernel").write_text("\n".join(["CONV NORM", *lines]) + "\n")
        (folder / "empty.sex").write_text("")
        options = {
            "PARAMETERS_NAME": "columns", "FILTER_NAME": "kernel", "CATALOG_NAME": "found.fits",
            "CATALOG_TYPE": "FITS_1.0", "STARNNW_NAME": _star_network(), "WEIGHT_TYPE": "MAP_WEIGHT",
            "WEIGHT_IMAGE": "weight.fits", "DETECT_THRESH": _threshold(kernel), "DETECT_MINAREA": _PEER_AREA,
            "PHOT_APERTURES": ",".join(f"{2 * r * truth.fwhm_pix:.3f}" for r in _RADII_FWHM),
            "SATUR_LEVEL": image.saturation_e, "GAIN": image.gain, "BACK_SIZE": 64, "NTHREADS": 1,
            "MEMORY_PIXSTACK": 4_000_000, "CHECKIMAGE_TYPE": "BACKGROUND", "CHECKIMAGE_NAME": "sky.fits",
            "VERBOSE_TYPE": "QUIET",
        }  # fmt: skip
        words = [word for key, value in options.items() for word in (f"-{key}", str(value))]
        cost = run_program([path, "image.fits", "-c", "empty.sex", *words], folder)
        found = fits.getdata(folder / "found.fits")
        x, y = (np.asarray(found[name], float) - 1 for name in ("XWIN_IMAGE", "YWIN_IMAGE"))
        return x, y, np.asarray(fits.getdata(folder / "sky.fits"), np.float32), cost


def _star_network() -> str:
    """Return where the program keeps the network that its CLASS_STAR needs."""
    places = (
        Path("/usr/share/source-extractor"),
        Path("/usr/share/sextractor"),
        Path("/usr/local/share/sextractor"),
    )
    return str(next((p / "default.nnw" for p in places if (p / "default.nnw").exists()), "default.nnw"))
