"""Sources that are to be judged by other limits: they are the same, and need not be found again."""

from sqlalchemy import select

from seechange_core.chain.section import Section
from seechange_core.errors import FileDamagedError
from seechange_core.products.background import Background
from seechange_core.products.image import Image
from seechange_core.products.provenance import Provenance
from seechange_core.products.psf import Psf
from seechange_core.products.source_list import SourceList
from seechange_core.stages.extract import Extraction
from seechange_core.storage.engine import open_session


def found_before(section: Section) -> Extraction | None:
    """Return what the same code found in the same image with the same parameters, under other limits.

    Limits of quality say what is thought of sources, not what they are; in a crowd, finding them takes most
    of the time that an image takes.

    Returns
    -------
    Extraction or None
        None if there is none, or its files are gone.
    """
    own = section.provenances["source_list"]
    query = (
        select(SourceList, Background, Psf, Provenance.parameters)
        .join(Background, Background.data_version == SourceList.data_version)
        .join(Psf, Psf.data_version == SourceList.data_version)
        .join(Provenance, Provenance.id == SourceList.provenance_id)
        .where(
            SourceList.image_id == section.needed(Image, "image").id,
            Provenance.process == own.process,
            Provenance.code_version == own.code_version,
            Provenance.id != own.id,
        )
        .order_by(SourceList.id)
    )
    with open_session(section.settings, read_only=True) as session:
        rows = list(session.execute(query))
    for sources, background, psf, parameters in rows:
        if _but_limits(parameters) != _but_limits(own.parameters):
            continue
        try:
            return Extraction(
                sources.read(section.archive), background.read(section.archive), psf.read(section.archive)
            )
        except (FileNotFoundError, FileDamagedError):
            continue
    return None


def _but_limits(parameters: dict[str, object]) -> dict[str, object]:
    return {stage: values for stage, values in parameters.items() if stage != "quality"}
