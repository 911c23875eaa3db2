"""How good a list of sources is, against the objects that were simulated."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from benchmarks.ccds import Ccd
from seechange_core.frames import ImageFrame
from seechange_core.simulate.truth import true_sky_e

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

#: Of the true S/N.
BINS = ((5, 7), (7, 10), (10, 20), (20, 1e9))
#: A detection of an object this faint is no false one.
_FAINTEST_SNR = 2.0
_STAMP_FWHM = 5.0
_ISOLATED_FWHM = 5.0
_RIM_PIX = 8.0


@dataclass(frozen=True, eq=False)
class Truth:
    """The objects of a CCD, and what can be known of them.

    Attributes
    ----------
    x, y, snr
        (n,) pixels; the S/N of the optimal fit of the PSF at that place, its neighbours' photons included.
    counted
        Which make completeness: neither saturated nor on a bad pixel nor at the rim.
    alone
        Stars of those without a neighbour of a hundredth of their light within 5 FWHM.
    x_limit, y_limit
        Cramer-Rao errors of the position of those alone, pixels, NaN of others.
    sky, rms
        (H, W) the expected sky without any source, and the noise per pixel, electrons.
    fwhm_pix
        Of the PSF in the middle of the CCD.
    """

    x: Float
    y: Float
    snr: Float
    counted: Bool
    alone: Bool
    x_limit: Float
    y_limit: Float
    sky: npt.NDArray[np.float32]
    rms: float
    fwhm_pix: float


def truth_of(ccd: Ccd, image: ImageFrame) -> Truth:
    """Return what is true of a CCD's sources and sky."""
    camera, observation = ccd.world.camera, ccd.world.observations[0].under(ccd.world.camera, ccd.section)
    sky = true_sky_e(camera, ccd.world.observations[0], ccd.section)
    noise = 1 / float(np.median(image.weight[image.weight > 0]))
    variance = noise + np.maximum(ccd.expected() - sky, 0) / image.gain
    psf, (dx, dy) = observation.psf_field(camera), camera.focal_offset(ccd.section)
    fwhm = float(ccd.summary["seeing_fwhm_pix"])
    x, y, flux = (np.asarray(ccd.truth[name], float) for name in ("x", "y", "flux_e"))
    size = 2 * int(np.ceil(_STAMP_FWHM * fwhm / 2)) + 1
    rim = np.minimum.reduce([x, y, sky.shape[1] - 1 - x, sky.shape[0] - 1 - y]) < _RIM_PIX
    counted = ~(np.asarray(ccd.truth["saturated"]) | np.asarray(ccd.truth["on_masked"]) | rim)
    alone = counted & (np.asarray(ccd.truth["kind"]) == "star") & _isolated(x, y, flux, _ISOLATED_FWHM * fwhm)
    padded = np.pad(variance, size, constant_values=noise)
    snr, limits = np.zeros(len(x)), np.full((2, len(x)), np.nan)
    for k in range(len(x)):
        i, j = round(x[k]), round(y[k])
        box = padded[j + size - size // 2 :, i + size - size // 2 :][:size, :size]

        def stamp(ox: float, oy: float, k: int = k, i: int = i, j: int = j) -> Float:
            return psf.stamp(x[k] + dx, y[k] + dy, size, x[k] - i + ox, y[k] - j + oy)

        snr[k] = flux[k] * np.sqrt(np.sum(stamp(0, 0) ** 2 / box))
        if alone[k]:
            for axis, (sx, sy) in enumerate(((0.05, 0), (0, 0.05))):
                slope = flux[k] * (stamp(sx, sy) - stamp(-sx, -sy)) / 0.1
                limits[axis, k] = 1 / np.sqrt(np.sum(slope**2 / box))
    return Truth(x, y, snr, counted, alone, *limits, sky.astype(np.float32), float(np.sqrt(noise)), fwhm)


def _isolated(x: Float, y: Float, flux: Float, radius: float) -> Bool:
    alone = np.ones(len(x), bool)
    for a, b in cKDTree(np.c_[x, y]).query_pairs(radius):
        alone[a] &= flux[b] < 0.01 * flux[a]
        alone[b] &= flux[a] < 0.01 * flux[b]
    return alone


def match(truth: Truth, x: Float, y: Float) -> npt.NDArray[np.int64]:
    """Return each true object's detection, -1 for none: within a FWHM, one to one, the brightest first."""
    found = np.full(len(truth.x), -1)
    if not len(x):
        return found
    close = cKDTree(np.c_[x, y]).query_ball_point(np.c_[truth.x, truth.y], truth.fwhm_pix)
    taken = np.zeros(len(x), bool)
    for k in np.argsort(-truth.snr, kind="stable"):
        free = [c for c in close[k] if not taken[c]]
        if truth.snr[k] >= _FAINTEST_SNR and free:
            best = min(free, key=lambda c: (x[c] - truth.x[k]) ** 2 + (y[c] - truth.y[k]) ** 2)
            found[k] = best
            taken[best] = True
    return found


def bin_name(low: float, high: float) -> str:
    """Name a bin of S/N."""
    return f"snr{low:g}_{high:g}" if high < 1e9 else f"snr{low:g}_up"


def score(truth: Truth, x: Float, y: Float) -> dict[str, float]:
    """Return completeness in bins of true S/N, purity, and centroid errors in units of Cramer-Rao's."""
    found = match(truth, x, y)
    quality = {"purity": float(np.count_nonzero(found >= 0) / max(len(x), 1))}
    for low, high in BINS:
        inside = (truth.snr >= low) & (truth.snr < high)
        counted = inside & truth.counted
        quality[f"complete_{bin_name(low, high)}"] = float(np.mean(found[counted] >= 0))
        alone = inside & truth.alone & (found >= 0)
        if np.count_nonzero(alone) >= 20:
            off = [
                (x[found[alone]] - truth.x[alone]) / truth.x_limit[alone],
                (y[found[alone]] - truth.y[alone]) / truth.y_limit[alone],
            ]
            spread = 1.4826 * np.median(
                np.abs(np.concatenate(off) - np.median(off, axis=1).repeat(alone.sum()))
            )
            quality[f"centroid_{bin_name(low, high)}_cramer_rao"] = float(spread)
    return quality


def at_purity(truth: Truth, x: Float, y: Float, rank: Float, purity: float) -> Bool:
    """Return the longest list of the highest-ranked detections that is as pure as asked.

    Parameters
    ----------
    rank
        (n,) what to sort by, the most certain highest.
    """
    found = match(truth, x, y)
    true = np.zeros(len(x), bool)
    true[found[found >= 0]] = True
    order = np.argsort(-rank, kind="stable")
    share = np.cumsum(true[order]) / np.arange(1, len(x) + 1)
    longest = np.flatnonzero(share >= purity)
    kept = np.zeros(len(x), bool)
    if longest.size:
        kept[order[: longest[-1] + 1]] = True
    return kept


def background_quality(truth: Truth, level: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return how far a sky level is from the sky without sources, in per cent of the noise per pixel."""
    off = (level - truth.sky) / truth.rms * 100
    return {
        "background_bias_percent_of_rms": float(np.median(off)),
        "background_scatter_percent_of_rms": float(np.std(off)),
    }
