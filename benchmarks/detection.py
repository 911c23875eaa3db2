"""Finding, cutting out and measuring what changed, and forcing fluxes: what it costs, photutils beside it.

Forced: at 1000 quiet places of the difference, half of them blank sky, whose true flux is 0, half with a star
of S/N 3-100 as the difference's PSF shows it, with its photons' noise. Both get the same difference, weights
and PSF, so that this compares fits (`subtraction` has the fluxes of true transients); ``mean_sigma`` is the
mean pull and ``width`` its scatter (from the median absolute deviation), of the blank places and of the rest.
"""

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from astropy.nddata import NDData
from astropy.table import QTable

from benchmarks import pairs
from benchmarks.peers import row, timed
from seechange_core.flags import UNUSABLE
from seechange_core.frames import CalibratedImage, Detections, SubtractionFrame
from seechange_core.numerics.psf import evaluate, shift
from seechange_core.stages.cut import CutParams, cut
from seechange_core.stages.detect import DetectParams, detect
from seechange_core.stages.force import ForceParams, force
from seechange_core.stages.measure import MeasureParams, measure
from seechange_core.stages.subtract import SubtractParams, subtract

Float = npt.NDArray[np.float64]

N_FORCED = 1000


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Measure one CCD."""
    pair = pairs.load(kind, seed)
    new = pair.new("worse")
    sub = subtract(new, [pair.reference()], SubtractParams())
    found, detection = timed(_detect, sub)
    _, measurement = timed(_measure, new, sub, found)
    sample = _sample(sub, np.random.default_rng([seed, 5]))
    fluxes, cost = timed(our_forced, sample)
    theirs, their_cost = timed(photutils_forced, sample, warm=False)
    return [
        row("detection", kind, seed, detection, {"n": float(len(found))}),
        row("cutouts, measurement", kind, seed, measurement, {"n": float(len(found))}),
        row(
            f"forced fluxes of {N_FORCED}", kind, seed, cost, _figures(sample, *fluxes),
            "photutils", their_cost, _figures(sample, *theirs),
        ),
    ]  # fmt: skip


class Sample(NamedTuple):
    """A difference with places of known flux."""

    sub: SubtractionFrame
    data: npt.NDArray[np.float32]
    x: Float
    y: Float
    flux_e: Float


def _detect(sub: SubtractionFrame) -> Detections:
    return detect(sub, DetectParams())


def _measure(new: CalibratedImage, sub: SubtractionFrame, found: Detections) -> int:
    stamps = cut(new, sub, found, CutParams())
    return len(measure(stamps, found, sub.psf, MeasureParams(), gain=sub.image.gain))


def _sample(sub: SubtractionFrame, rng: np.random.Generator) -> Sample:
    """Choose places where the score is quiet, and add to half of them what the difference shows of a star."""
    height, width = sub.score.shape
    step = int(max(5 * sub.psf.fwhm_pix, 24))
    half = sub.psf.size // 2
    reach = math.ceil(2 * sub.psf.fwhm_pix) + 1
    places = [
        (i, j)
        for j in range(half + step, height - half - step, step)
        for i in range(half + step, width - half - step, step)
    ]
    rng.shuffle(places)
    data = sub.image.data.copy()
    usual = np.median(sub.image.weight[sub.image.weight > 0])
    kept: list[tuple[float, float, float]] = []
    for i, j in places:
        box = slice(j - reach, j + reach + 1), slice(i - reach, i + reach + 1)
        if np.abs(sub.score[box]).max() > 4 or np.abs(sub.image.weight[box] / usual - 1).max() > 0.3:
            continue
        dx, dy = rng.uniform(-0.5, 0.5, 2)
        flux = 0.0
        if len(kept) % 2:
            flux = _draw(sub, data, i, j, (dx, dy), rng)
        kept.append((i + dx, j + dy, flux))
        if len(kept) == N_FORCED:
            break
    x, y, flux_e = np.array(kept).T
    return Sample(sub, data, x, y, flux_e)


def _draw(
    sub: SubtractionFrame, data: npt.NDArray[np.float32], i: int, j: int, off: tuple[float, float],
    rng: np.random.Generator,
) -> float:  # fmt: skip
    """Add a star with its photon noise, in place; return its flux."""
    stamp = shift(
        evaluate(sub.psf, np.array([i + off[0]]), np.array([j + off[1]])), *(np.array([o]) for o in off)
    )[0]
    noise = 1 / np.sqrt(sub.image.weight[j, i] * np.sum(stamp.astype(float) ** 2))
    flux = float(noise * np.exp(rng.uniform(np.log(3), np.log(100))))
    half = stamp.shape[0] // 2
    box = slice(j - half, j + half + 1), slice(i - half, i + half + 1)
    photons = np.maximum(flux * stamp, 0)
    data[box] += flux * stamp + np.sqrt(photons / sub.image.gain) * rng.standard_normal(stamp.shape)
    return flux


def our_forced(sample: Sample) -> tuple[Float, Float]:
    """Force with the pipeline's own stage."""
    image, psf = sample.sub.image, sample.sub.psf
    fluxes = force(sample.data, image.weight, image.flags, psf, sample.x, sample.y, image.gain, ForceParams())
    return fluxes.flux, fluxes.flux_err


def photutils_forced(sample: Sample) -> tuple[Float, Float]:
    """Force with photutils: our PSF on its grid of models, errors from weights and data."""
    # Of the extra `bench`: only who measures the peer needs it.
    from photutils.psf import GriddedPSFModel, PSFPhotometry  # noqa: PLC0415
    from photutils.utils import calc_total_error  # noqa: PLC0415

    image, psf = sample.sub.image, sample.sub.psf
    height, width = image.shape
    nodes = [(i, j) for j in np.linspace(0, height - 1, 9) for i in np.linspace(0, width - 1, 5)]
    stamps = np.array([evaluate(psf, np.array([i]), np.array([j]))[0] for i, j in nodes], float)
    model = GriddedPSFModel(NDData(stamps, meta={"grid_xypos": nodes, "oversampling": 1}))
    model.x_0.fixed = model.y_0.fixed = True
    mask = (image.flags & np.uint16(UNUSABLE) > 0) | (image.weight <= 0)
    error = calc_total_error(
        sample.data.astype(float), 1 / np.sqrt(np.where(mask, 1, image.weight).astype(float)), image.gain
    )
    side = 2 * math.ceil(2 * psf.fwhm_pix) + 1
    photometry = PSFPhotometry(model, (side, side), aperture_radius=psf.fwhm_pix)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = photometry(
            sample.data.astype(float),
            mask=mask,
            error=error,
            init_params=QTable({"x": sample.x, "y": sample.y}),
        )
    return np.asarray(table["flux_fit"], float), np.asarray(table["flux_err"], float)


def _figures(sample: Sample, flux: Float, error: Float) -> dict[str, float]:
    known = error > 0
    values = {}
    for name, of in (("blank", sample.flux_e == 0), ("stars", sample.flux_e > 0)):
        these = ((flux - sample.flux_e)[of & known]) / error[of & known]
        spread = 1.4826 * np.median(np.abs(these - np.median(these)))
        values |= {f"{name}_mean_sigma": float(these.mean()), f"{name}_width": float(spread)}
    return values
