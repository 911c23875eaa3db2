import threading
from functools import partial
from pathlib import Path

import pytest

from seechange_core.errors import FileDamagedError, SettingsError, UserError
from seechange_core.settings import Settings
from seechange_core.storage.archive import Archive, sha256_of


def put(path: Path, content: bytes = b"light") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def with_paths(settings: Settings, **paths: object) -> Settings:
    return settings.model_copy(update={"path": settings.path.model_copy(update=paths)})


@pytest.fixture
def archive(settings):
    return Archive(settings)


def leftovers(archive: Archive) -> list[Path]:
    return [path for root in archive.roots for path in root.rglob(".partial*")]


def test_written_files_are_found_and_whole(archive):
    checksum = archive.write("a/b/c.fits", partial(put, content=b"light"))
    path = archive.find("a/b/c.fits")
    assert path == archive.roots[0] / "a/b/c.fits"
    assert path.read_bytes() == b"light"
    assert checksum == sha256_of(path)
    assert archive.verify("a/b/c.fits", checksum) == path
    assert path.stat().st_mode & 0o400
    assert leftovers(archive) == []


def test_a_writer_that_fails_leaves_nothing(archive):
    archive.write("x.fits", partial(put, content=b"old"))

    def fail(path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    for name in ("x.fits", "new.fits"):
        with pytest.raises(OSError, match="disk full"):
            archive.write(name, fail)
    assert archive.find("x.fits").read_bytes() == b"old"
    assert not archive.exists("new.fits")
    assert leftovers(archive) == []


def test_readers_never_see_half_a_file(archive):
    def write(content):
        for _ in range(30):
            archive.write("x", partial(put, content=content))

    archive.write("x", partial(put, content=b"a" * 100_000))
    threads = [threading.Thread(target=write, args=(c * 100_000,)) for c in (b"a", b"b")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        content = archive.find("x").read_bytes()
        assert len(content) == 100_000
        assert len(set(content)) == 1
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/passwd", "", ".", "a/..", "a\0b", "..", "a/../b"]
)
def test_paths_that_leave_the_root_are_refused(archive, path):
    for action in (
        archive.path,
        archive.find,
        archive.exists,
        archive.remove,
        partial(archive.write, writer=put),
    ):
        with pytest.raises(UserError, match="data root"):
            action(path)


def test_links_that_leave_the_root_are_refused(archive, tmp_path):
    (tmp_path / "outside").mkdir()
    archive.roots[0].mkdir(parents=True)
    (archive.roots[0] / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="link"):
        archive.write("link/x", put)
    assert list((tmp_path / "outside").iterdir()) == []


def test_all_roots_are_searched_in_order(settings, tmp_path):
    archive = Archive(with_paths(settings, data_root=(tmp_path / "a", tmp_path / "b")))
    put(tmp_path / "b/x", b"b")
    assert archive.find("x") == tmp_path / "b/x"
    put(tmp_path / "a/x", b"a")
    assert archive.find("x") == tmp_path / "a/x"
    archive.remove("x")
    assert not archive.exists("x")


def test_a_file_that_is_nowhere(archive):
    with pytest.raises(FileNotFoundError, match=r"x\.fits"):
        archive.find("x.fits")


def test_missing_files_come_from_the_server(settings, tmp_path):
    archive = Archive(with_paths(settings, server_data=str(tmp_path / "server")))
    put(tmp_path / "server/a/x")
    with pytest.raises(FileNotFoundError):
        archive.find("a/x", download=False)
    checksum = sha256_of(tmp_path / "server/a/x")
    assert archive.find("a/x", checksum=checksum) == archive.roots[0] / "a/x"
    assert archive.exists("a/x")
    with pytest.raises(FileNotFoundError, match="server"):
        archive.find("a/y")
    assert leftovers(archive) == []


def test_a_server_by_url(settings, tmp_path):
    archive = Archive(with_paths(settings, server_data=f"file://{tmp_path}/server/"))
    put(tmp_path / "server/x")
    assert archive.find("x").read_bytes() == b"light"


def test_what_the_server_gives_is_verified(settings, tmp_path):
    archive = Archive(with_paths(settings, server_data=str(tmp_path / "server")))
    put(tmp_path / "server/x")
    with pytest.raises(FileDamagedError, match="SHA-256"):
        archive.find("x", checksum="0" * 64)
    assert not archive.exists("x")
    assert leftovers(archive) == []


def test_an_unknown_kind_of_server(settings):
    archive = Archive(with_paths(settings, server_data="gopher://x"))
    with pytest.raises(SettingsError, match=r"path\.server_data"):
        archive.find("x")


def test_a_file_that_changed_is_noticed(archive):
    checksum = archive.write("x", put)
    put(archive.find("x"), b"dark")
    with pytest.raises(FileDamagedError, match="SHA-256"):
        archive.verify("x", checksum)


def test_paths_become_relative_to_their_root(settings, tmp_path, monkeypatch):
    archive = Archive(with_paths(settings, data_root=(tmp_path / "a", tmp_path / "b")))
    assert archive.relative(tmp_path / "b/raw/x.fits") == "raw/x.fits"
    (tmp_path / "a/raw").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/raw")
    assert archive.relative("x.fits") == "raw/x.fits"
    with pytest.raises(UserError, match="data root"):
        archive.relative("../../x.fits")
