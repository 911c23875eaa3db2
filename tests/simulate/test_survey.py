import hashlib

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time

from seechange_core.errors import FileDamagedError, NotFoundError, SettingsError, UserError
from seechange_core.simulate import load_truth, make_world, simulate_survey
from seechange_core.simulate.geometry import project


def checksums(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_files_are_named_and_built_as_agreed(survey):
    names = [path.name for path in survey.raw_files]
    kinds = [name.split("_")[3] for name in names]
    assert sorted(kinds) == ["bias.fits", "dark.fits", "flat.fits", "sci.fits", "sci.fits"]
    types = {"bias": "bias", "dark": "dark", "flat": "flat", "sci": "science"}
    for path in survey.raw_files:
        with fits.open(path) as hdus:
            card = hdus[0].header
            assert hdus[0].data is None
            assert card["OBSTYPE"] == types[path.stem.split("_")[3]]
            assert (card["TELESCOP"], card["INSTRUME"], card["NEXTEND"]) == ("DemoScope", "DemoCam", 2)
            assert Time(card["DATE-OBS"]).mjd == pytest.approx(card["MJD-OBS"], abs=2e-8)
            assert Time(card["DATE-OBS"]).strftime("demo_%Y%m%d_%H%M%S") == path.name[:20]
            for key in ("EXPTIME", "FILTER", "OBJECT", "PROPID", "RA", "DEC", "AIRMASS", "SITELAT",
                        "SITELONG", "SITEELEV"):  # fmt: skip
                assert key in card
            assert [hdu.name for hdu in hdus[1:]] == ["SEC00", "SEC01"]
            for number, hdu in enumerate(hdus[1:]):
                assert hdu.data.dtype == np.uint16
                assert hdu.header["SECID"] == number
        with fits.open(path, do_not_scale_image_data=True) as hdus:
            assert (hdus[1].header["BITPIX"], hdus[1].header["BZERO"]) == (16, 32768)
    assert not list((survey.folder / "raw").glob(".*"))


def test_twilight_flats_come_after_the_dome_flats_and_say_what_they_are(tmp_path, options):
    truth = simulate_survey(tmp_path, options(n_twilight=2, exposures=1, nights=1, reference_exposures=0))
    types = [fits.getheader(path)["OBSTYPE"] for path in truth.raw_files]
    assert types == ["bias", "dark", "flat", "twilight_flat", "twilight_flat", "science"]
    first, second = (np.median(fits.getdata(path, 1)) for path in truth.raw_files[3:5])
    assert first > second + 1000


def test_truth_tables_fit_together(survey):
    loaded = load_truth(survey.folder)
    assert loaded.options == survey.options
    assert len(loaded.exposures) == 4
    sci = [p.name for p in survey.raw_files if p.name.endswith("sci.fits")]
    assert sorted(set(loaded.epochs["file"])) == sorted(set(loaded.exposures["file"])) == sci
    assert set(loaded.objects["kind"]) == {"star", "galaxy", "variable", "transient", "asteroid"}
    assert list(loaded.objects["id"]) == list(range(len(loaded.objects)))
    kinds = np.asarray(loaded.objects["kind"])[loaded.epochs["id"]]
    assert (kinds == loaded.epochs["kind"]).all()
    assert loaded.epochs["x"].min() >= -0.5
    assert loaded.epochs["x"].max() < 255.5


def test_transients_go_off_after_the_reference_and_are_everywhere(survey, options):
    epochs, exposures = survey.epochs, survey.exposures
    first = exposures["file"][np.argmin(exposures["mjd_mid"])]
    transient = epochs["kind"] == "transient"
    assert not epochs["flux_e"][transient & (epochs["file"] == first)].any()
    assert (epochs["flux_e"][transient & (epochs["file"] != first)] > 0).all()
    sky = make_world(options(transients=12, sections=4)).sky
    rows = sky.objects[sky.objects["kind"] == "transient"]
    assert sorted(set(rows["place"])) == ["bright_star", "core", "edge", "host", "hostless", "masked"]
    hosts = rows[rows["host_id"] >= 0]
    assert len(hosts) >= 2
    for row in hosts:
        host = sky.objects[row["host_id"]]
        assert host["kind"] == "galaxy"
        limit = 2.0 * host["half_light_arcsec"] * (0.05 if row["place"] == "core" else 1.0)
        assert np.hypot(*project(row["ra"], row["dec"], host["ra"], host["dec"])) <= limit * 1.001


def test_variables_vary_and_asteroids_move(options):
    world = make_world(options(exposures=8, nights=2, reference_exposures=4, variables=10, asteroids=3))
    kinds = world.sky.objects["kind"]
    light = np.array([world.sky.brightness(o.mjd_mid) for o in world.observations])
    assert (light[:, kinds == "variable"].std(axis=0) > 0).all()
    assert np.median(light[:, kinds == "variable"].std(axis=0)) > 0.02
    assert (light[:, kinds == "star"] == 1).all()
    last = [world.sky.positions(o.mjd_mid) for o in world.observations[-2:]]
    for n in np.flatnonzero(kinds == "asteroid"):
        moved = np.hypot(*project(last[1][0][n], last[1][1][n], last[0][0][n], last[0][1][n]))
        assert 0.9 < float(moved) < 11.0


def test_header_pointing_is_off_by_some_arcseconds(options):
    chosen = options(exposures=6, nights=2)
    error = [
        np.hypot(*project(o.ra, o.dec, o.header_ra, o.header_dec)) for o in make_world(chosen).observations
    ]
    assert 1.0 < np.mean(error) < 12.0


def test_same_seed_same_files_whatever_the_number_of_processes(tmp_path, options):
    chosen = options()
    simulate_survey(tmp_path / "one", chosen)
    seen = []
    simulate_survey(tmp_path / "two", chosen, lambda *call: seen.append(call), jobs=2)
    assert checksums(tmp_path / "one") == checksums(tmp_path / "two")
    assert [call[:2] for call in seen] == [(i, 5) for i in range(1, 6)]
    other = simulate_survey(tmp_path / "other", options(seed=2))
    assert not np.array_equal(fits.getdata(other.raw_files[-1], 1), fits.getdata(
        sorted((tmp_path / "one" / "raw").glob("*sci.fits"))[-1], 1))  # fmt: skip


@pytest.mark.parametrize(
    ("ra", "dec", "latitude"), [(0.0, -30.0, -30.0), (359.99, 0.0, -30.0), (47.0, 89.9, 50.0)]
)
def test_across_ra_zero_and_at_the_pole(tmp_path, options, ra, dec, latitude):
    """Objects and the catalog surround the field evenly, and lie where the truth says."""
    chosen = options(ra_deg=ra, dec_deg=dec, site_latitude_deg=latitude, exposures=1, nights=1, n_bias=0,
                     n_dark=0, n_flat=0, reference_exposures=0)  # fmt: skip
    truth = simulate_survey(tmp_path, chosen)
    catalog = Table.read(tmp_path / "catalog.ecsv")
    for table in (catalog, truth.objects):
        east, north = project(table["ra"], table["dec"], ra, dec)
        assert np.abs(np.median(east)) < 25
        assert np.abs(np.median(north)) < 25
        assert np.hypot(east, north).max() < 300
    assert np.unique((truth.epochs["x"] > 128).astype(int) + 2 * (truth.epochs["y"] > 128)).size == 4
    assert catalog.meta["epoch"] == 2016.0
    assert str(catalog["pmra"].unit) == "mas / yr"


def test_folder_with_something_else_is_refused(tmp_path, options, survey):
    with pytest.raises(UserError, match="other options"):
        simulate_survey(survey.folder, options(seed=99))
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "mine.fits").touch()
    with pytest.raises(UserError, match="no simulated survey"):
        simulate_survey(tmp_path, options())


def test_missing_and_damaged_truth(tmp_path, survey):
    with pytest.raises(NotFoundError):
        load_truth(tmp_path)
    (tmp_path / "truth").mkdir()
    for name in ("objects", "exposures", "epochs"):
        (tmp_path / "truth" / f"{name}.parquet").write_bytes(b"nonsense")
    with pytest.raises(FileDamagedError, match=r"objects\.parquet"):
        load_truth(tmp_path)


def test_fields_that_cannot_be_seen_are_refused(options):
    with pytest.raises(SettingsError, match="above the horizon"):
        make_world(options(dec_deg=80.0))
    with pytest.raises(SettingsError, match="Sun"):
        make_world(options(start_date="2026-08-20"))
    with pytest.raises(SettingsError, match="not a date"):
        make_world(options(start_date="20-02-2026x"))


def test_start_date_is_the_evening_of_the_first_night(options):
    first = make_world(options(start_date="2026-02-10")).observations[0]
    assert 0 < first.mjd_start - Time("2026-02-10T16:00:00").mjd < 1


@pytest.mark.parametrize("change", [{"section_size_pix": 255}, {"seeing_min_arcsec": 2.0}, {"nights": 3},
                                    {"dead_sections": (4,)}, {"nonsense": 1}, {"cadence_min": 0.5},
                                    {"seeing_arcsec": (0.0,)}, {"transient_bright_mag": 25.0}])  # fmt: skip
def test_impossible_options_are_refused(options, change):
    with pytest.raises(ValueError, match=r".+"):
        options(**change)
