"""The page of a night: what is on it, that nothing in it comes to life, and what a browser makes of it."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import numpy as np
import pytest

from seechange_core.qa import report_page
from seechange_core.qa.night import (
    Curve,
    FileAside,
    Night,
    NightCandidate,
    NightExposure,
    NightSection,
    Problem,
    Tile,
    by_filter,
    headline,
)
from seechange_core.qa.report_page import draw_page, page_data
from seechange_core.qa.report_picture import draw_picture

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;'"
)
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def candidate(k, **changes):
    rng = np.random.default_rng(k)
    values = {
        "object": f"obj{k:03d}",
        "kind": ("new", "faded", "mover")[k % 3],
        "verdict": "",
        "confirmed": k % 4 > 0,
        "score": float(rng.normal(0, 30)),
        "mag": 18.0 + (7 * k) % 11 * 0.5,
        "mag_err": 0.05,
        "n_epochs": 3,
        "n_possible": 4,
        "hours": 2.5,
        "ra": 150.0 + 0.01 * k,
        "dec": -2.0,
        "place": "10:00:00.00 -02:00:00.0",
        "filter": "r",
        "exposure": "e1",
        "section": "0",
        "mjd": 61000.1,
        "note": "",
        "curve": Curve((61000.1, 61000.2), ("r", "g"), (10.0, -1.0), (1.0, 1.0)),
    }
    return NightCandidate(**{**values, **changes})


def night(n_exposures=3, n_sections=4, candidates=(), **changes):
    """Make a night whose seeing is 1 + 0.1 x section, and one section of which failed."""
    exposures = tuple(
        NightExposure(f"e{k}", "field", "gr"[k % 2], 61000.0 + 0.005 * k, 60.0, 1.2)
        for k in range(n_exposures)
    )
    sections = tuple(
        NightSection(e, s, "gr"[e % 2], "failed")
        if (e, s) == (0, 0)
        else NightSection(e, s, "gr"[e % 2], "done", 1 + 0.1 * s, 20.1, 25.0 + e, 22.5, 7.0, 8.5, 4.0)
        for e in range(n_exposures)
        for s in range(n_sections)
    )
    plane = tuple(Tile(str(s), 600.0 * (s % 8), 600.0 * (s // 8), 512.0, 512.0) for s in range(n_sections))
    values = {"instrument": "demo", "night": "2026-02-24", "made_at": datetime(2026, 2, 25, 9, tzinfo=UTC)}
    counts = {"n_candidates": len(candidates)}
    values |= {"exposures": exposures, "sections": sections, "plane": plane, "candidates": tuple(candidates)}
    return Night(**{**values, **counts, **changes})


def data_of(page):
    return json.loads(re.search(r'id="night-data">(.*?)</script>', page, re.DOTALL)[1])


# --- Figures --------------------------------------------------------------------------------------


def test_the_headline_counts_what_counts():
    told = night()
    figures = headline(told)
    assert figures["exposures"] == 3 and figures["sections_done"] == 11 and figures["sections_failed"] == 1
    assert figures["seeing_arcsec"] == pytest.approx(1.2)  # of 1, 1, and three each of 1.1, 1.2, 1.3
    assert (figures["zero_point_mag_g"], figures["zero_point_mag_r"]) == (27.0, 26.0)
    assert figures["delay_median_min"] == 4.0
    assert by_filter(told)["g"]["exposures"] == 2
    called_bad = replace(told.exposures[0], bad="clouds")
    without = headline(replace(told, exposures=(called_bad, *told.exposures[1:])))
    assert without["exposures_called_bad"] == 1 and without["sections_failed"] == 0
    assert without["sections_done"] == 8


def test_a_night_of_which_nothing_is_known_is_told_too():
    bare = night(2, 2, sections=(NightSection(0, 0, "", "unfinished"), NightSection(1, 1, "", "stopped")))
    figures = headline(bare)
    assert "seeing_arcsec" not in figures and figures["sections_unfinished"] == 1
    data = data_of(draw_page(bare))
    assert data["points"]["seeing"] == [None, None]
    assert len(draw_picture(bare)) < 10_000
    nothing = replace(bare, exposures=(), sections=())
    assert data_of(draw_page(nothing))["exposures"] == []
    assert draw_picture(nothing) is None


def test_not_a_number_is_no_json():
    odd = replace(candidate(1), score=float("nan"), mag=float("inf"))
    (row,) = page_data(night(candidates=[odd]))["candidates"]
    assert row["score"] is None and row["mag"] is None


# --- One file, whatever is in it ------------------------------------------------------------------


class Addresses(HTMLParser):
    """Collects what a page would load, and its scripts."""

    def __init__(self):
        super().__init__()
        self.loaded, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "srcset", "data", "action")]
        self.loaded += [value for name, value in attrs if name == "href" and tag != "a"]


def hostile():
    exposure = NightExposure(HOSTILE, HOSTILE, "r", 61000.0, 60.0, 1.0, bad=HOSTILE)
    return night(
        1,
        1,
        instrument=HOSTILE,
        exposures=(exposure,),
        plane=(Tile(HOSTILE, 0, 0, 1, 1),),
        problems=(Problem("failed", "image", HOSTILE, ((HOSTILE, "0", HOSTILE),)),),
        files=(FileAside("refused", f"/raw/{HOSTILE}", HOSTILE, HOSTILE),),
        candidates=[
            candidate(1, object=HOSTILE, note=HOSTILE, kind=HOSTILE, verdict=HOSTILE, exposure=HOSTILE)
        ],
    )


def test_text_stays_text_and_arrives_as_it_was():
    page = draw_page(hostile())
    seen = Addresses()
    seen.feed(page)
    assert seen.tags.count("script") == 2 and "img" not in seen.tags
    data = data_of(page)
    assert data["problems"][0]["places"] == [[HOSTILE, "0", HOSTILE]]
    assert data["candidates"][0]["object"] == data["files"][0][2] == HOSTILE


def test_the_page_loads_nothing_and_runs_nothing_else():
    page = draw_page(night(candidates=[candidate(k) for k in range(5)]))
    seen = Addresses()
    seen.feed(page)
    assert seen.loaded == ["data:,"]
    assert "@import" not in page and "url(http" not in page and "import(" not in page
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src 'none'" in policy and "http" not in policy and "unsafe" not in policy
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    # The only requests are to the server the page came from; the catalogs of others are links.
    assert re.findall(r"fetch\(([^,]*),", script) == ['"/mark"']
    assert not re.search(r"innerHTML|outerHTML|document\.write|insertAdjacentHTML|eval\(", script)


def test_a_big_night_is_a_small_file():
    stamp = np.random.default_rng(1).integers(0, 256, 6000, np.uint8).tobytes()
    curve = Curve(tuple(np.arange(200) / 7), ("r",) * 200, tuple(np.arange(200) / 3), (1 / 3,) * 200)
    big = night(20, 60, [candidate(k, picture=stamp, curve=curve) for k in range(200)])
    start = time.process_time()
    page = draw_page(big)
    assert time.process_time() - start < 3
    assert len(page.encode()) < 4_000_000
    assert len(draw_picture(big)) < 10_000


# --- In a browser ---------------------------------------------------------------------------------


@pytest.fixture
def browse_at(tmp_path):
    """Open an address in a real browser, and return what its scripts made of the page there."""
    if BROWSER is None:
        pytest.skip("there is no Chromium")

    def opened(address):
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return done.stdout

    return opened


@pytest.fixture
def browse(browse_at, tmp_path):
    """Open a page from disk."""

    def opened(page, how=""):
        path = tmp_path / "night.html"
        path.write_text(page, encoding="utf-8")
        return browse_at(f"{path.as_uri()}#{how}")

    return opened


def shown_objects(dom):
    return re.findall(r'<tr class="row[^"]*"[^>]*data-object="([^"]*)"', dom)


def test_a_browser_sorts_the_candidates_and_opens_one(browse):
    rows = [candidate(k) for k in range(9)]
    dom = browse(draw_page(night(candidates=rows)), "sort=mag&open=obj004")
    faintest_last = sorted(rows, key=lambda row: (row.mag, rows.index(row)))
    assert shown_objects(dom) == [row.object for row in faintest_last]
    large = re.search(r"<dialog.*?</dialog>", dom, re.DOTALL)[0]
    assert " open" in large[:80] and "obj004" in large and "aladin.cds.unistra.fr" in large
    assert large.count('class="point"') == large.count('class="limit"') == 1
    assert dom.count('class="dots"') == 12  # six figures, two filters
    assert "11 done" in dom and "1 failed" in dom


def test_a_browser_chooses_a_kind_and_takes_no_text_for_markup(browse):
    rows = [candidate(k) for k in range(9)]
    dom = browse(draw_page(night(candidates=rows)), "kind=faded&sort=score&down=1")
    strongest = sorted((row for row in rows if row.kind == "faded"), key=lambda row: -abs(row.score))
    assert shown_objects(dom) == [row.object for row in strongest]
    dom = browse(draw_page(hostile()))
    assert "<title>owned" not in dom and "onerror=" not in re.sub(
        r"&lt;.*?&gt;", "", dom.split("night-data")[0]
    )


class Marks(BaseHTTPRequestHandler):
    """Serves a page, and takes what it posts."""

    page, posted, status = b"", None, 200

    def do_GET(self):
        self._answer(200, self.page, "text/html; charset=utf-8")

    def do_POST(self):
        type(self).posted = self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = "obj001 is real" if self.status == 200 else "the database is busy"
        self._answer(self.status, json.dumps({"message": words}).encode(), "application/json")

    def _answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


PRESS = """
setTimeout(() => {
  document.querySelector("#large .mark input").value = "it's there";
  document.querySelector("#large .mark input.by").value = "ada";
  document.querySelector("#large button.real").click();
}, 100);
"""


@pytest.fixture
def pressing(monkeypatch):
    """Make pages whose script marks the candidate that is open, by its own button."""
    part = report_page._part
    monkeypatch.setattr(report_page, "_part", lambda name: part(name) + (PRESS if name == "large.js" else ""))


@pytest.mark.parametrize("status", [200, 503])
def test_a_served_page_sends_marks_to_its_server(browse_at, pressing, monkeypatch, status):
    monkeypatch.setattr(Marks, "status", status)
    monkeypatch.setattr(Marks, "page", draw_page(night(candidates=[candidate(1)])).encode())
    with HTTPServer(("127.0.0.1", 0), Marks) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        dom = browse_at(f"http://127.0.0.1:{server.server_port}/reports/demo/2026-02-24.html#open=obj001")
        server.shutdown()
    assert Marks.posted == (
        "/mark",
        {"object": "obj001", "word": "real", "reason": "it's there", "by": "ada"},
    )
    if status == 200:
        assert "obj001 is real" in dom and "called real" in dom
    else:
        assert "It was not recorded (503: the database is busy)" in dom and "called real" not in dom


def test_a_page_from_disk_says_which_command_marks(browse, pressing):
    dom = browse(draw_page(night(candidates=[candidate(1)])), "open=obj001")
    assert "seechange mark obj001 --as real --reason 'it'\\''s there' --by ada" in unescape(dom)
