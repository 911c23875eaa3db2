"""Files of calibrators as people bring them: read, checked and brought to our units.

Images (``bias dark flat twilight_flat fringe illumination bad_pixels``) are FITS: one image extension for
each section, EXTNAME = the section's id, or a single image for one section. Extensions
``<section>_VARIANCE`` and ``<section>_FLAGS`` (of a single image ``VARIANCE`` and ``FLAGS``) may
accompany an image. Units are those of `frames.MasterFrame`; flats and illuminations are brought to a
median of 1, fringes to a median of 0. A bad-pixel image is anything but 0 where a pixel is bad.

Laws are tables in any format astropy reads. ``linearity`` has columns section, amplifier, measured_adu,
true_adu; ``crosstalk`` has section, victim, source, coefficient. A table of one section needs no column
section.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.table import Table

from seechange_core.errors import BadDataError, FileDamagedError, PixelsError, SeeChangeError
from seechange_core.flags import UNUSABLE, PixelFlag
from seechange_core.frames import Bool, Crosstalk, Flags, Float, Float32, LinearityLaw, MasterFrame
from seechange_core.instrument.fits_reader import UnitReport, kept_open, list_units, read_cards, read_pixels
from seechange_core.products.calibrator import Content

#: Raised whenever the same file gives another calibrator.
CODE_VERSION = "1"
#: Kinds of which only the shape of the response counts: median 1.
RELATIVE = ("flat", "twilight_flat", "illumination")
LAWS: dict[str, tuple[str, ...]] = {
    "linearity": ("amplifier", "measured_adu", "true_adu"),
    "crosstalk": ("victim", "source", "coefficient"),
}
COMPANIONS = ("VARIANCE", "FLAGS")
#: Medians that a master may have, above the zero level, and their unit.
LEVELS = {"bias": (-2000.0, 60_000.0, "electrons"), "dark": (-5.0, 1000.0, "electrons per second")}
#: What a law may make of a signal: no amplifier is half off.
LAW_RANGE = (0.5, 2.0)
#: A fringe is a few per cent of the sky: more is a pattern that was not divided by it.
FRINGE_MAX = 0.5
#: Amplifiers leave less than a per cent in each other.
CROSSTALK_MAX = 0.2


def read_supplied(
    path: Path, kind: str, sections: Sequence[str], section: str | None = None
) -> Iterator[tuple[str, Content]]:
    """Read a file, one section at a time.

    Parameters
    ----------
    path
        The file.
    kind
        One of `calibrator.KINDS`.
    sections
        Ids of the instrument's sections, as text.
    section
        Which section a file is of that does not say so.

    Yields
    ------
    section, content
        What the file has of it, in our units.

    Raises
    ------
    FileDamagedError
        If it is not what its suffix says, or not whole.
    BadDataError
        If it has unknown sections, or what it has cannot be right.
    """
    read = _read_table if kind in LAWS else _read_images
    with kept_open():
        try:
            yield from read(path, kind, sections, section)
        except SeeChangeError as error:
            error.file = error.file or str(path)
            raise


# --- Images ---------------------------------------------------------------------------------------


def _read_images(
    path: Path, kind: str, sections: Sequence[str], section: str | None
) -> Iterator[tuple[str, MasterFrame]]:
    images = [unit for unit in list_units(path) if unit.has_image]
    units = {unit.name or f"#{unit.index}": unit for unit in images}
    if len(units) < len(images):
        twice = [name for name, n in Counter(unit.name for unit in images).items() if n > 1]
        raise BadDataError(f"several images are called {_some(twice)}", cure="give each its own EXTNAME")
    if not units:
        raise BadDataError("it holds no image", cure="give one image extension for each section")
    main = {name: unit for name, unit in units.items() if not name.endswith(COMPANIONS)}
    chosen = _sections_of(main, sections, section)
    companions = {own: _companions_of(own, units, alone=len(main) == 1) for own in chosen}
    known = [other.name for others in companions.values() for other in others.values()]
    lost = [name for name in units if name.endswith(COMPANIONS) and name not in known]
    if lost and section is None:
        raise BadDataError(f"no image belongs to {_some(lost)}", cure="call them <section>_VARIANCE, _FLAGS")
    for own, unit in chosen.items():
        pixels = {name: read_pixels(path, other.index) for name, other in companions[own].items()}
        cards = {**read_cards(path, 0), **read_cards(path, unit.index)}
        try:
            yield own, _master(kind, read_pixels(path, unit.index), pixels, cards)
        except SeeChangeError as error:
            error.section = own
            raise


def _companions_of(section: str, units: dict[str, UnitReport], alone: bool) -> dict[str, UnitReport]:
    """Find what goes with the image of a section; of a single image it need not name the section."""
    found = {}
    for name in COMPANIONS:
        unit = units.get(f"{section.upper()}_{name}") or (units.get(name) if alone else None)
        if unit is not None:
            found[name] = unit
    return found


def _sections_of(
    images: dict[str, UnitReport], sections: Sequence[str], section: str | None
) -> dict[str, UnitReport]:
    """Tell which image is of which section."""
    by_name = {known.upper(): known for known in sections}
    unknown = [name for name in images if name not in by_name]
    if section is not None and section.upper() in images:
        return {section: images[section.upper()]}
    if section is not None and len(images) == 1:
        return {section: next(iter(images.values()))}
    if len(sections) == len(images) == 1:
        return {sections[0]: next(iter(images.values()))}
    if unknown or section is not None:
        raise BadDataError(
            f"its images are {_some(images)}; "
            + (f"none is section {section}" if section else f"no section is called {_some(unknown)}"),
            cure=f"let EXTNAME be the section's id ({_some(sections)}), or give one image and its section",
        )
    return {by_name[name]: unit for name, unit in images.items()}


def _some(names: Sequence[str] | dict[str, Any]) -> str:
    known = list(names)
    return ", ".join(known[:5]) + (f", ... ({len(known)})" if len(known) > 5 else "")


def _master(
    kind: str, pixels: npt.NDArray[Any], companions: dict[str, npt.NDArray[Any]], cards: dict[str, Any]
) -> MasterFrame:
    for name, other in companions.items():
        if other.shape != pixels.shape:
            raise PixelsError(
                f"{name} is {_size(other)} pixels, the image {_size(pixels)}", cure="make them alike"
            )
    flags = _flags(companions.get("FLAGS"), pixels.shape)
    if kind == "bad_pixels":
        flags |= np.where(pixels != 0, PixelFlag.BAD_PIXEL, 0).astype(np.uint16)
        blank = np.zeros(pixels.shape, dtype=np.float32)
        return MasterFrame(kind, blank, blank, flags, n_frames=0)
    data = pixels.astype(np.float32)
    variance = companions.get("VARIANCE", np.zeros(pixels.shape)).astype(np.float32)
    good = (flags & np.uint16(UNUSABLE)) == 0
    _check_numbers(data, variance, good)
    if kind in LEVELS:
        _check_level(kind, float(np.median(data[good])))
    for array in (data, variance):
        array[~good & ~np.isfinite(array)] = 0.0
    if kind in RELATIVE:
        middle = _positive_middle(data[good], kind)
        data, variance = data / middle, variance / middle**2
    elif kind == "fringe":
        data = _fringe(data, good)
    time_s = cards.get("SCEXPT", cards.get("EXPTIME"))
    return MasterFrame(
        kind,
        data,
        variance,
        flags,
        n_frames=int(cards.get("SCNFRAME") or 0),
        exposure_time_s=float(time_s) if isinstance(time_s, int | float) and time_s > 0 else np.nan,
        holds_pedestal=cards.get("SCPEDEST") is True,
    )


def _flags(given: npt.NDArray[Any] | None, shape: tuple[int, ...]) -> Flags:
    if given is None:
        return np.zeros(shape, dtype=np.uint16)
    known = int(sum(PixelFlag))
    if given.dtype.kind not in "ui" or (given.astype(np.int64) & ~known).any():
        raise PixelsError(
            f"FLAGS is not made of our bits, up to {known}", cure="write an integer image of PixelFlag bits"
        )
    return given.astype(np.uint16)


def _check_numbers(data: Float32, variance: Float32, good: Bool) -> None:
    """Refuse what is not a number where nothing says that the pixel is bad."""
    if not good.any():
        raise PixelsError("all its pixels are flagged", cure="look at its FLAGS")
    lost = int((~np.isfinite(data) & good).sum())
    if lost:
        raise PixelsError(
            f"{lost} of {data.size} pixels are not finite numbers",
            cure="flag them in an extension FLAGS (NO_DATA is 2), or write a number",
        )
    wrong = int((~(variance >= 0) & good).sum())
    if wrong:
        raise PixelsError(f"VARIANCE is negative or not a number in {wrong} pixels", cure="correct it")


def _check_level(kind: str, level: float) -> None:
    low, high, unit = LEVELS[kind]
    if not low <= level <= high:
        raise PixelsError(
            f"the median of this {kind} is {level:.4g} {unit}, {low:g} to {high:g} can be",
            cure=f"give it in {unit}, the zero level of the overscan taken off",
        )


def _positive_middle(values: Float32, kind: str) -> np.float32:
    middle = np.median(values)
    if not middle > 0:
        raise PixelsError(
            f"the median of this {kind} is {middle:.4g}", cure="give a relative response, near 1"
        )
    return np.float32(middle)


def _fringe(data: Float32, good: Bool) -> Float32:
    data = data - np.median(data[good])
    low, high = np.percentile(data[good], [1, 99])
    if not high > low:
        raise PixelsError("this fringe has no pattern: it is the same everywhere", cure="give another file")
    if high - low > FRINGE_MAX:
        raise PixelsError(
            f"this fringe is {high - low:.3g} from valley to ridge, {FRINGE_MAX} of the sky at most",
            cure="divide it by the sky level it was measured at",
        )
    return data


def _size(array: npt.NDArray[Any]) -> str:
    return " x ".join(map(str, array.shape))


def check_shape(content: Content, width: int | None, height: int | None) -> None:
    """Refuse an image that is not as large as its section, where that is known.

    Raises
    ------
    PixelsError
        With both sizes.
    """
    if not isinstance(content, MasterFrame) or width is None or height is None:
        return
    if content.data.shape != (height, width):
        raise PixelsError(
            f"it is {_size(content.data)} pixels (height x width), the section {height} x {width}",
            cure="give a trimmed image, as large as the section without overscan",
        )


# --- Laws -----------------------------------------------------------------------------------------


def _read_table(
    path: Path, kind: str, sections: Sequence[str], section: str | None
) -> Iterator[tuple[str, Content]]:
    table = _open_table(path)
    missing = [name for name in LAWS[kind] if name not in table.colnames]
    if missing:
        raise BadDataError(
            f"it has no column {', '.join(missing)}, only {_some(table.colnames)}",
            cure=f"a {kind} table has section, {', '.join(LAWS[kind])}",
        )
    columns = {name: _column(table[name], name) for name in (*LAWS[kind], *_own_section(table))}
    if "section" in columns:
        owners = columns["section"]
    elif section is not None or len(sections) == 1:
        owners = np.full(len(table), section if section is not None else sections[0])
    else:
        raise BadDataError("nothing says which section it is of", cure="add a column section, or say which")
    names = [str(name) for name in dict.fromkeys(owners.tolist())]
    unknown = [name for name in names if name not in sections]
    if unknown or not names:
        raise BadDataError(
            f"no section is called {_some(unknown)}" if unknown else "it has no rows",
            cure=f"the sections are {_some(sections)}",
        )
    make = _linearity if kind == "linearity" else _crosstalk
    for name in names if section is None else [section]:
        rows = {key: values[owners == name] for key, values in columns.items()}
        try:
            if not len(rows[LAWS[kind][0]]):
                raise BadDataError("it has no rows of this section", cure=f"it has {_some(names)}")
            yield name, make(rows)
        except SeeChangeError as error:
            error.section = name
            raise


def _own_section(table: Table) -> tuple[str, ...]:
    return ("section",) if "section" in table.colnames else ()


def _open_table(path: Path) -> Table:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd units in a header do not matter here
            return Table.read(path)
    except Exception as error:  # astropy's readers raise anything on a bad file
        raise FileDamagedError(
            f"astropy cannot read it as a table: {type(error).__name__}: {str(error).splitlines()[0][:120]}",
            cure="use ECSV, FITS, VOTable or CSV, and a suffix that says so",
        ) from error


def _column(column: Any, name: str) -> npt.NDArray[Any]:
    """Return a column: names as text, numbers as float64."""
    values = np.ma.asarray(getattr(column, "value", column))
    if np.ma.is_masked(values):
        raise BadDataError(f"column {name} has empty cells", cure="fill them, or leave the rows out")
    plain = np.asarray(values)
    if name in ("section", "amplifier", "victim", "source"):
        text = plain.astype(str) if plain.dtype.kind != "S" else np.char.decode(plain, "ascii")
        return np.char.strip(text)
    try:
        numbers = plain.astype(np.float64)
    except ValueError:
        raise BadDataError(f"column {name} is not numeric", cure="correct it") from None
    if not np.isfinite(numbers).all():
        raise BadDataError(f"column {name} has values that are not finite", cure="leave those rows out")
    return numbers


def _linearity(rows: dict[str, npt.NDArray[Any]]) -> LinearityLaw:
    """Make a law of points: sorted, from 0, 0 on, as many for each amplifier."""
    curves: dict[str, tuple[Float, Float]] = {}
    for amplifier in dict.fromkeys(rows["amplifier"].tolist()):
        own = rows["amplifier"] == amplifier
        measured, true = rows["measured_adu"][own], rows["true_adu"][own]
        order = np.argsort(measured)
        measured, true = measured[order], true[order]
        if measured[0] > 0:
            measured, true = np.insert(measured, 0, 0.0), np.insert(true, 0, 0.0)
        _check_curve(amplifier, measured, true)
        curves[amplifier] = (measured, true)
    n = max(len(measured) for measured, _ in curves.values())
    filled = [_with_points(*curve, n) for curve in curves.values()]
    return LinearityLaw(tuple(curves), np.array([m for m, _ in filled]), np.array([t for _, t in filled]))


def _check_curve(amplifier: str, measured: Float, true: Float) -> None:
    if measured[0] != 0 or true[0] != 0:
        raise BadDataError(
            f"amplifier {amplifier}: the law begins at {measured[0]:g}, {true[0]:g} ADU",
            cure="levels are above zero: let it begin at 0, 0",
        )
    if len(measured) < 2 or (np.diff(measured) <= 0).any() or (np.diff(true) <= 0).any():
        raise BadDataError(
            f"amplifier {amplifier}: both columns must grow from point to point, and there must be some",
            cure="leave out repeated points, and those above saturation",
        )
    ratio = true[1:] / measured[1:]
    if not LAW_RANGE[0] <= ratio.min() <= ratio.max() <= LAW_RANGE[1]:
        raise BadDataError(
            f"amplifier {amplifier}: true over measured goes from {ratio.min():.3g} to {ratio.max():.3g}, "
            f"{LAW_RANGE[0]} to {LAW_RANGE[1]} can be",
            cure="give both columns in ADU above the zero level",
        )


def _with_points(measured: Float, true: Float, n: int) -> tuple[Float, Float]:
    """Add points in the middle of the longest pieces, which changes nothing, until there are n."""
    while len(measured) < n:
        i = int(np.argmax(np.diff(measured)))
        measured = np.insert(measured, i + 1, (measured[i] + measured[i + 1]) / 2)
        true = np.insert(true, i + 1, (true[i] + true[i + 1]) / 2)
    return measured, true


def _crosstalk(rows: dict[str, npt.NDArray[Any]]) -> Crosstalk:
    """Make the matrix; pairs that are not listed leave nothing in each other."""
    names = sorted({*rows["victim"].tolist(), *rows["source"].tolist()})
    place = {name: i for i, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)))
    seen: set[tuple[str, str]] = set()
    for victim, source, value in zip(rows["victim"], rows["source"], rows["coefficient"], strict=True):
        pair = (str(victim), str(source))
        problem = _wrong_pair(pair, float(value), seen)
        if problem:
            raise BadDataError(f"victim {victim}, source {source}: {problem}", cure="correct the table")
        seen.add(pair)
        matrix[place[pair[0]], place[pair[1]]] = value
    return Crosstalk(tuple(names), matrix)


def _wrong_pair(pair: tuple[str, str], value: float, seen: set[tuple[str, str]]) -> str:
    if pair in seen:
        return "listed twice"
    if pair[0] == pair[1] and value != 0:
        return f"an amplifier has no crosstalk with itself, got {value:g}"
    return f"{value:g} is no crosstalk, {CROSSTALK_MAX} at most" if abs(value) > CROSSTALK_MAX else ""
