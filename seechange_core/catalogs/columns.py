"""Which columns of a table are ours, by the names that surveys give them; and their units.

Our names: ``ra dec`` (ICRS deg), ``ra_err dec_err`` or ``position_err_mas`` (mas), ``pmra pmdec`` (mas/yr,
pmra includes cos dec), ``pmra_err pmdec_err`` or ``pm_err`` (mas/yr), ``is_star`` or ``kron_i`` (a Kron
magnitude, which is brighter than ``mag_i`` for galaxies), ``mag_<band>`` with ``mag_<band>_err``, or with
``mag_<band>_snr`` where the source gives its flux over its error.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units
from astropy.coordinates import Angle

from seechange_core.errors import NotFoundError, UserError
from seechange_core.frames import Float

POSITION = ("ra", "dec")
OPTIONAL = (
    "ra_err", "dec_err", "position_err_mas", "pmra", "pmdec", "pm_err", "pmra_err", "pmdec_err", "is_star",
    "kron_i",
)  # fmt: skip

_UNITS: dict[str, units.Unit] = {
    **dict.fromkeys(POSITION, units.deg),
    **dict.fromkeys(("ra_err", "dec_err", "position_err_mas"), units.mas),
    **dict.fromkeys(("pmra", "pmdec", "pm_err", "pmra_err", "pmdec_err"), units.mas / units.yr),
}


@dataclass(frozen=True)
class Layout:
    """The columns of a well-known catalog.

    Attributes
    ----------
    epoch
        Julian year of its positions.
    columns
        For each of our columns, the names it goes by in the releases and mirrors, best first; a unit after
        a colon holds where the table states none.
    bands
        For each band, its names; ``*`` stands for them in `mag`, `mag_err` and `mag_snr`.
    mag, mag_err, mag_snr
        Patterns of the magnitudes' columns.
    """

    epoch: float
    columns: Mapping[str, tuple[str, ...]]
    bands: Mapping[str, tuple[str, ...]]
    mag: tuple[str, ...]
    mag_err: tuple[str, ...]
    mag_snr: tuple[str, ...] = ()

    def candidates(self) -> dict[str, tuple[str, ...]]:
        """List the possible names of each of our columns, a unit after a colon."""
        found = dict(self.columns)
        for band, names in self.bands.items():
            for end, patterns in (("", self.mag), ("_err", self.mag_err), ("_snr", self.mag_snr)):
                found[f"mag_{band}{end}"] = tuple(p.replace("*", n) for n in names for p in patterns)
        return found


_VIZIER_ERR = {"ra_err": ("e_RA_ICRS", "e_RAJ2000:arcsec"), "dec_err": ("e_DE_ICRS", "e_DEJ2000:arcsec")}
_VIZIER_PM = {"pmra": ("pmRA",), "pmdec": ("pmDE",), "pmra_err": ("e_pmRA",), "pmdec_err": ("e_pmDE",)}
_GRIZY = {band: (band,) for band in "grizy"}

LAYOUTS: dict[str, Layout] = {
    "gaia_dr3": Layout(
        2016.0,
        {
            "ra": ("ra", "RA_ICRS"),
            "dec": ("dec", "DE_ICRS"),
            "ra_err": ("ra_error", "e_RA_ICRS"),
            "dec_err": ("dec_error", "e_DE_ICRS"),
            "pmra": ("pmra", "pmRA"),
            "pmdec": ("pmdec", "pmDE"),
            "pmra_err": ("pmra_error", "e_pmRA"),
            "pmdec_err": ("pmdec_error", "e_pmDE"),
        },
        {"G": ("g", "G"), "BP": ("bp", "BP"), "RP": ("rp", "RP")},
        ("phot_*_mean_mag", "*mag"),
        ("e_*mag",),
        ("phot_*_mean_flux_over_error",),
    ),
    "tycho2": Layout(
        2000.0,
        {
            "ra": ("RAmdeg", "RA(ICRS)", "_RA", "RAJ2000", "RA_ICRS", "ra"),
            "dec": ("DEmdeg", "DE(ICRS)", "_DE", "DEJ2000", "DE_ICRS", "dec"),
            "ra_err": ("e_RAmdeg",),
            "dec_err": ("e_DEmdeg",),
            **_VIZIER_PM,
        },
        {"BT": ("BT",), "VT": ("VT",)},
        ("*mag", "*"),
        ("e_*mag", "e_*"),
    ),
    "ps1": Layout(
        2013.0,
        {
            "ra": ("raMean", "RAJ2000", "raStack"),
            "dec": ("decMean", "DEJ2000", "decStack"),
            "ra_err": ("raMeanErr:arcsec", "e_RAJ2000:arcsec"),
            "dec_err": ("decMeanErr:arcsec", "e_DEJ2000:arcsec"),
            "kron_i": ("iMeanKronMag", "iKmag"),
        },
        _GRIZY,
        ("*MeanPSFMag", "*PSFMag", "*mag"),
        ("*MeanPSFMagErr", "*PSFMagErr", "e_*mag"),
    ),
    "apass": Layout(
        2011.0,
        {
            "ra": ("RAJ2000", "radeg", "RA"),
            "dec": ("DEJ2000", "decdeg", "DEC", "Dec"),
            "ra_err": ("e_RAJ2000:arcsec", "raerr:arcsec", "raerr(arcsec):arcsec"),
            "dec_err": ("e_DEJ2000:arcsec", "decerr:arcsec", "decerr(arcsec):arcsec"),
        },
        {
            "V": ("V", "Johnson_V"),
            "B": ("B", "Johnson_B"),
            **{b: (f"{b}'", f"{b}_", f"{b}", f"Sloan_{b}") for b in "gri"},
        },
        ("*mag", "*"),
        ("e_*mag", "e_*", "*err"),
    ),
    "refcat2": Layout(
        2015.5,
        {
            "ra": ("RA", "RA_ICRS", "ra"),
            "dec": ("Dec", "DE_ICRS", "dec"),
            "pmra": ("pmra", "pmRA"),
            "pmdec": ("pmdec", "pmDE"),
            "pmra_err": ("dpmra", "e_pmRA"),
            "pmdec_err": ("dpmdec", "e_pmDE"),
        },
        {"G": ("Gaia", "G"), "BP": ("BP",), "RP": ("RP",), **{b: (b,) for b in "griz"}},
        ("*mag", "*"),
        ("e_*mag", "d*"),
    ),
}

_GUESSED = Layout(
    2016.0,
    {
        "ra": ("ra", "RA_ICRS", "RAJ2000", "RAmdeg", "raMean", "ALPHA_J2000", "RA", "_RA", "radeg", "RAdeg"),
        "dec": (
            "dec", "DE_ICRS", "DEJ2000", "DEmdeg", "decMean", "DELTA_J2000",
            "DEC", "Dec", "_DE", "decdeg", "DEdeg",
        ),
        "ra_err": ("ra_error", *_VIZIER_ERR["ra_err"], "e_RAmdeg", "raMeanErr:arcsec"),
        "dec_err": ("dec_error", *_VIZIER_ERR["dec_err"], "e_DEmdeg", "decMeanErr:arcsec"),
        "pmra": ("pmra", "pmRA"),
        "pmdec": ("pmdec", "pmDE"),
        "pmra_err": ("pmra_error", "e_pmRA", "dpmra"),
        "pmdec_err": ("pmdec_error", "e_pmDE", "dpmdec"),
    },
    {
        **{b: (b,) for b in (*"ugrizyUBVRIJHK", "VT", "BT")},
        "G": ("phot_g_mean", "G"), "BP": ("phot_bp_mean", "BP"), "RP": ("phot_rp_mean", "RP"),
    },
    ("*mag", "*_mag", "mag_*", "*MeanPSFMag", "*", "*'mag"),
    ("e_*mag", "*mag_err", "*_mag_err", "mag_*_err", "*MeanPSFMagErr", "e_*", "e_*'mag"),
    ("*_flux_over_error",),
)  # fmt: skip


def layout_called(name: str) -> Layout:
    """Return the columns of a well-known catalog.

    Raises
    ------
    NotFoundError
        If it is not known.
    """
    if name not in LAYOUTS:
        raise NotFoundError(f"no catalog layout is called {name!r}", cure=f"known are {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def is_magnitude(name: str) -> bool:
    """Tell whether one of our columns is a magnitude, and no error of one."""
    return name.startswith("mag_") and not name.endswith(("_err", "_snr"))


def choose_columns(
    there: Iterable[str], mapping: Mapping[str, str], layout: str | None, table: str
) -> dict[str, str]:
    """Find our columns in a table.

    Parameters
    ----------
    there
        The table's columns.
    mapping
        What the user says: our name to its name; goes before everything.
    layout
        One of `LAYOUTS`; None takes columns that have our names, and guesses what is missing.
    table
        What to call the table in errors.

    Returns
    -------
    dict
        Our name to its name, a unit after a colon where the survey's own unit is meant unless stated.

    Raises
    ------
    NotFoundError
        If there is no such layout, or a mapped column, a position, or every magnitude is missing.
    """
    usual = (layout_called(layout) if layout else _GUESSED).candidates()
    names = list(there)
    chosen = {} if layout else {n: n for n in names if n in (*POSITION, *OPTIONAL) or n.startswith("mag_")}
    # Who has named a magnitude wants no other ones guessed, but its error still.
    named = bool(_magnitudes((*chosen, *mapping)))
    for ours, candidates in usual.items():
        wanted = next((c for c in candidates if c.split(":")[0] in names), None)
        asked = bool(layout) or not named or not ours.startswith("mag_") or _base(ours) in mapping
        if wanted is not None and ours not in chosen and asked:
            chosen[ours] = wanted
    chosen |= mapping
    bare = [m for m in chosen if m.startswith("mag_") and not is_magnitude(m) and _base(m) not in chosen]
    for name in bare:  # an error without its magnitude
        if name in mapping:
            raise NotFoundError(
                f"{name} is the error of a magnitude that {table} does not have",
                cure=f"say which it is: --column {_base(name)}=COL",
            )
        del chosen[name]
    _check(chosen, names, mapping, layout, table)
    return chosen


def _base(name: str) -> str:
    return name.removesuffix("_err").removesuffix("_snr")


def _magnitudes(names: Iterable[str]) -> list[str]:
    return [name for name in names if is_magnitude(name)]


def _check(
    chosen: Mapping[str, str], there: list[str], mapping: Mapping[str, str], layout: str | None, table: str
) -> None:
    wrong = [theirs for theirs in mapping.values() if theirs.split(":")[0] not in there]
    missing = [ours for ours in POSITION if ours not in chosen]
    if not _magnitudes(chosen):
        missing.append("mag_<band>")
    unknown = [o for o in mapping if o not in (*POSITION, *OPTIONAL) and not o.startswith("mag_")]
    if not (wrong or missing or unknown):
        return
    said, guess = f"{table} lacks the columns {', '.join(wrong + missing)}", ""
    if missing and layout:
        said += f": with {layout} these are {_usual_names(missing, layout)}"
        guess = "leave out --as to have them guessed, or "
    raise NotFoundError(
        said if wrong or missing else f"no such columns of ours: {', '.join(unknown)}",
        cure=f"{guess}say which they are, as --column ra=COL --column mag_X=COL (X is the band); the table's "
        f"columns are {', '.join(there)}",
    )


def _usual_names(ours: Iterable[str], layout: str) -> str:
    """List what columns of ours are called in a layout; of all magnitudes, the first name of each."""
    usual = {o: [n.split(":")[0] for n in names] for o, names in LAYOUTS[layout].candidates().items()}
    usual["mag_<band>"] = [names[0] for own, names in usual.items() if is_magnitude(own)]
    return ", ".join(" or ".join(usual[own]) for own in ours)


def in_our_units(column: Any, ours: str, theirs: str, table: str) -> Float:
    """Turn a column into float64 in our unit, NaN for what is missing.

    Parameters
    ----------
    column
        Masked or not, with a unit or without; positions may be sexagesimal text.
    ours, theirs
        Our name; its name, a unit after a colon where it has none of its own.
    table
        What to call the table in errors.

    Raises
    ------
    UserError
        If it is not numeric, or its unit is of another kind.
    """
    name, _, usual = theirs.partition(":")
    if ours in POSITION and getattr(column, "dtype", np.dtype(float)).kind in "US":
        return _from_text(column, ours, name, table)
    try:
        values = np.ma.asarray(getattr(column, "value", column))
        plain = np.asarray(np.ma.filled(values.astype(np.float64), np.nan))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"column {name} of {table} is not numeric", cure=f"map another one: --column {ours}=COL"
        ) from error
    return plain * _factor(getattr(column, "unit", None), usual, ours, name, table)


def _factor(unit: Any, usual: str, ours: str, name: str, table: str) -> float:
    """Give what to multiply a column with; 1 where there is no unit, or one that says nothing."""
    target = _UNITS.get(ours)
    if target is None:
        return 1.0
    stated = units.Unit(unit or usual or target, parse_strict="silent")
    if isinstance(stated, units.UnrecognizedUnit) or stated == units.dimensionless_unscaled:
        stated = units.Unit(usual) if usual else target
    try:
        return float(stated.to(target))
    except units.UnitConversionError as error:
        raise UserError(
            f"column {name} of {table} is in {stated}, which is no unit of {ours}",
            cure=f"map another one: --column {ours}=COL",
        ) from error


def _from_text(column: Any, ours: str, name: str, table: str) -> Float:
    """Read positions written as text: hours for the right ascension if it is sexagesimal."""
    text = [str(value).strip() for value in np.ma.filled(np.ma.asarray(column), "")]
    sexagesimal = any(re.search(r"\d[:\sh]+\d", value) for value in text)
    unit = units.hourangle if ours == "ra" and sexagesimal else units.deg
    try:
        return np.array([Angle(v, unit=unit).deg if v else np.nan for v in text], np.float64)
    except (ValueError, units.UnitsError) as error:
        raise UserError(
            f"column {name} of {table} is no position: {str(error).splitlines()[0]}",
            cure=f"map another one: --column {ours}=COL",
        ) from error
