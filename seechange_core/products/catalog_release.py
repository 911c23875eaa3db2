"""Releases of reference catalogs that solutions were made with."""

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from seechange_core.storage.orm import JSON_TYPE, Base, Identified


class CatalogRelease(Identified, Base):
    """One local reference catalog with one content; grown or replaced, it is another one."""

    __tablename__ = "catalog_releases"
    NATURAL_KEY = ("name", "content_hash")
    __table_args__ = (UniqueConstraint(*NATURAL_KEY),)

    name: Mapped[str] = mapped_column(doc="Name in the local store.")
    content_hash: Mapped[str] = mapped_column(String(64), doc="SHA-256 of its content, hexadecimal.")
    description: Mapped[str] = mapped_column(default="", doc="What it is and where it came from.")
    n_stars: Mapped[int] = mapped_column(doc="How many stars it holds.")
    path: Mapped[str] = mapped_column(doc="Its folder or file, relative to the data root.")
    epoch: Mapped[float] = mapped_column(doc="Epoch of its positions, Julian year.")
    is_relative: Mapped[bool] = mapped_column(
        default=False, doc="Made from an image of ours: good relative to its own field only."
    )
    bands: Mapped[list[str]] = mapped_column(JSON_TYPE, doc="Names of the bands it has magnitudes in.")
