"""Pages beside the web UI: reports of nights, full-size pictures, and a person's word on an object.

They are drawn when someone asks, from the database and the files. The server listens on this machine only,
and it answers to no other name: a page of another site can neither read here nor mark anything.
"""

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from seechange_assets import pages_html
from seechange_core import chain as core
from seechange_core.errors import NotFoundError, SeeChangeError, UserError
from seechange_core.settings import Settings, get_settings

#: What can be said here of an object; of exposures the command line tells more.
WORDS = ("real", "bogus", "undo")
_MAX_BODY = 64 * 1024
#: A browser keeps what it has and asks whether that is still so.
_CACHE = "private, no-cache"
#: One picture at a time: each may take half a gigabyte, and matplotlib's settings are the process's.
_drawing = threading.Lock()


def make_app(settings: Settings, port: int) -> Starlette:
    """Make the application.

    Parameters
    ----------
    settings
        Whose data it shows.
    port
        On which it will be asked: requests to other names or ports are refused.
    """
    app = Starlette(
        routes=[
            Route("/", _index),
            Route("/night/{instrument}/{night}", _night),
            Route("/exposure/{instrument}/{exposure}", _exposure),
            Route("/picture/{instrument}/{exposure}/{section}/{product}.png", _picture),
            Route("/thumb/{instrument}/{exposure}/{section}/{product}.png", _thumb),
            Route("/report/{instrument}/{night}", _report),
            Route("/mark", _mark, methods=["POST"]),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=partial(_guard, own=own_names(port)))],
        exception_handlers={
            SeeChangeError: _refuse,
            FileNotFoundError: _refuse,
            SQLAlchemyError: _no_database,
        },
    )
    app.state.settings = settings
    return app


def own_names(port: int) -> frozenset[str]:
    """Return the names under which this machine's own browser knows the server."""
    return frozenset(f"{host}:{port}" for host in ("127.0.0.1", "localhost"))


async def _guard(
    request: Request, call_next: Callable[[Request], Awaitable[Response]], own: frozenset[str]
) -> Response:
    """Refuse what comes under another name (a site whose name was pointed here) or from another site."""
    origin = request.headers.get("origin")
    foreign = origin is not None and origin not in {f"http://{name}" for name in own}
    foreign |= request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    if request.headers.get("host") not in own or (foreign and request.method not in ("GET", "HEAD")):
        return PlainTextResponse("only pages of this server may ask here\n", 403)
    response = await call_next(request)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "frame-ancestors 'none'"
    return response


def _refuse(_request: Request, error: Exception) -> Response:
    """Say in one line what is wrong."""
    missing = isinstance(error, NotFoundError | FileNotFoundError)
    status = 404 if missing else 400 if isinstance(error, UserError) else 500
    return PlainTextResponse(f"{' '.join(str(error).split())}\n", status)


def _no_database(_request: Request, error: Exception) -> Response:
    """Say in one line what the database said: it may be away for a moment, or have no tables yet."""
    said = " ".join(str(getattr(error, "orig", None) or error).split())
    return PlainTextResponse(f"the database does not answer: {said}\n", 503)


async def _index(request: Request) -> Response:
    rows = await run_in_threadpool(core.nights, request.app.state.settings)
    return HTMLResponse(pages_html.index(rows))


async def _night(request: Request) -> Response:
    instrument, night = request.path_params["instrument"], request.path_params["night"]
    find = partial(core.exposures, instrument=instrument, night=night, with_bad=True)
    rows = await run_in_threadpool(find, request.app.state.settings)
    if not rows:
        raise NotFoundError(f"{instrument} has no exposures of the night {night}", cure="see the list at /")
    return HTMLResponse(pages_html.night(instrument, night, rows))


async def _report(request: Request) -> Response:
    """Tell a night as it is now, marks made a moment ago included."""
    settings = request.app.state.settings
    page = await run_in_threadpool(
        core.night_report, settings, request.path_params["instrument"], request.path_params["night"]
    )
    return HTMLResponse(page, headers={"Cache-Control": _CACHE})


async def _exposure(request: Request) -> Response:
    """Show one product of all sections, and what became of those that have none."""
    settings = request.app.state.settings
    exposure = await run_in_threadpool(_known, settings, request)
    steps = [step.name for step in core.STEPS]
    product = request.query_params.get("product", steps[1])
    if product not in steps:
        raise NotFoundError(f"no product is called {product!r}", cure=f"they are {', '.join(steps)}")
    rows = await run_in_threadpool(core.status, settings, [exposure.name])
    return HTMLResponse(pages_html.exposure(exposure, steps, product, [row for row in rows if row.current]))


def _known(settings: Settings, request: Request) -> Any:
    """Return the exposure of a request's path."""
    names = [request.path_params["exposure"]]
    return core.exposures(settings, names, request.path_params["instrument"], with_bad=True)[0]


async def _picture(request: Request) -> Response:
    return await _png(request, partial(_one_at_a_time, core.full_picture))


async def _thumb(request: Request) -> Response:
    return await _png(request, core.small_picture)


async def _png(request: Request, draw: Callable[..., bytes]) -> Response:
    settings = request.app.state.settings
    await run_in_threadpool(_known, settings, request)
    what = [request.path_params[name] for name in ("exposure", "section", "product")]
    version = await run_in_threadpool(core.picture_version, settings, *what)
    headers = {"ETag": f'"{version}"', "Cache-Control": _CACHE}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    png = await run_in_threadpool(draw, settings, *what)
    return Response(png, media_type="image/png", headers=headers)


def _one_at_a_time(draw: Callable[..., bytes], *what: Any) -> bytes:
    with _drawing:
        return draw(*what)


async def _mark(request: Request) -> Response:
    """Record a word on an object: fields object, word, reason, by; as a form or as JSON."""
    fields = _fields(request.headers.get("content-type", ""), await _body(request))
    marked = await run_in_threadpool(_record, request.app.state.settings, fields)
    name = marked.target
    holds = marked.holds.word if marked.holds else ""
    message = f"{name} is marked {holds}" if holds else f"nothing is said of {name} any more"
    return JSONResponse({"object": name, "holds": holds, "message": message})


def _record(settings: Settings, fields: Mapping[str, str]) -> core.Marked:
    name, word = fields.get("object", "").strip(), fields.get("word", "")
    if word not in WORDS:
        raise UserError(f"the word is {word!r}", cure=f"say {', '.join(WORDS[:-1])} or {WORDS[-1]}")
    core.object_named(settings, name)  # not an exposure
    return core.mark(settings, name, word, fields.get("reason", ""), by=fields.get("by", "").strip() or None)


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            raise UserError("that is too long", cure="say it in fewer words")
    return body


def _fields(kind: str, body: bytes) -> dict[str, str]:
    """Take a form or a JSON object apart."""
    try:
        if kind.partition(";")[0].strip() == "application/json":
            told = json.loads(body)
            if not isinstance(told, dict) or not all(isinstance(v, str) for v in told.values()):
                raise UserError("expected an object of strings", cure='{"object": ..., "word": ...}')
            return told
        return {name: values[-1] for name, values in parse_qs(body.decode()).items()}
    except ValueError:
        raise UserError("neither a form nor JSON", cure="send object, word, reason and by") from None


# --- Process --------------------------------------------------------------------------------------


def serve(listening: socket.socket, settings: Settings) -> None:
    """Answer requests until standard input ends: whoever started this process is then no more."""
    app = make_app(settings, listening.getsockname()[1])
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    server.run(sockets=[listening])


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), get_settings())
