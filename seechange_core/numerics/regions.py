"""A fixed tessellation of the sky into regions, the places references are made for.

The sky is cut into bands of declination, each band into patches of equal width in right ascension. A
region has a grid of pixels of its own (gnomonic, tangent at its centre, north up, east to the left), so
everything that ever is combined for it falls on the same pixels, whatever the pointings were.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seechange_core.errors import NoReference, NotFoundError
from seechange_core.frames import Float, WcsSolution
from seechange_core.numerics.sky import from_vectors, project, separation, unit_vectors

_NAME = re.compile(r"r(\d{4})_(\d{4,5})")
PIXEL_RATIO = 0.99
"""Side of a region's pixels in those of the camera: not 1, or every image would be read at one fraction of a
pixel all over, and the noise of each coadd would have a spectrum of its own."""
_SAMPLES = 33
_NOWHERE = (10**9, -(10**9), 10**9, -(10**9))
"""An empty box."""


@dataclass(frozen=True)
class Region:
    """One patch of the tessellation.

    Attributes
    ----------
    name
        ``r<band>_<patch>``: bands from the south pole, patches from RA 0.
    ra, dec
        Centre, ICRS deg: where its grid touches the sphere.
    ra_width, dec_width
        Full extent in coordinates, deg.
    """

    name: str
    ra: float
    dec: float
    ra_width: float
    dec_width: float


def _bands(size_deg: float) -> int:
    if not 0.02 <= size_deg <= 30:
        raise ValueError(f"a region's size is between 0.02 and 30 degrees, got {size_deg}")
    return int(np.ceil(180 / size_deg - 1e-9))


def _patches(band: npt.NDArray[np.int64], size_deg: float) -> npt.NDArray[np.int64]:
    """Return how many patches there are in each band: none wider than the size, but 1 at least."""
    n = _bands(size_deg)
    height = 180 / n
    south = -90 + band * height
    widest = np.where(
        (south < 0) & (south + height > 0), 0.0, np.minimum(np.abs(south), np.abs(south + height))
    )
    return np.maximum(1, np.ceil(360 * np.cos(np.deg2rad(widest)) / size_deg - 1e-9)).astype(np.int64)


def _index_of(ra: Float, dec: Float, size_deg: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    n = _bands(size_deg)
    band = np.clip(np.floor((dec + 90) / (180 / n)).astype(np.int64), 0, n - 1)
    patches = _patches(band, size_deg)
    patch = np.minimum(np.floor(np.mod(ra, 360.0) / 360 * patches).astype(np.int64), patches - 1)
    return band, patch


def _region(band: int, patch: int, size_deg: float) -> Region:
    height = 180 / _bands(size_deg)
    width = 360 / int(_patches(np.array(band), size_deg))
    return Region(
        f"r{band:04d}_{patch:04d}", (patch + 0.5) * width, -90 + (band + 0.5) * height, width, height
    )


def region_at(ra: float, dec: float, size_deg: float) -> Region:
    """Return the region that holds a point; every point is in exactly one."""
    band, patch = _index_of(np.array([ra], float), np.array([dec], float), size_deg)
    return _region(int(band[0]), int(patch[0]), size_deg)


def region_named(name: str, size_deg: float) -> Region:
    """Return the region of a name.

    Raises
    ------
    NotFoundError
        If there is no such region at this size.
    """
    match = _NAME.fullmatch(name)
    if match:
        band, patch = int(match[1]), int(match[2])
        if band < _bands(size_deg) and patch < int(_patches(np.array(band), size_deg)):
            return _region(band, patch, size_deg)
    raise NotFoundError(
        f"there is no sky region {name!r} in the tessellation of {size_deg} degrees",
        cure="region names look like r0123_0045; `seechange reference list` shows those in use",
    )


def regions_overlapping(ra: npt.ArrayLike, dec: npt.ArrayLike, size_deg: float) -> list[Region]:
    """Return the regions that a footprint touches, by name.

    Parameters
    ----------
    ra, dec
        (4,) corners in order round the footprint, deg; at RA 0 and over the poles as anywhere.
    size_deg
        Of the tessellation.

    Returns
    -------
    list of Region
        Overlaps narrower than a thirtieth of the footprint may be missed.
    """
    corners = unit_vectors(ra, dec)
    extent = np.rad2deg(np.max(np.linalg.norm(corners - corners[0], axis=-1)))
    n = max(_SAMPLES, int(np.ceil(4 * extent / size_deg)))
    u, v = (a[..., None] for a in np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n)))
    lower = corners[0] * (1 - u) + corners[1] * u
    upper = corners[3] * (1 - u) + corners[2] * u
    band, patch = _index_of(*from_vectors(lower * (1 - v) + upper * v), size_deg)
    pairs = sorted(set(zip(band.ravel().tolist(), patch.ravel().tolist(), strict=True)))
    return [_region(b, p, size_deg) for b, p in pairs]


def region_wcs(
    region: Region,
    pixel_scale_arcsec: float,
    footprints: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]],
    margin_pix: int = 64,
) -> WcsSolution:
    """Return the region's pixel grid, cropped to what its inputs cover.

    The pixels' places on the sky don't depend on the crop.

    Parameters
    ----------
    region
        The region.
    pixel_scale_arcsec
        Side of the camera's pixels; the region's are `PIXEL_RATIO` times it.
    footprints
        Corners (ra, dec) of each input, (4,) deg each.
    margin_pix
        Pixels kept beyond the region's border, so that neighbours overlap.

    Raises
    ------
    NoReference
        If no footprint touches the region.
    """
    scale = PIXEL_RATIO * pixel_scale_arcsec / 3600
    x0, x1, y0, y1 = _extent(*_outline(region), region, scale)
    x0, x1, y0, y1 = x0 - margin_pix, x1 + margin_pix, y0 - margin_pix, y1 + margin_pix
    boxes = [_extent(ra, dec, region, scale) for ra, dec in footprints]
    boxes = [b for b in boxes if b[0] < x1 and b[1] > x0 and b[2] < y1 and b[3] > y0]
    if not boxes:
        raise NoReference(f"no image touches sky region {region.name}", cure="choose inputs that overlap it")
    x0, x1 = max(x0, min(b[0] for b in boxes)), min(x1, max(b[1] for b in boxes))
    y0, y1 = max(y0, min(b[2] for b in boxes)), min(y1, max(b[3] for b in boxes))
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg", "RADESYS": "ICRS",
        "CRVAL1": region.ra, "CRVAL2": region.dec, "CRPIX1": 1.0 - x0, "CRPIX2": 1.0 - y0,
        "CD1_1": -scale, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": scale,
    }  # fmt: skip
    return WcsSolution(cards, (y1 - y0 + 1, x1 - x0 + 1))


def region_circle(region: Region) -> tuple[float, float, float]:
    """Return (ra, dec, radius), deg, of a circle on the sky around a region."""
    radius = float(np.max(separation(region.ra, region.dec, *_outline(region))))
    return region.ra, region.dec, radius


def _outline(region: Region) -> tuple[Float, Float]:
    """Return points round the region's border."""
    t = np.linspace(-0.5, 0.5, 17)
    half = np.full(17, 0.5)
    ra = region.ra + region.ra_width * np.concatenate([t, half, t, -half])
    dec = region.dec + region.dec_width * np.concatenate([-half, t, half, t])
    return ra, np.clip(dec, -90, 90)


def _extent(ra: npt.ArrayLike, dec: npt.ArrayLike, region: Region, scale: float) -> tuple[int, int, int, int]:
    """Return the bounding box (x0, x1, y0, y1) in whole pixels from the region's centre."""
    xi, eta = project(ra, dec, region.ra, region.dec)
    if not (np.all(np.isfinite(xi)) and np.all(np.isfinite(eta))):
        return _NOWHERE  # a quarter of the sky away
    x, y = -xi / scale, eta / scale
    return int(np.floor(x.min())), int(np.ceil(x.max())), int(np.floor(y.min())), int(np.ceil(y.max()))
