"""Combine calibrated images into a reference: choose the best, align, scale, clip, average."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from seechange_core.errors import NoReference
from seechange_core.frames import Bool, CalibratedImage, Float, ImageFrame, WcsSolution
from seechange_core.numerics.coaddition import Stack, StackInput
from seechange_core.numerics.stack import StackSums, Tolerance
from seechange_core.params import Params, param

CODE_VERSION = "4"

_TAPER_FWHM = 4
"""Width of the border in which an input's weight falls."""


class ReferenceParams(Params):
    """Parameters of a reference."""

    ref_set: str = param("default", "Name of the set the references belong to", min_length=1)
    region_size_deg: float = param(
        0.25, "Height of the regions of the sky, and most width", unit="deg", ge=0.02, le=30
    )
    max_images: int = param(20, "Use at most so many exposures, the deepest ones", ge=1)
    min_images: int = param(
        3, "Refuse to make a reference of fewer exposures: what is on one of two stays", ge=1, results=False
    )
    max_seeing_arcsec: float | None = param(
        None, "Leave out images with a wider PSF; none means no limit", unit="arcsec", gt=0
    )
    max_seeing_ratio: float = param(
        1.6, "Leave out images whose PSF is wider than this times the median", gt=1
    )
    min_limiting_mag: float | None = param(
        None, "Leave out images with a brighter 5-sigma limit; none means no limit", unit="mag"
    )
    max_depth_loss_mag: float = param(
        1.0,
        "Leave out images whose limit is brighter than the median one by more than this",
        unit="mag",
        gt=0,
    )
    max_sky_excess_mag: float = param(
        1.5,
        "Leave out images whose sky is brighter than the median one by more than this: what scatters there "
        "is uneven",
        unit="mag",
        gt=0,
    )
    min_inputs: int = param(
        1,
        "Leave out pixels that fewer images reach (at most as many as typically do): hits that a single "
        "one's own mask has missed stay",
        ge=1,
    )
    clip_sigma: float = param(4.0, "Clip pixels so far from the median of the stack", unit="sigma", gt=0)
    clip_slack: float = param(
        0.15, "Beyond that, tolerate this fraction of the local light and gradient; star cores need it", ge=0
    )


@dataclass(frozen=True)
class InputFacts:
    """What the choice of inputs looks at.

    Attributes
    ----------
    label
        What to call the image.
    fwhm_arcsec
        Of its PSF.
    limiting_mag
        Point source at 5 sigma.
    sky_mag
        Brightness of a square arcsecond of its sky; NaN if not known.
    """

    label: str
    fwhm_arcsec: float
    limiting_mag: float
    sky_mag: float = np.nan


@dataclass(frozen=True)
class Selection:
    """The inputs chosen and why others were not.

    Attributes
    ----------
    chosen
        Indices, deepest first.
    rejected
        Reason by label.
    """

    chosen: tuple[int, ...]
    rejected: dict[str, str]


@dataclass(frozen=True, eq=False)
class CoaddResult:
    """A coadd before it is calibrated like any image.

    Attributes
    ----------
    image
        Background already removed from every input, so its sky is near 0; `gain` and `resamplings` set.
    grid
        Its WCS.
    zero_point
        Magnitude of one unit of its data, everywhere: the mean one of the deepest input.
    used
        Indices of the inputs that entered.
    clipped_fraction
        (n_used,) of each one's usable pixels that were clipped.
    thin
        (H, W): pixels that fewer than half as many inputs reach as a typical one. Hits that the mask of a
        single image has missed are not clipped there, and the sharpest of them pass for stars; the PSF is
        not that of the rest.
    """

    image: ImageFrame
    grid: WcsSolution
    zero_point: float
    used: tuple[int, ...]
    clipped_fraction: Float
    thin: Bool


def select_inputs(candidates: Sequence[InputFacts], params: ReferenceParams) -> Selection:
    """Choose the images that make the best reference.

    Raises
    ------
    NoReference
        If fewer than `min_images` remain.
    """
    rejected: dict[str, str] = {}
    seeing = np.array([c.fwhm_arcsec for c in candidates])
    depth = np.array([c.limiting_mag for c in candidates])
    limit_seeing = params.max_seeing_ratio * float(np.nanmedian(seeing)) if len(seeing) else np.nan
    if params.max_seeing_arcsec is not None:
        limit_seeing = min(limit_seeing, params.max_seeing_arcsec)
    limit_depth = float(np.nanmedian(depth)) - params.max_depth_loss_mag if len(depth) else np.nan
    if params.min_limiting_mag is not None:
        limit_depth = max(limit_depth, params.min_limiting_mag)
    skies = np.array([c.sky_mag for c in candidates if np.isfinite(c.sky_mag)])
    limit_sky = float(np.median(skies)) - params.max_sky_excess_mag if len(skies) else np.nan
    good = []
    for index, c in enumerate(candidates):
        if not c.fwhm_arcsec <= limit_seeing:
            rejected[c.label] = f"seeing {c.fwhm_arcsec:.2f} arcsec, at most {limit_seeing:.2f} allowed"
        elif not c.limiting_mag >= limit_depth:
            rejected[c.label] = f"limiting magnitude {c.limiting_mag:.2f}, at least {limit_depth:.2f} needed"
        elif c.sky_mag < limit_sky:
            rejected[c.label] = f"sky of {c.sky_mag:.2f} mag/arcsec2, at least {limit_sky:.2f} needed"
        else:
            good.append(index)
    good.sort(key=lambda i: (-candidates[i].limiting_mag, candidates[i].label))
    for index in good[params.max_images :]:
        rejected[candidates[index].label] = f"{params.max_images} deeper images are enough"
    chosen = tuple(good[: params.max_images])
    if len(chosen) < params.min_images:
        lower = f", or set reference.min_images to {len(chosen)}" if chosen else ""
        raise NoReference(
            f"{len(chosen)} of {len(candidates)} exposures are good enough, {params.min_images} needed",
            cure=f"process more exposures of it, or loosen the limits on seeing and depth{lower}",
        )
    return Selection(chosen, rejected)


def coadd(inputs: Sequence[CalibratedImage], grid: WcsSolution, params: ReferenceParams) -> CoaddResult:
    """Average images on a common grid and flux scale.

    Every input has its background removed and is scaled, with its zero point at each place, to the mean
    zero point of the deepest one: what varied over the inputs is gone from the coadd. Pixels
    that disagree with the stack's median by more than noise, seeing and registration explain are
    clipped. The rest is averaged with the weights 1 / (variance x FWHM^2): of those that do not depend on
    frequency, they lose least of what proper coaddition (Zackay & Ofek 2017, ApJ 836, 188) keeps, whether new
    images are sharper than the reference or not: under 1 % of the S/N of a point source in the difference.

    Parameters
    ----------
    inputs
        Calibrated images, already chosen (see `select_inputs`). Their arrays may be anything that gives
        arrays when sliced: memory holds one tile of each.
    grid
        Pixels to make.
    params
        Parameters.

    Raises
    ------
    NoReference
        If there is no input, or none touches the grid.
    """
    stack = _stack(inputs, grid, params, remember=False)
    return _result(stack, stack.sums, inputs, tuple(range(len(inputs))), params)


def coadds_without_each(
    inputs: Sequence[CalibratedImage], grid: WcsSolution, params: ReferenceParams
) -> Iterator[CoaddResult]:
    """Make the coadds that lack each input in turn, for subtracting an image that is in the reference.

    The stack is summed once; each input is then warped again and taken out of the sums, so memory holds
    one set of sums and one result however many inputs there are. What was clipped stays clipped.

    Yields
    ------
    CoaddResult
        The i-th one lacks ``inputs[i]``.

    Raises
    ------
    NoReference
        If there are fewer than two inputs.
    """
    if len(inputs) < 2:
        raise NoReference(
            f"a reference of {len(inputs)} image(s) has nothing left without one",
            cure="take more images of this field",
        )
    stack = _stack(inputs, grid, params, remember=True)
    for index in range(len(inputs)):
        used = tuple(i for i in range(len(inputs)) if i != index)
        yield _result(stack, stack.without(index), inputs, used, params)


def _stack(
    inputs: Sequence[CalibratedImage], grid: WcsSolution, params: ReferenceParams, remember: bool
) -> Stack:
    if not inputs:
        raise NoReference("no image to make a reference from", cure="process images of this field first")
    stack = Stack(_prepare(inputs, params), grid, remember)
    if not stack.sums.covered.any():
        raise NoReference(f"none of {len(inputs)} images touches the grid", cure="check the region's name")
    return stack


def _result(
    stack: Stack,
    sums: StackSums,
    inputs: Sequence[CalibratedImage],
    used: tuple[int, ...],
    params: ReferenceParams,
) -> CoaddResult:
    """Make the coadd of the sums over some inputs."""
    best = max(inputs, key=_depth)
    data, weight, flags = sums.mean(params.min_inputs)
    images = [inputs[i].image for i in used]
    scales = np.array([_scale(inputs[i], best.zero_point.zp) for i in used])
    boosts = np.array([stack.inputs[i].boost for i in used])
    noise = np.array([np.median(inputs[i].background.rms) for i in used]) * scales
    shares = boosts / noise**2
    photons = scales / np.array([image.gain for image in images])
    image = ImageFrame(
        data=data,
        weight=weight,
        flags=flags,
        exposure_time_s=best.image.exposure_time_s,
        gain=float(shares.sum() ** 2 / np.sum(shares**2 * photons)) * sums.depth / len(used),
        saturation_e=float(np.min(scales * [image.saturation_e for image in images])),
        resamplings=1,
    )
    clipped = stack.clipped[list(used)]
    fraction = clipped[:, 0] / np.maximum(clipped[:, 1], 1)
    return CoaddResult(image, stack.grid, best.zero_point.zp, used, fraction, sums.thin)


def _prepare(inputs: Sequence[CalibratedImage], params: ReferenceParams) -> list[StackInput]:
    """Work out each input's weight and clipping tolerance."""
    zero_point = max(inputs, key=_depth).zero_point.zp
    fwhm = np.array([c.psf.fwhm_pix * c.wcs.pixel_scale_arcsec for c in inputs])
    typical, best, worst = float(np.median(fwhm)), float(fwhm.min()), float(fwhm.max())
    prepared = []
    for c, width in zip(inputs, fwhm, strict=True):
        tolerance = Tolerance(
            n_sigma=params.clip_sigma,
            # Cores go with FWHM^-2, the wings of real PSFs with up to FWHM^4. Where few images overlap the
            # median may be any of them, the best or the worst.
            peak=params.clip_slack + 2 * max((worst / width) ** 2 - 1, 1 - (best / width) ** 2),
            slope=params.clip_slack + max(worst / width - 1, 1 - best / width),
            photons=_scale(c, zero_point) / c.image.gain,
        )
        boost = float((typical / width) ** 2)
        prepared.append(StackInput(c, zero_point, boost, _TAPER_FWHM * c.psf.fwhm_pix, tolerance))
    return prepared


def _scale(image: CalibratedImage, zero_point: float) -> float:
    """Return what brings an image to a zero point, on average."""
    return float(10 ** (0.4 * (zero_point - image.zero_point.zp)))


def _depth(image: CalibratedImage) -> tuple[float, str]:
    """Rank by limiting magnitude; an unknown one counts as the shallowest."""
    limit = image.zero_point.limiting_mag
    return (limit if np.isfinite(limit) else -np.inf), image.label
