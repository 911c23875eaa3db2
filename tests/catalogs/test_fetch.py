"""Fetching from a service that fails in every way, from many processes at once, against the table it has."""

import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.table import Table
from tap_server import make_stars, serving

from seechange_core.catalogs import LocalCatalog, import_table, installed
from seechange_core.catalogs.fetch import fetch_catalog, growing
from seechange_core.catalogs.locks import locked
from seechange_core.catalogs.services import SERVICES, known_service, recipe_for
from seechange_core.catalogs.tap import TapClient
from seechange_core.errors import (
    ConflictError,
    FileDamagedError,
    NoAnswer,
    NoCatalog,
    NotFoundError,
    UserError,
)
from seechange_core.numerics import sky

CONE = (0.05, -30.1, 0.4)


@pytest.fixture(scope="module")
def stars():
    return make_stars()


@pytest.fixture
def service(stars):
    with serving(stars) as server:
        yield server


def recipe_of(server, **changes):
    return known_service("gaia_dr3").model_copy(update={"url": server.url, **changes})


def client_of(server, **changes):
    return TapClient(**{"url": server.url, "quiet_s": 0.4, "answer_s": 5.0, "pause_s": 0.01, **changes})


def fetch(server, root, cone=CONE, **changes):
    return fetch_catalog(root, "gaia", recipe_of(server, **changes), [cone], client=client_of(server))


def check_against(stars, root, cone=CONE, epoch=2016.0):
    """Compare a cone search in the store with brute force in the service's table."""
    found = LocalCatalog(root, "gaia").query(*cone, "G", "BP-RP", epoch)
    there = stars[sky.separation(cone[0], cone[1], stars["ra"], stars["dec"]) <= cone[2]]
    assert len(found) == len(there) > 10
    mine, theirs = np.argsort(found.dec), np.argsort(there["dec"])
    assert sky.separation(
        found.ra[mine], found.dec[mine], there["ra"][theirs], there["dec"][theirs]
    ) * 3.6e6 == pytest.approx(0.0, abs=0.01)
    error = 1e3 * np.sqrt((there["ra_error"] ** 2 + there["dec_error"] ** 2) / 2)  # it gives arcsec
    assert found.position_err_mas[mine] == pytest.approx(np.asarray(error[theirs]), rel=1e-6)
    snr = np.asarray(there["phot_g_mean_flux_over_error"][theirs])
    assert found.mag_err[mine] == pytest.approx(1.0857 / snr, rel=1e-4)


def test_a_fetched_field_is_what_the_service_has_and_is_not_fetched_again(stars, service, tmp_path):
    made = fetch(service, tmp_path)
    assert made.tiles == made.new == len(service.queries) > 1
    check_against(stars, tmp_path)
    again = fetch(service, tmp_path)
    assert (again.new, again.n_stars, len(service.queries)) == (0, made.n_stars, made.tiles)
    assert installed(tmp_path) == ["gaia"]


@pytest.mark.parametrize("damage", ["cut", "zeros", "name"])
def test_a_tile_that_is_damaged_is_fetched_again(stars, service, tmp_path, damage):
    made = fetch(service, tmp_path)
    tile = max((tmp_path / "gaia").glob("tiles-*/*.parquet"), key=lambda path: path.stat().st_size)
    content = tile.read_bytes()
    damaged = {
        "cut": content[:-100],
        "zeros": content[:100] + bytes(400) + content[500:],
        "name": content.replace(b"healpix", b"healpi\xff"),
    }
    tile.write_bytes(damaged[damage])
    if damage != "zeros":  # a cone search does not read the columns that the zeros are in
        with pytest.raises(FileDamagedError, match="fetch its part of the sky again"):
            LocalCatalog(tmp_path, "gaia").query(*CONE, "G", "BP-RP", 2016.0)
    assert fetch(service, tmp_path).new == 1 == len(service.queries) - made.tiles
    check_against(stars, tmp_path)


def test_an_empty_tile_is_known_to_be_empty(service, tmp_path):
    far = (100.0, 40.0, 0.1)
    made = fetch(service, tmp_path, far)
    assert (made.n_stars, made.new) == (0, made.tiles)
    assert fetch(service, tmp_path, far).new == 0
    catalog = LocalCatalog(tmp_path, "gaia")
    with pytest.raises(NoCatalog, match="no star within"):
        catalog.query(*far, "G", None, 2016.0)
    with pytest.raises(
        NoCatalog, match=r"has not been fetched at .*seechange catalog fetch --name gaia --ra"
    ):
        catalog.query(200.0, 40.0, 0.1, "G", None, 2016.0)


def test_what_is_fetched_elsewhere_changes_nothing_here(service, tmp_path):
    fetch(service, tmp_path)
    before = LocalCatalog(tmp_path, "gaia").release(*CONE)
    far = (100.0, 40.0, 0.1)
    unknown = LocalCatalog(tmp_path, "gaia").release(*far)
    fetch(service, tmp_path, far)
    after = LocalCatalog(tmp_path, "gaia")
    assert after.release(*CONE) == before
    assert after.release(*far).checksum != unknown.checksum  # what had stopped there is tried again
    assert before.n_stars > 0


def test_the_same_sky_fetched_twice_is_the_same_content(stars, service, tmp_path):
    fetch(service, tmp_path / "a")
    with serving(stars[::-1]) as other:  # a mirror that gives rows in another order
        fetch(other, tmp_path / "b")
    a, b = (LocalCatalog(tmp_path / name, "gaia").release(*CONE) for name in "ab")
    assert a.checksum == b.checksum


@pytest.mark.parametrize(
    "fault", [500, 503, "503 and stalls", "slow", "reset", "truncated", "cut off", "empty"]
)
def test_what_passes_is_waited_for(stars, service, tmp_path, fault):
    pauses = []
    service.faults = [fault, fault]
    client = client_of(service, sleep=pauses.append)
    made = fetch_catalog(tmp_path, "gaia", recipe_of(service), [CONE], client=client)
    assert len(service.queries) == made.tiles + 2
    assert len(pauses) == 2 and (fault != 503 or min(pauses) >= 7.0)  # as it asks
    check_against(stars, tmp_path)


def test_a_service_that_is_down_stops_in_one_line_and_what_was_fetched_stays(service, tmp_path):
    service.faults = [None, *[500] * 5]
    with pytest.raises(NoCatalog, match=r"does not answer \(5 tries; the last: HTTP 500: sorry\).*--service"):
        fetch(service, tmp_path)
    assert LocalCatalog(tmp_path, "gaia").tiles()[0] == 1
    assert not list((tmp_path / "gaia").glob("tiles-*/.*"))
    fetch(service, tmp_path)


def test_a_service_that_trickles_is_given_up(service):
    service.always = "trickle"
    start = time.monotonic()
    with pytest.raises(NoCatalog, match=r"not complete after 0\.5 s"):
        client_of(service, answer_s=0.5, tries=2).query("SELECT ra FROM gaiadr3.gaia_source", 10_000)
    assert time.monotonic() - start < 5


def test_nothing_listens():
    with pytest.raises(NoCatalog, match="refused"):
        TapClient("http://127.0.0.1:9/tap", tries=2, pause_s=0.0).query("SELECT 1", 1)


def test_a_host_that_nobody_knows_is_not_asked_for_again(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    pauses = []
    with pytest.raises(NoAnswer, match=r"cannot be found \(Name or service not known\).*check the network"):
        TapClient("http://tap.example.org/tap", sleep=pauses.append).query("SELECT 1", 1)
    assert pauses == []


def test_it_is_said_what_is_waited_for(service, tmp_path, caplog):
    service.faults = [500]
    fetch_catalog(
        tmp_path, "gaia", recipe_of(service), [CONE], client=client_of(service, pause_s=3.0, sleep=id)
    )
    (line,) = caplog.messages
    assert re.search(r"/tap: HTTP 500: sorry; asked again in [234] s \(try 2 of 5\)$", line)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (400, "refuses the query: HTTP 400: sorry"),
        ("error", "refuses the query: unknown column: phot_x"),
        ("page", "no VOTable: <html><body>please log in"),
        ("columns", "answers without the columns dec"),
    ],
)
def test_what_does_not_pass_is_said_at_once(service, tmp_path, fault, words):
    service.always = fault
    with pytest.raises(UserError, match=words):
        fetch(service, tmp_path)
    assert len(service.queries) == 1
    assert installed(tmp_path) == [] and not (tmp_path / "gaia").exists()


def test_what_an_earlier_failure_left_empty_is_no_catalog(stars, service, tmp_path):
    info = growing("gaia", recipe_of(service, epoch=2000.0))
    (tmp_path / "gaia").mkdir()
    (tmp_path / "gaia" / "metadata.json").write_text(info.model_dump_json())
    assert installed(tmp_path) == []
    fetch(service, tmp_path)
    assert LocalCatalog(tmp_path, "gaia").info.epoch == 2016.0
    check_against(stars, tmp_path)


def test_what_is_too_much_is_fetched_in_parts(stars, tmp_path):
    with serving(stars, limit=20) as server:
        made = fetch(server, tmp_path)
        assert len(server.queries) > 2 * made.tiles
    check_against(stars, tmp_path)
    assert (
        len({round(d, 12) for d in LocalCatalog(tmp_path, "gaia").query(*CONE, "G", None, 2016.0).dec}) > 10
    )


def test_a_service_that_gives_nothing_at_a_time_is_named(stars, tmp_path):
    with serving(stars, limit=0) as server, pytest.raises(NoCatalog, match="gives only 0 stars at a time"):
        fetch(server, tmp_path)


def test_fainter_stars_can_be_left_out(stars, service, tmp_path):
    fetch(service, tmp_path, faint_band="G", faint_limit=15.5)
    check_against(stars[stars["phot_g_mean_mag"] <= 15.5], tmp_path)
    with pytest.raises(ConflictError, match="was fetched otherwise"):
        fetch(service, tmp_path)


def test_any_table_of_any_service(stars, service, tmp_path):
    client = client_of(service)
    recipe = recipe_for(client, "my.table", layout="gaia_dr3")
    assert recipe.epoch == 2016.0 and recipe.columns["mag_BP"] == "phot_bp_mean_mag"
    fetch_catalog(tmp_path, "gaia", recipe, [CONE], client=client)
    check_against(stars, tmp_path)
    with pytest.raises(UserError, match="--epoch"):
        recipe_for(client, "my.table")
    with pytest.raises(NotFoundError, match="lacks the columns ra, dec"):
        recipe_for(client, "my.table", layout="apass")
    asked = len(service.queries)
    with pytest.raises(NotFoundError, match=r"no catalog layout is called 'nosuch' \(known are gaia_dr3"):
        recipe_for(client, "my.table", layout="nosuch", epoch=2016.0)
    assert len(service.queries) == asked
    with pytest.raises(NotFoundError, match="known are gaia_dr3"):
        known_service("gaia")


def test_another_mapping_of_a_table_is_another_catalog(service):
    client, mapping = client_of(service), {"mag_G": "phot_g_mean_mag"}
    one = recipe_for(client, "my.table", mapping=mapping, epoch=2016.0)
    other = recipe_for(client, "my.table", mapping={"mag_G": "phot_rp_mean_mag"}, epoch=2016.0)
    assert one.identity == recipe_for(client, "my.table", mapping=mapping, epoch=2016.0).identity
    assert one.identity != other.identity
    mirrors = [known_service(f"gaia_dr3{mirror}").identity for mirror in ("", "_ari", "_vizier")]
    assert len(set(mirrors)) == 1
    assert (
        recipe_for(client_of(service, url=f"{service.url}/"), "my.table", mapping=mapping, epoch=2016.0)
        == one
    )


def test_recipes_of_known_services_have_what_it_takes():
    for name, recipe in SERVICES.items():
        assert {"ra", "dec"} <= recipe.columns.keys(), name
        assert any(key.startswith("mag_") for key in recipe.columns), name


# --- many at once -------------------------------------------------------------------------------------


WORK = """
import sys
from pathlib import Path
from seechange_core.catalogs.fetch import fetch_catalog
from seechange_core.catalogs.services import known_service
from seechange_core.catalogs.tap import TapClient
url, root, *cone = sys.argv[1:]
recipe = known_service("gaia_dr3").model_copy(update={"url": url})
client = TapClient(url, quiet_s=20.0, pause_s=0.01)
print(fetch_catalog(Path(root), "gaia", recipe, [tuple(map(float, cone))], client=client).new)
"""


def start_worker(server, root):
    arguments = [sys.executable, "-c", WORK, server.url, str(root), *map(str, CONE)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("at", "overwrite"), [(1, False), (2, True)])
def test_a_catalog_imported_during_a_fetch_has_the_name(service, tmp_path, at, overwrite):
    """Before the fetch has a tile, or afterwards: the fetch says so, and leaves nothing there."""
    Table({"ra": [10.0], "dec": [0.0], "mag_V": [12.0]}).write(tmp_path / "t.ecsv")
    root, client = tmp_path / "store", client_of(service)

    def query(adql, max_rows):
        answer = client.query(adql, max_rows)
        if len(service.queries) == at:
            import_table(tmp_path / "t.ecsv", "gaia", root, epoch=2000.0, overwrite=overwrite)
        return answer

    with pytest.raises(ConflictError, match="not fetched but imported"):
        fetch_catalog(root, "gaia", recipe_of(service), [CONE], client=SimpleNamespace(query=query))
    assert LocalCatalog(root, "gaia").query(10.0, 0.0, 0.1, "V", None, 2000.0).mag == pytest.approx(12.0)
    assert len(list((root / "gaia").iterdir())) == 2 and len(list(root.iterdir())) == 1


def test_of_many_workers_each_tile_is_fetched_by_one(stars, service, tmp_path):
    service.seconds_per_query = 0.5
    workers = [start_worker(service, tmp_path) for _ in range(4)]
    new = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    assert sum(new) == len(service.queries) == LocalCatalog(tmp_path, "gaia").tiles()[0]
    check_against(stars, tmp_path)


def test_threads_of_one_process_keep_each_other_out(stars, service, tmp_path):
    service.seconds_per_query = 0.1
    with ThreadPoolExecutor(3) as threads:
        made = list(threads.map(lambda _: fetch(service, tmp_path), range(3)))
    assert sum(one.new for one in made) == len(service.queries) == made[0].tiles
    assert [p.name for p in tmp_path.iterdir()] == ["gaia"]  # of the locks nothing stays
    assert not list((tmp_path / "gaia").glob(".*"))
    check_against(stars, tmp_path)


def test_a_lock_is_held_by_one_whoever_takes_it_away(tmp_path):
    """Each removes the file that others wait for: these must not hold what is gone."""
    inside, most, path = [], [], tmp_path / ".lock-gaia-1"

    def work(number):
        for _ in range(100):
            with locked(path):
                inside.append(number)
                most.append(len(inside))
                time.sleep(1e-5)
                most.append(len(inside))
                inside.remove(number)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert set(most) == {1} and len(most) == 800
    assert not path.exists()


def test_workers_that_fail_leave_the_tile_to_the_next(stars, service, tmp_path):
    service.seconds_per_query, service.faults = 0.05, [400, 400, 400]

    def work(_):
        try:
            return fetch(service, tmp_path).new
        except UserError:
            return -1

    with ThreadPoolExecutor(5) as threads:
        new = list(threads.map(work, range(5)))
    made = fetch(service, tmp_path)
    assert new.count(-1) == 3 and made.new == 0
    assert len(service.queries) == made.tiles + 3
    check_against(stars, tmp_path)


def test_a_worker_that_is_killed_leaves_nothing_that_stops_others(stars, service, tmp_path):
    service.seconds_per_query = 15.0
    worker = start_worker(service, tmp_path)
    while not service.queries:
        time.sleep(0.01)
    waiting = start_worker(service, tmp_path)  # for the tile that the first one has locked
    time.sleep(0.5)
    worker.kill()
    worker.communicate(timeout=10)
    service.seconds_per_query = 0.0
    made = fetch(service, tmp_path)
    waiting.kill()
    waiting.communicate(timeout=10)
    assert fetch(service, tmp_path).new == 0
    assert made.tiles == LocalCatalog(tmp_path, "gaia").tiles()[0]
    check_against(stars, tmp_path)
