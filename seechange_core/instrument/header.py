"""Header cards: finding them under their many names, and reading their values or saying why not."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from seechange_core.errors import HeaderError
from seechange_core.frames import Box, Cards

Converter = Callable[[Any], Any]

_SECTION = re.compile(r"^\[?\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]?$")


def normalize_keyword(keyword: str) -> str:
    """Return a raw keyword as keywords are compared: upper case, without blanks and underscores."""
    return keyword.upper().replace(" ", "").replace("_", "")


def find_card(cards: Cards, keywords: Iterable[str]) -> tuple[str, Any] | None:
    """Return the first of several keywords that has a value, as (raw keyword, value); None if none has.

    A blank text counts as no value. Keywords are compared after `normalize_keyword`.
    """
    present = {normalize_keyword(key): key for key in cards}
    for keyword in keywords:
        key = present.get(normalize_keyword(keyword))
        if key is not None and not _is_blank(cards[key]):
            return key, cards[key]
    return None


def translate(
    cards: Cards,
    names: Iterable[str],
    translations: Mapping[str, Iterable[str]],
    converters: Mapping[str, Converter],
) -> dict[str, Any]:
    """Read uniform names from raw cards; names without a card are left out.

    Parameters
    ----------
    cards
        Raw header.
    names
        Uniform names, lower case. One without translations is looked for under its own name.
    translations
        Raw keywords of each name, first choice first.
    converters
        What turns a raw value into the uniform unit, by uniform name.

    Raises
    ------
    HeaderError
        If a converter cannot read its card.
    """
    found: dict[str, Any] = {}
    for name in names:
        card = find_card(cards, translations.get(name, (name,)))
        if card is None:
            continue
        keyword, value = card
        if name in converters:
            try:
                value = converters[name](value)
            except (ValueError, TypeError, KeyError, ArithmeticError, AttributeError) as error:
                raise HeaderError(
                    f"card {keyword} = {value!r} cannot be read as {name} ({error})",
                    cure="correct the card, or the instrument's converter for it",
                ) from None
        found[name] = value
    return found


def as_is(value: Any) -> Any:
    """Return the value: the converter of what needs no conversion."""
    return value


def as_number(value: Any, label: str) -> float:
    """Read a finite number.

    Raises
    ------
    HeaderError
        If it is none; `label` says which card.
    """
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
    except (ValueError, TypeError):
        raise HeaderError(f"{label} = {value!r} is not a number", cure="correct the card") from None
    return number


def as_text(value: Any) -> str:
    """Return a value as text without blanks around it."""
    return str(value).strip()


def as_angle_deg(
    value: Any, label: str, *, text_is_hours: bool = False, number_is_hours: bool = False
) -> float:
    """Read an angle: a number, or sexagesimal text such as ``-00:55:31`` or ``22 04 08.5``.

    Parameters
    ----------
    value
        The card's value.
    label
        Which card, for messages.
    text_is_hours, number_is_hours
        Multiply sexagesimal text, or a plain number, by 15: right ascensions are often hours.

    Returns
    -------
    float
        Degrees.
    """
    parts = str(value).replace(":", " ").split()
    if isinstance(value, str) and len(parts) > 1:
        return _sexagesimal(parts, value, label) * (15.0 if text_is_hours else 1.0)
    return as_number(value, label) * (15.0 if number_is_hours else 1.0)


def _sexagesimal(parts: list[str], value: str, label: str) -> float:
    try:
        numbers = [float(part.lstrip("+-") if i == 0 else part) for i, part in enumerate(parts)]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or any(not 0.0 <= n < 60.0 for n in numbers[1:]):
        raise HeaderError(f"{label} = {value!r} is not an angle", cure="correct the card")
    size = sum(n / 60.0**power for power, n in enumerate(numbers))
    return -size if parts[0].startswith("-") else size


def parse_box(text: Any, label: str) -> Box:
    """Read a FITS image section ``[x1:x2,y1:y2]`` (1-based, both ends included) as a `Box`.

    Raises
    ------
    HeaderError
        If it is no section, or runs backwards.
    """
    match = _SECTION.match(str(text).strip())
    x1, x2, y1, y2 = (int(group) for group in match.groups()) if match else (0, 0, 0, 0)
    if match is None or not (1 <= x1 <= x2 and 1 <= y1 <= y2):
        raise HeaderError(f"{label} = {text!r} is not a section [x1:x2,y1:y2]", cure="correct the card")
    return Box(y1 - 1, y2, x1 - 1, x2)


def parse_directed_box(text: Any, label: str) -> tuple[Box, bool]:
    """Read a FITS image section that may run backwards along x, as that of a mirrored amplifier does.

    Returns
    -------
    box, mirrored
        Where it is, and whether its columns run backwards.

    Raises
    ------
    HeaderError
        If it is no section, or runs backwards along y.
    """
    match = _SECTION.match(str(text).strip())
    if match is None:
        return parse_box(text, label), False
    x1, x2, y1, y2 = match.groups()
    if int(x1) <= int(x2):
        return parse_box(text, label), False
    return parse_box(f"[{x2}:{x1},{y1}:{y2}]", label), True


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
