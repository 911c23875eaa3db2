"""What is in the sky, where it is and how bright at any time."""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from seechange_core.simulate.geometry import move
from seechange_core.simulate.observation import COLOR_TERM, COLOR_ZERO
from seechange_core.simulate.psf import Float

DAYS_PER_YEAR = 365.25
#: i - z in units of r - i, of stars and galaxies alike: a z magnitude is no column of the table.
Z_SHARE = 0.6

#: Columns of the table of objects and what an object without the property has there.
COLUMNS: dict[str, object] = {
    "id": -1,
    "kind": "",
    "ra": np.nan,
    "dec": np.nan,
    "epoch_mjd": np.nan,
    "pmra": 0.0,
    "pmdec": 0.0,
    "mag_g": np.nan,
    "mag_r": np.nan,
    "mag_i": np.nan,
    "host_id": -1,
    "place": "",
    "half_light_arcsec": 0.0,
    "axis_ratio": 1.0,
    "angle_deg": 0.0,
    "bulge_fraction": 0.0,
    "t_start_mjd": np.nan,
    "rise_d": np.nan,
    "fall_d": np.nan,
    "period_d": np.nan,
    "amplitude_mag": 0.0,
    "phase": 0.0,
}


def make_table(count: int, **columns: object) -> Table:
    """Build a table of `count` objects with every column of `COLUMNS`."""
    widths = {"kind": "U12", "place": "U12"}
    values = {}
    for name, default in COLUMNS.items():
        value = np.broadcast_to(np.asarray(columns.get(name, default)), count)
        values[name] = value.astype(widths.get(name, value.dtype))
    return Table(values)


@dataclass(frozen=True, eq=False)
class Sky:
    """All objects of a field.

    Attributes
    ----------
    objects
        One row each: `id`, `kind` (star, galaxy, variable, transient, asteroid), `ra`, `dec` (deg,
        ICRS, at the row's `epoch_mjd`: the first exposure's start, and for an asteroid the middle of the
        night it is seen in), `pmra`, `pmdec` (mas/yr, the first including cos dec), `mag_g`, `mag_r`,
        `mag_i` (mean of a variable, peak of a transient), `host_id` (-1: none), `place` (why a
        transient is where it is), shapes of galaxies (half-light radius, arcsec; axis ratio; position
        angle of the major axis, deg), light curves (times MJD, durations days, amplitude mag).
    epoch_mjd
        Start of the first exposure.
    """

    objects: Table
    epoch_mjd: float

    def __len__(self) -> int:
        return len(self.objects)

    def positions(self, mjd: float) -> tuple[Float, Float]:
        """Return RA and Dec (deg) of all objects at a time."""
        o = self.objects
        years = (mjd - np.asarray(o["epoch_mjd"])) / DAYS_PER_YEAR
        return move(o["ra"], o["dec"], o["pmra"] * years, o["pmdec"] * years)

    def brightness(self, mjd: float) -> Float:
        """Return each object's flux at a time relative to that of its magnitude in the table."""
        o = self.objects
        factor = np.ones(len(self))
        varies = np.flatnonzero(o["kind"] == "variable")
        cycle = (mjd - self.epoch_mjd) / o["period_d"][varies] + o["phase"][varies]
        factor[varies] = 10 ** (-0.4 * o["amplitude_mag"][varies] * np.sin(2 * np.pi * cycle))
        bursts = np.flatnonzero(o["kind"] == "transient")
        factor[bursts] = burst(
            mjd - np.asarray(o["t_start_mjd"][bursts]),
            np.asarray(o["rise_d"][bursts]),
            np.asarray(o["fall_d"][bursts]),
        )
        return factor

    def mag(self, band: str) -> Float:
        """Return magnitudes in the catalog's g, r, i or z."""
        o = self.objects
        if band == "z":
            return np.asarray(o["mag_i"] - Z_SHARE * (o["mag_r"] - o["mag_i"]), float)
        return np.asarray(o[f"mag_{band}"], float)

    def natural_mag(self, band: str, *, color_term: bool = True) -> Float:
        """Return magnitudes as the camera's own filter sees them (see `COLOR_TERM`)."""
        if not color_term:
            return self.mag(band)
        color = np.asarray(self.objects["mag_g"] - self.objects["mag_r"], float)
        return np.asarray(self.mag(band) + COLOR_TERM[band] * (color - COLOR_ZERO), float)


def burst(time_d: Float, rise_d: Float, fall_d: Float) -> Float:
    """Return a transient's light curve: 0 before time 0, peak 1, ``(1 - exp(-(t/rise)^2)) exp(-t/fall)``.

    Parameters
    ----------
    time_d
        Days since it went off, (n,).
    rise_d, fall_d
        Time scales, days, (n,).
    """
    grid = np.linspace(0, 6, 601) * rise_d[:, None]
    peak = np.max(-np.expm1(-((grid / rise_d[:, None]) ** 2)) * np.exp(-grid / fall_d[:, None]), axis=1)
    t = np.maximum(time_d, 0.0)
    return np.asarray(-np.expm1(-((t / rise_d) ** 2)) * np.exp(-t / fall_d) / peak)
