"""What is told of a night, and the figures that follow: plain values, wherever they come from."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np

Fate = Literal["done", "stopped", "failed", "unfinished"]
FATES: tuple[Fate, ...] = ("done", "stopped", "failed", "unfinished")
Number = float | None


@dataclass(frozen=True)
class NightExposure:
    """One exposure.

    Attributes
    ----------
    name, target, filter
        As people call it; where it points, and its filters, both empty if that is not known.
    mjd, exp_time_s, airmass
        Its start (UTC), open-shutter time, and airmass.
    bad
        Why a person called it bad; empty if nobody did. Its sections count in no figure then.
    """

    name: str
    target: str
    filter: str
    mjd: float
    exp_time_s: float
    airmass: Number
    bad: str = ""

    @property
    def mjd_mid(self) -> float:
        """Its middle."""
        return self.mjd + self.exp_time_s / 172800


@dataclass(frozen=True)
class NightSection:
    """What became of one section of one exposure, and its figures; None where something is not known.

    Attributes
    ----------
    exposure, section
        Their places in `Night.exposures` and `Night.plane`.
    filter
        Over this section.
    fate
        ``done`` is the whole chain.
    seeing_arcsec, sky_mag, depth_mag, n_detections
        FWHM of stars, mag/arcsec^2 of the sky, 5 sigma limit of point sources in the image, and detections in
        the difference.
    zero_point_mag
        Magnitude that gives one electron a second, so that exposures of any length compare.
    seconds
        Of all its steps.
    delay_min
        From `Night.delay_from` to its measurements, minutes.
    """

    exposure: int
    section: int
    filter: str
    fate: Fate
    seeing_arcsec: Number = None
    sky_mag: Number = None
    zero_point_mag: Number = None
    depth_mag: Number = None
    n_detections: Number = None
    seconds: Number = None
    delay_min: Number = None


@dataclass(frozen=True)
class Tile:
    """Where a section lies in the camera: centre from the mosaic's centre and size, pixels, y upwards."""

    section: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Problem:
    """Sections that ended, or were flagged, at one step for one reason.

    Attributes
    ----------
    outcome
        failed, stopped or flagged.
    step, reason
        Where, and why in one word.
    places
        Exposure, section and the message, with its cure, of each.
    """

    outcome: str
    step: str
    reason: str
    places: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class FileAside:
    """A file that arrived and is no exposure (yet): its state, address, reason and message."""

    state: str
    address: str
    reason: str
    message: str


@dataclass(frozen=True)
class Curve:
    """Fluxes of a candidate in the differences of all nights, in the order of time.

    Attributes
    ----------
    mjd, filter
        Of each.
    flux, flux_err
        On the scale where a magnitude is 23.9 - 2.5 log10(flux): microjansky, if that is AB.
    """

    mjd: tuple[float, ...] = ()
    filter: tuple[str, ...] = ()
    flux: tuple[float, ...] = ()
    flux_err: tuple[float, ...] = ()


@dataclass(frozen=True)
class NightCandidate:
    """One thing that changed, ready to be shown.

    Attributes
    ----------
    object, kind, verdict
        Its name, what it is, and a person's word, empty if there is none.
    confirmed
        Seen in as many exposures as are asked for; False is to be taken with care.
    score, mag, mag_err, n_epochs, n_possible, hours
        As of `CandidateRow`.
    ra, dec, place
        ICRS deg, and as hours and degrees.
    filter, exposure, section, mjd
        Of the best detection.
    note
        What else is known of it, in words.
    picture
        PNG of new image, reference and difference beside each other; None if the stamps are gone.
    north, east
        Directions in the picture: right and up, of length 1.
    side_arcsec
        Of each stamp.
    """

    object: str
    kind: str
    verdict: str
    confirmed: bool
    score: float
    mag: Number
    mag_err: Number
    n_epochs: int
    n_possible: int
    hours: float
    ra: float
    dec: float
    place: str
    filter: str
    exposure: str
    section: str
    mjd: float
    note: str
    picture: bytes | None = None
    north: tuple[float, float] = (0.0, 1.0)
    east: tuple[float, float] = (-1.0, 0.0)
    side_arcsec: float = 0.0
    curve: Curve = Curve()


@dataclass(frozen=True)
class Night:
    """All that is told of a night.

    Attributes
    ----------
    instrument, night, made_at
        Whose, which (YYYY-MM-DD), and when this was put together (UTC).
    exposures, sections
        In the order of time; every section of every exposure.
    plane
        The sections of the camera; all of size 0 if the camera does not say where they lie.
    problems
        The most frequent first, failures before stops before flags.
    files
        Files set aside or waited for.
    candidates
        The best; `n_candidates`, `n_unconfirmed` and `n_bogus` count all there are of each sort.
    delay_from
        What delays are counted from, in words.
    """

    instrument: str
    night: str
    made_at: datetime
    exposures: tuple[NightExposure, ...]
    sections: tuple[NightSection, ...]
    plane: tuple[Tile, ...]
    problems: tuple[Problem, ...] = ()
    files: tuple[FileAside, ...] = ()
    candidates: tuple[NightCandidate, ...] = ()
    n_candidates: int = 0
    n_unconfirmed: int = 0
    n_bogus: int = 0
    delay_from: str = "the end of the exposure"

    @property
    def counted(self) -> list[NightSection]:
        """The sections of exposures that nobody called bad."""
        return [s for s in self.sections if not self.exposures[s.exposure].bad]

    def count(self, fate: Fate) -> int:
        """Count the sections of a fate."""
        return Counter(section.fate for section in self.counted)[fate]


def headline(night: Night) -> dict[str, float]:
    """Return the figures of a night, units in their names; what is not known is missing.

    Zero point, depth and sky are medians over sections, told for each filter: over several they mean nothing.
    """
    sections = night.counted
    delays = _known(section.delay_min for section in sections)
    found: dict[str, float | None] = {
        "exposures": len(night.exposures),
        "exposures_called_bad": sum(bool(exposure.bad) for exposure in night.exposures),
        **{f"sections_{fate}": night.count(fate) for fate in FATES},
        "candidates": night.n_candidates,
        "candidates_seen_too_seldom": night.n_unconfirmed,
        "files_set_aside": sum(file.state == "refused" for file in night.files),
        "seeing_arcsec": _median(section.seeing_arcsec for section in sections),
        "delay_median_min": _median(delays),
        "delay_90_percent_min": float(np.quantile(delays, 0.9)) if delays else None,
        "seconds_per_section": _median(section.seconds for section in sections),
    }
    for band, values in by_filter(night).items():
        found |= {f"{name}_{band}": value for name, value in values.items() if name.endswith("_mag")}
    return {name: float(value) for name, value in found.items() if value is not None}


def by_filter(night: Night) -> dict[str, dict[str, float | None]]:
    """Return the medians of each filter over its sections, and the number of its exposures."""
    groups: dict[str, list[NightSection]] = {}
    for section in night.counted:
        groups.setdefault(section.filter, []).append(section)
    return {
        band: {
            "exposures": len({section.exposure for section in group}),
            "seeing_arcsec": _median(section.seeing_arcsec for section in group),
            "sky_mag": _median(section.sky_mag for section in group),
            "zero_point_mag": _median(section.zero_point_mag for section in group),
            "depth_mag": _median(section.depth_mag for section in group),
        }
        for band, group in groups.items()
    }


def _known(values: Iterable[Number]) -> list[float]:
    return [value for value in values if value is not None]


def _median(values: Iterable[Number]) -> float | None:
    known = _known(values)
    return float(np.median(known)) if known else None
