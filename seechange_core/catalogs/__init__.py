"""Reference catalogs of stars: one contract, a local store, and ways to fill it.

A `Provider` answers cone searches with `CatalogStars` at the epoch and in the band asked for. What
is here knows neither settings nor SQL: it is told which folder to use.
"""

from seechange_core.catalogs.importer import import_table
from seechange_core.catalogs.provider import CatalogInfo, Provider
from seechange_core.catalogs.store import LocalCatalog, installed

__all__ = ["CatalogInfo", "LocalCatalog", "Provider", "import_table", "installed"]
