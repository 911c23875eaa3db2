"""Parameters of the stages: flat, frozen, documented models.

A stage declares its parameters once, with `param`; the settings file, the provenance hash,
`--help` and the web UI all read that declaration.
"""

import difflib
from collections.abc import Iterable
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seechange_core.errors import SettingsError


class Params(BaseModel):
    """Base of every stage's parameters: immutable, and unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def checked(cls, values: dict[str, Any], where: str) -> Self:
        """Build from plain values, naming the key's path when one is wrong.

        Raises
        ------
        SettingsError
            If a name is unknown, a type wrong or a value impossible.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join([where, *(str(part) for part in first["loc"])])
            if first["type"] == "extra_forbidden":
                cure = suggest(str(first["loc"][-1]), cls.model_fields)
                raise SettingsError(f"{key}: there is no such parameter", cure=cure) from None
            text = first["msg"].removeprefix("Value error, ")
            about = cls.model_fields.get(str(first["loc"][0])) if first["loc"] else None
            said = f", got {first['input']!r}" if about is not None else ""
            cure = f"it is: {about.description}" if about is not None and about.description else "correct it"
            raise SettingsError(f"{key}: {text}{said}", cure=cure) from None

    def critical(self) -> dict[str, Any]:
        """Return the values that can change results: what provenance is made of."""
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            if changes_results(type(self), name)
        }


def param(
    default: Any, description: str, *, unit: str | None = None, results: bool = True, **bounds: Any
) -> Any:
    """Declare one parameter.

    Parameters
    ----------
    default
        The value without any settings.
    description
        One sentence for the settings page, `--help` and the web UI.
    unit
        Its unit, if it has one.
    results
        False if it cannot change results (threads, progress): it is left out of the provenance hash.
    **bounds
        Pydantic's `ge`, `gt`, `le`, `lt`, `min_length`, ...
    """
    return Field(
        default, description=description, json_schema_extra={"unit": unit, "results": results}, **bounds
    )


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a cure for a name that is not known: the names nearest to it, or all there are."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"the names known here are {', '.join(names)}"


def changes_results(kind: type[Params], name: str) -> bool:
    """Tell whether a parameter can change results."""
    extra = kind.model_fields[name].json_schema_extra
    return not (isinstance(extra, dict) and extra.get("results") is False)
