"""Combine calibrated images into a reference: choose the best, align, scale, clip, average."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from seechange_core.errors import NoReference
from seechange_core.frames import Box, CalibratedImage, Float, Float32, ImageFrame, WcsSolution
from seechange_core.numerics.alignment import flux_scale
from seechange_core.numerics.background import level_map
from seechange_core.numerics.resample import Warped, coordinate_grid, edge_taper, warp_by_grid
from seechange_core.numerics.stack import StackSums, Tolerance, find_outliers, stack_median
from seechange_core.params import Params, param

CODE_VERSION = "2"

_BAND_BYTES = 400e6
"""Aligned pixels kept in memory at a time."""


class ReferenceParams(Params):
    """Parameters of a reference."""

    ref_set: str = param("default", "Name of the set the references belong to", min_length=1)
    region_size_deg: float = param(
        0.25, "Height of the regions of the sky, and most width", unit="deg", ge=0.02, le=30
    )
    max_images: int = param(20, "Use at most so many exposures, the deepest ones", ge=1)
    min_images: int = param(1, "Refuse to make a reference of fewer images", ge=1)
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
    weighting: Literal["variance", "point_source"] = param(
        "point_source", "Weights: 1 / variance, or 1 / (variance x FWHM^2) which favours sharp images"
    )
    min_share: float = param(
        0.5,
        "Leave out pixels that fewer images reach than this share of the typical: their PSF is another",
        ge=0,
        le=1,
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
    """

    label: str
    fwhm_arcsec: float
    limiting_mag: float


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
    """

    image: ImageFrame
    grid: WcsSolution
    zero_point: float
    used: tuple[int, ...]
    clipped_fraction: Float


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
    good = []
    for index, c in enumerate(candidates):
        if not c.fwhm_arcsec <= limit_seeing:
            rejected[c.label] = f"seeing {c.fwhm_arcsec:.2f} arcsec, at most {limit_seeing:.2f} allowed"
        elif not c.limiting_mag >= limit_depth:
            rejected[c.label] = f"limiting magnitude {c.limiting_mag:.2f}, at least {limit_depth:.2f} needed"
        else:
            good.append(index)
    good.sort(key=lambda i: (-candidates[i].limiting_mag, candidates[i].label))
    for index in good[params.max_images :]:
        rejected[candidates[index].label] = f"{params.max_images} deeper images are enough"
    chosen = tuple(good[: params.max_images])
    if len(chosen) < params.min_images:
        raise NoReference(
            f"{len(chosen)} of {len(candidates)} images are good enough, {params.min_images} needed",
            cure="take more images, or loosen the limits on seeing and depth",
        )
    return Selection(chosen, rejected)


@dataclass(frozen=True)
class _Input:
    """One input with the numbers that put it on the common scale, of zero point `zp`.

    `scale` is that of its mean zero point; the pixels are scaled by the zero point at their place.
    """

    image: CalibratedImage
    zp: float
    scale: float
    boost: float
    taper_pix: float
    tolerance: Tolerance

    def aligned(self, grid: WcsSolution, band: Box) -> tuple[Warped, Float32]:
        """Warp it onto a band of the grid, background removed, on the common flux scale.

        Also returns the factor on its weight: `boost`, and less towards its edges, so that the coadd's
        PSF does not jump where one input more begins.
        """
        frame = self.image.image
        level = frame.data - level_map(self.image.background)
        places = coordinate_grid(self.image.wcs, grid, band)
        w = warp_by_grid(level, frame.weight, frame.flags, places)
        scale = places.spread(flux_scale(self.image.zero_point, places, self.zp))
        data, weight = w.data * scale, w.weight / scale
        weight /= scale
        warped = Warped(data, weight, w.flags)
        return warped, np.float32(self.boost) * edge_taper(places, frame.shape, self.taper_pix)


def coadd(inputs: Sequence[CalibratedImage], grid: WcsSolution, params: ReferenceParams) -> CoaddResult:
    """Average images on a common grid and flux scale.

    Every input has its background removed and is scaled, with its zero point at each place, to the mean
    zero point of the deepest one: what varied over the inputs is gone from the coadd. Pixels
    that disagree with the stack's median by more than noise, seeing and registration explain are
    clipped; the rest is averaged with the weights the parameters name.

    Parameters
    ----------
    inputs
        Calibrated images, already chosen (see `select_inputs`).
    grid
        Pixels to make.
    params
        Parameters.

    Raises
    ------
    NoReference
        If there is no input, or none touches the grid.
    """
    return _Stacker(inputs, grid, params).whole()


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
    stacker = _Stacker(inputs, grid, params)
    for index in range(len(inputs)):
        yield stacker.without(index)


class _Stacker:
    """The sums of a stack, and coadds made from them."""

    def __init__(self, inputs: Sequence[CalibratedImage], grid: WcsSolution, params: ReferenceParams) -> None:
        if not inputs:
            raise NoReference("no image to make a reference from", cure="process images of this field first")
        best = max(range(len(inputs)), key=lambda i: _depth(inputs[i]))
        self.grid, self.params = grid, params
        self.best = inputs[best]
        self.inputs = _prepare(inputs, self.best.zero_point.zp, params)
        self.sums = StackSums.empty(grid.shape)
        self.median = np.zeros(grid.shape, np.float32)
        self.clipped = np.zeros((len(inputs), 2))
        for band in self.bands(len(inputs)):
            self._sum(band)
        if not self.sums.covered.any():
            raise NoReference(
                f"none of {len(inputs)} images touches the grid", cure="check the region's name"
            )

    def bands(self, n: int) -> Iterator[Box]:
        """Cut the grid into bands of rows that fit in memory together."""
        height, width = self.grid.shape
        rows = int(np.clip(_BAND_BYTES / (15.0 * width * n), 64, height))
        for y0 in range(0, height, rows):
            yield Box(y0, min(height, y0 + rows), 0, width)

    def _sum(self, band: Box) -> None:
        pairs = [one.aligned(self.grid, band) for one in self.inputs]
        aligned = [warped for warped, _ in pairs]
        median = stack_median(np.stack([a.data for a in aligned]), np.stack([a.weight for a in aligned]))
        self.median[band.slices] = median
        rows = self.sums.rows(band.y0, band.y1)
        for index, (one, (a, share)) in enumerate(zip(self.inputs, pairs, strict=True)):
            keep = find_outliers(a.data, a.weight, median, one.tolerance)
            usable = a.weight > 0
            self.clipped[index] += np.count_nonzero(usable & ~keep), np.count_nonzero(usable)
            rows.add(a.data, a.weight, a.flags, keep, share)

    def whole(self) -> CoaddResult:
        """Return the coadd of all inputs."""
        return self._result(self.sums, tuple(range(len(self.inputs))))

    def without(self, index: int) -> CoaddResult:
        """Return the coadd without one input."""
        one = self.inputs[index]
        sums = StackSums(*(a.copy() for a in vars(self.sums).values()))
        # The bands of `_sum`: clipping and interpolation look at neighbours within a band.
        for band in self.bands(len(self.inputs)):
            a, share = one.aligned(self.grid, band)
            keep = find_outliers(a.data, a.weight, self.median[band.slices], one.tolerance)
            sums.rows(band.y0, band.y1).add(a.data, a.weight, a.flags, keep, share, sign=-1)
        return self._result(sums, tuple(i for i in range(len(self.inputs)) if i != index))

    def _result(self, sums: StackSums, used: tuple[int, ...]) -> CoaddResult:
        data, weight, flags = sums.mean(self.params.min_share)
        members = [self.inputs[i] for i in used]
        shares = np.array([_typical(m.image.image.weight) / m.scale**2 * m.boost for m in members])
        photons = np.array([m.scale / m.image.image.gain for m in members])
        image = ImageFrame(
            data=data,
            weight=weight,
            flags=flags,
            exposure_time_s=self.best.image.exposure_time_s,
            gain=float(shares.sum() ** 2 / np.sum(shares**2 * photons)) * _depth_of(sums) / len(members),
            saturation_e=min(m.scale * m.image.image.saturation_e for m in members),
            resamplings=1,
        )
        clipped = self.clipped[list(used), 0] / np.maximum(self.clipped[list(used), 1], 1)
        return CoaddResult(image, self.grid, self.best.zero_point.zp, used, clipped)


def _prepare(inputs: Sequence[CalibratedImage], zero_point: float, params: ReferenceParams) -> list[_Input]:
    """Work out each input's scale, weight and clipping tolerance."""
    fwhm = np.array([c.psf.fwhm_pix * c.wcs.pixel_scale_arcsec for c in inputs])
    typical = float(np.median(fwhm))
    best, worst = float(fwhm.min()), float(fwhm.max())
    prepared = []
    for c, width in zip(inputs, fwhm, strict=True):
        scale = float(10 ** (0.4 * (zero_point - c.zero_point.zp)))
        boost = (typical / width) ** 2 if params.weighting == "point_source" else 1.0
        tolerance = Tolerance(
            n_sigma=params.clip_sigma,
            # Cores go with FWHM^-2, the wings of real PSFs with up to FWHM^4. Where few images overlap the
            # median may be any of them, the best or the worst.
            peak=params.clip_slack + 2 * max((worst / width) ** 2 - 1, 1 - (best / width) ** 2),
            slope=params.clip_slack + max(worst / width - 1, 1 - best / width),
            photons=scale / c.image.gain,
        )
        prepared.append(_Input(c, zero_point, scale, float(boost), 4 * c.psf.fwhm_pix, tolerance))
    return prepared


def _depth(image: CalibratedImage) -> tuple[float, str]:
    """Rank by limiting magnitude; an unknown one counts as the shallowest."""
    limit = image.zero_point.limiting_mag
    return (limit if np.isfinite(limit) else -np.inf), image.label


def _depth_of(sums: StackSums) -> float:
    """Return how many images a typical pixel has: sections side by side don't add up."""
    reached = sums.covered[sums.covered > 0]
    return float(np.median(reached)) if reached.size else 1.0


def _typical(weight: Float32) -> float:
    """Return the median weight of the usable pixels, 0 if there is none."""
    usable = weight[::4, ::4]
    usable = usable[usable > 0]
    return float(np.median(usable)) if usable.size else 0.0
