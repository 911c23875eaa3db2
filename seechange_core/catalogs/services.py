"""Services that catalogs can be fetched from, by the names that people give them."""

from collections.abc import Mapping

from seechange_core.catalogs.columns import choose_columns, layout_called
from seechange_core.catalogs.recipe import FetchRecipe
from seechange_core.catalogs.tap import TapClient
from seechange_core.errors import NotFoundError, UserError

_GAIA_MAGS = {
    f"mag_{band}{end}": f"phot_{band.lower()}_mean_{column}"
    for band in ("G", "BP", "RP")
    for end, column in (("", "mag"), ("_snr", "flux_over_error"))
}
_GAIA = {
    "ra": "ra", "dec": "dec", "ra_err": "ra_error", "dec_err": "dec_error",
    "pmra": "pmra", "pmdec": "pmdec", "pmra_err": "pmra_error", "pmdec_err": "pmdec_error", **_GAIA_MAGS,
}  # fmt: skip
_VIZIER = "http://tapvizier.cds.unistra.fr/TAPVizieR/tap"
_VIZIER_PM = {"pmra": "pmRA", "pmdec": "pmDE", "pmra_err": "e_pmRA", "pmdec_err": "e_pmDE"}
_VIZIER_ICRS = {"ra": "RA_ICRS", "dec": "DE_ICRS"}
_VIZIER_J2000 = {
    "ra": "RAJ2000",
    "dec": "DEJ2000",
    "ra_err": "e_RAJ2000:arcsec",
    "dec_err": "e_DEJ2000:arcsec",
}


def _vizier_mags(bands: Mapping[str, str]) -> dict[str, str]:
    return {
        f"mag_{ours}{end}": f"{start}{b}mag"
        for ours, b in bands.items()
        for end, start in (("", ""), ("_err", "e_"))
    }


#: Recipes of the services known by name.
SERVICES: dict[str, FetchRecipe] = {
    "gaia_dr3": FetchRecipe(
        content="gaia_dr3", url="https://gea.esac.esa.int/tap-server/tap", table="gaiadr3.gaia_source",
        columns=_GAIA, epoch=2016.0,
    ),
    "gaia_dr3_ari": FetchRecipe(
        content="gaia_dr3", url="https://gaia.ari.uni-heidelberg.de/tap", table="gaiadr3.gaia_source",
        columns=_GAIA, epoch=2016.0,
    ),
    "gaia_dr3_vizier": FetchRecipe(
        content="gaia_dr3", url=_VIZIER, table="I/355/gaiadr3", epoch=2016.0,
        columns={
            **_VIZIER_ICRS, "ra_err": "e_RA_ICRS", "dec_err": "e_DE_ICRS", **_VIZIER_PM,
            **_vizier_mags({"G": "G", "BP": "BP", "RP": "RP"}),
        },
    ),
    "tycho2": FetchRecipe(
        content="tycho2", url=_VIZIER, table="I/259/tyc2", epoch=2000.0,
        columns={
            "ra": "RAmdeg", "dec": "DEmdeg", "ra_err": "e_RAmdeg", "dec_err": "e_DEmdeg", **_VIZIER_PM,
            **_vizier_mags({"BT": "BT", "VT": "VT"}),
        },
    ),
    "ps1": FetchRecipe(
        content="ps1", url=_VIZIER, table="II/349/ps1", epoch=2013.0,
        columns={**_VIZIER_J2000, "kron_i": "iKmag", **_vizier_mags({band: band for band in "grizy"})},
    ),
    "apass": FetchRecipe(
        content="apass", url=_VIZIER, table="II/336/apass9", epoch=2011.0,
        columns={**_VIZIER_J2000, **_vizier_mags({"B": "B", "V": "V", "g": "g'", "r": "r'", "i": "i'"})},
    ),
    "refcat2": FetchRecipe(
        content="refcat2", url=_VIZIER, table="J/ApJ/867/105/refcat2", epoch=2015.5,
        columns={
            **_VIZIER_ICRS, **_VIZIER_PM,
            **_vizier_mags({"G": "G", "BP": "BP", "RP": "RP", **{band: band for band in "griz"}}),
        },
    ),
}  # fmt: skip


def known_service(name: str) -> FetchRecipe:
    """Return the recipe of a service by its name.

    Raises
    ------
    NotFoundError
        If no service is called that.
    """
    if name not in SERVICES:
        raise NotFoundError(
            f"no catalog service is called {name!r}",
            cure=f"known are {', '.join(SERVICES)}; or give the URL of a TAP service, with its table",
        )
    return SERVICES[name]


def recipe_for(
    client: TapClient,
    table: str,
    *,
    layout: str | None = None,
    mapping: Mapping[str, str] | None = None,
    epoch: float | None = None,
) -> FetchRecipe:
    """Make a recipe for a table of any service, by looking at one of its rows.

    Parameters
    ----------
    client
        Of the service.
    table
        Its name there.
    layout, mapping
        Which columns to take, as for `importer.import_table`.
    epoch
        Julian year of the positions; None takes the layout's.

    Raises
    ------
    UserError
        If the service refuses, or nothing says the epoch.
    NotFoundError
        If there is no such layout, or a column is missing.
    NoCatalog
        If the service does not answer.
    """
    known = layout_called(layout) if layout else None
    if epoch is None:
        if known is None:
            raise UserError(
                f"nothing says the epoch of {table}", cure="give --epoch, or --as with its layout"
            )
        epoch = known.epoch
    url = client.url.rstrip("/")
    example, _ = client.query(f"SELECT TOP 1 * FROM {quoted(table)}", 1)
    columns = choose_columns(example.colnames, mapping or {}, layout, table)
    return FetchRecipe(
        content=f"{url} {table}",
        url=url,
        table=table,
        columns=columns,
        epoch=epoch,
    )


def quoted(name: str) -> str:
    """Quote a name for ADQL if it is no plain word, or several joined by dots."""
    plain = all(part.isidentifier() and part.isascii() for part in name.split("."))
    return name if plain else '"' + name.replace('"', '""') + '"'
