"""The pages beside the web UI, asked as a browser asks; the core is the one that needs no pixels."""

import json
import os
import socket
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

import seechange_core.chain
from seechange_assets.cli.setup import _pages
from seechange_assets.home import dagster_home
from seechange_assets.pages import make_app
from seechange_core.chain import Marked, VerdictRow
from seechange_core.chain.queries import NightRow, StatusRow
from seechange_core.errors import FileDamagedError, NotFoundError, UserError

PORT = 3119
OWN = f"http://127.0.0.1:{PORT}"
PNG = b"\x89PNG of "
WORD = {"object": "obj2025a", "word": "bogus", "reason": "a spike", "by": "me"}


@pytest.fixture
def made(monkeypatch, core, settings):
    """Note what is drawn and marked."""
    made = SimpleNamespace(drawn=[], marked=[], version="v1")
    exposure = SimpleNamespace(
        name="e1",
        instrument="demo",
        night="2025-01-01",
        filter="r",
        exp_time=60.0,
        target="<M31>",
        bad_reason="",
    )

    def exposures(settings, names=None, instrument=None, *, night=None, with_bad=False):
        assert with_bad
        if names not in (None, ["e1"]) or instrument != "demo":
            raise NotFoundError("no such science exposure", exposure=str(names))
        return [exposure] if night in (None, exposure.night) else []

    def version(settings, exposure, section, product):
        if product == "zero_point":
            raise NotFoundError("it has no zero_point, which stopped:\nclouds", exposure=exposure)
        return made.version

    def draw(settings, exposure, section, product):
        if product == "cutouts":
            raise FileDamagedError("its checksum differs")
        made.drawn.append((exposure, section, product))
        return PNG + product.encode()

    def mark(settings, target, word, reason, *, section=None, by=None):
        if not reason:
            raise UserError("a verdict needs a reason", cure="say why")
        made.marked.append((target, word, reason, by))
        return Marked(
            target, "", None if word == "undo" else VerdictRow(target, "", word, reason, "me", None, True)
        )

    def object_named(settings, name):
        if name != "obj2025a":
            raise NotFoundError(f"there is no object {name!r}")

    def status(settings, names):
        rows = [
            ("0", "image", "done", ""),
            ("1", "image", "stopped", "exposure e1, section 1: a <dead> CCD"),
            ("10", "image", "done", ""),
        ]
        return [StatusRow("e1", s, step, fate, "", why, "p", False, True) for s, step, fate, why in rows]

    fakes = {"exposures": exposures, "picture_version": version, "full_picture": draw, "small_picture": draw}
    fakes |= {"mark": mark, "object_named": object_named, "status": status}
    fakes["night_report"] = lambda settings, instrument, night: f"<h1>{instrument} {night}</h1>"
    fakes["nights"] = lambda settings: [NightRow("demo", "2025-01-01", 1)]
    for name, fake in fakes.items():
        monkeypatch.setattr(seechange_core.chain, name, fake)
    return made


@pytest.fixture
def browser(made, settings):
    with TestClient(make_app(settings, PORT), base_url=OWN) as client:
        yield client


def test_from_the_nights_to_a_picture(browser, made):
    assert 'href="/night/demo/2025-01-01"' in browser.get("/").text
    night = browser.get("/night/demo/2025-01-01").text
    for page in (browser.get("/").text, night):
        assert 'href="/report/demo/2025-01-01"' in page
    report = browser.get("/report/demo/2025-01-01")
    assert (report.text, report.headers["cache-control"]) == ("<h1>demo 2025-01-01</h1>", "private, no-cache")
    assert 'href="/exposure/demo/e1"' in night
    assert "&lt;M31&gt;" in night
    page = browser.get("/exposure/demo/e1").text
    for section in ("0", "10"):
        assert (
            f'<a href="/picture/demo/e1/{section}/image.png"><img loading="lazy" src="/thumb/demo/e1/' in page
        )
    assert "image stopped: a &lt;dead&gt; CCD" in page
    assert "not made yet" in browser.get("/exposure/demo/e1?product=cutouts").text
    for kind in ("picture", "thumb"):
        answer = browser.get(f"/{kind}/demo/e1/0/image.png")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert answer.content == PNG + b"image"
    assert made.drawn == [("e1", "0", "image")] * 2


def test_a_browser_that_has_a_picture_is_not_drawn_it_again(browser, made):
    address = "/picture/demo/e1/0/image.png"
    first = browser.get(address)
    assert first.headers["cache-control"] == "private, no-cache"
    again = browser.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, len(made.drawn)) == (304, b"", 1)
    made.version = "v2"
    assert browser.get(address, headers={"If-None-Match": first.headers["etag"]}).status_code == 200
    assert len(made.drawn) == 2


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        (
            "/picture/demo/e1/0/zero_point.png",
            404,
            "exposure e1: it has no zero_point, which stopped: clouds",
        ),
        ("/picture/decam/e1/0/image.png", 404, "no such science exposure"),
        ("/picture/demo/e1/0/cutouts.png", 500, "its checksum differs"),
        ("/exposure/demo/e2", 404, "no such science exposure"),
        ("/exposure/demo/e1?product=x", 404, "no product is called 'x'"),
        ("/night/demo/2025-01-02", 404, "no exposures of the night 2025-01-02"),
        ("/mark", 405, ""),
        ("/nothing", 404, ""),
    ],
)
def test_what_is_wrong_is_told_in_one_line(browser, address, status, words):
    answer = browser.get(address)
    assert answer.status_code == status
    assert words in answer.text
    assert answer.text.count("\n") <= 1


@pytest.mark.parametrize("form", [{"data": WORD}, {"json": WORD}])
def test_an_object_is_marked_from_a_form_or_by_a_script(browser, made, form):
    answer = browser.post("/mark", headers={"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, **form)
    assert answer.json() == {"object": "obj2025a", "holds": "bogus", "message": "obj2025a is marked bogus"}
    assert made.marked == [("obj2025a", "bogus", "a spike", "me")]
    nobody = WORD | {"word": "undo", "by": ""}
    assert browser.post("/mark", json=nobody).json()["holds"] == ""
    assert made.marked[-1] == ("obj2025a", "undo", "a spike", None)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"json": WORD | {"word": "bad"}}, 400),  # is for exposures
        ({"json": WORD | {"reason": ""}}, 400),
        ({"json": WORD | {"object": "e1"}}, 404),
        ({"json": [WORD]}, 400),
        ({"json": WORD | {"by": 7}}, 400),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400),
        ({"content": b"\xff\xfe"}, 400),
        ({"content": b"object=" + b"x" * 70_000}, 400),
    ],
)
def test_what_is_no_word_on_an_object_is_refused(browser, made, body, status):
    answer = browser.post("/mark", **body)
    assert answer.status_code == status
    assert answer.text.strip().count("\n") == 0
    assert made.marked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": f"evil.example:{PORT}"},
        {"Host": "127.0.0.1:3000"},
        {"Host": "127.0.0.1"},
        {"Host": f"127.0.0.1:{PORT}", "Origin": "http://evil.example"},
        {"Host": f"127.0.0.1:{PORT}", "Origin": f"https://127.0.0.1:{PORT}"},
        {"Host": f"127.0.0.1:{PORT}", "Origin": "http://127.0.0.1:3000"},
        {"Host": f"127.0.0.1:{PORT}", "Origin": "null"},
        {"Host": f"127.0.0.1:{PORT}", "Sec-Fetch-Site": "cross-site"},
        {"Host": f"127.0.0.1:{PORT}", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_no_other_site_can_mark_or_read(browser, made, headers):
    for body in ({"data": WORD}, {"content": json.dumps(WORD), "headers": {"Content-Type": "text/plain"}}):
        answer = browser.post("/mark", **{**body, "headers": body.get("headers", {}) | headers})
        assert answer.status_code == 403
    assert made.marked == []
    read = browser.get("/picture/demo/e1/0/image.png", headers=headers)
    # A link from another site may be followed, as the web UI's are; a name pointed here reads nothing.
    assert read.status_code == (200 if headers["Host"] == f"127.0.0.1:{PORT}" else 403)
    assert browser.get("/", headers={"Host": f"localhost:{PORT}"}).status_code == 200
    assert read.headers.get("access-control-allow-origin") is None


def test_the_server_takes_a_free_port_and_ends_with_who_started_it(settings):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = taken.getsockname()[1]
        environment = {**os.environ, "SEECHANGE_PATH__DATA_ROOT": str(settings.data_root)}
        environment["DAGSTER_HOME"] = str(dagster_home(settings))
        with _pages(settings, first, environment) as (address, told):
            assert told["SEECHANGE_PAGES_URL"] == address
            port = int(address.rpartition(":")[2])
            assert port > first
            with pytest.raises(urllib.error.HTTPError) as none:  # the port waits for the server
                urllib.request.urlopen(f"{address}/", timeout=60)
            assert (none.value.code, none.value.read()[:30]) == (503, b"the database does not answer: ")
            none.value.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)
