"""The identity of a processing: what made a product, as one hash.

Pure functions; the rows are in `products.provenance`.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ProvenanceKey:
    """A process, its code version, its parameters and what it builds on.

    Attributes
    ----------
    process
        Name of the product's asset, e.g. ``image``.
    code_version
        The stage's ``CODE_VERSION``.
    parameters
        The parameters that can change results.
    upstreams
        Ids of the provenances it builds on.
    """

    process: str
    code_version: str
    parameters: dict[str, Any] = field(default_factory=dict)
    upstreams: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Twenty hexadecimal digits that change if and only if any part changes."""
        return digest(self.process, self.code_version, self.parameters, sorted(self.upstreams))


def digest(*parts: Any) -> str:
    """Hash JSON-like values to twenty hexadecimal digits, independent of dictionary order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
