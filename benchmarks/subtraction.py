"""Subtraction against the truth, in both seeing orders: ours, its second method, and peers, beside the limit.

What `change_truth` says of completeness, false peaks, noise and masks, before any vetting. Of ours also what
is left of false ones after it (detection, cutouts, measurement, its cuts) and how many true ones the cuts
throw out; fluxes forced at the true places of *all* transients, whatever is there, and the positions
measured of those detected. A pull is (measured - true) / quoted error; ``mean_sigma`` is the mean of the
middle 95 %, ``width`` the scatter from the median absolute deviation, ``tails_percent`` what is beyond 4
sigma. The true flux is the light within the PSF model's stamp, which the model defines as all of it.
"""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from benchmarks import pairs
from benchmarks.change_truth import Truth, false_ones, judge, peak_scores, truth_of
from benchmarks.peers import row, timed
from benchmarks.zogy_peers import PEERS
from seechange_core.frames import CalibratedImage, SubtractionFrame
from seechange_core.stages.cut import CutParams, cut
from seechange_core.stages.detect import DetectParams, detect
from seechange_core.stages.force import ForceParams, force
from seechange_core.stages.measure import MeasureParams, measure
from seechange_core.stages.subtract import SubtractParams, subtract

Float = npt.NDArray[np.float64]

#: Bins of the expected S/N.
BINS = ((3.0, 10.0), (10.0, 30.0), (30.0, 100.0), (100.0, np.inf))
_FEWEST = 5
_TAIL_SIGMA = 4.0


def rows(kind: str, seed: int) -> list[dict[str, Any]]:
    """Measure one CCD."""
    pair = pairs.load(kind, seed)
    reference = pair.reference()
    found = []
    for order in pairs.ORDERS:
        new = pair.new(order)
        truth = truth_of(pair, order, new.image, new.psf.size)
        step = f"subtraction, new {order}"
        for method in methods():
            sub, cost = timed(ours, new, reference, method)
            quality = judged(truth, new, sub)
            name = step if method is None else f"{step}, {method}"
            if method is not None:
                found.append(row(name, kind, seed, cost, quality))
                continue
            for peer, run in PEERS.items():
                theirs = run(new, reference)
                if theirs is not None:
                    score, their_cost = theirs
                    found.append(
                        row(
                            name, kind, seed, cost, quality, peer, their_cost, judge(truth, score, None, None)
                        )
                    )
    return found


def methods() -> list[str | None]:
    """Return the methods there are; None is the default."""
    field = SubtractParams.model_fields.get("method")
    if field is None:
        return [None]
    choices = [str(choice) for choice in getattr(field.annotation, "__args__", ())]
    return [None, *(choice for choice in choices if choice != field.default)]


def ours(new: CalibratedImage, reference: CalibratedImage, method: str | None) -> SubtractionFrame:
    """Subtract, alignment and all."""
    params = SubtractParams() if method is None else SubtractParams.model_validate({"method": method})
    return subtract(new, [reference], params)


def judged(truth: Truth, new: CalibratedImage, sub: SubtractionFrame) -> dict[str, float]:
    """Return all figures of a subtraction."""
    quality = judge(truth, sub.score, sub.image.data, sub.image.weight)
    return {**quality, **_forced(truth, sub), **_vetted(truth, new, sub)}


def _forced(truth: Truth, sub: SubtractionFrame) -> dict[str, float]:
    image = sub.image
    fluxes = force(
        image.data, image.weight, image.flags, sub.psf, truth.x, truth.y, image.gain, ForceParams()
    )
    pulls = (fluxes.flux - truth.flux_e) / fluxes.flux_err
    values = {"forced_given_percent": 100 * float(np.mean(np.isfinite(pulls)))}
    values |= _summary("forced", pulls)
    for low, high in BINS:
        inside = (truth.snr >= low) & (truth.snr < high)
        name = f"forced_snr{low:g}_{high:g}" if np.isfinite(high) else f"forced_snr{low:g}"
        values |= _summary(name, pulls[inside])
    return values


def _summary(name: str, pulls: Float) -> dict[str, float]:
    pulls = np.sort(pulls[np.isfinite(pulls)])
    if len(pulls) < _FEWEST:
        return {}
    cut_off = len(pulls) // 40
    middle = np.median(pulls)
    return {
        f"{name}_mean_sigma": float(pulls[cut_off : len(pulls) - cut_off].mean()),
        f"{name}_width": float(1.4826 * np.median(np.abs(pulls - middle))),
        f"{name}_tails_percent": 100 * float(np.mean(np.abs(pulls) > _TAIL_SIGMA)),
    }


def _vetted(truth: Truth, new: CalibratedImage, sub: SubtractionFrame) -> dict[str, float]:
    found = detect(sub, DetectParams())
    measured = measure(
        cut(new, sub, found, CutParams()), found, sub.psf, MeasureParams(), gain=sub.image.gain
    )
    false = false_ones(truth, found.x, found.y)
    good = ~measured.is_bad
    distance, at = cKDTree(np.c_[truth.x, truth.y]).query(np.c_[found.x, found.y])
    true = (distance < 0.5 * truth.fwhm_pix + 1) & (found.score > 0)
    pulls = np.r_[
        ((measured.x - truth.x[at]) / measured.x_err)[true & good],
        ((measured.y - truth.y[at]) / measured.y_err)[true & good],
    ]
    return {
        "detected_false_positive": float(np.count_nonzero(false & (found.score > 0))),
        "detected_false_negative": float(np.count_nonzero(false & (found.score < 0))),
        "vetted_false_positive": float(np.count_nonzero(false & good & (found.score > 0))),
        "vetted_false_negative": float(np.count_nonzero(false & good & (found.score < 0))),
        "vetted_lost_percent": 100 * float(np.mean(~good[true])) if true.any() else 0.0,
        **_summary("position", pulls),
    }


def _explain(kind: str, seed: int, method: str | None) -> None:
    """Print what was missed or false, one by one: for who tunes."""
    pair = pairs.load(kind, seed)
    reference = pair.reference()
    for order in pairs.ORDERS:
        new = pair.new(order)
        truth = truth_of(pair, order, new.image, new.psf.size)
        sub = ours(new, reference, method)
        print(f"--- {kind} {seed}, new {order}, FWHM {truth.fwhm_pix:.2f} pix")
        for name, value in judged(truth, new, sub).items():
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
        for k in np.flatnonzero(false_ones(truth, found.x, found.y)):
            x, y = round(found.x[k]), round(found.y[k])
            box = slice(max(0, y - 2), y + 3), slice(max(0, x - 2), x + 3)
            near = f"{np.count_nonzero(truth.bad[box])} bad pixels within 2"
            print(f"false ({found.x[k]:.1f}, {found.y[k]:.1f}) score {found.score[k]:.1f}, {near}")


def main() -> None:
    """Explain pairs one by one: ``python -m benchmarks.subtraction fine 1 2``, or ``fine kernel 1 2``."""
    method = None
    for word in sys.argv[2:]:
        if word.isdigit():
            _explain(sys.argv[1], int(word), method)
        else:
            method = word


if __name__ == "__main__":
    main()
