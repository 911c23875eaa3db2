"""Functions that convolution kernels are made of: products of cubic B-splines, finer in the middle.

With knots one pixel apart the splines are as good as single pixels (any values on the pixels are a sum of
them: the basis of Miller et al. 2008 and Hu et al. 2022); knots that part outwards keep the wings smooth with
few of them, which is what regularised single pixels (Becker et al. 2012, MNRAS 425, 1341) are after.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline

from seechange_core.frames import Bool, Float

_DEGREE = 3
_EVEN = 3
"""Knots on each side that are as close as the middle ones."""
_GROWTH = 1.35
_ROUND = 1.12
"""Splines centred within this many times the half-width take part: corners add nothing."""


@dataclass(frozen=True, eq=False)
class KernelBasis:
    """Products ``line[k](y) line[l](x)``, for the pairs (k, l) that are used.

    Attributes
    ----------
    line
        (n, 2 half + 1): splines along one axis, sampled on whole pixels.
    used
        (n, n): which products take part.
    """

    line: Float
    used: Bool

    @property
    def half(self) -> int:
        """Pixels on each side of the middle."""
        return int(self.line.shape[1]) // 2

    def __len__(self) -> int:
        return int(np.count_nonzero(self.used))

    def images(self) -> Float:
        """Return all products, (len, 2 half + 1, 2 half + 1)."""
        rows, columns = np.nonzero(self.used)
        return np.asarray(self.line[rows][:, :, None] * self.line[columns][:, None, :], float)


def kernel_basis(reach: float, step_pix: float) -> KernelBasis:
    """Make the functions of a kernel.

    Parameters
    ----------
    reach
        Pixels from the middle to where the kernel is 0, at least; the last knot is the next one from there.
    step_pix
        Distance of the knots in the middle, 1 or more.
    """
    knots, width = [0.0], step_pix
    while knots[-1] < reach:
        knots.append(knots[-1] + width)
        if len(knots) > _EVEN:
            width *= _GROWTH
    line = np.array([-k for k in knots[:0:-1]] + knots)
    half = int(np.ceil(knots[-1])) - 1
    pixels = np.arange(-half, half + 1, dtype=float)
    spans = [line[k : k + _DEGREE + 2] for k in range(len(line) - _DEGREE - 1)]
    values = np.array([np.nan_to_num(BSpline.basis_element(span, False)(pixels)) for span in spans])
    middle = np.array([span.mean() for span in spans])
    used = np.hypot(middle[:, None], middle) <= _ROUND * max(float(middle[-1]), 1.0)
    return KernelBasis(values, np.asarray(used, bool))
