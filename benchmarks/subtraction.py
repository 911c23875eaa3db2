"""Subtraction against the truth, in both seeing orders: ours, its second method, peers, and two limits.

    python -m benchmarks subtraction --new-references --markdown
    python -m benchmarks.subtraction fine 1 2                     # one by one what is missed or false

The first limit takes the true static sky away (`change_truth`); the second is the best that the new image
and the exposures of the reference allow, whose noise no subtraction gets rid of (`two_images`). Completeness,
false peaks, noise and masks are counted as `change_truth` says, before any vetting. Of ours also what the
pipeline's own detection finds and misses, and what is left after its cuts and how many true ones these throw
out; fluxes forced at the true places of *all* transients, whatever is there, and the positions measured of
those found. A pull is (measured - true) / quoted error. The true flux is the light within the PSF model's
stamp, which the model defines as all of it.
"""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from benchmarks import pairs, star_changes
from benchmarks.change_truth import (
    FALSE_FWHM,
    THRESHOLD,
    Truth,
    false_ones,
    judge,
    peak_scores,
    truth_of,
)
from benchmarks.peers import row, summary, timed_each
from benchmarks.two_images import earlier_of, proper_score
from benchmarks.zogy_peers import peers
from seechange_core.frames import CalibratedImage, SubtractionFrame
from seechange_core.stages.cut import CutParams, cut
from seechange_core.stages.detect import DetectParams, detect
from seechange_core.stages.force import ForceParams, force
from seechange_core.stages.measure import MeasureParams, measure
from seechange_core.stages.subtract import SubtractParams, subtract
from seechange_core.stages.vet import BadReason

Bool = npt.NDArray[np.bool_]
Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

#: The default first.
METHODS = ("zogy", "kernel")
#: What rows of the limits name as their peer.
LIMIT = "perfect subtraction"
BOTH = "these two images"
#: Bins of the expected S/N.
BINS = ((0.0, 3.0), (3.0, 10.0), (10.0, 30.0), (30.0, 100.0), (100.0, np.inf))


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Measure one CCD."""
    pair = pairs.load(kind, seed)
    reference, earlier = pair.reference(), earlier_of(pair)
    found = []
    for order in pairs.ORDERS:
        new = pair.new(order)
        truth = truth_of(pair, order, new.image, new.psf.size)
        limit = judge(truth, truth.limit, None, None)
        both = judge(truth, proper_score(truth.exposed, earlier), None, None)
        results = timed_each(ours, [(new, reference, method) for method in METHODS])
        for method, (sub, cost) in zip(METHODS, results, strict=True):
            step = f"subtraction, new {order}" + ("" if method == METHODS[0] else f", {method}")
            quality, pulls = judged(truth, new, sub)
            quality["below_both_percent"] = both["complete_percent"] - quality["complete_percent"]
            found.append(row(step, kind, seed, cost, quality, LIMIT, None, limit, pulls))
            if method == METHODS[0]:
                found.append(row(f"cuts, new {order}", kind, seed, None, cuts_of(truth, Vetted(new, sub))))
                found.append(star_changes.row_of(pair, order, new, reference))
                common = {name: quality[name] for name in limit}
                found.append(row(step, kind, seed, cost, common, BOTH, None, both))
                found += [
                    row(step, kind, seed, cost, common, peer, theirs, judge(truth, score, None, None))
                    for peer, score, theirs in peers(new, reference)
                ]
    return found


def ours(new: CalibratedImage, reference: CalibratedImage, method: str) -> SubtractionFrame:
    """Subtract, alignment and all."""
    return subtract(new, [reference], SubtractParams.model_validate({"method": method}))


class Vetted:
    """What the pipeline's detection and measurement make of a subtraction."""

    def __init__(self, new: CalibratedImage, sub: SubtractionFrame) -> None:
        self.found = detect(sub, DetectParams())
        stamps = cut(new, sub, self.found, CutParams())
        self.measured = measure(stamps, self.found, sub.psf, MeasureParams(), gain=sub.image.gain)

    def against(self, truth: Truth) -> tuple[Bool, Bool, Int]:
        """Tell which are false, which have a transient whose truth is known, and which one that is."""
        x, y = self.found.x, self.found.y
        false = false_ones(truth, x, y, self.found.score)
        distance, at = cKDTree(np.c_[truth.x, truth.y]).query(np.c_[x, y])
        # Those beyond the rim, or where there is no reference, have no truth to compare with.
        return false, ~false & (distance <= FALSE_FWHM * truth.fwhm_pix), at


def judged(
    truth: Truth, new: CalibratedImage, sub: SubtractionFrame
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return all figures of a subtraction, and single pulls by name."""
    quality = judge(truth, sub.score, sub.image.data, sub.image.weight)
    best = judge(truth, truth.limit, None, None)["complete_percent"]
    vetted = Vetted(new, sub)
    fluxes = _forced(truth, sub)
    given = 100 * float(np.mean(np.isfinite(fluxes)))
    pulls = {"forced": fluxes} | {
        f"forced_snr{low:g}_{high:g}": fluxes[(truth.snr >= low) & (truth.snr < high)] for low, high in BINS
    }
    pulls["position"] = _positions(truth, vetted)
    quality |= {"below_limit_percent": best - quality["complete_percent"], "forced_given_percent": given}
    return quality | _detected(truth, vetted), {
        name: values[np.isfinite(values)].tolist() for name, values in pulls.items()
    }


def _forced(truth: Truth, sub: SubtractionFrame) -> Float:
    image = sub.image
    fluxes = force(
        image.data, image.weight, image.flags, sub.psf, truth.x, truth.y, image.gain, ForceParams()
    )
    return np.asarray((fluxes.flux - truth.flux_e) / fluxes.flux_err)


def _detected(truth: Truth, vetted: Vetted) -> dict[str, float]:
    """Return what is found and false before and after the cuts."""
    false, true, at = vetted.against(truth)
    score, good = vetted.found.score, ~vetted.measured.is_bad
    expected = truth.snr > THRESHOLD
    figures = {}
    for name, kept in (("detected", np.ones_like(good)), ("vetted", good)):
        figures[f"{name}_false_positive"] = float(np.count_nonzero(false & kept & (score > 0)))
        figures[f"{name}_false_negative"] = float(np.count_nonzero(false & kept & (score < 0)))
        seen = np.isin(np.arange(len(truth.x)), at[true & kept])
        figures[f"{name}_complete_percent"] = 100 * float(np.mean(seen[expected]))
    figures["vetted_lost_percent"] = 100 * float(np.mean(~good[true])) if true.any() else 0.0
    return figures


def _positions(truth: Truth, vetted: Vetted) -> Float:
    """Return the pulls of the positions of what is found and not cut."""
    _, true, at = vetted.against(truth)
    some = np.flatnonzero(true & ~vetted.measured.is_bad)
    m, at = vetted.measured, at[some]
    return np.r_[
        (m.x[some] - truth.x[at]) / m.x_err[some],
        (m.y[some] - truth.y[at]) / m.y_err[some],
    ]


def cuts_of(truth: Truth, vetted: Vetted) -> dict[str, float]:
    """Return how many true and false detections there are, and how many fail each cut."""
    false, true, _ = vetted.against(truth)
    figures = {"true": float(np.count_nonzero(true)), "false": float(np.count_nonzero(false))}
    for reason in BadReason:
        fails = vetted.measured.bad_reasons & int(reason) > 0
        alone = vetted.measured.bad_reasons == int(reason)
        name = str(reason.name).lower()
        figures[f"{name}_true"] = float(np.count_nonzero(true & fails))
        figures[f"{name}_false"] = float(np.count_nonzero(false & fails))
        figures[f"{name}_only_false"] = float(np.count_nonzero(false & alone))
    return figures


def _explain(kind: str, seed: int, method: str) -> None:
    """Print what was missed or false, one by one: for who tunes."""
    pair = pairs.load(kind, seed)
    reference = pair.reference()
    for order in pairs.ORDERS:
        new = pair.new(order)
        truth = truth_of(pair, order, new.image, new.psf.size)
        sub = ours(new, reference, method)
        print(f"--- {kind} {seed}, new {order}, FWHM {truth.fwhm_pix:.2f} pix")
        quality, pulls = judged(truth, new, sub)
        for name, values in pulls.items():
            quality |= summary(name, values)
        for name, value in quality.items():
            print(f"{name:<40}{value:.4g}")
        seen, best = peak_scores(truth, sub.score), peak_scores(truth, truth.limit)
        for k in np.flatnonzero((truth.snr > 5) & ((seen > 5) != (best > 5))):
            x, y = round(truth.x[k]), round(truth.y[k])
            box = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
            print(
                f"{'missed' if best[k] > 5 else 'gained'} {truth.place[k]:<12}"
                f"({truth.x[k]:.1f}, {truth.y[k]:.1f}) "
                f"expected {truth.snr[k]:.1f} limit {best[k]:.1f} ours {seen[k]:.1f} "
                f"masked {np.count_nonzero(sub.score[box] == 0)} of {np.count_nonzero(truth.bad[box])} bad"
            )
        found = detect(sub, DetectParams())
        for k in np.flatnonzero(false_ones(truth, found.x, found.y, found.score)):
            x, y = round(found.x[k]), round(found.y[k])
            box = slice(max(0, y - 2), y + 3), slice(max(0, x - 2), x + 3)
            near = f"{np.count_nonzero(truth.bad[box])} bad pixels within 2"
            print(f"false ({found.x[k]:.1f}, {found.y[k]:.1f}) score {found.score[k]:.1f}, {near}")


def main() -> None:
    """Explain pairs one by one: ``python -m benchmarks.subtraction fine 1 2``, or ``fine kernel 1 2``."""
    method = METHODS[0]
    for word in sys.argv[2:]:
        if word.isdigit():
            _explain(sys.argv[1], int(word), method)
        else:
            method = word


if __name__ == "__main__":
    main()
