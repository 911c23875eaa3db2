"""What a mosaic camera is made of, as far as its files show it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

SectionId = int | str


class Area(NamedTuple):
    """A half-open rectangle of pixels, 0-based."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index an array with it."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def moved(self, dx: int, dy: int) -> "Area":
        """Return it elsewhere."""
        return Area(self.y0 + dy, self.y1 + dy, self.x0 + dx, self.x1 + dx)

    def card(self, *, flip_x: bool = False, flip_y: bool = False) -> str:
        """Return ``[x1:x2,y1:y2]``, 1-based and inclusive; descending along axes read backwards."""
        x = f"{self.x1}:{self.x0 + 1}" if flip_x else f"{self.x0 + 1}:{self.x1}"
        y = f"{self.y1}:{self.y0 + 1}" if flip_y else f"{self.y0 + 1}:{self.y1}"
        return f"[{x},{y}]"


@dataclass(frozen=True)
class AmplifierArea:
    """Where the parts of one amplifier's read-out lie in the raw array of its section.

    Attributes
    ----------
    name
        E.g. ``A``.
    block
        All of it, and the parts: `data`, `overscan` and, where there are any, `prescan` columns and
        `postscan` rows.
    image
        Where `data` goes in the trimmed section.
    """

    name: str
    block: Area
    data: Area
    overscan: Area
    prescan: Area | None
    postscan: Area | None
    image: Area


@dataclass(frozen=True)
class CcdLayout:
    """One CCD.

    Attributes
    ----------
    section
        Its name.
    number
        From 0, in the order of the camera's list.
    centre
        Of its pixels from the boresight, pixels along x and y.
    amplifiers
        Names, of the left and of the right half.
    filter_index
        Which filter of the array covers it.
    reads_from_top
        The last row is read first: rows read beyond the last one lie below the image.
    """

    section: SectionId
    number: int
    centre: tuple[float, float]
    amplifiers: tuple[str, str]
    filter_index: int = 0
    reads_from_top: bool = False


@dataclass(frozen=True)
class CameraLayout:
    """A mosaic of equal CCDs, each read through two amplifiers at its left and right ends.

    Attributes
    ----------
    name
        ``demo``, ``decam`` or ``ls4``.
    ccds
        All of them, in the order of their extensions.
    width, height
        Of a CCD, pixels; even.
    extent_pix
        Width and height of the mosaic.
    half_diagonal_pix
        From the boresight to the farthest corner.
    pixel_scale_arcsec
        In the middle.
    rotation_deg, parity
        Position angle of +y, north through east; 1 if east is left when north is up, -1 if it is right.
    distortion_pix
        How far the optics displace the corner outwards.
    columns
        Parts of an amplifier's rows from the CCD's edge inwards and their widths, with 0 for the data.
    postscan_rows
        Rows read beyond the last one.
    filters
        Of the array, one per index; empty if one filter covers all.
    gain_e_adu, gain_spread
        Mean gain, and by which fraction amplifiers differ at most.
    read_noise_e, read_noise_spread
        The same of the read noise.
    saturation_adu, saturation_spread, full_well_adu
        Level at which the header says that pixels saturate, the same for its spread, and the level at
        which wells are full if there is no spread (else 4 % above saturation).
    bias_adu, bias_spread_adu
        Mean levels of the left and right amplifiers.
    nonlinearity_spread
        By which fraction the amplifiers' curvatures differ at most.
    zero_points
        Magnitude that gives an electron a second above the atmosphere, by filter.
    dark_sky
        Dark sky at the zenith, magnitudes per square arcsecond by filter.
    faint_mag
        Stars and galaxies fainter than this would not be seen in any number of exposures.
    blur_arcsec
        FWHM that the optics add to the seeing's, in quadrature.
    """

    name: str
    ccds: tuple[CcdLayout, ...]
    width: int
    height: int
    extent_pix: tuple[float, float]
    half_diagonal_pix: float
    pixel_scale_arcsec: float
    rotation_deg: float
    parity: int
    distortion_pix: float
    columns: tuple[tuple[str, int], ...]
    zero_points: Mapping[str, float]
    dark_sky: Mapping[str, float]
    faint_mag: float = 24.0
    blur_arcsec: float = 0.0
    postscan_rows: int = 0
    filters: tuple[str, ...] = ()
    gain_e_adu: float = 2.0
    gain_spread: float = 0.05
    read_noise_e: float = 5.0
    read_noise_spread: float = 0.1
    saturation_adu: int = 60_000
    saturation_spread: float = 0.0
    full_well_adu: float = 62_000.0
    bias_adu: tuple[float, float] = (1000.0, 1080.0)
    bias_spread_adu: float = 20.0
    nonlinearity_spread: float = 0.0

    @cached_property
    def by_section(self) -> dict[SectionId, CcdLayout]:
        """The CCDs by name."""
        return {ccd.section: ccd for ccd in self.ccds}

    def raw_areas(self, ccd: CcdLayout, width: int, height: int) -> tuple[AmplifierArea, AmplifierArea]:
        """Return where the amplifiers' parts lie when the window read out has this size."""
        half = width // 2
        block = half + sum(size for _, size in self.columns)
        below = self.postscan_rows if ccd.reads_from_top else 0
        total = height + self.postscan_rows
        post_y = (0, below) if ccd.reads_from_top else (height, total)

        def one(side: int) -> AmplifierArea:
            parts, x = {}, 0
            for part, size in self.columns:
                parts[part] = (x, x + (size or half))
                x += size or half
            if side == 1:
                parts = {part: (2 * block - x1, 2 * block - x0) for part, (x0, x1) in parts.items()}
            rows = (below, below + height)
            return AmplifierArea(
                name=ccd.amplifiers[side],
                block=Area(0, total, side * block, (side + 1) * block),
                data=Area(*rows, *parts["data"]),
                overscan=Area(*rows, *parts["overscan"]),
                prescan=Area(*rows, *parts["prescan"]) if "prescan" in parts else None,
                postscan=Area(*post_y, *parts["data"]) if self.postscan_rows else None,
                image=Area(0, height, side * half, (side + 1) * half),
            )

        return one(0), one(1)
