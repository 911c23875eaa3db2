"""Islands of an image above its noise, parted where a second peak stands out from the saddle between them.

Pixels are taken from the highest to the lowest. One that touches no island starts one, one that touches
an island joins it, and where islands meet the lower one is kept if its peak rises enough above the
place where they meet, and becomes part of the higher one if not: the watershed of Vincent & Soille (1991,
IEEE PAMI 13, 583) with the depth of basins (persistence: Edelsbrunner, Letscher & Zomorodian 2002, Discrete
Comput. Geom. 28, 511) as the criterion. One pass finds, labels and deblends.
"""

import math
from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from seechange_core.frames import Bool, Float, Float32

Labels = npt.NDArray[np.int32]
Index = npt.NDArray[np.int64]
_Keys = npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Islands:
    """Islands of an image, the one with the highest peak first.

    Attributes
    ----------
    labels
        (H, W) int32, 1 to n, 0 for no island.
    peak
        (n,) int64, flat index of the highest pixel.
    touches
        (n,) bool, whether it touches another island.
    """

    labels: Labels
    peak: Index
    touches: Bool


@dataclass(frozen=True)
class Rise:
    """By how much the lower of two peaks must rise above the saddle between them to be an island.

    Attributes
    ----------
    sigma
        So many sigmas, photon noise included.
    share
        And this share of the saddle's height.
    photon_share
        Variance that light adds, per unit of light, in units of the variance without any: 1 / (gain * sky
        variance).
    """

    sigma: float
    share: float
    photon_share: float


def part_islands(
    smooth: Float32,
    noise: Float32,
    sigma: float,
    rise: Rise,
    min_area_pix: int,
    *,
    grow_sigma: float | None = None,
) -> Islands:
    """Label the islands of an image.

    Parameters
    ----------
    smooth, noise
        (H, W) float32, C order: what is looked at, and 1 sigma of it without any light (`matched_filter`).
    sigma
        Peaks of islands are above this many.
    rise
        When a second peak makes an island.
    min_area_pix
        Smaller islands are left out.
    grow_sigma
        Pixels above this many sigmas belong to islands; None: `sigma`. If lower, patches of noise around
        a bright source's rim are part of it instead of islands.
    """
    height, width = smooth.shape
    members = _highest_first(*_above(smooth, noise, np.float32(sigma if grow_sigma is None else grow_sigma)))
    labels = np.zeros((height + 2, width + 2), np.int32)
    parent, peak, area, touches = _flood(
        members, smooth.ravel(), noise.ravel(), labels.ravel(), width,
        rise.sigma, rise.share, rise.photon_share, min_area_pix,
    )  # fmt: skip
    high = smooth.ravel()[peak] > np.float32(sigma) * noise.ravel()[peak]
    kept = np.flatnonzero((parent == np.arange(len(parent))) & (area >= min_area_pix) & high)
    number = np.zeros(len(parent), np.int32)
    number[kept] = np.arange(1, len(kept) + 1)
    _renumber(labels.ravel(), parent, number)
    return Islands(labels[1:-1, 1:-1], peak[kept], touches[kept])


def sum_islands(data: Float32, islands: Islands) -> Float:
    """Return each island's pixels, highest value, sum, and sums of x, y, x^2, y^2 and x y times the data.

    Coordinates count from the island's peak. Negative data count as 0 in all but the highest value.

    Returns
    -------
    (8, n) float64.
    """
    sums = np.zeros((8, len(islands.peak)))
    _sum(data, islands.labels, *np.divmod(islands.peak, data.shape[1]), sums)
    return sums


@nb.njit(cache=True, nogil=True)
def _above(smooth: Float32, noise: Float32, sigma: np.float32) -> tuple[Index, Float32]:
    height, width = smooth.shape
    count = 0
    for y in range(height):
        inside = 0
        for x in range(width):
            inside += smooth[y, x] > sigma * noise[y, x]
        count += inside
    index = np.empty(count, np.int64)
    value = np.empty(count, np.float32)
    k = 0
    for y in range(height):
        for x in range(width):
            if smooth[y, x] > sigma * noise[y, x]:
                index[k] = y * width + x
                value[k] = smooth[y, x]
                k += 1
    return index, value


def _highest_first(index: Index, value: Float32) -> Index:
    """Return the indices in the order of their values, which are positive: equal ones stay as they are."""
    # The bits of positive floats are ordered as the floats are.
    key = ~value.view(np.uint32)
    for shift in (0, 11, 22):
        index, key = _sorted_by_bits(index, key, np.uint32(shift))
    return index


@nb.njit(cache=True, nogil=True)
def _sorted_by_bits(index: Index, key: _Keys, shift: np.uint32) -> tuple[Index, _Keys]:
    """Sort by 11 bits of the keys: one round of a radix sort."""
    start = np.zeros(2049, np.int64)
    for value in key:
        start[((value >> shift) & np.uint32(2047)) + np.uint32(1)] += 1
    start = np.cumsum(start)
    new_index = np.empty_like(index)
    new_key = np.empty_like(key)
    for k in range(len(key)):
        digit = (key[k] >> shift) & np.uint32(2047)
        new_index[start[digit]] = index[k]
        new_key[start[digit]] = key[k]
        start[digit] += 1
    return new_index, new_key


@nb.njit(cache=True, nogil=True)
def _root(parent: Index, k: int) -> int:
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@nb.njit(cache=True, nogil=True)
def _flood(  # noqa: PLR0915 - one loop over the pixels, and calls from it cost half of its time
    members: Index,
    smooth: Float32,
    noise: Float32,
    labels: Labels,
    width: int,
    rise_sigma: float,
    rise_share: float,
    photon_share: float,
    min_area: int,
) -> tuple[Index, Index, Index, Bool]:
    """Grow all islands together; return parent, peak, area and whether it touches another, by label."""
    # Labels have a rim of one pixel, so that no pixel's neighbours need to be looked for.
    around = np.array([-width - 3, -width - 2, -width - 1, -1, 1, width + 1, width + 2, width + 3])
    plain = np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    size = 1024
    parent = np.zeros(size, np.int64)
    peak = np.zeros(size, np.int64)
    area = np.zeros(size, np.int64)
    touches = np.zeros(size, np.bool_)
    parent[0] = -1
    roots = np.zeros(8, np.int64)
    n = 1
    for place in members:
        here = place + 2 * (place // width) + width + 3
        home = 0
        last = 0
        alone = True
        for k in range(8):
            label = labels[here + around[k]]
            if label == 0:
                roots[k] = 0
                continue
            roots[k] = home if label == last else _root(parent, label)
            alone &= home == 0 or roots[k] == home
            # Labels are given in the order of the peaks: the smallest is the highest.
            home = roots[k] if home == 0 else min(home, roots[k])
            last = label if alone else 0
        if home == 0:
            if n == len(parent):
                parent, peak, area = _longer(parent), _longer(peak), _longer(area)
                touches = np.concatenate((touches, np.zeros(n, np.bool_)))
            home = n
            parent[n] = n
            peak[n] = place
            n += 1
        elif not alone:
            highest = home
            saddle = smooth[place]
            beside = np.float32(-np.inf)
            for k in range(8):
                if roots[k] == 0:
                    continue
                root = _root(parent, roots[k])
                if root != highest:
                    top = smooth[peak[root]]
                    sigma = noise[peak[root]] * math.sqrt(1 + photon_share * max(top, np.float32(0)))
                    if area[root] >= min_area and top - saddle > max(rise_sigma * sigma, rise_share * saddle):
                        touches[root] = True
                        touches[highest] = True
                    else:
                        parent[root] = highest
                        area[highest] += area[root]
                        touches[highest] |= touches[root]
                        root = highest
                # The pixel goes to the island of its highest neighbour.
                if smooth[place + plain[k]] > beside:
                    beside = smooth[place + plain[k]]
                    home = root
        labels[here] = home
        area[home] += 1
    return parent[:n], peak[:n], area[:n], touches[:n]


@nb.njit(cache=True, nogil=True)
def _longer(values: Index) -> Index:
    return np.concatenate((values, np.zeros(len(values), np.int64)))


@nb.njit(cache=True, nogil=True)
def _renumber(labels: Labels, parent: Index, number: Labels) -> None:
    """Give islands that became one the same number, in place."""
    final = np.zeros(len(parent), np.int32)
    for k in range(1, len(parent)):
        final[k] = number[_root(parent, k)]
    for place in range(len(labels)):
        if labels[place] > 0:
            labels[place] = final[labels[place]]


@nb.njit(cache=True, nogil=True)
def _sum(data: Float32, labels: Labels, row: Index, column: Index, sums: Float) -> None:
    sums[1] = -np.inf
    for y in range(data.shape[0]):
        for x in range(data.shape[1]):
            k = labels[y, x] - 1
            if k < 0:
                continue
            value = max(data[y, x], np.float32(0))
            dx = x - column[k]
            dy = y - row[k]
            sums[0, k] += 1
            sums[1, k] = max(sums[1, k], data[y, x])
            sums[2, k] += value
            sums[3, k] += value * dx
            sums[4, k] += value * dy
            sums[5, k] += value * dx * dx
            sums[6, k] += value * dy * dy
            sums[7, k] += value * dx * dy
