"""Fill the unusable pixels of two images of the same sky before they are filtered and subtracted."""

from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from seechange_core.flags import PixelFlag
from seechange_core.frames import Bool, Flags, Float32, PsfModel
from seechange_core.numerics.inpaint import fill_in_place
from seechange_core.numerics.pieces import pieces_of
from seechange_core.numerics.star_cores import rebuild_cores

_LEAST_SEEN = 0.25
"""Share of the information on a source below which its score is no good."""


@dataclass(frozen=True, eq=False)
class Plane:
    """One of two images on common pixels and a common flux scale.

    Attributes
    ----------
    data, weight
        (H, W), background removed; anything where unusable.
    usable
        (H, W).
    flags
        (H, W) `PixelFlag` bits; OUT_OF_BOUNDS beyond the image.
    psf
        On these pixels.
    gain
        Photons per unit of data.
    """

    data: Float32
    weight: Float32
    usable: Bool
    flags: Flags
    psf: PsfModel
    gain: float


@dataclass(frozen=True, eq=False)
class Filled:
    """Both images without holes, and where their pixels are known: seen, or rebuilt star cores."""

    new: Float32
    ref: Float32
    new_known: Bool
    ref_known: Bool


def fill_holes(new: Plane, ref: Plane) -> Filled:
    """Fill each image's holes from the other one, and holes of both from around.

    A star that is saturated in both images is rebuilt in the sharper one first; the other one's core
    then follows from it by a convolution, which needs no deconvolving. At the new image's rim, where
    part of the star is missing, it is rebuilt in the reference.

    Parameters
    ----------
    new, ref
        The images.

    Returns
    -------
    Filled
        Pixels that only one image knows hold the other one's values, not yet brought to its PSF.
    """
    hot, at_rim = _hot_holes(new, ref)
    if new.psf.fwhm_pix >= ref.psf.fwhm_pix:
        at_rim = hot
    new_data, new_known = _rebuilt(new, hot & ~at_rim)
    ref_data, ref_known = _rebuilt(ref, at_rim)
    either = new_known | ref_known
    first_new = np.where(new_known, new_data, ref_data)
    first_ref = np.where(ref_known, ref_data, new_data)
    fill_in_place(first_new, either)
    fill_in_place(first_ref, either)
    return Filled(first_new, first_ref, new_known, ref_known)


def _rebuilt(plane: Plane, hot: Bool) -> tuple[Float32, Bool]:
    holes = hot & ~plane.usable
    if not holes.any():
        return plane.data, plane.usable
    weight = np.where(plane.usable, plane.weight, np.float32(0))
    data, done = rebuild_cores(plane.data, weight, holes, plane.psf, plane.gain)
    return data, plane.usable | done


def _hot_holes(new: Plane, ref: Plane) -> tuple[Bool, Bool]:
    """Return the holes of saturated stars that both images have in part; and those at the new one's rim."""
    saturated = (new.flags | ref.flags) & np.uint16(PixelFlag.SATURATED | PixelFlag.BLEED) > 0
    saturated &= ~(new.usable & ref.usable)
    pieces = pieces_of(saturated)
    at = pieces.rows, pieces.columns
    both = pieces.any_of(~new.usable[at] & ~ref.usable[at])
    rim = pieces.any_of(new.flags[at] & np.uint16(PixelFlag.OUT_OF_BOUNDS) > 0)
    holes, at_rim = np.zeros(saturated.shape, bool), np.zeros(saturated.shape, bool)
    holes[at], at_rim[at] = both[pieces.which], (both & rim)[pieces.which]
    return holes, at_rim


def mostly_seen(usable: Bool, lost: Bool, psf: Float32) -> Bool:
    """Return the lost pixels around which a matched filter keeps enough of what it knows of a source.

    Parameters
    ----------
    usable, lost
        (H, W).
    psf
        (size, size) stamp, size odd.

    Returns
    -------
    Bool
        (H, W): where the sum of the squared PSF over usable pixels is more than a quarter of that over all:
        half of the S/N is left.
    """
    psf = _without_wings(psf)
    out = np.zeros(lost.shape, np.bool_)
    _mostly_seen(usable, lost, np.square(psf, dtype=np.float32), float(_LEAST_SEEN * np.sum(psf**2)), out)
    return out


@njit(cache=True, nogil=True)
def _mostly_seen(usable: Bool, lost: Bool, power: Float32, least: float, out: Bool) -> None:
    (height, width), half = usable.shape, power.shape[0] // 2
    for y in range(height):
        for x in range(width):
            if not lost[y, x] or usable[y, x]:
                continue
            seen = np.float32(0)
            for v in range(max(0, y - half), min(height, y + half + 1)):
                for u in range(max(0, x - half), min(width, x + half + 1)):
                    if usable[v, u]:
                        seen += power[v - y + half, u - x + half]
            out[y, x] = seen > least


def _without_wings(psf: Float32) -> Float32:
    """Return the middle of a stamp that has all but 1e-4 of its squared sum."""
    power = np.square(psf, dtype=float)
    middle = len(psf) // 2
    for half in range(middle):
        inner = slice(middle - half, middle + half + 1)
        if power[inner, inner].sum() > (1 - 1e-4) * power.sum():
            return psf[inner, inner]
    return psf


def moved_psf(psf: PsfModel, margin: int) -> PsfModel:
    """Return the same PSF with positions counted on a canvas that begins `margin` pixels earlier."""
    return replace(psf, centre=(psf.centre[0] + margin, psf.centre[1] + margin))
