"""Fetching from real servers on this machine: what comes is whole and right, or nothing is left."""

import gzip
import multiprocessing
import os
import resource
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from seechange_core.errors import FileDamagedError, PipelineError, SettingsError
from seechange_core.pool import PRELOAD
from seechange_core.storage import server as server_module
from seechange_core.storage.archive import Archive, group_checksum, sha256_of

CONTENT = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No long pauses, and silence is noticed soon."""
    monkeypatch.setattr(server_module, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(server_module, "CONNECT_S", 0.5)
    monkeypatch.setattr(server_module, "STALL_S", 0.3)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make_archive(settings):
    def make(server):
        path = settings.path.model_copy(update={"server_data": server})
        return Archive(settings.model_copy(update={"path": path}))

    return make


def files_of(archive):
    return sorted(
        str(p.relative_to(root)) for root in archive.roots for p in root.rglob("*") if not p.is_dir()
    )


@contextmanager
def serving(handler):
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class Static(SimpleHTTPRequestHandler):
    """Python's own web server, which counts what it is asked."""

    asked: Counter

    def log_request(self, *_):
        self.asked[self.command] += 1

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """A folder, the address it is served at, and the count of requests."""
    folder, asked = tmp_path / "web", Counter()
    folder.mkdir()
    with serving(partial(type("Counting", (Static,), {"asked": asked}), directory=folder)) as address:
        yield folder, address, asked


class Faulty(BaseHTTPRequestHandler):
    """A server that does to each request what its test says."""

    plan: list
    seen: list

    def do_GET(self):
        self.seen.append(self.command)
        self.plan[min(len(self.seen), len(self.plan)) - 1](self)

    do_HEAD = do_GET  # noqa: N815 - the names http.server looks for

    def log_message(self, *_):
        pass


def whole(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(CONTENT)


def cut(handler):
    """Announce all and close the connection midway."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[:100_000])
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def chunks_cut(handler):
    """Break off between the pieces of a transfer of no announced length."""
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"400\r\n" + CONTENT[:1024] + b"\r\n")
    handler.close_connection = True


def unannounced(handler):
    """Send a part and say nothing of a length: only the checksum can tell."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(CONTENT[:1000])


def hang(handler):
    time.sleep(0.7)


def stall(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT[:1000])
    handler.wfile.flush()
    time.sleep(0.7)


def status(number):
    return lambda handler: handler.send_error(number)


@contextmanager
def faulty(*plan):
    seen = []
    with serving(type("Planned", (Faulty,), {"plan": list(plan), "seen": seen})) as address:
        yield address, seen


# --- http ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "relpath",
    ["raw/a.fits", "raw/M 31 #2?.fits", "raw/100%25_é+1.fits", "x::y/2021-01-01T00:00:00.000.fits"],
)
def test_files_come_over_http_whatever_their_name(make_archive, web, relpath):
    folder, address, asked = web
    archive = make_archive(f"{address}/")
    (folder / relpath).parent.mkdir()
    (folder / relpath).write_bytes(CONTENT)
    checksum = sha256_of(folder / relpath)
    assert archive.find(relpath, checksum=checksum).read_bytes() == CONTENT
    archive.find(relpath, checksum=checksum)
    assert asked["GET"] == 1  # then it is here
    assert files_of(archive) == [relpath]
    assert archive.find(relpath).stat().st_mode & 0o444


def test_whether_a_server_has_a_file_is_asked_without_fetching_it(make_archive, web):
    folder, address, asked = web
    archive = make_archive(address)
    (folder / "a.fits").write_bytes(CONTENT)
    assert archive.is_somewhere("a.fits")
    assert asked == {"HEAD": 1}
    assert not archive.is_somewhere("b.fits")
    assert files_of(archive) == []
    archive.find("a.fits")
    asked.clear()
    assert archive.is_somewhere("a.fits")
    assert not asked


def test_what_is_not_on_the_server_is_not_found(make_archive, web):
    archive = make_archive(web[1])
    with pytest.raises(FileNotFoundError, match=r"raw/b\.fits does not exist, nor is it in a data root"):
        archive.find("raw/b.fits")
    assert files_of(archive) == []


@pytest.mark.parametrize("fault", [cut, chunks_cut, hang, stall, status(500), status(503), status(429)])
def test_a_fault_that_passes_is_survived(make_archive, fault):
    with faulty(fault, whole) as (address, seen):
        archive = make_archive(address)
        assert archive.find("a.fits").read_bytes() == CONTENT
        assert len(seen) == 2
        assert files_of(archive) == ["a.fits"]


@pytest.mark.parametrize(
    ("fault", "kind", "words", "requests"),
    [
        (cut, PipelineError, "could not fetch", 3),
        (chunks_cut, PipelineError, "could not fetch", 3),
        (hang, PipelineError, "kept silent for 0.3 s", 3),
        (stall, PipelineError, "kept silent for 0.3 s", 3),
        (status(500), PipelineError, "status 500", 3),
        (status(400), PipelineError, "status 400", 1),
        (status(401), SettingsError, "refuses", 1),
        (status(403), SettingsError, "refuses", 1),
        (status(404), FileNotFoundError, "does not exist", 1),
        (status(410), FileNotFoundError, "does not exist", 1),
        (unannounced, FileDamagedError, "SHA-256", 1),
    ],
)
def test_a_fault_that_stays_is_told_and_leaves_nothing(make_archive, fault, kind, words, requests):
    with faulty(fault) as (address, seen):
        archive = make_archive(address)
        with pytest.raises(kind, match=words) as caught:
            archive.find("night/a.fits", checksum="0" * 64)
        assert "night/a.fits" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(seen) == requests
        assert files_of(archive) == []


def test_nobody_listens(make_archive):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    archive = make_archive(address)
    with pytest.raises(PipelineError, match=r"could not fetch .*a\.fits: ClientConnect"):
        archive.find("a.fits")
    with pytest.raises(PipelineError, match="see whether the server is up"):
        archive.is_somewhere("a.fits")
    assert files_of(archive) == []


@pytest.mark.parametrize("fault", [status(500), status(403), hang])
def test_a_server_that_cannot_say_has_not_said_no(make_archive, fault):
    with faulty(fault) as (address, _), pytest.raises((PipelineError, SettingsError)):
        make_archive(address).is_somewhere("a.fits")


def test_a_packed_file_stays_packed(make_archive):
    """As Apache sends .gz files: with a Content-Encoding that clients would undo."""
    packed = gzip.compress(CONTENT)

    def encoded(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(packed)))
        handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        handler.wfile.write(packed)

    with faulty(encoded) as (address, _):
        assert make_archive(address).find("a.fits.gz").read_bytes() == packed


def test_a_full_disk_is_not_the_server_s_fault(make_archive, web):
    folder, address, asked = web
    (folder / "a.fits").write_bytes(CONTENT)
    archive = make_archive(address)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            archive.find("a.fits")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert asked["GET"] == 1
    assert files_of(archive) == []


# --- Groups -------------------------------------------------------------------------------------------


@pytest.fixture
def group(web):
    folder, address, _ = web
    names = [f"night/a_{kind}.fits" for kind in ("image", "mask", "weight")]
    (folder / "night").mkdir()
    for i, name in enumerate(names):
        (folder / name).write_bytes(CONTENT[i:])
    return folder, address, names, group_checksum(sha256_of(folder / name) for name in names)


def test_a_group_is_fetched_and_verified_as_a_whole(make_archive, group):
    _, address, names, checksum = group
    archive = make_archive(address)
    with pytest.raises(FileNotFoundError):
        archive.find_group(names, checksum=checksum, download=False)
    paths = archive.find_group(names, checksum=checksum)
    assert paths == [archive.roots[0] / name for name in names]
    assert [p.read_bytes() for p in paths] == [CONTENT[i:] for i in range(3)]
    paths[1].unlink()  # one is lost: it alone is fetched, and the whole is verified
    assert archive.find_group(names, checksum=checksum) == paths


def test_nothing_is_kept_of_a_bad_group(make_archive, group):
    folder, address, names, checksum = group
    archive = make_archive(address)
    (folder / names[1]).write_bytes(b"other")
    with pytest.raises(FileDamagedError, match="SHA-256"):
        archive.find_group(names, checksum=checksum)
    assert files_of(archive) == []
    (folder / names[2]).unlink()
    with pytest.raises(FileNotFoundError, match=r"a_weight\.fits"):
        archive.find_group(names, checksum=checksum)
    assert files_of(archive) == []


# --- At once, and after a kill --------------------------------------------------------------------------


def test_of_many_who_want_the_same_file_one_fetches_it(make_archive, web, settings):
    folder, address, asked = web
    (folder / "a.fits").write_bytes(CONTENT)
    archive = make_archive(address)
    checksum = sha256_of(folder / "a.fits")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD])
    with context.Pool(3) as pool:
        jobs = [pool.apply_async(Archive.find, (archive, "a.fits"), {"checksum": checksum}) for _ in range(8)]
        paths = {job.get(60) for job in jobs}
    assert paths == {archive.roots[0] / "a.fits"}
    assert paths.pop().read_bytes() == CONTENT
    assert files_of(archive) == ["a.fits"]
    assert asked["GET"] == 1


def test_what_a_killed_download_left_is_swept_away(make_archive, web):
    folder, address, _ = web
    (folder / "a.fits").write_bytes(CONTENT)
    archive = make_archive(address)
    old, fresh = archive.roots[0] / ".partial-old-a.fits", archive.roots[0] / ".partial-new-b.fits"
    archive.roots[0].mkdir()
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    archive.find("a.fits")
    assert files_of(archive) == [fresh.name, "a.fits"]


# --- S3 -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3_endpoint():
    pytest.importorskip("s3fs")
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def bucket(s3_endpoint, monkeypatch):
    """A bucket on a real S3 server, reached as people reach theirs: by the provider's variables."""
    import boto3

    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="archive")
    yield client
    for item in client.list_objects_v2(Bucket="archive").get("Contents", []):
        client.delete_object(Bucket="archive", Key=item["Key"])
    client.delete_bucket(Bucket="archive")
    client.close()


def test_files_come_from_s3(make_archive, bucket, tmp_path):
    archive = make_archive("s3://archive/survey/")
    for relpath in ("raw/a.fits", "raw/M 31 #2?.fits"):
        bucket.put_object(Bucket="archive", Key=f"survey/{relpath}", Body=CONTENT)
        assert archive.is_somewhere(relpath)
        assert files_of(archive) == []
        path = archive.find(relpath)
        assert path.read_bytes() == CONTENT
        path.unlink()
    assert not archive.is_somewhere("raw/b.fits")
    assert not archive.is_somewhere("raw")  # a folder is no file
    bucket.put_object(Bucket="archive", Key="survey/raw/b.fits", Body=CONTENT)
    assert archive.is_somewhere("raw/b.fits")  # nothing is remembered of the last answer
    bucket.put_object(Bucket="archive", Key="survey/raw/c.fits", Body=b"")
    with pytest.raises(FileDamagedError, match="SHA-256"):
        archive.find("raw/c.fits", checksum=sha256_of(archive.find("raw/b.fits")))
    with pytest.raises(FileNotFoundError, match=r"s3://archive/survey/raw/d\.fits does not exist"):
        archive.find("raw/d.fits")
    with pytest.raises(FileNotFoundError, match="none"):
        make_archive("s3://none").find("a.fits")
    assert files_of(archive) == ["raw/b.fits"]


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (status(500), PipelineError, "could not fetch"),
        (status(403), SettingsError, "refuses"),
        (cut, PipelineError, "could not fetch"),
        (hang, PipelineError, "kept silent"),
    ],
)
def test_an_s3_server_in_trouble(make_archive, bucket, monkeypatch, fault, kind, words):
    from s3fs import S3FileSystem

    with faulty(fault) as (address, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        S3FileSystem.clear_instance_cache()  # which knows nothing of the address in the environment
        archive = make_archive("s3://archive")
        with pytest.raises(kind, match=words) as caught:
            archive.find("night/a.fits")
        assert "night/a.fits" in str(caught.value)
        assert files_of(archive) == []


def test_what_speaks_to_the_server_must_be_installed(make_archive, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(SettingsError, match=r"pip install 'seechange\[http\]'"):
        make_archive("https://example.org/data").find("a.fits")
