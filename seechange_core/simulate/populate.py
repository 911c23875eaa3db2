"""Stars, galaxies and what changes among them, drawn at random for a field."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from astropy.table import Table, vstack

from seechange_core.simulate.camera import Camera
from seechange_core.simulate.cameras.layout import SectionId
from seechange_core.simulate.geometry import deproject, move, project
from seechange_core.simulate.observation import Observation
from seechange_core.simulate.psf import Float
from seechange_core.simulate.sky import DAYS_PER_YEAR, Sky, make_table

#: Cumulative counts grow as 10 ** (slope * mag), from the brightest to `faint_mag`.
STAR_SLOPE, STAR_BRIGHTEST, STAR_PIVOT = 0.20, 12.5, 23.2
GALAXY_SLOPE, GALAXY_BRIGHTEST, GALAXY_PIVOT = 0.40, 15.5, 23.0
MARGIN_ARCSEC = 60.0
#: More than any camera is turned against its nominal orientation.
LARGEST_ROTATION_DEG = 0.55
#: Where transients are put, in turn.
PLACES = ("core", "host", "hostless", "bright_star", "edge", "masked")
TRANSIENT_SEPARATION_ARCSEC = 6.0
REACH_DAYS = 6.0


def make_sky(camera: Camera, observations: list[Observation]) -> Sky:
    """Fill the field of a survey.

    Parameters
    ----------
    camera
        Whose mosaic the field must cover, dithers included.
    observations
        In order of time: transients and asteroids are put where and when they can be seen.
    """
    options = camera.options
    epoch = observations[0].mjd_start
    stars = _stars(camera, np.random.default_rng([options.seed, 301]))
    galaxies = _galaxies(camera, np.random.default_rng([options.seed, 302]))
    variables = _variables(camera, np.random.default_rng([options.seed, 303]))
    asteroids = _asteroids(camera, observations, np.random.default_rng([options.seed, 305]))
    objects = vstack([stars, galaxies, variables, asteroids])
    objects["id"] = np.arange(len(objects))
    objects["epoch_mjd"][np.isnan(objects["epoch_mjd"])] = epoch
    before = Sky(objects, epoch)
    transients = _transients(camera, before, observations, np.random.default_rng([options.seed, 304]))
    objects = vstack([objects, transients])
    objects["id"] = np.arange(len(objects))
    objects["epoch_mjd"][np.isnan(objects["epoch_mjd"])] = epoch
    return Sky(objects, epoch)


def field_half_size_arcsec(camera: Camera) -> tuple[float, float]:
    """Half the width and height of the mosaic's sky and a margin, along x and y."""
    margin = MARGIN_ARCSEC + camera.options.dither_arcsec
    width, height = camera.extent_pix
    scale = camera.pixel_scale_arcsec
    return width * scale / 2 + margin, height * scale / 2 + margin


class Footprint:
    """The sky that sections of a large mosaic see: a rectangle around each, their union being filled.

    Wide enough for dithers, pointing errors and the camera's rotation.
    """

    def __init__(self, camera: Camera) -> None:
        self.scale = camera.pixel_scale_arcsec
        nominal = np.deg2rad(camera.layout.rotation_deg)
        self.sin, self.cos = float(np.sin(nominal)), float(np.cos(nominal))
        self.parity = camera.layout.parity
        self.centres = np.array([camera.section_offset(s) for s in camera.sections]) * self.scale
        margin = MARGIN_ARCSEC + camera.options.dither_arcsec
        far = np.hypot(*self.centres.T) if camera.options.rotation else np.zeros(len(self.centres))
        half = np.array([camera.width, camera.height]) * self.scale / 2
        self.half = half + margin + np.deg2rad(LARGEST_ROTATION_DEG) * far[:, None]
        self.low = (self.centres - self.half).min(axis=0)
        self.high = (self.centres + self.half).max(axis=0)

    def to_field(self, x: Float, y: Float) -> tuple[Float, Float]:
        """Turn arcseconds along the camera's axes into arcseconds east and north."""
        x = x * self.parity
        return -self.cos * x + self.sin * y, self.sin * x + self.cos * y

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Float, Float]:
        """Draw places uniformly, arcseconds east and north."""
        kept = np.empty((0, 2))
        while len(kept) < count:
            places = rng.uniform(self.low, self.high, (max(1000, 2 * count), 2))
            kept = np.concatenate([kept, places[self.holds(places)]])
        return self.to_field(kept[:count, 0], kept[:count, 1])

    def holds(self, places: Float) -> npt.NDArray[np.bool_]:
        """Tell which places along the camera's axes, (n, 2) arcsec, are in it."""
        inside = np.zeros(len(places), bool)
        for centre, half in zip(self.centres, self.half, strict=True):
            inside |= (np.abs(places - centre) < half).all(axis=1)
        return inside

    def area_arcmin2(self) -> float:
        """Return the area that is filled, counted on a grid fine enough for a thousandth of it."""
        n = 2000
        share = (np.arange(n) + 0.5) / n
        x, y = (self.low[k] + share * (self.high[k] - self.low[k]) for k in (0, 1))
        grid = np.zeros((n, n), bool)
        for centre, half in zip(self.centres, self.half, strict=True):
            across, along = np.abs(x - centre[0]) < half[0], np.abs(y - centre[1]) < half[1]
            grid[np.ix_(along, across)] = True
        return float(grid.mean() * np.prod(self.high - self.low) / 3600)


@lru_cache(maxsize=4)
def footprint(camera: Camera) -> Footprint | None:
    """Return the filled sky; None for the demo camera, whose whole field is filled."""
    return None if camera.options.camera == "demo" else Footprint(camera)


def random_positions(camera: Camera, count: int, rng: np.random.Generator) -> tuple[Float, Float]:
    """Draw positions (deg) uniformly over the field and its margin."""
    filled = footprint(camera)
    if filled is not None:
        east, north = filled.draw(count, rng)
    else:
        half_width, half_height = field_half_size_arcsec(camera)
        east = rng.uniform(-half_width, half_width, count)
        north = rng.uniform(-half_height, half_height, count)
    return deproject(east, north, camera.options.ra_deg, camera.options.dec_deg)


def _counts(
    camera: Camera, density: float, slope: float, brightest: float, pivot: float, rng: np.random.Generator
) -> Float:
    """Draw r magnitudes by their counts."""
    filled = footprint(camera)
    if filled is not None:
        area_arcmin2 = filled.area_arcmin2()
    else:
        half_width, half_height = field_half_size_arcsec(camera)
        area_arcmin2 = 4 * half_width * half_height / 3600
    low, high = (10 ** (slope * (m - pivot)) for m in (brightest, camera.faint_mag))
    count = rng.poisson(area_arcmin2 * density * max(0.0, high - low))
    return np.asarray(pivot + np.log10(rng.uniform(low, max(low, high), count)) / slope)


def _stars(camera: Camera, rng: np.random.Generator) -> Table:
    mag = _counts(camera, camera.options.star_density, STAR_SLOPE, STAR_BRIGHTEST, STAR_PIVOT, rng)
    return _star_rows(camera, mag, rng)


def _star_rows(camera: Camera, mag_r: Float, rng: np.random.Generator) -> Table:
    """Stars of given magnitudes: turn-off stars and red dwarfs, moving as the solar neighbourhood does."""
    n = mag_r.size
    red = rng.uniform(size=n) < np.clip(0.15 + 0.06 * (mag_r - 14), 0.1, 0.7)
    g_r = np.where(red, rng.normal(1.35, 0.12, n), rng.normal(0.50, 0.15, n))
    r_i = np.where(red, rng.uniform(0.6, 1.6, n), 0.38 * g_r + rng.normal(0, 0.03, n))
    ra, dec = random_positions(camera, n, rng)
    spread = 6.0 * np.exp(rng.normal(0, 0.7, n)) * np.where(rng.uniform(size=n) < 0.01, 15.0, 1.0)
    pmra = -4.0 + spread * rng.standard_normal(n)
    pmdec = -6.0 + spread * rng.standard_normal(n)
    moving = float(camera.options.proper_motions)
    return make_table(
        n, kind="star", ra=ra, dec=dec, pmra=pmra * moving, pmdec=pmdec * moving,
        mag_g=mag_r + g_r, mag_r=mag_r, mag_i=mag_r - r_i,
    )  # fmt: skip


def _galaxies(camera: Camera, rng: np.random.Generator) -> Table:
    mag = _counts(camera, camera.options.galaxy_density, GALAXY_SLOPE, GALAXY_BRIGHTEST, GALAXY_PIVOT, rng)
    n = mag.size
    ra, dec = random_positions(camera, n, rng)
    early = rng.uniform(size=n) < 0.3
    half_light = 0.8 * 10 ** (-0.1 * (mag - 21) + rng.normal(0, 0.2, n))
    g_r = np.where(early, rng.normal(1.0, 0.25, n), rng.normal(0.6, 0.2, n))
    return make_table(
        n, kind="galaxy", ra=ra, dec=dec, mag_g=mag + g_r, mag_r=mag, mag_i=mag - 0.45 * g_r,
        half_light_arcsec=half_light,
        axis_ratio=np.where(early, rng.uniform(0.5, 1.0, n), rng.uniform(0.2, 1.0, n)),
        angle_deg=rng.uniform(0, 180, n),
        bulge_fraction=np.where(early, rng.uniform(0.6, 1.0, n), rng.uniform(0.0, 0.4, n)),
    )  # fmt: skip


def _variables(camera: Camera, rng: np.random.Generator) -> Table:
    n = camera.options.variables
    table = _star_rows(camera, rng.uniform(16.0, 20.5, n), rng)
    table["kind"] = "variable"
    table["period_d"] = np.exp(rng.uniform(np.log(0.2), np.log(8.0), n))
    table["amplitude_mag"] = rng.uniform(0.1, 0.6, n)
    table["phase"] = rng.uniform(0, 1, n)
    return table


def _asteroids(camera: Camera, observations: list[Observation], rng: np.random.Generator) -> Table:
    """Asteroids that are in the field in the middle of one of the nights after the reference's."""
    options = camera.options
    n = options.asteroids
    later = sorted({o.night for o in observations[min(options.reference_exposures, len(observations) - 1) :]})
    night = rng.choice(later, n)
    if footprint(camera) is not None:
        ra, dec = random_positions(camera, n, rng)
    else:
        half_width, half_height = field_half_size_arcsec(camera)
        east = rng.uniform(-0.6, 0.6, n) * half_width
        north = rng.uniform(-0.6, 0.6, n) * half_height
        ra, dec = deproject(east, north, options.ra_deg, options.dec_deg)
    rate = rng.uniform(options.asteroid_slow_arcsec_h, options.asteroid_fast_arcsec_h, n)
    heading = rng.uniform(0, 2 * np.pi, n)
    # Arcseconds an hour are many milliarcseconds a year: the same columns hold both.
    per_year = rate * 1e3 * 24 * DAYS_PER_YEAR
    pmra, pmdec = per_year * np.sin(heading), per_year * np.cos(heading)
    middle = [float(np.median([o.mjd_mid for o in observations if o.night == k])) for k in night]
    mag = rng.uniform(18.0, 21.5, n)
    return make_table(
        n, kind="asteroid", ra=ra, dec=dec, epoch_mjd=np.array(middle), pmra=pmra, pmdec=pmdec,
        mag_g=mag + 0.55, mag_r=mag, mag_i=mag - 0.2,
    )  # fmt: skip


def _transients(camera: Camera, sky: Sky, observations: list[Observation], rng: np.random.Generator) -> Table:
    """Transients that go off after the reference, each seen on the detector at least once near its place."""
    options = camera.options
    n = options.transients
    first = min(options.reference_exposures, len(observations) - 1)
    quiet_until = observations[first - 1].mjd_mid if first else observations[0].mjd_start - REACH_DAYS
    quiet_until += options.exposure_time_s / 86400
    last_night = [o for o in observations[first:] if o.night == observations[-1].night]
    placed = np.empty((0, 3))
    alive = [s for s in camera.sections if str(s) not in options.dead_sections] or [camera.sections[0]]
    for i in range(n):
        section = alive[int(rng.integers(len(alive)))]
        seen = last_night[int(rng.integers(len(last_night)))]
        put = _PLACERS[PLACES[i % len(PLACES)]]
        for _ in range(50):
            place = put(camera, sky, seen, section, rng)
            if not _is_near(place[0], place[1], placed):
                break
        placed = np.vstack([placed, place])
    ra, dec, host = placed.T
    mag = rng.uniform(options.transient_bright_mag, options.transient_faint_mag, n)
    color = rng.normal(0.3, 0.3, n)
    start = rng.uniform(quiet_until, max(quiet_until, last_night[0].mjd_start - 0.5), n)
    return make_table(
        n, kind="transient", ra=ra, dec=dec, host_id=host.astype(int), mag_g=mag + color, mag_r=mag,
        mag_i=mag - 0.4 * color, place=np.resize(np.array(PLACES), n), t_start_mjd=start,
        rise_d=np.exp(rng.uniform(np.log(0.3), np.log(2.0), n)),
        fall_d=np.exp(rng.uniform(np.log(3.0), np.log(20.0), n)),
    )  # fmt: skip


def _is_near(ra: float, dec: float, taken: Float) -> bool:
    """Tell whether another transient is too close to tell apart."""
    if not len(taken):
        return False
    east, north = project(taken[:, 0], taken[:, 1], ra, dec)
    return bool(np.nanmin(np.hypot(east, north)) < TRANSIENT_SEPARATION_ARCSEC)


Placer = Callable[[Camera, Sky, Observation, SectionId, np.random.Generator], tuple[float, float, int]]


def _on_section(
    camera: Camera,
    sky: Sky,
    seen: Observation,
    section: SectionId,
    kind: str,
    brightest: float,
    faintest: float,
) -> npt.NDArray[np.int64]:
    """Rows of a kind and range of magnitudes that lie well on a section."""
    x, y = seen.sky_map(camera, section).to_pixels(*sky.positions(seen.mjd_mid))
    width, height = camera.width, camera.height
    mag = sky.objects["mag_r"]
    inside = (x > 0.03 * width) & (x < width - 0.03 * width)
    inside &= (y > 0.03 * height) & (y < height - 0.03 * height)
    return np.flatnonzero(inside & (sky.objects["kind"] == kind) & (mag > brightest) & (mag < faintest))


def _in_galaxy(spread: float) -> Placer:
    """Put it within `spread` half-light radii of the core of a galaxy (a blank place if there is none)."""

    def put(
        camera: Camera, sky: Sky, seen: Observation, section: SectionId, rng: np.random.Generator
    ) -> tuple[float, float, int]:
        hosts = _on_section(camera, sky, seen, section, "galaxy", 15.0, 22.5)
        if not hosts.size:
            return _hostless(camera, sky, seen, section, rng)
        host = sky.objects[int(rng.choice(hosts))]
        radius = spread * float(host["half_light_arcsec"]) * float(np.sqrt(rng.uniform())) * 1e3
        angle = rng.uniform(0, 2 * np.pi)
        ra, dec = move(host["ra"], host["dec"], radius * np.sin(angle), radius * np.cos(angle))
        return float(ra), float(dec), int(host["id"])

    return put


def _near_star(
    camera: Camera, sky: Sky, seen: Observation, section: SectionId, rng: np.random.Generator
) -> tuple[float, float, int]:
    stars = _on_section(camera, sky, seen, section, "star", 12.0, 17.0)
    if not stars.size:
        return _hostless(camera, sky, seen, section, rng)
    star = sky.objects[int(rng.choice(stars))]
    radius, angle = rng.uniform(3e3, 10e3), rng.uniform(0, 2 * np.pi)
    ra, dec = move(star["ra"], star["dec"], radius * np.sin(angle), radius * np.cos(angle))
    return float(ra), float(dec), -1


def _hostless(
    camera: Camera, sky: Sky, seen: Observation, section: SectionId, rng: np.random.Generator
) -> tuple[float, float, int]:
    x = rng.uniform(0.05 * camera.width, 0.95 * camera.width)
    y = rng.uniform(0.05 * camera.height, 0.95 * camera.height)
    ra, dec = seen.sky_map(camera, section).to_sky(x, y)
    return float(ra), float(dec), -1


def _near_edge(
    camera: Camera, sky: Sky, seen: Observation, section: SectionId, rng: np.random.Generator
) -> tuple[float, float, int]:
    share, away = rng.random(), rng.uniform(0, 15.0)
    far, level = rng.uniform() < 0.5, rng.uniform() < 0.5

    def along(size: int) -> float:
        return 0.05 * size + (0.95 * size - 0.05 * size) * share

    def from_edge(size: int) -> float:
        return size - 1 - away if far else away

    width, height = camera.width, camera.height
    x, y = (along(width), from_edge(height)) if level else (from_edge(width), along(height))
    ra, dec = seen.sky_map(camera, section).to_sky(x, y)
    return float(ra), float(dec), -1


def _on_bad_pixel(
    camera: Camera, sky: Sky, seen: Observation, section: SectionId, rng: np.random.Generator
) -> tuple[float, float, int]:
    y, x = np.nonzero(camera.detector(section).bad)
    if not x.size:
        return _hostless(camera, sky, seen, section, rng)
    i = int(rng.integers(x.size))
    dx, dy = rng.uniform(-0.5, 0.5, 2)
    ra, dec = seen.sky_map(camera, section).to_sky(x[i] + dx, y[i] + dy)
    return float(ra), float(dec), -1


_PLACERS: dict[str, Placer] = {
    "core": _in_galaxy(0.1),
    "host": _in_galaxy(2.0),
    "hostless": _hostless,
    "bright_star": _near_star,
    "edge": _near_edge,
    "masked": _on_bad_pixel,
}
