"""Connected pieces of a mask that has few pixels: work and memory go with those, not with the image."""

from dataclasses import dataclass

import numpy as np
from numba import njit

from seechange_core.frames import Bool, Float, Int


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pixels of a mask, and to which piece each belongs; pixels that touch at a corner are connected.

    Attributes
    ----------
    rows, columns
        (n,) pixels, row by row.
    which
        (n,) from 0: pieces in the order of their first pixels.
    count
        Number of pieces.
    """

    rows: Int
    columns: Int
    which: Int
    count: int

    @property
    def centres(self) -> tuple[Float, Float]:
        """Mean x and y of each piece, (count,)."""
        size = np.bincount(self.which, minlength=self.count)
        x, y = (np.bincount(self.which, at, self.count) / size for at in (self.columns, self.rows))
        return x, y

    @property
    def longest_side(self) -> int:
        """Rows or columns that the largest piece spans."""
        longest = 0
        for at in (self.rows, self.columns):
            first, last = np.full(self.count, np.iinfo(np.int64).max), np.full(self.count, -1)
            np.minimum.at(first, self.which, at)
            np.maximum.at(last, self.which, at)
            longest = max(longest, int((last - first).max(initial=-1)) + 1)
        return longest

    def any_of(self, true: Bool) -> Bool:
        """Tell of which pieces any pixel is true, given for each pixel (n,)."""
        found = np.zeros(self.count, bool)
        found[self.which[true]] = True
        return found


def pieces_of(mask: Bool) -> Pieces:
    """Find the connected pieces of a mask, (H, W)."""
    at = np.flatnonzero(mask)
    rows, columns = np.divmod(at, mask.shape[1])
    which = np.empty(len(at), np.int64)
    return Pieces(rows, columns, which, _connect(rows, columns, which))


@njit(cache=True, nogil=True)
def _connect(rows: Int, columns: Int, which: Int) -> int:
    """Fill `which` with the piece of each pixel, given row by row, and return how many there are."""
    n = rows.size
    parent = np.arange(n)
    above = 0
    for i in range(n):
        y, x = rows[i], columns[i]
        if i and rows[i - 1] == y and columns[i - 1] == x - 1:
            parent[i] = _root(parent, i - 1)
        while above < i and (rows[above] < y - 1 or (rows[above] == y - 1 and columns[above] < x - 1)):
            above += 1
        k = above
        while k < i and rows[k] == y - 1 and columns[k] <= x + 1:
            a, b = _root(parent, i), _root(parent, k)
            # The first pixel of a piece is its root.
            parent[max(a, b)] = min(a, b)
            k += 1
    count = 0
    for i in range(n):
        root = _root(parent, i)
        if root == i:
            which[i] = count
            count += 1
        else:
            which[i] = which[root]
    return count


@njit(cache=True, nogil=True)
def _root(parent: Int, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
