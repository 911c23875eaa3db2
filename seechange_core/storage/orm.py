"""The base of all rows: keys, types and the columns that many tables share. Knows no product."""

import math
import os
import time
import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np
from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, MetaData, String, Uuid, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

JsonDict = dict[str, Any]
JSON_TYPE = JSON().with_variant(JSONB(), "postgresql")
#: For nullable columns: None is SQL's NULL, not JSON's.
JSON_OR_NULL = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Declarative base; every constraint has a predictable name, so that migrations agree on both engines."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map: ClassVar[dict[Any, Any]] = {JsonDict: JSON_TYPE, datetime: DateTime(timezone=True)}


def plain(value: Any) -> Any:
    """Return a value as both databases keep it: no numpy types, and NULL for not a number."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    return [_json(item) for item in value] if isinstance(value, list | tuple | np.ndarray) else value


def _json(value: Any) -> Any:
    value = plain(value)
    return None if isinstance(value, float) and math.isinf(value) else value


@event.listens_for(Base, "attribute_instrument", propagate=True)
def _keep_plain(_kind: type[Base], _key: str, attribute: Any) -> None:
    event.listen(attribute, "set", lambda _row, value, _old, _by: plain(value), retval=True, propagate=True)


def new_id() -> uuid.UUID:
    """Make a time-ordered UUID (version 7, RFC 9562) without asking the database.

    Its time goes down to a quarter of a microsecond (section 6.2, method 3): rows of one millisecond are in
    order, too.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    value = (milliseconds << 80) | (0x7 << 76) | ((rest << 12) // 1_000_000 << 64)
    value |= int.from_bytes(os.urandom(8))
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return uuid.UUID(int=value)


def now() -> datetime:
    """Return the present time, UTC."""
    return datetime.now(UTC)


class Identified:
    """Mixin: a UUID primary key and the time the row was made."""

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=new_id, doc="Time-ordered UUID.")
    created_at: Mapped[datetime] = mapped_column(default=now, doc="When the row was made, UTC.")


class HasFile:
    """Mixin: the file a row stands for."""

    filepath: Mapped[str | None] = mapped_column(String, doc="Path relative to the data root.")
    checksum: Mapped[str | None] = mapped_column(String(64), doc="SHA-256 of the file, hexadecimal.")


class OnSky:
    """Mixin: a point on the sky, searchable by cone."""

    ra: Mapped[float] = mapped_column(doc="Right ascension, ICRS deg.")
    dec: Mapped[float] = mapped_column(doc="Declination, ICRS deg.")
    healpix: Mapped[int] = mapped_column(
        BigInteger, index=True, doc="HEALPix pixel of (ra, dec), order 29, nested."
    )


class Produced:
    """Mixin: a product of the walk, and what it was made from.

    The same product made twice, even at the same moment, has the same `data_version` and ends as one
    row; another provenance, or other inputs (a newer master, another reference), makes a row beside it.
    """

    provenance_id: Mapped[str] = mapped_column(
        ForeignKey("provenances.id"), index=True, doc="Code version, parameters and upstreams."
    )
    data_version: Mapped[str] = mapped_column(
        String(20), unique=True, doc="Hash of the provenance and of every row this was made from."
    )
