"""Guessing from its name and header which instrument made a file, or saying why that cannot be told."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seechange_core.errors import NotFoundError
from seechange_core.frames import Cards
from seechange_core.instrument.header import as_text, find_card
from seechange_core.instrument.registry import get_instrument_instance, list_instruments

if TYPE_CHECKING:
    from seechange_core.instrument.base import Instrument


def guess_instrument(filename: str, cards: Cards | None = None) -> str:
    """Guess which instrument made a file, by its name and its header.

    An instrument fits if its name pattern or all its header values do, and none of these values is
    another. Fitting by both is better than by one. Of several that fit equally well, the one that asks
    for more header values wins: a camera on a certain telescope over the same camera on any.

    Parameters
    ----------
    filename
        Name or path.
    cards
        Raw global header, if it has been read.

    Returns
    -------
    str
        The instrument's name.

    Raises
    ------
    NotFoundError
        If none fits, with what does not fit of each; or if several do.
    """
    known = {name: get_instrument_instance(name) for name in list_instruments()}
    named = [n for n, i in known.items() if _is_named(i, filename) and not _mismatch(i, cards)]
    told = [n for n, i in known.items() if cards is not None and i.matches_header(cards)]
    fits = [n for n in named if n in told] or named + told
    if all(n in told for n in fits):
        asked = {n: len(known[n].get_header_values()) for n in fits}
        fits = [n for n in fits if asked[n] == max(asked.values())]
    if len(fits) == 1:
        return fits[0]
    raise NotFoundError(
        f"cannot tell which instrument made it: {_why_not(known, filename, cards, fits)}",
        cure=f"say --instrument NAME ({', '.join(known)}), "
        "or describe yours under instruments in the settings",
        file=filename,
    )


def _is_named(instrument: "Instrument", filename: str) -> bool:
    return any(re.search(pattern, filename) for pattern in instrument.get_filename_regex())


def _mismatch(instrument: "Instrument", cards: Cards | None) -> str:
    return "" if cards is None else instrument.find_header_mismatch(cards)


def _why_not(known: "dict[str, Instrument]", filename: str, cards: Cards | None, fits: list[str]) -> str:
    if fits:
        return f"{' and '.join(fits)} fit equally well"
    wanted = {str(keywords[0]): keywords for i in known.values() for keywords, _ in i.get_header_values()}
    seen = [_seen(keyword, keywords, cards) for keyword, keywords in wanted.items()]
    header = "its header is not at hand" if cards is None else ", ".join(seen)
    return "; ".join([header, *(f"{name} {_what_it_takes(i, filename)}" for name, i in known.items())])


def _seen(keyword: str, keywords: Sequence[str], cards: Cards | None) -> str:
    card = find_card(cards or {}, keywords)
    return f"it has no {keyword}" if card is None else f"{card[0]} is {as_text(card[1])!r}"


def _what_it_takes(instrument: "Instrument", filename: str) -> str:
    """Say by what an instrument knows its files."""
    values = " and ".join(f"{keywords[0]} {value!r}" for keywords, value in instrument.get_header_values())
    # How a folder may end does not help the reader.
    patterns = [re.sub(r"^\((\?:)?\^\|/\)", "", p) for p in instrument.get_filename_regex()]
    names = f"a name like {' or '.join(patterns)}" if patterns else ""
    if names and _is_named(instrument, filename) and values:
        return f"has such names, but with {values}"
    wanted = " or ".join(part for part in (values, names) if part)
    return (
        f"wants {wanted}" if wanted else "has neither a name pattern nor a header value to know its files by"
    )
