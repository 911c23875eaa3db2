"""What a growing catalog is fetched from: enough to fetch the next tile in the same way."""

from pydantic import BaseModel, ConfigDict

from seechange_core.provenance import digest


class FetchRecipe(BaseModel):
    """A table of a TAP service, and how its columns become ours.

    Attributes
    ----------
    content
        What the catalog is, whoever serves it: mirrors of one have the same. That of a table that nobody
        knows starts with its service's URL.
    url
        Base URL of the service, without ``/sync``.
    table
        Its name there.
    columns
        Our name to its name, a unit after a colon where the service states none.
    epoch
        Julian year of the positions.
    faint_band, faint_limit
        Stars fainter than this in this band of ours are left out; None takes all.
    tile_order
        HEALPix order of the tiles; 6 makes tiles of 0.9 degrees.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    content: str
    url: str
    table: str
    columns: dict[str, str]
    epoch: float
    faint_band: str | None = None
    faint_limit: float | None = None
    tile_order: int = 6

    @property
    def identity(self) -> str:
        """Hash what decides about the content of the tiles."""
        mirrored = not self.content.startswith(self.url)
        kept: list[str] | dict[str, str] = self.columns
        if mirrored:  # they name the same columns differently, and not all give the same errors
            kept = sorted(name for name in self.columns if not name.endswith(("_err", "_snr")))
        limit = (self.faint_band, self.faint_limit)
        return digest(self.content, kept, self.epoch, *limit, self.tile_order)
