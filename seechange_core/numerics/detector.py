"""What a raw section needs before any master frame: checks, overscan, electrons, saturation."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_propagation, median_filter

from seechange_core.errors import HeaderError, PixelsError
from seechange_core.frames import Amplifier, Bool, Box, Crosstalk, Float, Float32, LinearityLaw, RawFrame
from seechange_core.numerics.crosstalk import coefficients_of, subtract_ghost
from seechange_core.numerics.linearity import linearise, table_of
from seechange_core.numerics.stats import MAD_TO_SIGMA


class Pedestal(NamedTuple):
    """The electronic zero level of an amplifier.

    Attributes
    ----------
    level_adu
        (rows,) float64, to be taken from each row.
    variance_adu
        Of the level in one row.
    noise_adu
        Scatter of the overscan's pixels around their rows' levels: read noise with the rounding to whole
        ADU; NaN if unknown.
    n_pixels
        How many pixels it was measured on.
    kept
        True: what is linear counts from this level, but it stays in the data, for a master holds it too.
    spoiled
        (rows,) of bool: something fell on the overscan there and the level is the neighbours'; None: nowhere.
    """

    level_adu: Float
    variance_adu: float
    noise_adu: float = np.nan
    n_pixels: int = 0
    kept: bool = False
    spoiled: Bool | None = None


def check_raw(raw: RawFrame) -> None:
    """Refuse a raw section whose arrays and amplifiers do not fit together.

    Raises
    ------
    PixelsError
        If the data are not a 2-d real array, hold no finite value, or an amplifier lies outside them.
    HeaderError
        If a gain, read noise or exposure time is impossible.
    """
    data = raw.data
    if data.ndim != 2 or data.dtype.kind not in "uif":
        raise PixelsError(
            f"raw data must be a 2-d array of real numbers, not {data.ndim}-d {data.dtype}",
            cure="check the instrument's load_section_image",
        )
    if data.dtype.kind == "f" and not np.isfinite(data).any():
        raise PixelsError("no pixel has a finite value", cure="the file is lost; mark the exposure bad")
    if not raw.amplifiers:
        raise PixelsError("the section has no amplifier", cure="check the instrument's description")
    if not np.isfinite(raw.exposure_time_s) or raw.exposure_time_s < 0:
        raise HeaderError(f"exposure time is {raw.exposure_time_s} s", cure="check the exposure-time card")
    for amplifier in raw.amplifiers:
        _check_amplifier(amplifier, (data.shape[0], data.shape[1]))


def _check_amplifier(amplifier: Amplifier, shape: tuple[int, int]) -> None:
    for box in (amplifier.raw, amplifier.overscan):
        if box is not None and not (0 <= box.y0 < box.y1 <= shape[0] and 0 <= box.x0 < box.x1 <= shape[1]):
            raise PixelsError(
                f"amplifier {amplifier.name} has {tuple(box)} (y0, y1, x0, x1) outside the raw {shape}",
                cure="the file is not from this camera, or its section cards are wrong",
            )
    if amplifier.raw.shape != amplifier.image.shape:
        raise PixelsError(
            f"amplifier {amplifier.name} reads {amplifier.raw.shape} pixels into {amplifier.image.shape}",
            cure="check the section cards",
        )
    if not (np.isfinite(amplifier.gain) and amplifier.gain > 0):
        raise HeaderError(f"amplifier {amplifier.name} has gain {amplifier.gain} e-/ADU", cure="set its gain")
    if not (np.isfinite(amplifier.read_noise_e) and amplifier.read_noise_e >= 0):
        raise HeaderError(
            f"amplifier {amplifier.name} has read noise {amplifier.read_noise_e} e-",
            cure="set its read noise",
        )


def overscan_pedestal(raw: RawFrame, amplifier: Amplifier, trim_pix: int = 0) -> Pedestal:
    """Measure an amplifier's zero level, row by row, from its overscan.

    Each row's level is a clipped mean. Where rows do not jitter by more than their own error the
    levels are smoothed over 31 rows, where they do they are kept: the mix of the two is the one with
    the least error (James & Stein shrinkage towards the running mean), so quiet electronics gain
    no noise common to a row and noisy ones lose their banding.

    Rows that stand out by 5 sigma from a running median over 101 rows have no part in this. If the
    amplifier's image row stands out by as much, the zero level really jumped and the row keeps its own;
    if not, something fell on the overscan (deferred charge, a bleed trail): the running median is its
    level and the row is spoiled. Runs of more than 50 spoiled rows (an eighth of the rows, if fewer)
    cannot be told from a drift.

    Parameters
    ----------
    raw
        The section.
    amplifier
        One of its amplifiers; without an overscan the level is 0.
    trim_pix
        Columns of the overscan to leave out on the side of the image (rows, where it lies above or below),
        at most half of them.

    Returns
    -------
    Pedestal
        For the rows of `amplifier.raw`, ADU.

    Raises
    ------
    PixelsError
        If the overscan holds no finite value.
    """
    n_rows = amplifier.raw.shape[0]
    if amplifier.overscan is None:
        return Pedestal(np.zeros(n_rows), 0.0)
    box = _trimmed(amplifier.overscan, amplifier.raw, trim_pix)
    block = np.asarray(raw.data[box.slices], dtype=np.float64)
    if (box.y0, box.y1) != (amplifier.raw.y0, amplifier.raw.y1):
        # An overscan above or below the light-sensitive pixels knows nothing of single rows.
        block = block.reshape(1, -1)
    block = np.where(np.isfinite(block), block, np.nan)
    if not np.isfinite(block).any():
        raise PixelsError(
            f"the overscan of amplifier {amplifier.name} holds no finite value",
            cure="switch do_overscan off for this instrument, or mark the exposure bad",
        )
    level, noise, count = _row_levels(block)
    variance = noise**2 / max(count / level.size, 1.0)
    if level.size == 1:
        return Pedestal(np.full(n_rows, level[0]), variance, noise, count)
    trend = _trend(level)
    outlying = _outlying(level - trend, float(np.sqrt(variance))) | ~np.isfinite(block).any(axis=1)
    own = outlying & _jumps_too(raw.data[amplifier.raw.slices], level - trend, outlying)
    smooth, variance = _shrink(np.where(outlying, trend, level), variance, outlying)
    return Pedestal(np.where(own, level, smooth), variance, noise, count, spoiled=outlying & ~own)


def _trimmed(overscan: Box, raw: Box, trim_pix: int) -> Box:
    """Leave out the overscan's columns, or rows, next to the image: what is left of its charge is there."""
    height, width = overscan.shape
    columns, rows = min(trim_pix, width // 2), min(trim_pix, height // 2)
    if overscan.x0 >= raw.x1:
        return overscan._replace(x0=overscan.x0 + columns)
    if overscan.x1 <= raw.x0:
        return overscan._replace(x1=overscan.x1 - columns)
    if overscan.y0 >= raw.y1:
        return overscan._replace(y0=overscan.y0 + rows)
    return overscan._replace(y1=overscan.y1 - rows) if overscan.y1 <= raw.y0 else overscan


def _trend(level: Float) -> Float:
    """Return the running median of rows' levels, carried on as straight lines to both ends."""
    # Of fewer rows the median says too little about what is ordinary: each is its own.
    half = min(50, level.size // 8) if level.size >= 64 else 0
    middle = median_filter(level, 2 * half + 1)[half : level.size - half]
    # A spoiled end would rule a window that is cut off there, or mirrored.
    step = min(2 * half, middle.size - 1)
    away = np.arange(half, 0, -1) / max(step, 1)
    start = middle[0] + away * (middle[0] - middle[step])
    end = middle[-1] + away[::-1] * (middle[-1] - middle[-1 - step])
    return np.concatenate([start, middle, end])


def _outlying(residual: Float, error: float) -> Bool:
    """Return which rows differ by 5 sigma of what rows do, and those on them that differ by 2.5."""
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(residual - np.median(residual))))
    # A quarter of an ADU is no contamination, however quiet the electronics are.
    sigma = max(scatter, error, 0.05)
    return np.asarray(
        binary_propagation(np.abs(residual) > 5 * sigma, mask=np.abs(residual) > 2.5 * sigma), bool
    )


def _jumps_too(pixels: npt.NDArray[Any], residual: Float, outlying: Bool) -> Bool:
    """Tell which of the outlying rows are off by as much in the image too, against ordinary rows around."""
    jumps = np.zeros(outlying.size, dtype=np.bool_)
    around = np.flatnonzero(~outlying)[::16]
    rows = np.flatnonzero(outlying)
    if rows.size == 0 or around.size == 0:
        return jumps
    step = np.interp(rows, around, _row_middles(pixels[around]))
    step = _row_middles(pixels[rows]) - step
    jumps[rows] = np.abs(step - residual[rows]) < np.abs(residual[rows]) / 2
    return jumps


def _row_middles(rows: npt.NDArray[Any]) -> Float:
    """Return the mean of the middle half of each row: stars do little to it, and whole ADU neither."""
    width = rows.shape[1]
    middle: Float = np.sort(rows, axis=1)[:, width // 4 : width - width // 4].mean(axis=1, dtype=np.float64)
    return middle


def _row_levels(block: Float) -> tuple[Float, float, int]:
    """Return the clipped mean of each row, the scatter of pixels around it, and how many pixels are left."""
    usable_rows = np.isfinite(block).any(axis=1)
    if np.isfinite(block).all():
        median = np.median(block, axis=1)  # three times as fast
    else:
        median = np.full(block.shape[0], np.nanmedian(block))
        median[usable_rows] = np.nanmedian(block[usable_rows], axis=1)
    deviation = block - median[:, None]
    middle = float(np.nanmedian(np.abs(deviation)))
    # Of whole ADU the median deviation is one too, up to half an ADU too small.
    sigma = MAD_TO_SIGMA * (middle + (0.5 if np.all(np.rint(block[::8]) == block[::8]) else 0.0))
    sigma = float(np.sqrt(np.nanmean(deviation[np.abs(deviation) <= 5 * sigma] ** 2)))
    # Clipping at 5 sigma takes nothing measurable from the noise itself.
    kept = np.abs(deviation) <= 5 * sigma
    count = kept.sum(axis=1)
    level = median + np.where(kept, deviation, 0).sum(axis=1) / np.maximum(count, 1)
    squares = (block - level[:, None])[kept] ** 2
    # Each row has given one degree of freedom to its level.
    freedom = max(int(count.sum() - np.count_nonzero(count)), 1)
    return level, float(np.sqrt(squares.sum() / freedom)), int(count.sum())


def _shrink(level: Float, variance: float, outlying: Bool) -> tuple[Float, float]:
    """Return levels between the rows' own and their running mean, and the variance that is left."""
    window = min(31, level.size)
    if level.size <= window:
        return level, variance
    padded = np.pad(level, window // 2, mode="reflect", reflect_type="odd")
    smooth = np.convolve(padded, np.ones(window) / window, mode="valid")
    n_rows = max(int(np.count_nonzero(~outlying)), 1)
    residual_variance = float(np.sum((level - smooth)[~outlying] ** 2)) / n_rows / (1 - 1 / window)
    jitter = max(0.0, residual_variance - variance)
    # A sample variance of n rows is good to sqrt(2 / n): less than three times that is no jitter.
    if jitter < 3 * variance * np.sqrt(2 / n_rows):
        return smooth, variance / window
    share = jitter / (jitter + variance)
    return smooth + share * (level - smooth), share * variance


def overscan_pedestals(raw: RawFrame, trim_pix: int = 0) -> dict[str, Pedestal]:
    """Return the zero levels of all amplifiers that have an overscan, by name."""
    return {a.name: overscan_pedestal(raw, a, trim_pix) for a in raw.amplifiers if a.overscan is not None}


def signal_electrons(
    raw: RawFrame,
    amplifier: Amplifier,
    *,
    pedestals: Mapping[str, Pedestal] | None,
    crosstalk: Crosstalk | None = None,
    linearity: LinearityLaw | None = None,
    rows: slice = slice(None),
) -> Float32:
    """Read an amplifier out: zero level off, crosstalk off, linear, in electrons.

    Science frames and the frames that masters are made of go through here alike.

    Parameters
    ----------
    raw, amplifier
        The section and one of its amplifiers.
    pedestals
        Zero levels by amplifier (see `overscan_pedestals`); an amplifier that is not among them keeps its
        own, unknown one. None: none is known.
    crosstalk, linearity
        Tables of the section; None to leave the step out.
    rows
        Which of the amplifier's rows.

    Returns
    -------
    ndarray
        (rows, width) float32, a new array; NaN where the raw value is not finite.

    Raises
    ------
    HeaderError
        If a table does not know an amplifier, or a step needs a zero level that is not known.
    PixelsError
        If a table makes no sense.
    """
    # Always a copy: all that follows works in place.
    signal = np.array(raw.data[amplifier.raw.slices][rows], dtype=np.float32, order="C")
    known = {} if pedestals is None else pedestals
    if amplifier.name in known:
        signal -= known[amplifier.name].level_adu[rows, None].astype(np.float32)
    if crosstalk is not None:
        _subtract_crosstalk(signal, raw, amplifier, known, crosstalk, rows)
    if linearity is not None:
        _zero_level(known, amplifier.name, "the linearity law")
        linearise(signal, table_of(linearity, amplifier.name))
    if amplifier.name in known and known[amplifier.name].kept:
        signal += known[amplifier.name].level_adu[rows, None].astype(np.float32)
    signal *= np.float32(amplifier.gain)
    if raw.data.dtype.kind == "f":
        signal[~np.isfinite(signal)] = np.nan
    return signal


def _subtract_crosstalk(
    signal: Float32,
    raw: RawFrame,
    victim: Amplifier,
    pedestals: Mapping[str, Pedestal],
    crosstalk: Crosstalk,
    rows: slice,
) -> None:
    by_name = {amplifier.name: amplifier for amplifier in raw.amplifiers}
    for name, share in coefficients_of(crosstalk, victim.name, tuple(by_name)).items():
        source = by_name[name]
        if source.defective:
            continue  # what it shows is no signal
        zero = _zero_level(pedestals, name, "crosstalk").level_adu[rows]
        pixels = np.ascontiguousarray(raw.data[source.raw.slices][rows], dtype=np.float32)
        subtract_ghost(signal, victim, pixels, source, zero, share)


def _zero_level(pedestals: Mapping[str, Pedestal], name: str, what: str) -> Pedestal:
    """Return an amplifier's pedestal; both laws count the signal from there."""
    if name not in pedestals:
        raise HeaderError(
            f"{what} needs the zero level of amplifier {name}: neither an overscan nor a bias tells it",
            cure="describe its overscan and switch do_overscan on, take biases, or switch this step off",
        )
    return pedestals[name]


def saturation_level_adu(raw: RawFrame, amplifier: Amplifier) -> float:
    """Return the raw level from which an amplifier's pixels count as saturated.

    A 16-bit converter cannot go beyond 65535, whatever the header says.
    """
    level = amplifier.saturation_adu if np.isfinite(amplifier.saturation_adu) else np.inf
    if raw.data.dtype.kind in "ui" and raw.data.dtype.itemsize <= 2:
        level = min(level, float(np.iinfo(raw.data.dtype).max))
    return level


def read_variance_e2(raw: RawFrame, amplifier: Amplifier, pedestal: Pedestal | None) -> float:
    """Return the variance that reading adds to a pixel, electrons^2, the rounding to whole ADU included.

    Parameters
    ----------
    raw, amplifier
        The section and one of its amplifiers.
    pedestal
        Where its `noise_adu` was measured on enough pixels, what was measured there counts; elsewhere the
        amplifier's `read_noise_e` and the variance of rounding, 1/12 ADU^2 for data of whole ADU.
    """
    # So many give the noise to better than 1 %.
    if pedestal is not None and pedestal.n_pixels >= 5000 and pedestal.noise_adu > 0:
        return (pedestal.noise_adu * amplifier.gain) ** 2
    rounding = amplifier.gain**2 / 12 if _whole_adu(raw, amplifier) else 0.0
    return amplifier.read_noise_e**2 + rounding


def _whole_adu(raw: RawFrame, amplifier: Amplifier) -> bool:
    if raw.data.dtype.kind in "ui":
        return True
    sample = sampled(raw.data[amplifier.raw.slices])
    return bool(np.all((sample == np.rint(sample)) | ~np.isfinite(sample)))


def sampled(block: npt.NDArray[Any], most: int = 60_000) -> npt.NDArray[Any]:
    """Return whole rows spread over a block, at most about so many pixels, for medians and the like."""
    return block[:: max(1, block.size // most)]


def is_silent(raw: RawFrame, amplifier: Amplifier) -> bool:
    """Tell whether an amplifier is quieter than electronics can be: constant, or nearly so."""
    pixels = sampled(raw.data[amplifier.raw.slices]).astype(np.float32)
    finite = pixels[np.isfinite(pixels)]
    if finite.size == 0:
        return True
    # Rounding to ADU hides a read noise far below one of them, so that alone is no sign of death.
    quiet_adu = 0.2 * min(amplifier.read_noise_e / amplifier.gain, 1.0)
    core = finite[np.abs(finite - np.median(finite)) < 100]
    return bool(core.size > finite.size / 2 and np.std(core) <= quiet_adu)
