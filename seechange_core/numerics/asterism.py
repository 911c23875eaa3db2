"""Where a list of detected points lies on the sky, when pointing, rotation, parity and scale are unsure.

Every pair of bright detections is compared with every pair of bright catalog stars of about the
same length; each comparison votes for a pose (rotation and shift), the true pose collects a vote
from every pair of common stars, and the peaks are verified by counting stars. Pairs instead of triangles: the
scale is known to some per cent, so that two stars already fix a pose, and one missing star costs
one star's pairs only. (Kaiser et al. 1999 and Bertin 2006 vote with pairs for rotation and scale
first and for the shift later; voting at once keeps more contrast when half of the stars differ.)

Points are complex numbers here: ``w = -parity * x + i y`` for detections (pixels from the
section's centre) and ``z = xi + i eta`` for the catalog (arcseconds east and north), so that a pose
is ``z = factor * w + shift``.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc

from seechange_core.frames import Float
from seechange_core.numerics.matching import match_plane

Complex = npt.NDArray[np.complex128]

_SHORTEST_PAIR = 0.15  # of the diagonal: shorter pairs leave the rotation unsure
_SHIFT_BIN = 0.0125  # of the diagonal
_ROTATION_BIN_DEG = 1.5
_MAX_SHIFT_BINS = 128
_MAX_VOTES = 4_000_000  # beyond this only the brightest pairs vote
_HIGH_CELLS = 500  # looked at when peaks are picked
_PEAKS = 12  # verified per parity


@dataclass(frozen=True)
class PoseLimits:
    """What poses are possible.

    Attributes
    ----------
    scale, scale_tolerance
        Arcseconds per pixel, and its relative uncertainty.
    radius_arcsec
        How far the section's centre may be from the catalog's origin.
    rotation_deg, rotation_tolerance_deg
        Position angle of +y, north through east; None if unknown.
    parity
        +1 when east is to the left of north, -1 mirrored, None if unknown.
    """

    scale: float
    scale_tolerance: float
    radius_arcsec: float
    rotation_deg: float | None = None
    rotation_tolerance_deg: float = 5.0
    parity: int | None = None


@dataclass(frozen=True, eq=False)
class Pose:
    """An affine map from pixels (about the section's centre) to tangent-plane arcseconds.

    Attributes
    ----------
    matrix
        (2, 3): ``xi = m00 x + m01 y + m02``, ``eta = m10 x + m11 y + m12``.
    n_matched, n_tried
        Bright detections with a catalog star within the verification radius, and all of them.
    log10_chance
        Probability that a wrong pose matches as many.
    """

    matrix: Float
    n_matched: int = 0
    n_tried: int = 0
    log10_chance: float = 0.0

    def apply(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Float, Float]:
        """Map pixels to arcseconds."""
        xi, eta = self.matrix[:, :2] @ np.vstack([np.asarray(x, float), np.asarray(y, float)])
        return xi + self.matrix[0, 2], eta + self.matrix[1, 2]

    @property
    def scale(self) -> float:
        """Arcseconds per pixel."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    @property
    def parity(self) -> int:
        """+1 when east is to the left of north."""
        return -1 if np.linalg.det(self.matrix[:, :2]) > 0 else 1


def find_pose(
    x: Float,
    y: Float,
    xi: Float,
    eta: Float,
    shape: tuple[int, int],
    limits: PoseLimits,
    *,
    n_bright: int = 20,
    n_verify: int = 100,
    radius_pix: float = 4.0,
) -> Pose | None:
    """Find the most significant pose.

    Parameters
    ----------
    x, y
        Detections, pixels from the section's centre, brightest first.
    xi, eta
        Catalog stars, arcseconds from the expected centre, brightest first.
    shape
        (H, W) of the section.
    limits
        Which poses are possible.
    n_bright
        Detections whose pairs vote; the catalog gives as many per area.
    n_verify
        Detections that verify.
    radius_pix
        A detection this near to a catalog star counts.

    Returns
    -------
    Pose or None
        Judge it by `Pose.log10_chance`; None if no two pairs agree.
    """
    diagonal = float(np.hypot(*shape))
    reach = limits.radius_arcsec + diagonal / 2 * limits.scale * (1 + limits.scale_tolerance)
    near = np.flatnonzero(np.hypot(xi, eta) <= reach)
    area_ratio = np.pi * reach**2 / (shape[0] * shape[1] * limits.scale**2)
    voters = near[: int(np.ceil(n_bright * max(1.0, area_ratio)))]
    z = xi[voters] + 1j * eta[voters]
    best: Pose | None = None
    for parity in (1, -1) if limits.parity is None else (limits.parity,):
        w = -parity * x[:n_bright] + 1j * y[:n_bright]
        for factor, shift in _vote(w, z, limits, diagonal):
            start = Pose(_similarity_matrix(parity, factor, shift))
            pose = _verify(start, (x[:n_verify], y[:n_verify]), (xi[near], eta[near]), shape, radius_pix)
            inside = abs(pose.scale / limits.scale - 1) <= 1.5 * limits.scale_tolerance + 0.01
            if inside and (best is None or pose.log10_chance < best.log10_chance):
                best = pose
            if best is not None and best.log10_chance < -40:
                return best
    return best


def log10_chance(n_matched: int, n_tried: int, density: float, radius: float) -> float:
    """Give log10 of the probability that unrelated points match so often.

    Parameters
    ----------
    n_matched, n_tried
        Matches, and points thrown.
    density
        Catalog stars per unit area.
    radius
        Of a match.
    """
    hit = -np.expm1(-density * np.pi * radius**2)
    if n_matched <= 0:
        return 0.0
    with np.errstate(divide="ignore"):  # a chance too small for a float is -inf
        return float(np.log10(bdtrc(n_matched - 1, n_tried, hit)))


def _similarity_matrix(parity: int, factor: complex, shift: complex) -> Float:
    x_axis, y_axis = -parity * factor, 1j * factor
    return np.array([[x_axis.real, y_axis.real, shift.real], [x_axis.imag, y_axis.imag, shift.imag]])


def _vote(w: Complex, z: Complex, limits: PoseLimits, diagonal: float) -> list[tuple[complex, complex]]:
    """Let pairs vote; return (factor, shift) of the most popular poses, best first."""
    factors, shifts = _hypotheses(w, z, limits, diagonal)
    if len(factors) == 0:
        return []
    step = max(_SHIFT_BIN * diagonal * limits.scale, 2 * limits.radius_arcsec / _MAX_SHIFT_BINS)
    n_shift = int(2 * limits.radius_arcsec / step) + 2
    n_angle = round(360 / _ROTATION_BIN_DEG)
    ix = ((shifts.real + limits.radius_arcsec) / step).astype(np.int64)
    iy = ((shifts.imag + limits.radius_arcsec) / step).astype(np.int64)
    ia = (np.rad2deg(np.angle(factors)) / _ROTATION_BIN_DEG).astype(np.int64) % n_angle
    flat = (ia * n_shift + iy) * n_shift + ix
    votes = np.bincount(flat, minlength=n_angle * n_shift**2).astype(np.int32)
    votes = votes.reshape(n_angle, n_shift, n_shift)
    # A true pose may sit on a border of cells: count boxes of two cells a side, the angle wrapping.
    for axis in range(3):
        votes = votes + np.roll(votes, -1, axis=axis)
    found = []
    for a, b, c in _peaks(votes):
        member = (((ia - a) % n_angle) <= 1) & (iy >= b) & (iy <= b + 1) & (ix >= c) & (ix <= c + 1)
        if np.count_nonzero(member) >= 2:
            found.append((complex(np.mean(factors[member])), complex(np.mean(shifts[member]))))
    return found


def _peaks(votes: npt.NDArray[np.int32]) -> list[tuple[int, int, int]]:
    """List the highest cells, leaving out those beside a higher one."""
    flat = votes.ravel()
    # Nearly all cells are empty: the histogram of heights finds the few high ones faster than any sorting.
    at_least = np.cumsum(np.bincount(flat)[::-1])[::-1]
    threshold = max(2, int(np.argmax(np.append(at_least, 0) <= _HIGH_CELLS)))
    highest = np.flatnonzero(flat >= min(threshold, len(at_least) - 1))[: 10 * _HIGH_CELLS]
    highest = highest[np.argsort(-flat[highest], kind="stable")]
    peaks: list[tuple[int, int, int]] = []
    for a, b, c in zip(*np.unravel_index(highest, votes.shape), strict=True):
        turn = [min((a - p[0]) % len(votes), (p[0] - a) % len(votes)) for p in peaks]
        if all(t > 2 or abs(b - p[1]) > 2 or abs(c - p[2]) > 2 for t, p in zip(turn, peaks, strict=True)):
            peaks.append((int(a), int(b), int(c)))
        if len(peaks) == _PEAKS:
            break
    return peaks


def _hypotheses(w: Complex, z: Complex, limits: PoseLimits, diagonal: float) -> tuple[Complex, Complex]:
    """Compare all pairs of nearly the same length; return the possible (factor, shift) of each."""
    i, j = np.triu_indices(len(w), 1)
    long_enough = np.abs(w[j] - w[i]) >= _SHORTEST_PAIR * diagonal
    i, j = i[long_enough], j[long_enough]
    k, m = np.triu_indices(len(z), 1)
    length = np.abs(z[m] - z[k])
    order = np.argsort(length)
    k, m, length = k[order], m[order], length[order]
    pair = np.abs(w[j] - w[i]) * limits.scale
    low = np.searchsorted(length, pair * (1 - limits.scale_tolerance))
    count = np.searchsorted(length, pair * (1 + limits.scale_tolerance)) - low
    count[np.cumsum(count) > _MAX_VOTES] = 0
    first = np.repeat(np.arange(len(i)), count)
    second = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    factor = (z[m[second]] - z[k[second]]) / (w[j[first]] - w[i[first]])
    ends = np.concatenate([z[k[second]], z[m[second]]])  # either end of the catalog's pair may be the first
    factor, first = np.concatenate([factor, -factor]), np.concatenate([first, first])
    if limits.rotation_deg is not None:
        turned = np.rad2deg(np.angle(factor * np.exp(1j * np.deg2rad(limits.rotation_deg))))
        allowed = np.abs(turned) <= limits.rotation_tolerance_deg
        factor, first, ends = factor[allowed], first[allowed], ends[allowed]
    shift = ends - factor * w[i[first]]
    allowed = np.abs(shift) <= limits.radius_arcsec
    return factor[allowed], shift[allowed]


def _verify(
    pose: Pose,
    detected: tuple[Float, Float],
    catalog: tuple[Float, Float],
    shape: tuple[int, int],
    radius_pix: float,
) -> Pose:
    """Refine a pose by least squares on shrinking radii, and count what it matches."""
    x, y = detected
    half_height, half_width = shape[0] / 2, shape[1] / 2
    for factor in (6.0, 3.0, 1.5, 1.0):
        on_x, on_y = _invert(pose, *catalog)
        on = np.flatnonzero((np.abs(on_x) < half_width) & (np.abs(on_y) < half_height))
        bright = on[: 2 * len(x)]
        found = match_plane(x, y, on_x[bright], on_y[bright], factor * radius_pix)
        if len(found.first) < 3:
            return pose
        pose = _refit(pose, x[found.first], y[found.first], catalog, bright[found.second])
    chance = log10_chance(len(found.first), len(x), len(bright) / (shape[0] * shape[1]), radius_pix)
    return Pose(pose.matrix, len(found.first), len(x), chance)


def _refit(pose: Pose, x: Float, y: Float, catalog: tuple[Float, Float], rows: npt.NDArray[np.intp]) -> Pose:
    """Fit an affine map; with few pairs a similarity of the same parity, which they cannot bend."""
    xi, eta = catalog[0][rows], catalog[1][rows]
    if len(x) >= 8:
        design = np.column_stack([x, y, np.ones_like(x)])
        return Pose(np.linalg.lstsq(design, np.column_stack([xi, eta]), rcond=None)[0].T)
    w, z = -pose.parity * x + 1j * y, xi + 1j * eta
    centred = w - w.mean()
    factor = complex(np.vdot(centred, z) / np.vdot(centred, centred))
    return Pose(_similarity_matrix(pose.parity, factor, complex(z.mean() - factor * w.mean())))


def _invert(pose: Pose, xi: Float, eta: Float) -> tuple[Float, Float]:
    x, y = np.linalg.solve(pose.matrix[:, :2], np.vstack([xi - pose.matrix[0, 2], eta - pose.matrix[1, 2]]))
    return x, y
