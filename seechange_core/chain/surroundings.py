"""What was there before: the sources of the references that a section is compared with."""

from dataclasses import dataclass

import numpy as np

from seechange_core.chain import load
from seechange_core.chain.choice import ReferenceChoice, references_for
from seechange_core.chain.section import Section
from seechange_core.frames import Bool, Float, StaticSources, Table, WcsSolution, ZeroPointSolution
from seechange_core.stages.measure import Surroundings

#: So far beyond the edge a neighbour still counts.
_MARGIN_PIX = 100.0
#: Places along each edge by which a section is outlined on a reference's pixels, and what curves in between.
_ALONG, _CURVED_PIX = 9, 10.0


@dataclass(frozen=True, eq=False)
class _Seen(Table):
    """What is asked of a source: columns of `Sources`."""

    x: Float
    y: Float
    flux_psf: Float
    is_star: Bool


def surroundings(section: Section) -> Surroundings:
    """Return the section's shape and scale, and the stars and galaxies of its references on its pixels."""
    choice: ReferenceChoice = section.product("references", lambda: references_for(section))
    wcs = load.wcs(section)
    found = [
        _on_section(
            part.source_list.read_as(_Seen, section.archive),
            part.wcs.solution(),
            part.zero_point.solution(),
            wcs,
        )
        for part in choice.parts
    ]
    joined = {
        name: np.concatenate(
            [np.zeros(0, bool if name == "is_star" else float), *(t.columns()[name] for t in found)]
        )
        for name in ("x", "y", "mag", "is_star")
    }
    return Surroundings(wcs.shape, wcs.pixel_scale_arcsec, StaticSources(**joined))


def _on_section(
    sources: _Seen, own: WcsSolution, zero_point: ZeroPointSolution, wcs: WcsSolution
) -> StaticSources:
    """Return a reference's sources on a section's pixels: those on it and a little beyond its edges."""
    # Through the sky go only those that may be there: most of a list are not, where regions only touch.
    sources = sources.select(_within(sources, own, wcs))
    x, y = wcs.to_pixels(*own.to_sky(sources.x, sources.y))
    positive = np.where(sources.flux_psf > 0, sources.flux_psf, np.nan)
    mag = zero_point.zp_at(sources.x, sources.y) - 2.5 * np.log10(positive)
    height, width = wcs.shape
    near = (np.abs(x - width / 2) < width / 2 + _MARGIN_PIX) & (
        np.abs(y - height / 2) < height / 2 + _MARGIN_PIX
    )
    return StaticSources(x, y, mag, sources.is_star).select(near)


def _within(sources: _Seen, own: WcsSolution, wcs: WcsSolution) -> Bool:
    """Tell which sources lie in the box, on a reference's pixels, around a section and its margin."""
    height, width = wcs.shape
    u = np.linspace(-_MARGIN_PIX, width + _MARGIN_PIX, _ALONG)
    v = np.linspace(-_MARGIN_PIX, height + _MARGIN_PIX, _ALONG)
    ends = np.ones(_ALONG)
    edges_x = np.concatenate([u, u, u[0] * ends, u[-1] * ends])
    edges_y = np.concatenate([v[0] * ends, v[-1] * ends, v, v])
    x, y = own.to_pixels(*wcs.to_sky(edges_x, edges_y))
    return np.asarray(
        (sources.x > x.min() - _CURVED_PIX)
        & (sources.x < x.max() + _CURVED_PIX)
        & (sources.y > y.min() - _CURVED_PIX)
        & (sources.y < y.max() + _CURVED_PIX),
        bool,
    )
