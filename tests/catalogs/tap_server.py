"""A TAP service in a thread, which can be told to misbehave."""

import io
import re
import threading
import time
import urllib.parse
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from astropy import units
from astropy.io.votable import from_table
from astropy.io.votable.tree import Info
from astropy.table import Table

from seechange_core.numerics import sky

COLUMNS = {
    "ra": "deg", "dec": "deg", "ra_error": "arcsec", "dec_error": "arcsec",
    **dict.fromkeys(("pmra", "pmdec", "pmra_error", "pmdec_error"), "mas/yr"),
    **{f"phot_{b}_mean_mag": "mag" for b in ("g", "bp", "rp")},
    **{f"phot_{b}_mean_flux_over_error": "" for b in ("g", "bp", "rp")},
}  # fmt: skip


def make_stars(n=3000, centre=(359.9, -30.0), width=3.0, seed=4):
    """Stars around a place at RA 0, as columns of Gaia; errors of positions in arcsec, to be converted."""
    rng = np.random.default_rng(seed)
    east, north = rng.uniform(-width, width, (2, n))
    ra, dec = sky.offset(centre[0], centre[1], east, north)
    color, g = rng.uniform(0.6, 1.8, n), rng.uniform(13, 20, n)
    table = Table(
        {"ra": ra, "dec": dec, "ra_error": rng.uniform(1e-5, 1e-3, n), "dec_error": np.full(n, 5e-4)}
    )
    for name, value in (("pmra", 3.0), ("pmdec", -2.0), ("pmra_error", 0.1), ("pmdec_error", 0.1)):
        table[name] = np.full(n, value)
    for band, mag in (("g", g), ("bp", g + 0.6 * color), ("rp", g - 0.4 * color)):
        table[f"phot_{band}_mean_mag"] = mag
        table[f"phot_{band}_mean_flux_over_error"] = 10 ** (0.4 * (21 - mag))
    for name, unit in COLUMNS.items():
        table[name].unit = units.Unit(unit)
    return table


class TapServer(ThreadingHTTPServer):
    """Answers cone searches; `faults` are what it does instead to the next queries, first to last."""

    daemon_threads = True

    def __init__(self, stars, limit=100_000):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stars, self.limit = stars, limit
        self.faults, self.queries, self.always = [], [], None
        self.seconds_per_query = 0.0
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/tap"

    def next_fault(self, query):
        with self.lock:
            self.queries.append(query)
            return self.faults.pop(0) if self.faults else self.always

    def answer(self, query, max_rows):
        """Return the VOTable of a query."""
        chosen = self.stars
        if circle := re.search(r"CIRCLE\('ICRS', ([-\d.]+), ([-\d.]+), ([-\d.]+)\)", query):
            ra, dec, radius = map(float, circle.groups())
            chosen = chosen[sky.separation(ra, dec, chosen["ra"], chosen["dec"]) <= radius]
        if limit := re.search(r"AND (\w+) <= ([\d.]+)", query):
            chosen = chosen[chosen[limit[1]] <= float(limit[2])]
        names = re.search(r"SELECT (?:TOP \d+ )?(.*?) FROM", query)[1]
        if names != "*":
            chosen = chosen[[name.strip('" ') for name in names.split(",")]]
        most = min(max_rows, self.limit)
        return votable(chosen[:most], "OVERFLOW" if len(chosen) > most else "OK")


def votable(table, status, words=""):
    document = from_table(table)
    resource = document.resources[0]
    resource.type = "results"
    info = Info(name="QUERY_STATUS", value=status)
    info.content = words
    resource.infos.append(info)
    stream = io.BytesIO()
    document.to_xml(stream, tabledata_format="binary2")
    return stream.getvalue()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        fields = dict(urllib.parse.parse_qsl(self.rfile.read(size).decode()))
        fault = self.server.next_fault(fields["QUERY"])
        time.sleep(self.server.seconds_per_query)
        with suppress(BrokenPipeError, ConnectionResetError):  # the client may lose patience
            self._answer(fault, fields)

    def _answer(self, fault, fields):
        content, status, headers = b"", 200, {}
        if fault in (400, 500, 503, "503 and stalls"):
            status = 503 if fault == "503 and stalls" else fault
            content = b"<html><body><h1>sorry</h1></body></html>"
            headers = {"Retry-After": "7"} if fault == 503 else {}
        elif fault == "reset":
            self.connection.close()
            return
        elif fault == "error":
            content = votable(self.server.stars[:0], "ERROR", "unknown column: phot_x")
        elif fault == "page":
            content = b"<html><body>please log in</body></html>"
        elif fault != "empty":
            content = self.server.answer(fields["QUERY"], int(fields["MAXREC"]))
        if fault == "columns":
            content = content.replace(b'name="dec"', b'name="declination"')
        if fault == "slow":
            time.sleep(1.0)
        whole = len(content)
        if fault in ("truncated", "cut off"):
            content = content[: whole // 2]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        # "cut off" promises more than it sends; "truncated" believes that it has sent all
        promised = {"cut off": whole, "503 and stalls": 2 * whole}.get(fault, len(content))
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        step = 200 if fault == "trickle" else len(content) or 1
        for i in range(0, len(content), step):
            self.wfile.write(content[i : i + step])
            if fault == "trickle":
                self.wfile.flush()
                time.sleep(0.1)
        if fault == "503 and stalls":
            self.wfile.flush()
            time.sleep(1.0)


@contextmanager
def serving(stars, **options):
    """Run a service until the block ends."""
    server = TapServer(stars, **options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
