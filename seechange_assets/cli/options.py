"""Command-line options made from a parameter model: no field, default or description is written twice."""

import inspect
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from seechange_core.params import Params


def with_options(function: Callable[..., int], kind: type[Params]) -> Callable[..., int]:
    """Give a command an option for every field of a model.

    Parameters
    ----------
    function
        Takes its own arguments, and the model's fields by keyword in ``**values``.
    kind
        The model; a field ``n_bias`` becomes ``--n-bias``, a boolean ``--clouds/--no-clouds``, a tuple
        words that are separated by commas or given one by one.
    """
    own = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    options = [_option(kind, name) for name in kind.model_fields]
    signature = inspect.Signature([*own, *options], return_annotation=int)

    many = {name for name, field in kind.model_fields.items() if _is_tuple(field.annotation)}

    def command(**arguments: Any) -> int:
        for name in many:
            words = [word.strip() for given in arguments[name] or () for word in given.split(",")]
            arguments[name] = tuple(filter(None, words)) or kind.model_fields[name].default
        return function(**arguments)

    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command


def _option(kind: type[Params], name: str) -> inspect.Parameter:
    field = kind.model_fields[name]
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    unit = f" [{extra['unit']}]" if extra.get("unit") else ""
    flag = f"--{name.replace('_', '-')}"
    names = f"{flag}/--no-{flag[2:]}" if field.annotation is bool else flag
    option = typer.Option(names, help=f"{field.description}{unit}.")
    default = [str(v) for v in field.default] if isinstance(field.default, tuple) else field.default
    annotation = Annotated[_plain(field.annotation), option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _is_tuple(annotation: Any) -> bool:
    return get_origin(annotation) is tuple or any(get_origin(a) is tuple for a in get_args(annotation))


def _plain(annotation: Any) -> Any:
    """Reduce a field's type to one a command line knows; the model itself checks the value."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return type(arguments[0])
    if origin is tuple:
        return list[str]
    if origin in (Union, types.UnionType):
        (inner,) = (a for a in arguments if a is not type(None))
        return _plain(inner) | None
    return annotation
