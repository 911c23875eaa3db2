"""Which reference catalog a section is calibrated with, and which part of it the section sees."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from seechange_core.catalogs.fetch import fetch_catalog
from seechange_core.catalogs.provider import CatalogInfo
from seechange_core.catalogs.recipe import FetchRecipe
from seechange_core.catalogs.services import known_service
from seechange_core.catalogs.store import LocalCatalog, installed
from seechange_core.catalogs.tap import TapClient
from seechange_core.chain import load
from seechange_core.chain.lineage import catalog_name
from seechange_core.chain.section import Section
from seechange_core.errors import NoAnswer, NoCatalog, NotFoundError, UserError
from seechange_core.products.base import save
from seechange_core.products.catalog_release import CatalogRelease
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import Image
from seechange_core.settings import Settings, use_settings
from seechange_core.stages.astrometry import query_radius_deg
from seechange_core.storage.engine import open_session

#: RA, Dec and radius, ICRS deg.
Cone = tuple[float, float, float]
#: For so long nobody in this process asks a service that has not answered.
_SILENCE_S = 120.0


def catalog_of(settings: Settings) -> LocalCatalog:
    """Return the local reference catalog that the settings name, or the only one there is.

    Raises
    ------
    NoCatalog
        If there is none.
    UserError
        If there are several and the settings name none.
    """
    root = settings.data_root / "catalogs"
    if settings.catalog is not None:
        return LocalCatalog(root, settings.catalog)
    names = installed(root)
    if not names:
        raise NoCatalog(
            "there is no reference catalog yet",
            cure="seechange catalog import FILE, or seechange catalog fetch; where there is none, "
            "seechange catalog bootstrap",
        )
    if len(names) > 1:
        raise UserError(
            f"several reference catalogs are installed: {', '.join(names)}",
            cure="set `catalog: NAME` in the settings",
        )
    return LocalCatalog(root, names[0])


def catalog_at(settings: Settings, cone: Cone) -> LocalCatalog:
    """Return the catalog for a part of the sky, which is fetched first if the settings say so.

    Raises
    ------
    NoCatalog
        If there is none, or the service that was to give it does not answer.
    UserError
        If the settings name no catalog among several, or no service that is known.
    """
    name = catalog_name(settings)
    if settings.catalog_fetch is None or name is None:
        return catalog_of(settings)
    recipe = service = known_service(settings.catalog_fetch)
    root = settings.data_root / "catalogs"
    if name in installed(root):
        catalog = LocalCatalog(root, name)
        if not catalog.missing(*cone):
            return catalog
        recipe = catalog.info.recipe or service
    _fetch(root, name, recipe, cone)
    return LocalCatalog(root, name)


_failures: dict[str, tuple[float, str]] = {}


def _fetch(root: Path, name: str, recipe: FetchRecipe, cone: Cone) -> None:
    """Fetch what is missing; after a service has not answered, the next sections do not wait for it too."""
    since, words = _failures.get(recipe.url, (-np.inf, ""))
    if time.monotonic() - since < _SILENCE_S:
        raise NoAnswer(words, cure="process again when it answers, or import the catalog from a file")
    try:
        fetch_catalog(root, name, recipe, [cone], client=TapClient(recipe.url, quiet_s=30.0, tries=3))
    except NoAnswer as error:  # what else there is no catalog for concerns one field only
        _failures[recipe.url] = time.monotonic(), error.message
        raise


def cone_of(section: Section) -> Cone:
    """Return the part of the sky that a section's calibration may need stars of."""
    return _cone(section, lambda: load.shape_of(section.needed(Image, "image"), section.archive))


def _cone(section: Section, shape_of: Callable[[], tuple[int, int]]) -> Cone:
    """Search around the pointing; pixels are only read where the camera does not say how many there are."""
    hint = section.exposure.get_pointing_hint(section.section_id)
    width, height = (section.exposure.get_property(section.section_id, size) for size in ("size_x", "size_y"))
    shape = (int(height), int(width)) if width and height else shape_of()
    return hint.ra, hint.dec, query_radius_deg(hint, shape)


def cones_of_exposure(settings: Settings, name: str) -> list[Cone]:
    """Return the parts of the sky that an exposure's sections may need stars of, processed or not.

    Raises
    ------
    NotFoundError
        If there is no such exposure.
    HeaderError
        If nothing says where the telescope pointed.
    """
    with use_settings(settings), open_session(settings, read_only=True) as session:
        exposure = session.scalar(select(Exposure).where(Exposure.name == name))
        if exposure is None:
            raise NotFoundError("not in the database", exposure=name, cure="`seechange show` lists them")
        exposure.update_instrument(session)
    sections = [Section(settings, exposure, i) for i in exposure.instrument_object.get_section_ids()]
    with use_settings(settings):
        return [_cone(section, partial(_raw_shape, section)) for section in sections]


def _raw_shape(section: Section) -> tuple[int, int]:
    shape: tuple[int, int] = section.exposure.load_raw_frame(section.section_id).data.shape
    return shape


def release_of(section: Section) -> CatalogInfo:
    """Describe the content of the catalog that the section sees."""
    if section.settings.catalog_fetch is None:
        catalog = catalog_of(section.settings)
        if catalog.info.recipe is None:  # it is all or nothing: where the section looks does not matter
            return catalog.info
    cone = cone_of(section)
    return catalog_at(section.settings, cone).release(*cone)


def release_row(session: Session, info: CatalogInfo) -> CatalogRelease:
    """Return the row of a catalog's present content, made if need be."""
    row = CatalogRelease(
        name=info.name,
        content_hash=info.checksum,
        description=info.source,
        n_stars=info.n_stars,
        path=f"catalogs/{info.name}",
        epoch=info.epoch,
        bands=list(info.bands),
        is_relative=info.relative,
    )
    return save(session, row)
