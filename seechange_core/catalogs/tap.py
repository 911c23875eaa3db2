"""Ask a service of the Virtual Observatory for a table: TAP, synchronous, patient with services that fail.

Dowler, Rixon & Tody, "Table Access Protocol", IVOA Recommendation 1.1 (2019): a query is posted to
``URL/sync`` and answered with a VOTable, whose INFO ``QUERY_STATUS`` says whether it is all there is.
"""

import http.client
import io
import logging
import random
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from typing import Any

from astropy.io import votable
from astropy.io.votable.tree import VOTableFile
from astropy.table import Table

from seechange_core.errors import NoAnswer, UserError

log = logging.getLogger(__name__)

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_CHUNK = 1 << 16
_LONGEST_PAUSE_S = 60.0


class _TryAgain(Exception):  # noqa: N818 - not an error yet
    """The service failed in a way that may pass; `after_s` is what it asks for."""

    def __init__(self, words: str, after_s: float = 0.0) -> None:
        super().__init__(words)
        self.after_s = after_s


@dataclass(frozen=True)
class TapClient:
    """One service, and how long to wait for it.

    Attributes
    ----------
    url
        Without ``/sync``.
    quiet_s
        A service that says nothing for so long is given up on (and asked again).
    answer_s
        An answer must be complete after so long.
    tries
        How often a query is sent before the service counts as down.
    pause_s
        Before the second try; twice as long before each later one, and at least a service's ``Retry-After``.
    sleep
        How to wait.
    """

    url: str
    quiet_s: float = 60.0
    answer_s: float = 600.0
    tries: int = 5
    pause_s: float = 2.0
    sleep: Callable[[float], None] = time.sleep

    def query(self, adql: str, max_rows: int) -> tuple[Table, bool]:
        """Send a query until it is answered.

        Parameters
        ----------
        adql
            The query.
        max_rows
            As many rows are asked for; the service may have a lower limit.

        Returns
        -------
        table
            With the units that the service states.
        complete
            False if there are more rows than it gave.

        Raises
        ------
        NoAnswer
            If the service does not answer, or not in full, as often as it is asked; at once if nobody knows
            its host.
        UserError
            If it refuses the query, or answers with something else than a VOTable.
        """
        failure = _TryAgain("it was never asked")
        for i in range(self.tries):
            if i > 0:
                # A bit of chance keeps workers that failed together from asking again together.
                pause = self.pause_s * 2 ** (i - 1) * random.uniform(0.75, 1.25)
                pause = min(max(pause, failure.after_s), _LONGEST_PAUSE_S)
                log.warning(
                    "%s: %s; asked again in %.0f s (try %d of %d)",
                    self.url,
                    failure,
                    pause,
                    i + 1,
                    self.tries,
                )
                self.sleep(pause)
            try:
                return _read_answer(self._ask(adql, max_rows), self.url, max_rows)
            except _TryAgain as error:
                failure = error
        raise NoAnswer(
            f"{self.url} does not answer ({self.tries} tries; the last: {failure})",
            cure="try again later, ask another service with --service, or import the catalog from a file",
        )

    def _ask(self, adql: str, max_rows: int) -> bytes:
        fields = {
            "REQUEST": "doQuery",
            "LANG": "ADQL",
            "FORMAT": "application/x-votable+xml",
            "MAXREC": str(max_rows),
            "QUERY": adql,
        }
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/sync",
            data=urllib.parse.urlencode(fields).encode(),
            headers={
                "User-Agent": "SeeChange (IVOA-science)",
                "Accept": "application/x-votable+xml, text/xml",
            },
        )
        deadline = time.monotonic() + self.answer_s
        try:
            with urllib.request.urlopen(request, timeout=self.quiet_s) as stream:
                return self._read_all(stream, deadline)
        except urllib.error.HTTPError as error:
            said = ""
            with error, suppress(OSError, http.client.HTTPException, _TryAgain):  # the status says enough
                said = _message_in(self._read_all(error, deadline))
            said = said or error.reason
            if error.code in _TRANSIENT:
                raise _TryAgain(f"HTTP {error.code}: {said}", _seconds(error.headers)) from error
            raise UserError(
                f"{self.url} refuses the query: HTTP {error.code}: {said}",
                cure="check --service and --table, and the column names",
            ) from error
        except TimeoutError as error:
            raise _TryAgain(f"no word for {self.quiet_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:  # refused, reset, cut off, no such host
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, socket.gaierror):  # the resolver has tried for long enough
                raise NoAnswer(
                    f"{self.url}: the host cannot be found ({reason.strerror})",
                    cure="check the network and the URL, or import the catalog from a file",
                ) from error
            raise _TryAgain(" ".join(str(reason).split())) from error

    def _read_all(self, stream: Any, deadline: float) -> bytes:
        """Read a response (an HTTPError is one too) to the end; one that trickles would never time out."""
        parts = []
        while part := stream.read1(_CHUNK):  # what has come by now, so that the clock is looked at
            parts.append(part)
            if time.monotonic() > deadline:
                raise _TryAgain(f"its answer was not complete after {self.answer_s:g} s")
        return b"".join(parts)


def _read_answer(content: bytes, url: str, max_rows: int) -> tuple[Table, bool]:
    """Read a VOTable and what it says of itself."""
    if b"<VOTABLE" not in content[:4096].upper():
        start = " ".join(content[:120].decode("utf-8", "replace").split())
        if not content.strip():
            raise _TryAgain("an empty answer")
        raise UserError(
            f"{url} answers with something that is no VOTable: {start}",
            cure="give --service the base URL of a TAP service",
        )
    if b"</VOTABLE>" not in content[-4096:].upper():
        raise _TryAgain(f"the answer breaks off after {len(content)} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # services take liberties with the standard that do not matter here
            document = votable.parse(io.BytesIO(content), verify="ignore")
            status, words = _status(document)
            if status == "ERROR":
                raise UserError(
                    f"{url} refuses the query: {words}",
                    cure="check --service and --table, and the column names",
                )
            table = document.get_first_table().to_table(use_names_over_ids=True)
    except (ValueError, IndexError, TypeError, AttributeError, KeyError, OSError) as error:
        raise _TryAgain(f"its VOTable cannot be read: {str(error).splitlines()[0][:120]}") from error
    return table, status != "OVERFLOW" and len(table) < max_rows


def _status(document: VOTableFile) -> tuple[str, str]:
    """Return the last QUERY_STATUS: an overflow or an error is told after the table."""
    found = ("", "")
    for resource in document.resources:
        for info in resource.infos:
            if (info.name or "").upper() == "QUERY_STATUS":
                found = (info.value or "").upper(), " ".join((info.content or "").split())[:200]
    return found


def _message_in(content: bytes) -> str:
    """Find what an error document says, a VOTable or a page."""
    text = content.decode("utf-8", "replace")
    match = re.search(r"<INFO[^>]*QUERY_STATUS[^>]*>(.*?)</INFO>", text, re.DOTALL | re.IGNORECASE)
    words = match.group(1) if match else re.sub(r"<[^>]*>", " ", text)
    return " ".join(words.split())[:200]


def _seconds(headers: Message | None) -> float:
    """Read Retry-After in seconds; 0 if it is missing, or a date."""
    value = (headers.get("Retry-After") or "") if headers is not None else ""
    return float(value) if value.isdigit() else 0.0
