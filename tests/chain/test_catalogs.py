"""Sections on catalogs that grow while they are worked on, and on one made of their own images."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from small_survey import SECTIONS, THROUGH_ZERO_POINT
from sqlalchemy import select, update

from seechange_core import chain
from seechange_core.catalogs import LocalCatalog
from seechange_core.catalogs import services as known
from seechange_core.catalogs.recipe import FetchRecipe
from seechange_core.catalogs.tap import TapClient
from seechange_core.chain import bootstrap
from seechange_core.chain.bootstrap import ZERO_POINT, bootstrap_catalog
from seechange_core.chain.catalogs import catalog_at, cone_of, cones_of_exposure
from seechange_core.chain.section import Section
from seechange_core.errors import ConflictError, NoCatalog, NotFoundError
from seechange_core.flags import QualityFlag
from seechange_core.numerics import sky
from seechange_core.numerics.matching import match_sky
from seechange_core.products import CatalogRelease, Image, SourceList, WorldCoordinates, ZeroPoint
from seechange_core.products.exposure import Exposure
from seechange_core.settings import use_settings
from seechange_core.stages.astrometry import AstrometryParams
from seechange_core.storage.engine import open_session

sys.path.append(str(Path(__file__).parents[1] / "catalogs"))
from tap_server import serving

# --- Fetched while exposures are processed ------------------------------------------------------------


@pytest.fixture
def service(started, monkeypatch):
    """A service of the simulated stars, which the settings can name."""
    stars = Table.read(started.root / "survey" / "catalog.ecsv")
    with serving(stars) as server:
        columns = {name: name for name in stars.colnames if name in ("ra", "dec", "position_err_mas")}
        columns |= {name: name for name in stars.colnames if name.startswith("mag_")}
        recipe = FetchRecipe(content="sky", url=server.url, table="sky", columns=columns, epoch=2016.0)
        monkeypatch.setitem(known.SERVICES, "sky", recipe)
        impatient = {"quiet_s": 2.0, "pause_s": 0.0, "tries": 2}
        monkeypatch.setattr(
            "seechange_core.catalogs.fetch.TapClient", lambda url: TapClient(url, **impatient)
        )
        yield server


def test_a_missing_part_of_the_catalog_is_fetched_if_the_settings_say_so(started, service, monkeypatch):
    settings = started.changed(catalog_fetch="sky")
    name = started.science[2]
    started.ingest(started.raw / f"{name}.fits")
    service.always = 500
    report = started.walk(name, "0", THROUGH_ZERO_POINT, settings=settings)["world_coordinates"]
    assert (str(report.outcome), report.reason) == ("stopped", "no_answer")
    assert "does not answer" in report.message and "catalog" in report.message
    # The neighbours do not wait for it as well.
    asked = len(service.queries)
    report = started.walk(name, "1", THROUGH_ZERO_POINT, settings=settings)["world_coordinates"]
    assert report.reason == "no_answer" and len(service.queries) == asked
    service.always = None
    monkeypatch.setattr("seechange_core.chain.catalogs._SILENCE_S", 0.0)
    again = started.outcomes(name, "0", steps=THROUGH_ZERO_POINT, settings=settings)
    assert again["world_coordinates"] == again["zero_point"] == "done"
    asked = len(service.queries)
    again = started.outcomes(name, "0", steps=THROUGH_ZERO_POINT, settings=settings)
    assert set(again.values()) == {"loaded"} and len(service.queries) == asked
    cone = cones_of_exposure(started.settings, name)[0]
    release = LocalCatalog(started.settings.data_root / "catalogs", "sky").release(*cone)
    (row,) = started.rows(select(CatalogRelease).where(CatalogRelease.name == "sky"))
    assert (row.content_hash, row.n_stars, row.is_relative) == (release.checksum, release.n_stars, False)


def test_too_many_stars_here_is_not_said_of_elsewhere(started, service):
    service.limit = 0  # it answers, but cannot give a field so dense
    asked = []
    for section in SECTIONS:
        before = len(service.queries)
        catalog_cone = cones_of_exposure(started.settings, started.science[0])[int(section)]
        with pytest.raises(NoCatalog, match="gives only 0 stars"):
            catalog_at(started.changed(catalog_fetch="sky"), catalog_cone)
        asked.append(len(service.queries) - before)
    assert min(asked) > 0


def test_a_section_is_placed_without_its_pixels(started, monkeypatch):
    section = Section.open(started.settings, started.science[0], "0")
    section.products["Image of image"] = started.rows(
        select(Image).where(Image.type == "science", Image.section_id == "0")
    )[0]
    expected = cones_of_exposure(started.settings, started.science[0])[0]
    unknown = type(section.exposure).get_property
    monkeypatch.setattr(
        type(section.exposure),
        "get_property",
        lambda self, s, p: None if p in ("size_x", "size_y") else unknown(self, s, p),
    )
    monkeypatch.setattr(Image, "read", None)
    assert cone_of(section) == expected


def test_a_service_nobody_knows_fails_with_a_cure(started):
    name = started.science[0]
    report = started.walk(name, "0", THROUGH_ZERO_POINT, settings=started.changed(catalog_fetch="nothing"))
    assert str(report["world_coordinates"].outcome) == "failed"
    assert "known are gaia_dr3" in report["world_coordinates"].message


def test_the_fields_of_an_exposure(started):
    cones = cones_of_exposure(started.settings, started.science[0])
    assert len(cones) == len(SECTIONS)
    with pytest.raises(NotFoundError, match="not in the database"):
        cones_of_exposure(started.settings, "nothing")


# --- Made of the field's own images -------------------------------------------------------------------


@pytest.fixture
def relative(started):
    """Settings with a catalog made of the first two exposures."""
    exposures = chain.exposures(started.settings, started.science[:2])
    made = bootstrap_catalog(started.settings, exposures, "own")
    # One band has no colours.
    return started.changed(catalog="own", photometry={}), made


def test_a_bootstrapped_catalog_calibrates_relative_to_its_own_field(started, relative):
    settings, made = relative
    assert made.info.relative and made.info.bands == ("r",)
    assert [section for _, section, _, _ in made.images] == list(SECTIONS)
    assert len({exposure for exposure, *_ in made.images}) >= 1
    for name in started.science[:2]:
        for section in SECTIONS:
            outcomes = started.outcomes(name, section, steps=THROUGH_ZERO_POINT, settings=settings)
            assert outcomes["zero_point"] == "done"
    release = started.rows(select(CatalogRelease).where(CatalogRelease.name == "own"))[0]
    assert release.is_relative
    solutions = started.rows(select(WorldCoordinates).where(WorldCoordinates.catalog_id == release.id))
    assert len(solutions) == 4
    scale_mas = 1e3 * solutions[0].solution().pixel_scale_arcsec
    assert max(row.error_mas for row in solutions) < 0.05 * scale_mas
    points = started.rows(select(ZeroPoint).where(ZeroPoint.catalog_id == release.id))
    assert all(row.bitflag & QualityFlag.RELATIVE for row in (*solutions, *points))
    exposure = chain.exposures(started.settings, started.science[:1])[0]
    expected = ZERO_POINT + 2.5 * np.log10(exposure.exp_time)
    best = {section: name for name, section, _, _ in made.images}
    assert set(best) == set(SECTIONS)
    # The best image's own zero point is the one it was given.
    assert min(abs(row.zp - expected) for row in points) < 0.005


def test_its_positions_are_the_sky_up_to_the_pointing(started, relative):
    """The simulated stars, moved and turned as a whole: what is left is centroids and distortion."""
    _, made = relative
    catalogs = started.settings.data_root / "catalogs"
    truth, own = LocalCatalog(catalogs, "simulated"), LocalCatalog(catalogs, "own")
    cone = cones_of_exposure(started.settings, made.images[0][0])[0]
    epoch = made.info.epoch
    stars, ours = (c.query(*cone, "r", None, epoch) for c in (truth, own))
    ours = ours.select(ours.is_star & (ours.mag_err < 0.02))
    for radius in (60.0, 5.0, 2.0):
        pairs = match_sky(ours.ra, ours.dec, stars.ra, stars.dec, radius)
        east, north = (
            np.median((getattr(stars, axis)[pairs.second] - getattr(ours, axis)[pairs.first]) * 3600)
            for axis in ("ra", "dec")
        )
        moved = {"ra": ours.ra + east / 3600, "dec": ours.dec + north / 3600}
        ours = type(ours)(**{**ours.columns(), **moved})
    pairs = match_sky(ours.ra, ours.dec, stars.ra, stars.dec, 3.0)
    assert len(pairs.first) > 20
    offset = stars.mag[pairs.second] - ours.mag[pairs.first]
    assert np.median(np.abs(offset - np.median(offset))) < 0.05


def test_another_filter_adds_its_magnitudes(started):
    """The same sources a magnitude fainter, elsewhere on the detector and in another order."""
    exposure = chain.exposures(started.settings, started.science[:1])[0]
    with use_settings(started.settings):
        base = bootstrap._candidates(started.settings, exposure)[0]
    rows, sources = bootstrap._rows(base), base.read()
    n = len(rows["ra"])
    s = sources.select(np.arange(len(sources))[::-1])
    fainter = {"flux_psf": s.flux_psf / 2.512, "flux_psf_err": s.flux_psf_err / 2.512}
    moved = replace(s, x=s.x + 12.3, y=s.y - 7.1, **fainter)
    empty = replace(base, band="g", read=lambda: sources.select(np.arange(3)))  # solves nothing
    other = replace(base, band="g", read=lambda: moved)
    bootstrap._add_band(rows, base, [empty, other], AstrometryParams())
    known = np.isfinite(rows["mag_g"]) & rows["is_star"]
    assert len(rows["mag_g"]) == n and np.count_nonzero(known) > 0.7 * np.count_nonzero(rows["is_star"])
    assert (rows["mag_g"] - rows["mag_r"])[known] == pytest.approx(1.0, abs=1e-3)


def test_a_star_of_two_fields_enters_once(started):
    """A dither by 200 pixels that puts another section on this one's sky, with a pointing off by 3 arcsec."""
    exposure = chain.exposures(started.settings, started.science[:1])[0]
    with use_settings(started.settings):
        base = bootstrap._candidates(started.settings, exposure)[0]
        s = base.read()
        axes = bootstrap._axes(base.hint)
        dec = base.hint.dec + 3.0 / 3600
        east, north = np.array([200.0, 0.0]) @ axes
        ra, dec = sky.deproject(east, north, base.hint.ra, dec)
        seen = s.select((s.x >= 200) & (s.x < 511))
        hint = replace(base.hint, ra=float(ra), dec=float(dec))
        beyond = replace(seen, x=seen.x - 200 + 311)  # the part that only this one sees
        both = type(s)(
            **{key: np.concatenate([column, beyond.columns()[key]]) for key, column in
               replace(seen, x=seen.x - 200).columns().items()}
        )  # fmt: skip
        dithered = replace(base, section="1", hint=hint, worth=base.worth - 1, read=lambda: both)
        hidden = replace(base, section="2", worth=base.worth - 2)
        fields = bootstrap._fields(started.settings, [hidden, dithered, base])
    (first, rows), (second, more) = fields  # and of what is hidden wholly nothing is left
    assert first is base and second is dithered
    assert len(rows["ra"]) == len(bootstrap._rows(base)["ra"])
    apart = match_sky(rows["ra"], rows["dec"], more["ra"], more["dec"], 10.0)
    edge = 10.0 / base.hint.pixel_scale_arcsec
    assert len(apart.first) <= np.count_nonzero((s.x > 511 - edge) | (s.y < edge) | (s.y > 511 - edge))
    n_beyond = len(bootstrap._usable(beyond))
    assert n_beyond - 3 <= len(more["ra"]) < n_beyond + 0.1 * len(seen)


def test_images_side_by_side_are_fields_of_their_own(started):
    """One shifted by 0.9 of its width shares a tenth with the best; one shifted by 0.3 adds nothing."""
    exposure = chain.exposures(started.settings, started.science[:1])[0]
    with use_settings(started.settings):
        base = bootstrap._candidates(started.settings, exposure)[0]

        def shifted(by: float, **changes):
            east, north = np.array([by * 512, 0.0]) @ bootstrap._axes(base.hint)
            ra, dec = sky.deproject(east, north, base.hint.ra, base.hint.dec)
            hint = replace(base.hint, ra=float(ra), dec=float(dec), **changes)
            return replace(base, hint=hint, worth=base.worth - 1)

        beside = shifted(0.9)
        fields = bootstrap._fields(started.settings, [shifted(0.3), beside, base])
        assert [c for c, _ in fields] == [base, beside]
        s = bootstrap._usable(base.read())
        assert len(fields[1][1]["ra"]) == pytest.approx(np.count_nonzero(s.x > 51.2), abs=2)
        # Nobody knows which side they share if nobody knows how they are turned.
        unknown = [replace(c, hint=replace(c.hint, rotation_deg=None)) for c in (base, beside)]
        assert len(bootstrap._fields(started.settings, unknown)) == 1


def test_no_list_of_sources_is_kept_and_no_pixel_read(started, monkeypatch):
    def refuse(*_):
        raise AssertionError("an image was read")

    monkeypatch.setattr("seechange_core.products.image.Image.read", refuse)
    exposures = chain.exposures(started.settings, started.science[:2])
    with use_settings(started.settings):
        found = [c for e in exposures for c in bootstrap._candidates(started.settings, e)]
    assert {c.shape for c in found} == {(512, 512)} and not any("sources" in vars(c) for c in found)
    made = bootstrap_catalog(started.settings, exposures, "own")
    again = bootstrap_catalog(started.settings, exposures[::-1], "own", overwrite=True)
    assert again == made


def test_an_image_whose_sources_are_trailed_is_not_the_base(started):
    """However many stars it has: another exposure of the field was good."""
    exposures = chain.exposures(started.settings, started.science[:2])
    best, *_ = bootstrap_catalog(started.settings, exposures, "own").images[0]
    with open_session(started.settings) as session:
        its = select(Image.id).join(Exposure, Exposure.id == Image.exposure_id).where(Exposure.name == best)
        flags = int(QualityFlag.TRAILED | QualityFlag.PSF_FAILED)
        session.execute(update(SourceList).where(SourceList.image_id.in_(its)).values(bitflag=flags))
    made = bootstrap_catalog(started.settings, exposures, "own", overwrite=True)
    (other,) = set(started.science[:2]) - {best}
    assert {image[0] for image in made.images} == {other}


def test_what_cannot_be_bootstrapped_is_named(started, relative):
    exposures = chain.exposures(started.settings, started.science[:1])
    with pytest.raises(ConflictError, match="already"):
        bootstrap_catalog(started.settings, exposures, "own")
    assert bootstrap_catalog(started.settings, exposures, "own", overwrite=True).info.n_stars > 0
    other = started.changed(extract={"detection_sigma": 7.0})
    with pytest.raises(NoCatalog, match="none of 1 exposures has a list of sources"):
        bootstrap_catalog(other, exposures, "other")
