"""Names of the products' files, by the one naming convention of the settings."""

import hashlib
import re
from dataclasses import dataclass
from typing import Self

from seechange_core.settings import Settings

MASTERS = "masters"
REFERENCES = "references"


@dataclass(frozen=True)
class Place:
    """What a file's name is made of, besides product and version.

    Attributes
    ----------
    instrument, night, exposure, section
        As text. Masters and references have ``masters`` or ``references`` in the place of what they lack.
    """

    instrument: str
    night: str
    exposure: str
    section: str

    @classmethod
    def of_master(cls, instrument: str, night: str, section: str | int) -> Self:
        """Name the place of the master frames of a night."""
        return cls(instrument, night, MASTERS, str(section))

    @classmethod
    def of_reference(cls, instrument: str, region: str, band: str) -> Self:
        """Name the place of the reference images of a region of the sky."""
        return cls(instrument, REFERENCES, region, band)

    def path(self, settings: Settings, product: str, data_version: str, extension: str = ".fits") -> str:
        """Return a file's path relative to the data root, by the naming convention of the settings."""
        parts = {
            "instrument": self.instrument,
            "night": self.night,
            "exposure": self.exposure,
            "section": self.section,
            "product": product,
            "version": data_version[:10],
        }
        safe = {name: safe_name(part) for name, part in parts.items()}
        return settings.storage.images.name_convention.format(**safe) + extension


def safe_name(text: str) -> str:
    """Return a text as a part of a path: harmless characters only; two texts never share a name."""
    plain = re.sub(r"[^A-Za-z0-9_+.-]", "_", text).lstrip(".")[:120]
    if plain == text and plain:
        return plain
    return f"{plain}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"
