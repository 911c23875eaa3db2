"""What is true of a pair's changes, how well they can be seen at all, and how well a subtraction shows them.

The limit is the *perfect subtraction*: the new image as our pipeline made it, minus the noiseless static sky
that it shows and the level of each block of 256 pixels, filtered with the true PSF and the true variance of
every pixel; only pixels that are truly bad, full, bled on or changed by a cosmic ray by more than their noise
are left out. A transient's *expected S/N* is that filter's, with no pixel left out: so those on masked pixels
and on star cores stay in every denominator. Only where none of the reference's exposures reached is nothing
counted: there is nothing to subtract.

Every peak or trough beyond the threshold is false, but one peak for each transient: the highest one next to
it. So a second peak of a transient is false, a trough beside one is, and so is what lies next to a transient
that is too faint to be seen. The truth is in electrons of a flat-fielded pixel, and so are our images: stars
of 2000-20000 e a pixel agree to 2e-4, so that nothing is scaled by a measured zero point.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from astropy.table import Table, vstack
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.spatial import cKDTree

from benchmarks.pairs import N_REFERENCE, ORDERS, Pair
from benchmarks.static_sky import BLOCK_PIX, Exposed, blocks, without_static
from seechange_core.frames import ImageFrame
from seechange_core.numerics.peaks import local_maxima, merge_close
from seechange_core.simulate import Observation, PsfField

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]

THRESHOLD = 5.0
#: A peak this close to a change may be of it; one farther away is false.
FALSE_FWHM = 2.0
#: What is fainter than this excuses nothing: noise lifts it over the threshold once in a thousand times.
_FAINTEST_SNR = 2.0
#: A change is seen if the score is beyond the threshold this close to it.
_SEEN_FWHM = 0.5
_SEEN_PIX = 1.5


@dataclass(frozen=True, eq=False)
class Truth:
    """The changes of a new image and what can be known of them.

    Attributes
    ----------
    x, y, flux_e, snr, place
        (n,) transients on the section: pixels; electrons within the PSF model's stamp; expected S/N.
    all_x, all_y
        Everything that changes visibly or moves: beyond the section's rim, and where no reference is, too.
    exposed
        The new image without the static sky. Its bad pixels are those that are truly bad, full, bled on or
        hit by a cosmic ray, or not on any of the reference's exposures.
    limit
        (H, W) float32: the score of the perfect subtraction, 0 where it has none.
    fwhm_pix
        Of the PSF in the middle.
    """

    x: Float
    y: Float
    flux_e: Float
    snr: Float
    place: npt.NDArray[np.str_]
    all_x: Float
    all_y: Float
    exposed: Exposed
    limit: Float32
    fwhm_pix: float

    @property
    def bad(self) -> Bool:
        """Pixels that no method can use."""
        return self.exposed.bad

    @property
    def blank(self) -> Bool:
        """Good pixels far from all light."""
        return self.exposed.blank


def truth_of(pair: Pair, order: str, image: ImageFrame, psf_size: int, added: Table | None = None) -> Truth:
    """Return what is true of a new image.

    Parameters
    ----------
    pair, order
        Which.
    image
        It.
    psf_size
        Side of the PSF model's stamp: its fluxes are the light within.
    added
        What the image shows besides: x, y, flux_e, id, place.
    """
    index = N_REFERENCE + ORDERS.index(order)
    camera, section = pair.world.camera, pair.section
    observation = pair.world.observations[index].under(camera, section)
    covered = _covered(pair, observation)
    exposed = without_static(pair, index, image, pair.static(order), ~covered)
    field, offset, weight = exposed.field, exposed.offset, exposed.weight
    signal, information = matched(exposed.left, np.where(exposed.bad, 0, weight), field, offset)
    _, whole = matched(None, weight, field, offset)
    rows = pair.transients(order)
    if added is not None:
        rows = vstack([rows["x", "y", "flux_e", "id", "place"], added], join_type="inner")
    x, y = (np.asarray(rows[name], float) for name in ("x", "y"))
    flux = np.asarray(rows["flux_e"]) * _enclosed(field, x + offset[0], y + offset[1], psf_size // 2)
    i, j = (
        np.clip(np.rint(a).astype(int), 0, n - 1) for a, n in ((x, covered.shape[1]), (y, covered.shape[0]))
    )
    snr = np.where(covered[j, i], np.asarray(rows["flux_e"]) * np.sqrt(whole[j, i]), np.nan)
    seen = information > 1e-3 * np.median(information)
    limit = np.where(seen, signal / np.sqrt(np.where(seen, information, 1)), 0).astype(np.float32)
    all_x, all_y = _changes(pair, observation, np.asarray(rows["id"])[snr < _FAINTEST_SNR])
    if added is not None:
        all_x, all_y = np.r_[all_x, added["x"]], np.r_[all_y, added["y"]]
    fwhm = float(field.shape_at(*camera.section_offset(section))[0])
    place = np.asarray(rows["place"], str)
    on = np.isfinite(snr)
    return Truth(x[on], y[on], flux[on], snr[on], place[on], all_x, all_y, exposed, limit, fwhm)


def _covered(pair: Pair, observation: Observation) -> Bool:
    """Tell which pixels at least one of the reference's exposures has seen (on a grid of 8 pixels)."""
    camera, section = pair.world.camera, pair.section
    height, width = camera.shape
    x, y = np.meshgrid(np.arange(3.5, width, 8), np.arange(3.5, height, 8))
    ra, dec = observation.sky_map(camera, section).to_sky(x.ravel(), y.ravel())
    seen = np.zeros(x.size, bool)
    for before in pair.world.observations[:N_REFERENCE]:
        px, py = before.under(camera, section).sky_map(camera, section).to_pixels(ra, dec)
        seen |= (px >= 0) & (px <= width - 1) & (py >= 0) & (py <= height - 1)
    return np.asarray(np.repeat(np.repeat(seen.reshape(x.shape), 8, 0), 8, 1)[:height, :width], bool)


def _changes(pair: Pair, observation: Observation, invisible: Int) -> tuple[Float, Float]:
    """Return where everything but some objects that changes or moves lies, beyond the rim too."""
    sky = pair.world.sky
    ra, dec = sky.positions(observation.mjd_mid)
    changing = np.isin(sky.objects["kind"], ("transient", "variable", "asteroid"))
    changing &= ~np.isin(sky.objects["id"], invisible)
    sky_map = observation.sky_map(pair.world.camera, pair.section)
    x, y = sky_map.to_pixels(np.asarray(ra)[changing], np.asarray(dec)[changing])
    return np.asarray(x), np.asarray(y)


def _enclosed(field: PsfField, x: Float, y: Float, radius_pix: float) -> Float:
    """Return the share of a star's light within a radius, at places of the focal plane."""
    fwhm, _, _ = field.shape_at(x, y)
    grid = np.linspace(fwhm.min(), fwhm.max() + 1e-6, 7)
    return np.interp(fwhm, grid, [replace(field, fwhm_pix=f).enclosed(radius_pix) for f in grid])


def matched(
    data: Float | None, weight: Float32, field: PsfField, offset: tuple[float, float]
) -> tuple[Float32, Float32]:
    """Return ``sum(P w d)`` and ``sum(P^2 w)`` around every pixel, the PSF being each block's own.

    Parameters
    ----------
    data, weight
        (H, W); the first sum is 0 without data.
    field, offset
        PSF over the focal plane, and what leads from pixels to it.
    """
    height, width = weight.shape
    half = int(np.ceil(4 * field.fwhm_pix))
    side = next_fast_len(BLOCK_PIX + 2 * half, real=True)
    padded = [np.pad(a, half) for a in ([weight] if data is None else [weight, weight * data])]
    sums = [np.zeros((height, width), np.float32) for _ in range(2)]
    for top, left in blocks(height, width):
        middle = left + BLOCK_PIX / 2 + offset[0], top + BLOCK_PIX / 2 + offset[1]
        stamp = field.stamp(*middle, 2 * half + 1)
        for plane, out, kernel in zip(padded, reversed(sums), (stamp**2, stamp), strict=False):
            patch = plane[top : top + BLOCK_PIX + 2 * half, left : left + BLOCK_PIX + 2 * half]
            # Correlation: the spectrum of the kernel, conjugated.
            found = irfft2(rfft2(patch, (side, side)) * rfft2(kernel, (side, side)).conj(), (side, side))
            target = out[top : top + BLOCK_PIX, left : left + BLOCK_PIX]
            target[:] = found[: target.shape[0], : target.shape[1]]
    return sums[0], sums[1]


def peak_scores(truth: Truth, score: Float32) -> Float:
    """Return the highest score next to each transient."""
    radius = max(_SEEN_PIX, _SEEN_FWHM * truth.fwhm_pix)
    reach = int(np.ceil(radius))
    padded = np.pad(score, reach + 1)
    found = np.zeros(len(truth.x))
    for k, (x, y) in enumerate(zip(truth.x, truth.y, strict=True)):
        i, j = round(x), round(y)
        box = padded[j + 1 : j + 2 * reach + 2, i + 1 : i + 2 * reach + 2]
        dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        found[k] = box[np.hypot(dx + i - x, dy + j - y) <= radius].max(initial=0)
    return found


def false_ones(truth: Truth, x: Float, y: Float, score: Float) -> Bool:
    """Tell which detections are of nothing that changed: all but the highest one next to each change."""
    false = np.ones(len(x), bool)
    if len(x) and len(truth.all_x):
        distance, of = cKDTree(np.c_[truth.all_x, truth.all_y]).query(np.c_[x, y])
        near = np.flatnonzero((distance <= FALSE_FWHM * truth.fwhm_pix) & (score > 0))
        near = near[np.argsort(-score[near], kind="stable")]
        false[near[np.unique(of[near], return_index=True)[1]]] = False
    return false


def false_peaks(truth: Truth, score: Float32, sign: int) -> tuple[Float, Float, Float]:
    """Return x, y and value of one sign's peaks beyond the threshold that are of nothing that changed."""
    peaks = local_maxima(np.asarray(sign * score, np.float32), THRESHOLD)
    peaks = peaks.select(merge_close(peaks.y, peaks.x, truth.fwhm_pix))
    x, y, value = peaks.x.astype(float), peaks.y.astype(float), sign * peaks.value
    false = false_ones(truth, x, y, value)
    return x[false], y[false], value[false]


def judge(
    truth: Truth, score: Float32, difference: Float32 | None, weight: Float32 | None
) -> dict[str, float]:
    """Return completeness, false peaks, noise in blank sky and what is masked, of a score image.

    Parameters
    ----------
    score
        (H, W), 0 where there is none.
    difference, weight
        (H, W), if known.
    """
    expected = truth.snr > THRESHOLD
    blank = truth.blank & (score != 0)
    quality = {
        "n": float(np.count_nonzero(expected)),
        "complete_percent": 100 * float(np.mean(peak_scores(truth, score)[expected] > THRESHOLD)),
        "false_positive": float(len(false_peaks(truth, score, 1)[0])),
        "false_negative": float(len(false_peaks(truth, score, -1)[0])),
        "score_std": float(np.std(score[blank])),
        "masked_good_percent": 100 * float(np.mean((score == 0) & ~truth.bad)),
    }
    if difference is not None and weight is not None:
        usable = truth.blank & (weight > 0)
        quality["difference_std"] = float(np.std(difference[usable] * np.sqrt(weight[usable])))
    return quality
