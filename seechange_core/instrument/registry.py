"""Instruments by name: the shared instances, and the files they are loaded from.

An instrument is found at run time by its name: an entry under ``instruments`` in the settings, whose
``kind`` (its own name by default) is a file of the folder ``instruments`` or of the folder that
``path.instruments`` in the settings names; such a file alone; or a class of the user's own, once an
instance of it has been made.
"""

import importlib
import inspect
import pkgutil
import re
from types import ModuleType
from typing import TYPE_CHECKING, Any

from seechange_core.errors import NotFoundError, PipelineError, SettingsError
from seechange_core.instrument.common_options import CommonOptions
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


def get_code_version(name: str) -> str:
    """Return the code version of an instrument's class, which needs no instance of it."""
    kind = str(get_settings().options(name).get("kind", name))
    if kind in _installed():
        return _class_in(_module(kind)).CODE_VERSION
    return get_instrument_instance(name).CODE_VERSION


def list_instruments() -> list[str]:
    """Return the names of all instruments known here, sorted."""
    plain = [name for name in _installed() if not _class_in(_module(name)).needs_settings]
    by_hand = [name for name in INSTRUMENT_INSTANCE_CACHE if name not in _made_with]
    return sorted({*get_settings().instruments, *plain, *by_hand})


def _installed() -> list[str]:
    """Return the names of the files that may hold an instrument: ours, and those of the settings' folder.

    Raises
    ------
    SettingsError
        If that folder does not exist, or has a file of the same name as one of ours.
    """
    package = importlib.import_module(PACKAGE)
    folder = get_settings().path.instruments
    ours = [path for path in package.__path__ if folder is None or path != str(folder)]
    names = _files_in(ours)
    if folder is None:
        return names
    if not folder.is_dir():
        raise SettingsError(f"path.instruments: there is no folder {folder}", cure="correct the path")
    own = _files_in([str(folder)])
    twice = sorted(set(names) & set(own))
    if twice:
        raise SettingsError(
            f"path.instruments: {folder} has a {twice[0]}.py, and so has {PACKAGE}",
            cure="give yours another name",
        )
    package.__path__ = [*ours, str(folder)]
    return [*names, *own]


def _files_in(folders: list[str]) -> list[str]:
    return [m.name for m in pkgutil.iter_modules(folders) if not m.name.startswith("_")]


def _make(name: str, options: dict[str, Any]) -> "Instrument":
    kind = options.pop("kind", name)
    if kind not in _installed():
        raise SettingsError(
            f"instruments.{name}.kind: there is no file {PACKAGE}/{kind}.py",
            cure=f"the kinds known here are {', '.join(_installed())}",
        )
    made = _class_in(_module(kind))
    shared = {key: options.pop(key) for key in CommonOptions.model_fields if key in options}
    common = CommonOptions.checked(shared, f"instruments.{name}")
    instance = made(name=name, **options) if made.needs_settings or options or name != kind else made()
    instance.image_types, instance.trust_sections = common.image_types, common.trust_sections
    return instance


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
        cure=f"those known here are {', '.join(list_instruments())}; a new one is a file in {PACKAGE} "
        "or in the folder path.instruments of the settings",
    )
