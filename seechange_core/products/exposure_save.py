"""Writing an Exposure that was made in memory to a raw file its instrument can read back."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from seechange_core.errors import HeaderError, PixelsError, UserError
from seechange_core.instrument import ExposureFacts, Instrument, SectionId, get_instrument_instance
from seechange_core.numerics.timing import mid_mjd, night_of
from seechange_core.products.exposure_files import name_of
from seechange_core.storage.archive import Archive
from seechange_core.storage.fits_io import to_header

if TYPE_CHECKING:
    from seechange_core.products.exposure import Exposure

#: The columns that come from a file's header.
FACTS = (
    *("type", "mjd", "mjd_mid", "night", "exp_time", "filter", "filter_array", "ra", "dec"),
    *("project", "target", "telescope", "airmass", "header"),
)
_SAVED = ("type", "mjd", "exp_time", "filter", "ra", "dec", "project", "target", "telescope", "airmass")
_CHECKED = ("type", "mjd", "exp_time", "filter", "ra", "dec")
_NEEDED = ("instrument", "type", "mjd", "exp_time")


def save_exposure(exposure: "Exposure", filename: str | None, archive: Archive) -> str:
    """Write pixels and headers in memory to a file; see `Exposure.save`."""
    missing = [name for name in _NEEDED if _value(exposure, name) is None]
    if missing:
        raise UserError(f"the Exposure has no {', '.join(missing)}", cure="fill them before save()")
    if exposure.filename_extensions:
        raise UserError("save() writes one file", cure="set filename_extensions to None before save()")
    instance = get_instrument_instance(exposure.instrument)
    lost = [s for s in instance.get_section_ids() if s not in exposure.data.loaded]
    if lost:
        raise PixelsError(f"no pixels for the sections {lost}", cure="fill data[section] before save()")
    _complete(exposure, instance)
    target = filename or _value(exposure, "filename") or _invent(exposure)
    if archive.exists(target):
        raise _taken(target)
    cards, data, headers = exposure.raw_header, exposure.data.loaded, exposure.section_headers.loaded

    def write(path: Path) -> None:
        _write_sections(path, instance, exposure, cards, data, headers)
        _check_saved(exposure, instance.read_facts(instance.read_header(path)))
        for section_id, pixels in data.items():
            if not np.array_equal(instance.load_section_image(path, section_id), pixels):
                raise _other_layout(instance, section_id)

    try:
        exposure.checksum = archive.write(target, write, replace=False)
    except FileExistsError:
        raise _taken(target) from None
    exposure.filename, exposure.name = target, name_of(target)
    exposure.size_bytes = archive.path(target).stat().st_size
    return target


def _taken(target: str) -> UserError:
    return UserError("raw files are never written over", cure="give another filename", file=target)


def _value(exposure: "Exposure", name: str) -> Any:
    """Return a column of a row that may not be filled yet."""
    return getattr(exposure, name)


def _invent(exposure: "Exposure") -> str:
    name = f"{exposure.instrument}_{exposure.mjd:.6f}_{exposure.type}".replace(".", "_")
    return f"raw/{exposure.instrument}/{exposure.night}/{_value(exposure, 'name') or name}.fits"


def _complete(exposure: "Exposure", instance: Instrument) -> None:
    """Fill in what follows from other columns."""
    if _value(exposure, "mjd_mid") is None:
        exposure.mjd_mid = mid_mjd(exposure.mjd, exposure.exp_time)
    if _value(exposure, "night") is None:
        site = exposure.site
        if site is None:
            raise UserError("the Exposure has no night", cure="fill it, or give the instrument a site")
        exposure.night = night_of(exposure.mjd_mid, site.longitude_deg)
    exposure.telescope = exposure.telescope or instance.telescope
    if exposure.footprint is None:
        exposure.footprint = instance.get_footprint(exposure.ra, exposure.dec, exposure.sections)


def _check_saved(exposure: "Exposure", facts: ExposureFacts) -> None:
    for column in _CHECKED:
        mine, read = getattr(exposure, column), getattr(facts, column)
        same = abs(mine - read) < 1e-8 if isinstance(mine, float) and read is not None else mine == read
        if not same:
            raise HeaderError(
                f"{column} = {mine!r} reads back as {read!r}", cure="correct the column or the raw_header"
            )


def _other_layout(instrument: Instrument, section_id: SectionId) -> UserError:
    return UserError(
        f"the files of {instrument.name} are not laid out with one extension for each section, found by its "
        "name: save() cannot write them",
        cure="write the file with the camera's own software, and ingest it",
        section=section_id,
    )


def _write_sections(
    path: Path,
    instrument: Instrument,
    exposure: "Exposure",
    cards: Mapping[str, Any],
    data: Mapping[SectionId, npt.NDArray[Any]],
    headers: Mapping[SectionId, Mapping[str, Any]],
) -> None:
    """Write a FITS file with the instrument's own keywords and extension names; `cards` win over columns."""
    translations = instrument._get_header_keyword_translations()
    columns = {name: _value(exposure, name) for name in _SAVED}
    own = {translations[name][0]: value for name, value in columns.items() if value is not None}
    if instrument.header_instrument is not None:
        own[translations["instrument"][0]] = instrument.header_instrument
    primary = to_header({**own, **cards})
    ids = list(instrument.get_section_ids())
    if len(ids) == 1 and instrument.get_section_unit(ids[0]) in {None, 0}:
        primary.update(to_header(headers.get(ids[0], {})))
        fits.PrimaryHDU(data[ids[0]], header=primary).writeto(path, overwrite=True)
        return
    units: list[Any] = [fits.PrimaryHDU(header=primary)]
    for section_id in ids:
        unit = instrument.get_section_unit(section_id)
        if not isinstance(unit, str):
            raise _other_layout(instrument, section_id)
        header = to_header(headers.get(section_id, {}))
        units.append(fits.ImageHDU(np.asarray(data[section_id]), header=header, name=unit))
    fits.HDUList(units).writeto(path, overwrite=True)
