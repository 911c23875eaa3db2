"""Small previews of products: PNG files beside them."""

from pathlib import Path

from seechange_core.chain.section import Section
from seechange_core.storage.archive import Archive


def preview_path(section: Section, step: str, version: str) -> str:
    """Return where a step's preview goes, relative to the data root."""
    return section.place.path(section.settings, f"{step}_preview", version, ".png")


def write_preview(archive: Archive, path: str, png: bytes) -> None:
    """Write a preview."""

    def writer(temporary: Path) -> None:
        temporary.write_bytes(png)

    archive.write(path, writer)


def read_preview(archive: Archive, path: str) -> bytes | None:
    """Read a preview; None if there is none on this machine."""
    if not archive.exists(path):
        return None
    return archive.find(path, download=False).read_bytes()
