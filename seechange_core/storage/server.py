"""The server that files are fetched from: a plain folder, http(s) or S3, through fsspec.

Only reads. What people configure for fsspec itself (``~/.config/fsspec``, ``FSSPEC_S3_ENDPOINT_URL``, ...)
and for their provider (``AWS_...``, ``~/.netrc``, proxies) holds here too.
"""

import errno
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import fsspec
from fsspec.config import conf

from seechange_core.errors import PipelineError, SettingsError
from seechange_core.storage.listing import Listed

Answer = TypeVar("Answer")

CONNECT_S = 20.0
#: Longest wait for the next bytes: the download of a large file itself may take as long as it takes.
STALL_S = 60.0
#: Pauses before trying again after a fault that may pass.
PAUSES_S = (0.5, 2.0)

#: HTTP: what to try again, what means that a file is not there, and that one may not have it.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_GONE = frozenset({404, 410})
_REFUSED = frozenset({401, 403, 407})
#: What servers call the stamp of a file's content.
_STAMPS = ("ETag", "mtime", "LastModified", "last_modified")
#: Names of the faults on the way, of libraries that need not be installed.
_FAULTS = frozenset({"HTTPClientError", "ClientConnectionError", "ClientPayloadError"})
#: Of our own disk: no fault of the server.
_OURS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})


class Server:
    """A server root.

    Parameters
    ----------
    address
        A folder or a URL; paths are relative to it.
    setting
        Where in the settings it stands, for messages.

    Raises
    ------
    SettingsError
        If there is no such kind of server, or what speaks to it is not installed.
    """

    def __init__(self, address: str, setting: str = "path.server_data") -> None:
        self.address = address.rstrip("/")
        self._setting = setting
        self._protocol = address.partition("://")[0] if "://" in address else "file"
        try:
            self._files, place = fsspec.core.url_to_fs(self.address, **_options(self._protocol))
        except (ImportError, ValueError) as error:
            extra = {"http": "http", "https": "http", "s3": "s3", "s3a": "s3"}.get(self._protocol)
            cure = f"pip install 'seechange[{extra}]'" if extra else "use a folder, https:// or s3://"
            raise SettingsError(
                f"{setting}: cannot use {address}: {error}",
                cure=cure if extra is None or isinstance(error, ImportError) else "correct the address",
            ) from None
        self._place = str(place).rstrip("/")
        if hasattr(self._files, "retries"):  # s3fs: the trying again is done here
            self._files.retries = 1

    def fetch(self, relpath: str, target: Path) -> None:
        """Copy a file of the server into a local one, trying again after faults that may pass.

        Raises
        ------
        FileNotFoundError
            If the server has no such file.
        SettingsError
            If the server refuses.
        PipelineError
            If it cannot be reached, breaks off or stalls.
        """
        self._try(relpath, lambda: self._files.get_file(self._path(relpath), str(target)))

    def has(self, relpath: str, *, patient: bool = True) -> bool:
        """Tell whether the server has a file, without fetching it. Raises as `fetch` does.

        Parameters
        ----------
        relpath
            Of the file.
        patient
            Try again after faults that may pass.
        """
        pauses = PAUSES_S if patient else ()
        try:
            return self._try(relpath, lambda: self._ask(self._path(relpath)), pauses)
        except FileNotFoundError:
            return False

    def names(self, deepest: int = 3) -> list[str]:
        """List the files at the address and in its folders, as paths relative to it. Raises as `fetch` does.

        Over http that takes a page with links, as web servers make them of folders.

        Parameters
        ----------
        deepest
            Folders in folders so deep are looked into.
        """
        self._files.invalidate_cache()
        start, found = len(self._place) + 1, []
        folders = [(self._place, 0)]
        while folders:
            place, depth = folders.pop()
            for entry in self._try(place[start:], partial(self._files.ls, place, detail=True)):
                name = str(entry["name"]).rstrip("/")
                if set("?#") & set(name[start:]):  # links that sort a page are no files
                    continue
                if entry["type"] == "file":
                    found.append(unquote(name[start:]))
                elif depth < deepest:
                    folders.append((name, depth + 1))
        return sorted(found)

    def look(self, relpath: str) -> Listed:
        """Look at a file without fetching it. Raises as `fetch` does."""
        info = self._try(relpath, lambda: self._files.info(self._path(relpath)))
        stamp = next((str(info[key]) for key in _STAMPS if info.get(key) is not None), "")
        return Listed(f"{self.address}/{relpath}", info.get("size"), stamp, None)

    def _path(self, relpath: str) -> str:
        # A URL's path is quoted: '#' and '?' are parts of names here.
        return f"{self._place}/{quote(relpath) if self._protocol in {'http', 'https'} else relpath}"

    def _ask(self, place: str) -> bool:
        try:
            return bool(self._files.info(place)["type"] == "file")
        except FileNotFoundError as error:
            # fsspec says so of whatever goes wrong over http; the cause is the truth.
            if error.__cause__ is not None:
                raise error.__cause__ from None
            raise

    def _try(
        self, relpath: str, action: Callable[[], Answer], pauses: Sequence[float] | None = None
    ) -> Answer:
        address = f"{self.address}/{relpath}"
        for pause in (*(PAUSES_S if pauses is None else pauses), None):
            try:
                return action()
            except Exception as error:  # each library has its own; all are judged here
                if pause is None or not _may_pass(error):
                    raise _explained(error, address, self._setting) from error
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


def _options(protocol: str) -> dict[str, Any]:
    """Return what a file system is made with: time-outs, and bytes as they lie on the server."""
    if protocol in {"http", "https"}:
        import aiohttp  # noqa: PLC0415 - an extra

        stated = conf.get(protocol, {}).get("client_kwargs", {})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=STALL_S)
        own = {
            "timeout": timeout,
            # Many servers call a .gz file "encoded": unpacked, it would not be the file any more.
            "auto_decompress": False,
            "headers": {"Accept-Encoding": "identity", **stated.get("headers", {})},
            "trust_env": True,
        }
        return {"client_kwargs": {**own, **{k: v for k, v in stated.items() if k != "headers"}}}
    if protocol in {"s3", "s3a"}:
        own = {"connect_timeout": CONNECT_S, "read_timeout": STALL_S, "retries": {"max_attempts": 0}}
        stated = conf.get("s3", {}).get("config_kwargs", {})
        return {"config_kwargs": {**own, **stated}, "use_listings_cache": False}
    return {}


def _status(error: BaseException) -> int | None:
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _may_pass(error: Exception) -> bool:
    """Tell whether the same request may succeed in a moment."""
    status = _status(error)
    if status is not None:
        return status in _PASSING
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | FileExistsError):
        return False
    if isinstance(error, OSError):  # time-outs and lost connections among them
        return error.errno not in _OURS
    return bool(_FAULTS.intersection(kind.__name__ for kind in type(error).__mro__))


def _explained(error: Exception, address: str, setting: str) -> Exception:
    """Return the error to raise: what happened to which file, and the cure."""
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in _GONE:
        return FileNotFoundError(f"{address} does not exist, nor is it in a data root")
    if isinstance(error, OSError) and error.errno in _OURS:
        return error
    if isinstance(error, PermissionError) or status in _REFUSED or type(error).__name__ == _NO_KEYS:
        public = ", or set FSSPEC_S3_ANON=true if its files are public" if address.startswith("s3") else ""
        return SettingsError(
            f"{setting}: the server refuses {address}: {_words(error)}",
            cure=f"give it the right credentials{public}; some servers say so of files that are not there",
        )
    if isinstance(error, TimeoutError) or "timeout" in type(error).__name__.lower():
        words = f"it kept silent for {STALL_S:g} s, or {CONNECT_S:g} s before it answered at all"
        return PipelineError(
            f"could not fetch {address}: {words}", cure="see whether the server is up and try again"
        )
    return PipelineError(
        f"could not fetch {address}: {_words(error)}", cure="see whether the server is up and try again"
    )


_NO_KEYS = "NoCredentialsError"


def _words(error: Exception) -> str:
    status = _status(error)
    if status is not None:
        return f"status {status} {getattr(error, 'message', '')}".strip()
    return " ".join(f"{type(error).__name__}: {error}".split())
