"""What changed, best first: against what was put into the survey."""

import csv
import io
import json

import numpy as np
import pytest
from astropy.table import Table
from PIL import Image
from small_survey import Survey
from sqlalchemy import select
from true_orbits import orbits_of_asteroids

from seechange_assets.cli import run
from seechange_core import chain
from seechange_core.chain import Selection
from seechange_core.errors import NotFoundError
from seechange_core.numerics.sky import offset, separation
from seechange_core.products.measurement import Measurement
from seechange_core.products.object import Object
from seechange_core.settings import KnownSettings, Settings
from seechange_core.storage.engine import open_session
from seechange_core.storage.orm import new_id


def truth_near(survey: Survey, row) -> str:
    """Return what kind of thing was put where a candidate is, empty if none was."""
    there = survey.truth.epochs
    there = there[there["file"] == f"{row.exposure}.fits"]
    there = there[np.isin(there["kind"], ["transient", "variable"])]
    apart = separation(row.ra, row.dec, there["ra"], there["dec"]) * 3600
    return str(there["kind"][np.argmin(apart)]) if len(there) and apart.min() < 1.0 else ""


def known(survey: Survey, **files) -> Settings:
    return survey.changed(known=KnownSettings(**files))


def test_each_thing_is_listed_once_the_best_first(processed):
    rows = chain.all_candidates(processed.settings)
    assert len({row.object for row in rows}) == len(rows) > 5
    good = processed.rows(select(Measurement).where(Measurement.is_bad.is_(False)))
    assert {row.measurement_id for row in rows} <= {m.id for m in good}
    assert {row.object for row in rows} == {o.name for o in processed.rows(select(Object))}
    evidence = [abs(row.score) * row.n_epochs**0.5 for row in rows]
    assert evidence == sorted(evidence, reverse=True)
    real = [truth_near(processed, row) for row in rows]
    assert all(real[:8])
    for night in {row.night for row in rows}:
        tonight = chain.candidates(processed.settings, night, selection=Selection(min_epochs=1))
        assert {row.night for row in tonight} == {night}
        first = tonight[0]  # epochs of other nights count as well
        assert first.n_epochs == next(row.n_epochs for row in rows if row.object == first.object)
    assert len(chain.candidates(processed.settings, limit=3)) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"min_epochs": 3}, {"min_hours": 24.0}, {"min_score": 20.0}, {"faint": 21.0}, {"bright": 21.0},
        {"kinds": ("mover",)}, {"real": True},
    ],
    ids=str,
)  # fmt: skip
def test_selections_leave_out_what_they_say(processed, changes):
    every = chain.candidates(processed.settings, selection=Selection(min_epochs=1))
    chosen = chain.candidates(processed.settings, selection=Selection(**{"min_epochs": 1, **changes}))
    ((name, value),) = changes.items()
    tests = {
        "min_epochs": lambda r: r.n_epochs >= value,
        "min_hours": lambda r: r.hours >= value,
        "min_score": lambda r: abs(r.score) >= value,
        "faint": lambda r: r.mag is not None and r.mag <= value,
        "bright": lambda r: r.mag is not None and r.mag >= value,
        "kinds": lambda r: r.kind in value,
        "real": lambda r: r.verdict == "real",
    }
    assert chosen == [row for row in every if tests[name](row)] and len(chosen) < len(every)


def test_known_variables_are_marked_and_listed_last(processed, tmp_path):
    """The variable stars, and two of the things that changed most, listed as such."""
    best = {row.object for row in chain.all_candidates(processed.settings)[:2]}
    objects = [o for o in processed.rows(select(Object)) if o.name in best]
    stars = processed.truth.objects
    stars = stars[stars["kind"] == "variable"]
    ra, dec = ([*stars[c], *(getattr(o, c) for o in objects)] for c in ("ra", "dec"))
    Table({"Name": [f"V{i}" for i in range(len(ra))], "RAJ2000": ra, "DEJ2000": dec}).write(
        tmp_path / "vsx.csv"
    )
    settings = known(processed, variables=(tmp_path / "vsx.csv",))
    rows = chain.all_candidates(settings)
    kinds = [row.kind for row in rows]
    assert kinds == sorted(kinds) and {"new", "variable"} == set(kinds)
    listed = [row.object in best or truth_near(processed, row) == "variable" for row in rows]
    assert listed == [k == "variable" for k in kinds]
    assert rows[-1].known.startswith("V") and rows[-1].known.endswith("″)")


def test_a_known_minor_planet_is_marked_where_it_is_predicted_then(processed, tmp_path):
    """Two orbits: one through the best candidate at that very time, one through the place a day before."""
    best = chain.all_candidates(processed.settings)[0]
    site = chain.exposures(processed.settings, [best.exposure])[0].site
    per_year = 30e3 * 24 * 365.25
    passing = {"ra": best.ra, "dec": best.dec, "pmra": per_year, "pmdec": 0.0, "epoch_mjd": best.mjd_mid}
    orbits = orbits_of_asteroids([passing, {**passing, "epoch_mjd": best.mjd_mid - 1}], site)
    names = {"a": "a_au", "e": "e", "i": "incl_deg", "node": "node_deg", "peri": "peri_deg"}
    columns = {theirs: getattr(orbits, ours) for theirs, ours in names.items()}
    columns |= {"ma": orbits.mean_anomaly_deg, "epoch": orbits.epoch_mjd, "name": ["tonight", "yesterday"]}
    Table(columns).write(tmp_path / "orbits.fits")
    settings = known(processed, movers=(tmp_path / "orbits.fits",))
    rows = [row for row in chain.all_candidates(settings, best.night) if row.known]
    assert best.object in {row.object for row in rows} and {row.kind for row in rows} == {"mover"}
    assert {row.known for row in rows} == {"tonight (0.0″)"}
    (seen_then,) = chain.identify.known_movers(settings, sightings(best, site))
    assert seen_then is not None and seen_then.apart_arcsec < 0.05
    old = settings.model_copy(update={"known": settings.known.model_copy(update={"mover_max_days": 0.1})})
    assert chain.identify.known_movers(old, sightings(best, site, later=1.0)) == [None]


def sightings(row, site, later=0.0):
    """Make one sighting of a candidate."""
    return chain.identify.Sightings(
        np.zeros(1, int), np.array([row.mjd_mid + later]), np.array([row.ra]), np.array([row.dec]),
        np.array([np.nan]), [site],
    )  # fmt: skip


def test_tables_that_are_not_there_are_named(processed, tmp_path):
    with pytest.raises(NotFoundError, match=r"known\.variables"):
        chain.all_candidates(known(processed, variables=(tmp_path / "none.csv",)))


def test_what_moves_between_two_exposures_is_one_candidate(own):
    """One of the transients is made to move by 6 arcsec between two exposures of a night."""
    moving, expected = _make_move(own)
    (row,) = (r for r in chain.candidates(own.settings, selection=Selection(kinds=("mover",))))
    assert set(row.members) == moving and row.kind == "mover" and row.n_epochs == 2
    assert row.rate_arcsec_h == pytest.approx(expected, rel=0.05)
    assert row.angle_deg == pytest.approx(90, abs=5)
    rows = chain.all_candidates(own.settings)
    assert {r.kind for r in rows[rows.index(row) :]} == {"mover"}  # after all that is new and stands still
    assert sum(moving.isdisjoint(r.members) for r in rows) == len(rows) - 1


def _make_move(own: Survey) -> tuple[set[str], float]:
    """Shift the second sighting of what was seen twice in a night; return its names and its rate."""
    with open_session(own.settings) as session:
        for row in chain.all_candidates(own.settings):
            found = session.scalars(select(Object).where(Object.name == row.object)).one()
            seen = list(
                session.scalars(
                    select(Measurement)
                    .where(Measurement.object_id == found.id, Measurement.is_bad.is_(False))
                    .order_by(Measurement.mjd_mid)
                )
            )
            if len(seen) >= 2 and seen[1].mjd_mid - seen[0].mjd_mid < 0.5 and (seen[0].flux or 0) > 0:
                break
        for later in seen[2:]:
            later.is_bad = True
        ra, dec = offset(seen[0].ra, seen[0].dec, 6 / 3600, 0.0)
        seen[1].ra, seen[1].dec = float(ra), float(dec)
        columns = [c.name for c in Object.__table__.columns if c.name not in ("id", "name", "created_at")]
        other = Object(id=new_id(), name="obj2026moved", **{c: getattr(found, c) for c in columns})
        other.ra, other.dec = float(ra), float(dec)
        session.add(other)
        session.flush()
        seen[1].object_id = other.id
        return {found.name, other.name}, 6 / (24 * (seen[1].mjd_mid - seen[0].mjd_mid))


def test_the_command_prints_draws_and_writes(processed, tmp_path, capsys):
    night = chain.all_candidates(processed.settings)[0].night
    assert run(["candidates", "--night", night, "--sheet", str(tmp_path / "night.png")]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[0].split() == ["object", "kind", "ra", "dec", "mag", "score", "n", "note"]
    assert max(map(len, lines)) <= 100
    assert f"drawn: {tmp_path / 'night.png'}" in told.err
    with Image.open(tmp_path / "night.png") as picture:
        assert picture.size[0] > 1000
    assert run(["candidates", "--json", "--min-epochs", "1"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(chain.all_candidates(processed.settings))
    assert {"object", "kind", "known", "n_epochs", "rate_arcsec_h", "verdict"} <= set(rows[0])
    assert run(["candidates", "--format", "csv", "-n", "2"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(table) == 2 and float(table[0]["score"]) == rows[0]["score"]
    for name in ("c.parquet", "c.vot", "c.table", "c.json"):
        kind = "votable" if name.endswith("vot") else name.removeprefix("c.")
        assert run(["candidates", "-f", kind, "-o", str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 500
    assert len(Table.read(tmp_path / "c.vot")) == len(chain.candidates(processed.settings))
    assert run(["candidates", "--night", "1999-01-01"]) == 0
    assert "no candidates in the night of 1999-01-01" in capsys.readouterr().out
    assert run(["candidates", "--night", "1999-01-01", "--sheet", str(tmp_path / "x.png")]) == 1
    assert run(["candidates", "--sheet", str(tmp_path / "x.gif")]) == 1


def test_the_commands_that_mark_and_show(own, capsys):
    name, exposure = chain.candidates(own.settings)[0].object, own.science[2]
    assert run(["mark", name]) == 0
    assert capsys.readouterr().out == f"nobody said anything of {name}\n"
    assert run(["mark", name, "--as", "bogus", "--reason", "a spike", "--by", "Ada"]) == 0
    assert capsys.readouterr().out == f"{name}: bogus (Ada: a spike)\n"
    assert run(["mark", name]) == 0
    assert "a spike" in capsys.readouterr().out
    assert run(["mark", exposure, "--section", "1", "--as", "bad", "--reason", "a ghost", "--by", "Bob"]) == 0
    for arguments in ([], [exposure]):
        capsys.readouterr()
        assert run(["show", *arguments]) == 0
        shown = capsys.readouterr().out
        assert f"marked bad: {exposure} section 1: a ghost (Bob, " in shown and "marked_bad" in shown
    assert run(["mark", exposure, "--as", "bad"]) == 1
    assert "needs a reason" in capsys.readouterr().err
    assert run(["mark", exposure, "--as", "bad", "--reason", "fog"]) == 0
    assert run(["process", exposure]) == 1
    assert "marked bad: fog" in capsys.readouterr().err
