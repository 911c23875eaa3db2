"""Changes on the cores of stars, where the simulated transients are not: those lie 3" and more from one.

Light is added to the calibrated new image, with its photons' noise, within .2 FWHM of stars of every
brightness above S/N 50, saturated ones too; S/N 5-100 against the noise of the star's own photons. What
counts is as in `change_truth`, the limit included: a perfect subtraction knows the star's light exactly.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from scipy.spatial import cKDTree

from benchmarks.change_truth import THRESHOLD, peak_scores, truth_of
from benchmarks.pairs import N_REFERENCE, ORDERS, Pair
from benchmarks.peers import row
from seechange_core.frames import CalibratedImage
from seechange_core.stages.force import ForceParams, force
from seechange_core.stages.subtract import SubtractParams, subtract

Float = npt.NDArray[np.float64]

N_CHANGES = 60
_PLACE = "star_core"
_FAINTEST_STAR_SNR = 50.0
_SNR = (5.0, 100.0)
_OFF_FWHM = 0.2
_APART_FWHM = 8.0
#: Bins of the star's own S/N.
_BINS = ((50.0, 150.0), (150.0, 500.0), (500.0, np.inf))


def row_of(pair: Pair, order: str, new: CalibratedImage, reference: CalibratedImage) -> dict[str, Any]:
    """Measure one new image, with the default subtraction."""
    added, image = add_changes(pair, order, new)
    truth = truth_of(pair, order, image, new.psf.size, added)
    sub = subtract(replace(new, image=image), [reference], SubtractParams())
    ours, best = peak_scores(truth, sub.score), peak_scores(truth, truth.limit)
    on = (truth.place == _PLACE) & (truth.snr > THRESHOLD)
    # The truth keeps the order of the rows and leaves out those that no reference covers.
    star_snr = np.full(len(truth.x), np.nan)
    _, at = cKDTree(np.c_[added["x"], added["y"]]).query(np.c_[truth.x, truth.y])
    star_snr[on] = np.asarray(added["star_snr"])[at[on]]
    quality = {"n": float(on.sum())} | _complete("complete", ours, best, on)
    for low, high in _BINS:
        name = f"star_snr{low:g}" + (f"_{high:g}" if np.isfinite(high) else "")
        quality |= _complete(name, ours, best, on & (star_snr >= low) & (star_snr < high))
    fluxes = force(
        sub.image.data, sub.image.weight, sub.image.flags, sub.psf, truth.x, truth.y, sub.image.gain,
        ForceParams(),
    )  # fmt: skip
    pulls = ((fluxes.flux - truth.flux_e) / fluxes.flux_err)[on]
    pulls = pulls[np.isfinite(pulls)].tolist()
    step = f"changes on stars, new {order}"
    return row(step, pair.kind, pair.seed, None, quality, pulls={"forced": pulls})


def _complete(name: str, ours: Float, best: Float, these: npt.NDArray[np.bool_]) -> dict[str, float]:
    if not these.any():
        return {}
    return {
        f"{name}_percent": 100 * float(np.mean(ours[these] > THRESHOLD)),
        f"{name}_limit_percent": 100 * float(np.mean(best[these] > THRESHOLD)),
    }


def add_changes(pair: Pair, order: str, new: CalibratedImage) -> tuple[Table, Any]:
    """Return what is added (x, y, flux_e, id, place, star_snr) and the image that shows it."""
    rng = np.random.default_rng([pair.seed, ORDERS.index(order), 11])
    camera, section = pair.world.camera, pair.section
    observation = pair.world.observations[N_REFERENCE + ORDERS.index(order)].under(camera, section)
    field, offset = observation.psf_field(camera), camera.focal_offset(section)
    frame, static = new.image, pair.static(order)
    sky = float(np.median(static))
    usual = 1 / float(np.median(frame.weight[frame.weight > 0]))
    half = int(np.ceil(4 * field.fwhm_pix))
    data, rows = frame.data.copy(), []
    for x, y, flux in _stars(pair, order, field.fwhm_pix, half, rng):
        i, j = round(x), round(y)
        box = slice(j - half, j + half + 1), slice(i - half, i + half + 1)
        stamp = field.stamp(i + offset[0], j + offset[1], 2 * half + 1, x - i, y - j)
        information = np.sum(stamp**2 / (usual + np.maximum(static[box] - sky, 0) / frame.gain))
        star_snr = flux * float(np.sqrt(information))
        if star_snr < _FAINTEST_STAR_SNR:
            continue
        change = float(np.exp(rng.uniform(*np.log(_SNR)))) / float(np.sqrt(information))
        light = change * stamp
        photons = rng.standard_normal(stamp.shape) * np.sqrt(np.maximum(light, 0) / frame.gain)
        data[box] += (light + photons).astype(np.float32)
        rows.append((x, y, change, -1 - len(rows), _PLACE, star_snr))
        if len(rows) == N_CHANGES:
            break
    names = ("x", "y", "flux_e", "id", "place", "star_snr")
    return Table(rows=rows, names=names), replace(frame, data=data)


def _stars(pair: Pair, order: str, fwhm: float, half: int, rng: np.random.Generator) -> list[Any]:
    """Return x, y of the changes and fluxes of their stars, far from each other and from the transients."""
    epochs = pair.survey.epochs
    name = pair.survey.exposures["file"][N_REFERENCE + ORDERS.index(order)]
    stars = epochs[(epochs["file"] == name) & (epochs["kind"] == "star") & (epochs["flux_e"] > 0)]
    height, width = pair.world.camera.shape
    x, y = (np.asarray(stars[c], float) for c in ("x", "y"))
    stars = stars[(x > half + 1) & (x < width - half - 2) & (y > half + 1) & (y < height - half - 2)]
    transients = pair.transients(order)
    taken = np.c_[np.asarray(transients["x"], float), np.asarray(transients["y"], float)]
    # Of every brightness alike: there are far more faint ones.
    bins = np.histogram_bin_edges(log := np.log(np.asarray(stars["flux_e"], float)), 12)
    which = np.clip(np.digitize(log, bins) - 1, 0, 11)
    share = 1 / np.bincount(which, minlength=12)[which]
    drawn = rng.choice(len(stars), len(stars), replace=False, p=share / share.sum())
    chosen = []
    for star in stars[drawn]:
        place = np.array([star["x"], star["y"]]) + rng.normal(0, _OFF_FWHM * fwhm, 2)
        if np.hypot(*(taken - place).T).min() > _APART_FWHM * fwhm:
            taken = np.vstack([taken, place])
            chosen.append((float(place[0]), float(place[1]), float(star["flux_e"])))
    return chosen
