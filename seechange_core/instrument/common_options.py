"""Options that every instrument has in the settings, whatever its class."""

from collections.abc import Iterable

from pydantic import field_validator

from seechange_core.instrument.facts import EXPOSURE_KINDS, IGNORED
from seechange_core.params import Params, param

#: Properties that both a header and a section may state.
TRUSTED = ("gain", "read_noise", "saturation_limit", "non_linearity_limit")


class CommonOptions(Params):
    """What the settings can say about any instrument, under ``instruments: {NAME: {...}}``."""

    image_types: dict[str, str] = param(
        {}, "What values of the image-type card mean: science, bias, dark, flat, twilight_flat or ignored"
    )
    trust_sections: tuple[str, ...] = param(
        (),
        f"Properties for which a section's own value goes before the header's: {', '.join(TRUSTED)}",
    )

    @field_validator("image_types")
    @classmethod
    def _known_kinds(cls, value: dict[str, str]) -> dict[str, str]:
        _refuse_others(value.values(), (*EXPOSURE_KINDS, IGNORED))
        return value

    @field_validator("trust_sections")
    @classmethod
    def _known_properties(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _refuse_others(value, TRUSTED)
        return value


def _refuse_others(values: Iterable[str], known: tuple[str, ...]) -> None:
    odd = sorted(set(values) - set(known))
    if odd:
        raise ValueError(f"{odd[0]!r} is none of {', '.join(known)}")
