"""Instruments by name: the shared instances, the files they are loaded from, and guessing from a file.

An instrument is found at run time by its name: an entry under ``instruments`` in the settings, whose
``kind`` (its own name by default) is a file of the folder ``instruments``; such a file alone; or a
class of the user's own, once an instance of it has been made.
"""

import importlib
import inspect
import pkgutil
import re
from types import ModuleType
from typing import TYPE_CHECKING, Any

from seechange_core.errors import NotFoundError, PipelineError, SettingsError
from seechange_core.frames import Cards
from seechange_core.settings import get_settings

if TYPE_CHECKING:
    from seechange_core.instrument.base import Instrument

PACKAGE = "instruments"

#: The one instance of each instrument that all Exposures of the process share, by name.
INSTRUMENT_INSTANCE_CACHE: dict[str, "Instrument"] = {}

#: The settings that instances in the cache were made with; none for those made by hand.
_made_with: dict[str, dict[str, Any]] = {}

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


def register(instrument: "Instrument") -> None:
    """Make an instance known by its name, unless that name has one already.

    Raises
    ------
    SettingsError
        If it has no name, or one that folders and Dagster cannot use.
    """
    name = getattr(instrument, "name", None)
    if not isinstance(name, str) or not _NAME.match(name):
        raise SettingsError(
            f"{type(instrument).__name__} has the name {name!r}",
            cure="set self.name in __init__: a letter, then letters, digits and underscores",
        )
    INSTRUMENT_INSTANCE_CACHE.setdefault(name, instrument)


def get_instrument_instance(name: str) -> "Instrument":
    """Return the shared instance of an instrument, made when first asked for.

    Parameters
    ----------
    name
        Its name; that of its class (``DemoInstrument``) is understood too.

    Raises
    ------
    NotFoundError
        If there is none.
    SettingsError
        If its options in the settings are wrong, or its file cannot be used.
    """
    options = get_settings().options(name)
    cached = INSTRUMENT_INSTANCE_CACHE.get(name)
    if cached is not None and _made_with.get(name, {}) == options:
        return cached
    if name not in get_settings().instruments:
        if name not in _installed():
            return _by_class_name(name)
        options = {}
    instance = _make(name, dict(options))
    INSTRUMENT_INSTANCE_CACHE[name] = instance
    _made_with[name] = options
    return instance


def list_instruments() -> list[str]:
    """Return the names of all instruments known here, sorted."""
    plain = [name for name in _installed() if not _class_in(_module(name)).needs_settings]
    return sorted({*get_settings().instruments, *plain, *INSTRUMENT_INSTANCE_CACHE})


def guess_instrument(filename: str, cards: Cards | None = None) -> str:
    """Guess which instrument made a file, by its name first and its header second.

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
        If none fits, or several do.
    """
    known = {name: get_instrument_instance(name) for name in list_instruments()}
    named = [n for n, inst in known.items() if any(re.search(r, filename) for r in inst.get_filename_regex())]
    told = [n for n, inst in known.items() if cards is not None and inst.matches_header(cards)]
    for fits in (named, [n for n in named if n in told], told):
        if len(fits) == 1:
            return fits[0]
    found = (
        f"{', '.join(named or told)} all fit" if named or told else "no instrument fits its name or header"
    )
    raise NotFoundError(
        f"cannot tell which instrument made it: {found}",
        cure=f"name one of {', '.join(known)}, or describe yours under instruments in the settings",
        file=filename,
    )


def _installed() -> list[str]:
    package = importlib.import_module(PACKAGE)
    return [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]


def _make(name: str, options: dict[str, Any]) -> "Instrument":
    kind = options.pop("kind", name)
    if kind not in _installed():
        raise SettingsError(
            f"instruments.{name}.kind: there is no file {PACKAGE}/{kind}.py",
            cure=f"the kinds known here are {', '.join(_installed())}",
        )
    made = _class_in(_module(kind))
    if made.needs_settings or options or name != kind:
        return made(name=name, **options)
    return made()


def _module(kind: str) -> ModuleType:
    try:
        return importlib.import_module(f"{PACKAGE}.{kind}")
    except Exception as error:
        raise PipelineError(
            f"{PACKAGE}/{kind}.py cannot be imported: {type(error).__name__}: {error}",
            cure="correct the file or remove it",
        ) from error


def _class_in(module: ModuleType) -> type["Instrument"]:
    """Return the one subclass of Instrument that a file defines."""
    from seechange_core.instrument.base import Instrument  # noqa: PLC0415 (it registers itself here)

    found = [
        thing
        for _, thing in inspect.getmembers(module, inspect.isclass)
        if issubclass(thing, Instrument) and thing.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise PipelineError(
            f"{module.__name__} defines {len(found)} instruments", cure="one instrument is one file"
        )
    return found[0]


def _by_class_name(name: str) -> "Instrument":
    cached = INSTRUMENT_INSTANCE_CACHE.get(name)
    if cached is not None:
        return cached
    for other in list_instruments():
        instance = get_instrument_instance(other)
        if type(instance).__name__ == name:
            return instance
    raise NotFoundError(
        f"there is no instrument {name!r}",
        cure=f"those known here are {', '.join(list_instruments())}; a new one is a file in {PACKAGE}",
    )
