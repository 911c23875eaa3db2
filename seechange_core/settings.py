"""The settings: one YAML file, environment variables on top, checked at start.

Nothing needs to be set. ``SEECHANGE_CONFIG`` names the YAML file; ``SEECHANGE_DATABASE_URL`` or
``SEECHANGE_PATH__DATA_ROOT`` (``__`` goes one level down) override single keys. The stages'
own blocks are plain dictionaries here: the stages' parameter models check them.
"""

import os
import string
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from seechange_core.errors import SettingsError
from seechange_core.params import Params, suggest

CONFIG_VARIABLE = "SEECHANGE_CONFIG"
PREFIX = "SEECHANGE_"
#: Variables of our name that are not settings: the file itself, what tests read, and what dagster.yaml does.
NOT_SETTINGS = frozenset({CONFIG_VARIABLE, "SEECHANGE_REAL_DATA", "SEECHANGE_DAGSTER_URL"})

#: The steps that have a block of parameters of their own.
STAGES = (
    "preprocess",
    "combine",
    "illumination",
    "bad_pixels",
    "extract",
    "astrometry",
    "photometry",
    "quality",
    "reference",
    "subtract",
    "detect",
    "cut",
    "measure",
    "associate",
    "force",
)

#: What a file name can be made of.
NAME_FIELDS = frozenset({"instrument", "night", "exposure", "section", "product", "version"})

AnyParams = TypeVar("AnyParams", bound=Params)


def _empty_if_none(value: Any) -> Any:
    return {} if value is None else value


Block = Annotated[dict[str, Any], BeforeValidator(_empty_if_none)]


class _Group(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True
    )


class PathSettings(_Group):
    """Where files are."""

    data_root: tuple[Path, ...] = Field(
        (Path("seechange_data"),), min_length=1, description="Local roots; new files go to the first."
    )
    server_data: str | None = Field(
        None, description="Root to fetch missing files from: a folder, http(s):// or s3://."
    )

    instruments: Path | None = Field(
        None,
        description="Folder with instruments of your own, one file each, beside those that come with it.",
    )

    @field_validator("data_root", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value


class ImageSettings(_Group):
    """How images are written."""

    format: Literal["fits"] = Field("fits", description="File format of images.")
    single_file: bool = Field(True, description="All arrays of an image in one file, or one file for each.")
    name_convention: str = Field(
        "{instrument}/{night}/{exposure}/{section}/{product}_{version}",
        description="Path of every product under the data root, without its extension.",
    )

    @field_validator("name_convention")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        used = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None}
        if used != NAME_FIELDS:
            odd = ", ".join(sorted(used ^ NAME_FIELDS))
            raise ValueError(f"needs each of {', '.join(sorted(NAME_FIELDS))} in braces, no other; see {odd}")
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("must stay inside the data root")
        return value


class StorageSettings(_Group):
    """How products are stored."""

    images: ImageSettings = ImageSettings()


class KnownSettings(_Group):
    """Local tables of what is known to vary or to move; candidates that are in them are marked."""

    variables: tuple[Path, ...] = Field(
        (), description="Tables of variable stars, such as the VSX: name, position, type, period, range."
    )
    movers: tuple[Path, ...] = Field(
        (), description="Orbital elements of minor planets: MPCORB.DAT, or tables with named columns."
    )
    variable_radius_arcsec: float = Field(
        1.5, gt=0, le=60, description="A variable so near is what was seen, arcsec."
    )
    mover_radius_arcsec: float = Field(
        5.0, gt=0, le=120, description="So is a minor planet predicted there; old elements get more."
    )
    mover_max_days: float = Field(
        60.0, gt=0, description="Elements whose epoch is further from the exposure are not used, days."
    )

    @field_validator("variables", "movers", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value


class IncomingSettings(_Group):
    """Where an instrument's raw files arrive, and when one of them is complete."""

    places: tuple[str, ...] = Field(
        (), min_length=1, description="Folders, http(s):// addresses that list files, or s3:// buckets."
    )
    settle_seconds: float = Field(
        5.0, ge=0, le=3600, description="A file that has not changed for so long is complete, seconds."
    )
    patience_seconds: float = Field(
        600.0,
        ge=0,
        le=86400,
        description="One that looks cut short, or lacks a file that belongs to it, is waited for so long "
        "after its last change before it is set aside, seconds.",
    )
    max_files: int = Field(100, ge=1, le=10_000, description="Register at most so many files at a time.")

    @field_validator("places", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value


def _places_alone(value: Any) -> Any:
    return {"places": value} if isinstance(value, str | list) else value


Incoming = Annotated[IncomingSettings, BeforeValidator(_places_alone)]


class WindowSettings(_Group):
    """Which exposures the web UI shows: Dagster serves some 100,000 partitions well, a survey has more."""

    nights: int = Field(30, ge=1, description="Exposures of so many nights before the latest are shown.")
    max_partitions: int = Field(
        100_000, ge=100, description="Exposures times sections that are shown at most; whole nights are."
    )


class Settings(_Group):
    """All settings, checked and immutable.

    Attributes
    ----------
    path, storage
        Folders and file formats.
    database_url
        SQLAlchemy URL; an SQLite file in the first data root by default.
    instruments
        Options of instruments by name; the key ``parameters`` of one holds its own parameters by stage.
    catalog
        Name of the local reference catalog to use; None takes the only one there is.
    catalog_fetch
        Service that missing parts of the catalog are fetched from while exposures are processed, by its name
        in `catalogs.services`; None fetches nothing unasked.
    known
        Tables of known variables and minor planets, that candidates are looked up in.
    incoming
        By instrument, where its raw files arrive: what the web UI's sensor watches.
    pages_url
        Where the pages beside the web UI are served: the address in links to full-size pictures.
    window
        Which exposures the web UI shows; the database keeps all.
    tag
        The tag that names the present versions of all products.
    preprocess, combine, ...
        Parameters of each stage; `quality` has the limits beyond which its product is flagged.
    """

    path: PathSettings = PathSettings()
    storage: StorageSettings = StorageSettings()
    database_url: str = ""
    instruments: dict[str, Block] = Field(default_factory=dict)
    catalog: str | None = None
    catalog_fetch: str | None = None
    known: KnownSettings = KnownSettings()
    incoming: dict[str, Incoming] = Field(default_factory=dict)
    pages_url: str = "http://127.0.0.1:3001"
    window: WindowSettings = WindowSettings()
    tag: str = Field("current", min_length=1)

    preprocess: Block = Field(default_factory=dict)
    combine: Block = Field(default_factory=dict)
    illumination: Block = Field(default_factory=dict)
    bad_pixels: Block = Field(default_factory=dict)
    extract: Block = Field(default_factory=dict)
    astrometry: Block = Field(default_factory=dict)
    photometry: Block = Field(default_factory=dict)
    quality: Block = Field(default_factory=dict)
    reference: Block = Field(default_factory=dict)
    subtract: Block = Field(default_factory=dict)
    detect: Block = Field(default_factory=dict)
    cut: Block = Field(default_factory=dict)
    measure: Block = Field(default_factory=dict)
    associate: Block = Field(default_factory=dict)
    force: Block = Field(default_factory=dict)

    @field_validator("database_url")
    @classmethod
    def _known_engine(cls, value: str) -> str:
        if value and not value.startswith(("sqlite://", "postgresql://", "postgresql+psycopg2://")):
            raise ValueError("the databases known here are sqlite:///FILE and postgresql://USER@HOST/NAME")
        return value

    @field_validator("pages_url")
    @classmethod
    def _web_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("needs an address that begins with http:// or https://")
        return value.rstrip("/")

    @field_validator("instruments")
    @classmethod
    def _known_stages(cls, value: dict[str, Block]) -> dict[str, Block]:
        for name, options in value.items():
            for stage, block in (options.get("parameters") or {}).items():
                if stage not in STAGES:
                    raise ValueError(f"{name}.parameters.{stage}: the stages are {', '.join(STAGES)}")
                if not isinstance(block, dict):
                    raise ValueError(f"{name}.parameters.{stage}: needs names with values, got {block!r}")
        return value

    @property
    def data_root(self) -> Path:
        """The folder new files go to."""
        return self.path.data_root[0]

    def options(self, instrument: str) -> dict[str, Any]:
        """Return an instrument's own options, its stage parameters left out."""
        return {k: v for k, v in self.instruments.get(instrument, {}).items() if k != "parameters"}

    def params(self, kind: type[AnyParams], stage: str, instrument: str | None = None) -> AnyParams:
        """Return a stage's parameters, with the instrument's own on top.

        Raises
        ------
        SettingsError
            If a name is unknown or a value impossible, with the key's path.
        """
        general: dict[str, Any] = getattr(self, stage)
        checked = kind.checked(general, stage)
        own = (self.instruments.get(instrument or "", {}).get("parameters") or {}).get(stage)
        if not own:
            return checked
        return kind.checked({**general, **own}, f"instruments.{instrument}.parameters.{stage}")


def load_settings(path: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Parameters
    ----------
    path
        The YAML file; None takes the one ``SEECHANGE_CONFIG`` names, or no file at all.
    environ
        The environment variables; None takes the process's own.

    Raises
    ------
    SettingsError
        If the file cannot be read, or a key is unknown or has an impossible value.
    """
    environ = os.environ if environ is None else environ
    named = path if path is not None else environ.get(CONFIG_VARIABLE) or None
    values: dict[str, Any] = {}
    if named is not None:
        file = Path(named).expanduser().absolute()
        values = _read_yaml(file)
        _anchor(values, file.parent)
    overrides, sources = _read_environment(environ)
    _anchor(overrides, Path.cwd())
    _merge(values, overrides)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise _explain(error.errors()[0], sources, named) from None
    return _complete(settings)


_current: list[Settings] = []


def get_settings() -> Settings:
    """Return the settings of this process, read once."""
    if not _current:
        _current.append(load_settings())
    return _current[-1]


@contextmanager
def use_settings(settings: Settings) -> Iterator[Settings]:
    """Make these the settings of this process until the block ends."""
    _current.append(settings)
    try:
        yield settings
    finally:
        _current.pop()


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"cannot read the settings: {error.strerror}", cure=f"see {CONFIG_VARIABLE}", file=str(file)
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        words = " ".join(str(error).split())
        raise SettingsError(f"not valid YAML: {words}", cure="correct the file", file=str(file)) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"expected keys with values, got {values!r}", file=str(file))
    return values


def _read_environment(environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    """Return the overrides as nested dictionaries, and which variable each key came from."""
    values: dict[str, Any] = {}
    sources: dict[tuple[str, ...], str] = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in NOT_SETTINGS:
            continue
        keys = tuple(variable.removeprefix(PREFIX).lower().split("__"))
        if keys[0] not in Settings.model_fields:
            raise SettingsError(
                f"{variable}: there is no setting {'.'.join(keys)}",
                cure=f"unset it; the settings are {', '.join(Settings.model_fields)}",
            )
        try:
            value = yaml.safe_load(environ[variable])
        except yaml.YAMLError:
            value = environ[variable]
        for key in reversed(keys):
            value = {key: value}
        _merge(values, value)
        sources[keys] = variable
    return values, sources


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _anchor(values: dict[str, Any], folder: Path) -> None:
    """Make the paths among the values absolute, as seen from a folder."""
    paths = values.get("path")
    if isinstance(paths, dict):
        roots = paths.get("data_root")
        if isinstance(roots, str):
            paths["data_root"] = _absolute(roots, folder)
        elif isinstance(roots, list):
            paths["data_root"] = [_absolute(r, folder) if isinstance(r, str) else r for r in roots]
        server = paths.get("server_data")
        if isinstance(server, str) and "://" not in server:
            paths["server_data"] = _absolute(server, folder)
        if isinstance(paths.get("instruments"), str):
            paths["instruments"] = _absolute(paths["instruments"], folder)
    _anchor_all(values.get("known"), ("variables", "movers"), folder)
    incoming: Any = values.get("incoming")
    for name, block in list(incoming.items()) if isinstance(incoming, dict) else ():
        whole = isinstance(block, dict)
        _anchor_all(block if whole else incoming, ("places" if whole else name,), folder)
    url = values.get("database_url")
    if isinstance(url, str):
        values["database_url"] = _absolute_url(url, folder)


def _anchor_all(block: Any, names: Iterable[str], folder: Path) -> None:
    """Make the paths under some names of a block absolute, each one or several; addresses stay."""
    for name in names if isinstance(block, dict) else ():
        files = block.get(name)
        if isinstance(files, str):
            block[name] = _absolute(files, folder)
        elif isinstance(files, list):
            block[name] = [_absolute(f, folder) if isinstance(f, str) else f for f in files]


def _absolute(path: str, folder: Path) -> str:
    if "://" in path:
        return path
    return os.path.normpath(folder / Path(path).expanduser())


def _absolute_url(url: str, folder: Path) -> str:
    head, separator, file = url.partition(":///")
    if not head.startswith("sqlite") or not separator or file in {"", ":memory:"} or file.startswith("file:"):
        return url
    return f"{head}:///{_absolute(file, folder)}"


def _explain(
    detail: ErrorDetails, sources: Mapping[tuple[str, ...], str], file: str | Path | None
) -> SettingsError:
    keys = tuple(str(part) for part in detail["loc"])
    variable = next((sources[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in sources), None)
    unknown = detail["type"] == "extra_forbidden"
    # A database URL may hold a password, which has no place in a message.
    value = "" if unknown or keys == ("database_url",) else f", got {detail['input']!r}"
    cure = suggest(keys[-1], _names(keys[:-1])) if unknown else "correct it"
    words = "there is no such setting" if unknown else detail["msg"].removeprefix("Value error, ")
    return SettingsError(
        f"{'.'.join(keys)}: {words}{value}",
        cure=f"{cure}; it comes from {variable}" if variable else cure,
        file=str(file) if file is not None and variable is None else None,
    )


def _names(keys: tuple[str, ...]) -> list[str]:
    """Return the names known in a group of settings."""
    groups: dict[tuple[str, ...], type[BaseModel]] = {
        ("path",): PathSettings,
        ("known",): KnownSettings,
        ("incoming",): IncomingSettings,
        ("window",): WindowSettings,
        ("storage",): StorageSettings,
        ("storage", "images"): ImageSettings,
    }
    own = keys[:1] if keys[:1] == ("incoming",) else keys  # below it stand the names of instruments
    return list(groups.get(own, Settings).model_fields)


def _complete(settings: Settings) -> Settings:
    """Fill in what depends on other settings: absolute roots and the database in the first of them."""
    roots = tuple(Path(os.path.normpath(Path.cwd() / root.expanduser())) for root in settings.path.data_root)
    url = settings.database_url or f"sqlite:///{roots[0] / 'seechange.db'}"
    path = settings.path.model_copy(update={"data_root": roots})
    return settings.model_copy(update={"path": path, "database_url": url})
