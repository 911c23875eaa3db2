"""Full-size pictures of a section's products, drawn from the database and the files when one is asked for."""

from dataclasses import dataclass

from sqlalchemy import select

from seechange_core.chain.drawings import DRAWINGS
from seechange_core.chain.pictures import preview_path, read_preview
from seechange_core.chain.quality import bits_of, meanings
from seechange_core.chain.section import Section
from seechange_core.chain.steps import STEPS
from seechange_core.chain.walk import placed
from seechange_core.errors import NotFoundError
from seechange_core.products.outcome import StepOutcome
from seechange_core.provenance import digest
from seechange_core.qa.large import framed
from seechange_core.settings import Settings, use_settings
from seechange_core.storage.engine import open_session

#: Of these drawings: who has older ones asks again.
DRAWN = "1"
#: Figures above a picture, as far as its product has them: name, words.
FACTS = {
    "raw_median_adu": "median {:.0f} ADU",
    "exposure_time_s": "{:.0f} s",
    "usable_fraction": "usable {:.3f}",
    "median_e": "median {:.0f} e⁻",
    "noise_e": "noise {:.1f} e⁻",
    "n_sources": "{:.0f} sources",
    "n_stars": "{:.0f} stars",
    "fwhm_pix": "FWHM {:.2f} pix",
    "fwhm_arcsec": "FWHM {:.2f}″",
    "psf_stars": "PSF of {:.0f} stars",
    "sky_e": "sky {:.0f} e⁻",
    "sky_rms_e": "rms {:.1f} e⁻",
    "rms_mas": "rms {:.1f} mas",
    "error_mas": "error {:.1f} mas",
    "n_matched": "{:.0f} matched",
    "zp": "zero point {:.3f}",
    "zp_err": "± {:.3f}",
    "zp_scatter_mag": "scatter {:.3f} mag",
    "score_sigma": "score σ {:.3f}",
    "reference_coverage": "reference covers {:.3f}",
    "difference_fwhm_pix": "FWHM {:.2f} pix",
    "n_detections": "{:.0f} detections",
    "n_measurements": "{:.0f} measured",
    "n_good": "{:.0f} good",
    "n_new_objects": "{:.0f} new objects",
    "limiting_mag": "depth {:.2f} mag",
    "cloud_mag": "clouds {:.2f} mag",
}


@dataclass(frozen=True)
class _Found:
    """A product that is there: its section, how its step ended, and what is bad about it."""

    section: Section
    outcome: StepOutcome
    bitflag: int

    @property
    def version(self) -> str:
        row = self.outcome
        return digest(DRAWN, row.data_version, row.updated_at.isoformat(), row.metrics, self.bitflag)


def picture_version(settings: Settings, exposure: str, section: str, product: str) -> str:
    """Return a hash that changes whenever `full_picture` would draw something else, in a few milliseconds.

    Raises what `full_picture` does, but for files.
    """
    with use_settings(settings):
        return _find(settings, exposure, section, product).version


def full_picture(settings: Settings, exposure: str, section: str, product: str) -> bytes:
    """Draw a product as it is under the present settings.

    Parameters
    ----------
    settings
        Whose.
    exposure, section
        Names.
    product
        Name of the step that makes it.

    Returns
    -------
    bytes
        A PNG.

    Raises
    ------
    NotFoundError
        If there is no such exposure, section or product, it was not made, or a file of it is gone.
    FileDamagedError
        If one is damaged.
    """
    with use_settings(settings):
        found = _find(settings, exposure, section, product)
        try:
            drawing = DRAWINGS[product](found.section)
        except FileNotFoundError as error:
            raise placed(error, exposure, section) from error
        metrics = found.outcome.metrics
        facts = [
            words.format(metrics[name]) for name, words in FACTS.items() if metrics.get(name) is not None
        ]
        title = f"{product.replace('_', ' ')}   {exposure}   section {section}   {found.section.band}"
        return framed(
            drawing.picture,
            title,
            [*facts, *drawing.words],
            warning=meanings(found.bitflag),
            legend=drawing.legend,
        )


def small_picture(settings: Settings, exposure: str, section: str, product: str) -> bytes:
    """Return the small picture that was drawn when a product was made; parameters as of `full_picture`.

    Raises
    ------
    NotFoundError
        As `full_picture` does, and if none was drawn.
    """
    with use_settings(settings):
        found = _find(settings, exposure, section, product)
        path = preview_path(found.section, product, found.outcome.data_version)
        png = read_preview(found.section.archive, path)
    if png is None:
        raise NotFoundError(f"its {product} has no small picture here", exposure=exposure, section=section)
    return png


def _find(settings: Settings, exposure: str, section_id: str, product: str) -> _Found:
    if product not in DRAWINGS:
        raise NotFoundError(f"no product is called {product!r}", cure=f"they are {', '.join(DRAWINGS)}")
    section = Section.open(settings, exposure, section_id)
    present = {step.name: section.provenance_id(step.name) for step in STEPS}
    query = select(StepOutcome).where(
        StepOutcome.exposure_id == section.exposure.id,
        StepOutcome.section_id == section.section,
        StepOutcome.provenance_id.in_(present.values()),
    )
    with open_session(settings, read_only=True) as session:
        rows = {row.step: row for row in session.scalars(query)}
        outcome = rows.get(product)
        bits = bits_of(session, product, outcome.data_version) if outcome is not None else 0
    place = {"exposure": exposure, "section": section_id}
    if outcome is None:
        raise NotFoundError(
            f"its {product} has not been made under the present settings",
            cure=f"seechange process {exposure} --section {section_id}",
            **place,
        )
    if outcome.status != "done":
        raise NotFoundError(f"it has no {product}, which {outcome.status}: {outcome.message}", **place)
    section.versions |= {name: row.data_version for name, row in rows.items() if row.status == "done"}
    return _Found(section, outcome, bits)
