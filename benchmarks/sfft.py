"""SFFT (Hu et al. 2022, ApJ 936, 157) as a peer of the subtraction, on a CPU, where its package is installed.

A kernel of free pixels is fitted in Fourier space and applied to the sharper image: the package's own
customized subtraction and its own choice of the kernel's half-width (two FWHM of the wider image), fitted on
discs around stars that are good in both. In tiles of 1024 pixels with a kernel that is linear in x and y: at
once, a CCD takes 12 GB. SFFT leaves a difference; the score is the best filter for the noise that its kernel
leaves, ``conj(P_d) / (s_j^2 + s_i^2 |K|^2)``, with every pixel's own variance, as the other peers have it.
The reference is SWarped, background and weights are our pipeline's.
"""

import importlib.util
from typing import Any

import numpy as np
from scipy.fft import irfft2, rfft2
from scipy.ndimage import binary_dilation

from benchmarks import pairs
from benchmarks.change_truth import judge, truth_of
from benchmarks.peers import Cost, row, timed
from benchmarks.swarp import swarp
from benchmarks.zogy_peers import Inputs, plane_of
from seechange_core.flags import UNUSABLE
from seechange_core.frames import Bool, Float32
from seechange_core.numerics.background import level_map
from seechange_core.numerics.peaks import local_maxima
from seechange_core.numerics.stats import mad_sigma

_TILE_PIX, _OVERLAP_PIX = 1024, 40
_DEGREE = 1
_STAR_SIGMA = 20.0
_DISC_FWHM = 3.0
#: Fluxes of stars in both images agree to this.
_SAME_FLUX = 0.2


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Measure one CCD; no rows where SFFT or SWarp is not installed."""
    if importlib.util.find_spec("sfft") is None:
        return []
    pair = pairs.load(kind, seed)
    reference = pair.reference()
    frame = reference.image
    weight = np.where(frame.flags & np.uint16(UNUSABLE), np.float32(0), frame.weight)
    found = []
    for order in pairs.ORDERS:
        new = pair.new(order)
        warped = swarp(frame.data - level_map(reference.background), weight, reference.wcs, new.wcs)
        if warped is None:
            return []
        given = Inputs(new, reference, warped)
        score, cost = timed(sfft, given, (new.psf.fwhm_pix, reference.psf.fwhm_pix))
        score[given.bad] = 0
        truth = truth_of(pair, order, new.image, new.psf.size)
        theirs = Cost(cost.cpu_s + given.cost.cpu_s, max(cost.mb, given.cost.mb))
        quality = judge(truth, score, None, None)
        found.append(row(f"subtraction, new {order}", kind, seed, None, {}, "SFFT", theirs, quality))
    return found


def sfft(given: Inputs, fwhm_pix: tuple[float, float]) -> Float32:
    """Return the score, (H, W).

    Parameters
    ----------
    given
        Both images.
    fwhm_pix
        Of the new image and the reference.
    """
    kept = _stars(given, max(fwhm_pix))
    half = int(np.clip(int(2 * max(fwhm_pix)), 2, 20))
    score = np.zeros(given.new.shape, np.float32)
    height, width = score.shape
    for top in range(0, height, _TILE_PIX):
        for left in range(0, width, _TILE_PIX):
            planes = [
                _around(p, top, left)
                for p in (given.new, given.ref, given.new_variance, given.ref_variance, kept)
            ]
            tile = _tile(planes, given.new_psf, convolve_new=fwhm_pix[0] < fwhm_pix[1], half=half)
            target = score[top : top + _TILE_PIX, left : left + _TILE_PIX]
            inner = slice(_OVERLAP_PIX, _OVERLAP_PIX + _TILE_PIX)
            target[:] = tile[inner, inner][: target.shape[0], : target.shape[1]]
    return score


def _around(plane: Any, top: int, left: int) -> Any:
    """Return a tile with what is around it, 0 beyond the image."""
    side = _TILE_PIX + 2 * _OVERLAP_PIX
    padded = np.zeros((side, side), plane.dtype)
    y, x = max(top - _OVERLAP_PIX, 0), max(left - _OVERLAP_PIX, 0)
    part = plane[y : top + _TILE_PIX + _OVERLAP_PIX, x : left + _TILE_PIX + _OVERLAP_PIX]
    y, x = y - top + _OVERLAP_PIX, x - left + _OVERLAP_PIX
    padded[y : y + part.shape[0], x : x + part.shape[1]] = part
    return padded


def _stars(given: Inputs, fwhm_pix: float) -> Bool:
    """Return discs around what is bright, good and alike in both images."""
    radius = int(np.ceil(_DISC_FWHM * fwhm_pix))
    noise = float(mad_sigma(given.new[::3, ::3][given.new[::3, ::3] != 0]))
    peaks = local_maxima(given.new, _STAR_SIGMA * noise, border=radius + 1)
    boxes = [
        (slice(y - radius, y + radius + 1), slice(x - radius, x + radius + 1))
        for y, x in zip(peaks.y, peaks.x, strict=True)
    ]
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = np.hypot(dx, dy) <= radius
    fluxes = np.array([[np.sum(image[box][disc]) for image in (given.new, given.ref)] for box in boxes])
    good = np.array([not given.bad[box][disc].any() for box in boxes])
    ratio = fluxes[:, 0] / np.where(fluxes[:, 1] > 0, fluxes[:, 1], np.inf)
    good &= np.abs(ratio - np.median(ratio[good])) < _SAME_FLUX
    kept = np.zeros(given.new.shape, bool)
    for box, of in zip(boxes, good, strict=True):
        if of:
            kept[box] |= disc
    return kept & ~binary_dilation(given.bad)


def _tile(planes: list[Any], psf: Float32, *, convolve_new: bool, half: int) -> Float32:
    # Of the extra `bench`: only who measures this peer needs it.
    from sfft.sfftcore.SFFTConfigure import SingleSFFTConfigure  # noqa: PLC0415
    from sfft.sfftcore.SFFTSubtract import GeneralSFFTSubtract  # noqa: PLC0415
    from sfft.utils.SFFTSolutionReader import Realize_MatchingKernel  # noqa: PLC0415

    new, ref, new_variance, ref_variance, kept = planes
    convolved, other = (new, ref) if convolve_new else (ref, new)
    shape = other.shape
    cpu = {"BACKEND_4SUBTRACT": "Numpy", "NUM_CPU_THREADS_4SUBTRACT": 1, "VERBOSE_LEVEL": 0}
    config = SingleSFFTConfigure.SSC(
        NX=shape[0], NY=shape[1], KerHW=half, KerPolyOrder=_DEGREE, BGPolyOrder=0, ConstPhotRatio=False, **cpu
    )
    solution, difference, _ = GeneralSFFTSubtract.GSS(
        PixA_I=convolved.astype(float), PixA_J=other.astype(float), PixA_mI=np.where(kept, convolved, 0.0),
        PixA_mJ=np.where(kept, other, 0.0), SFFTConfig=config, **cpu,
    )  # fmt: skip
    keys = {name: config[0][name] for name in ("N0", "N1", "L0", "L1", "DK", "Fpq")}
    middle = np.array([[shape[0] / 2, shape[1] / 2]])
    kernel = Realize_MatchingKernel(middle).FromArray(Solution=solution, **keys)[0]
    K = rfft2(np.roll(np.pad(kernel, [(0, n - kernel.shape[0]) for n in shape]), (-half, -half), (0, 1)))
    P, sign = rfft2(plane_of(psf, shape)), 1.0
    if convolve_new:
        P, sign = P * K, -1.0
    variances = (new_variance, ref_variance) if convolve_new else (ref_variance, new_variance)
    usual = [float(np.median(v[v > 0])) for v in variances]
    k_J = P.conj() / (usual[1] + usual[0] * np.abs(K) ** 2)
    signal = irfft2(rfft2(sign * difference) * k_J, shape)
    variance = irfft2(
        rfft2(variances[1]) * rfft2(irfft2(k_J, shape) ** 2)
        + rfft2(variances[0]) * rfft2(irfft2(k_J * K, shape) ** 2),
        shape,
    )
    return np.asarray(signal / np.sqrt(np.maximum(variance, 1e-6 * np.median(variance))), np.float32)
