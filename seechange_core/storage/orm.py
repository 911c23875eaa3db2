"""The base of all rows: keys, types and the columns that many tables share. Knows no product."""

import os
import time
import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, DateTime, MetaData, String, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

JsonDict = dict[str, Any]
JSON_TYPE = JSON().with_variant(JSONB(), "postgresql")

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


def new_id() -> uuid.UUID:
    """Make a time-ordered UUID (version 7, RFC 9562) without asking the database."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10))
    value = (value & ~(0xF << 76)) | (0x7 << 76)
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
