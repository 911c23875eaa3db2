"""What was there before: the sources of the references that a section is compared with."""

import numpy as np

from seechange_core.chain import load
from seechange_core.chain.choice import ReferenceChoice, references_for
from seechange_core.chain.section import Section
from seechange_core.frames import StaticSources
from seechange_core.stages.measure import Surroundings

#: So far beyond the edge a neighbour still counts.
_MARGIN_PIX = 100.0


def surroundings(section: Section) -> Surroundings:
    """Return the section's shape and scale, and the stars and galaxies of its references on its pixels."""
    choice: ReferenceChoice = section.product("references", lambda: references_for(section))
    wcs = load.wcs(section)
    columns = []
    for part in choice.parts:
        sources, zero_point = part.source_list.read(section.archive), part.zero_point.solution()
        x, y = wcs.to_pixels(*part.wcs.solution().to_sky(sources.x, sources.y))
        positive = np.where(sources.flux_psf > 0, sources.flux_psf, np.nan)
        mag = zero_point.zp_at(sources.x, sources.y) - 2.5 * np.log10(positive)
        height, width = wcs.shape
        near = (np.abs(x - width / 2) < width / 2 + _MARGIN_PIX) & (
            np.abs(y - height / 2) < height / 2 + _MARGIN_PIX
        )
        columns.append(StaticSources(x, y, mag, sources.is_star).select(near))
    joined = {
        name: np.concatenate(
            [np.zeros(0, bool if name == "is_star" else float), *(c.columns()[name] for c in columns)]
        )
        for name in ("x", "y", "mag", "is_star")
    }
    return Surroundings(wcs.shape, wcs.pixel_scale_arcsec, StaticSources(**joined))
