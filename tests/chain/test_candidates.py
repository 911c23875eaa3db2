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
from seechange_core.chain.kinds import KINDS, Neighbour, kind_of, surrounding
from seechange_core.errors import NotFoundError
from seechange_core.flags import QualityFlag
from seechange_core.numerics.sky import offset, separation
from seechange_core.products.exposure import Exposure
from seechange_core.products.forced_flux import ForcedFlux
from seechange_core.products.image import Image as ImageRow
from seechange_core.products.measurement import Measurement
from seechange_core.products.object import Object
from seechange_core.products.source_list import SourceList
from seechange_core.settings import KnownSettings, Settings
from seechange_core.stages.associate import AssociateParams
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
    order = [(KINDS.index(row.kind), -abs(row.score) * row.n_epochs**0.5) for row in rows]
    assert order == sorted(order)
    strongest = sorted(rows, key=lambda row: -abs(row.score) * row.n_epochs**0.5)
    assert all(truth_near(processed, row) for row in strongest[:8])
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


def test_kinds_say_what_was_put_there(processed):
    """Transients came where nothing was or in the core of a galaxy; variables are stars of the reference."""
    rows = [row for row in chain.all_candidates(processed.settings) if abs(row.score) > 8]
    truth = processed.truth.objects
    stars = truth[truth["kind"] == "variable"]
    seen = set()
    for row in rows:
        put = truth_near(processed, row)
        seen.add((put, row.kind))
        if put == "transient":
            assert row.score > 0 and row.kind in ("new", "brightened")
        elif put == "variable":
            assert row.kind in ("faded" if row.score < 0 else "brightened", "variable")
            star = stars[np.argmin(separation(row.ra, row.dec, stars["ra"], stars["dec"]))]
            amplitude = star["amplitude_mag"]
            assert row.change_mag is not None and np.sign(row.change_mag) == -np.sign(row.score)
            assert abs(row.change_mag) < 2.1 * amplitude + 0.1  # from one extreme to the other
    assert ("transient", "new") in seen and {k for put, k in seen if put == "variable"} - {"new"}


def test_a_kind_follows_from_signs_and_place():
    params = AssociateParams(n_sigma=5.0, min_radius_arcsec=0.3, radius_arcsec=1.0)
    star, galaxy = Neighbour(0.5, "star", 18.0), Neighbour(3.0, "galaxy", 20.0)
    beside = surrounding(star, galaxy, 0.5, 0.05, params)
    assert beside.at_place is None and beside.words() == "galaxy 20.0 at 3.0″"
    upon = surrounding(star, galaxy, 10**0.4 - 1, 0.15, params)
    assert upon.at_place == star and upon.change_mag == pytest.approx(-1.0)
    assert upon.words() == "by 1.00 mag, star 18.0"
    assert surrounding(star, None, -1.2, None, params).words() == "star 18.0"
    assert surrounding(Neighbour(1.1, "star", 18.0), None, 1.0, None, params).at_place is None
    still = {"moves": False, "in_table": False}
    assert kind_of([9.0, 8.0], beside, **still) == "new" and kind_of([9.0], upon, **still) == "brightened"
    assert kind_of([-9.0], beside, **still) == kind_of([-9.0, -5.0], upon, **still) == "faded"
    assert kind_of([-9.0, 6.0], upon, **still) == "variable"
    assert kind_of([9.0], beside, moves=False, in_table=True) == "variable"
    assert kind_of([9.0], beside, moves=True, in_table=True) == "mover"


def test_exposures_that_could_not_have_shown_it_do_not_count_against_it(own):
    """All of a night could have shown the brightest; one whose depth or place is too bright could not."""
    row = next(r for r in chain.all_candidates(own.settings) if r.n_epochs >= 2 and r.kind == "new")
    assert row.n_possible == row.n_epochs
    others = [name for name in own.science[2:] if name != row.exposure]

    def possible():
        rows = chain.all_candidates(own.settings)
        return {r.n_possible for r in rows if r.object == row.object}, rows

    with open_session(own.settings) as session:
        found = session.scalars(select(Object).where(Object.name == row.object)).one()
        measured = session.scalars(select(Measurement).where(Measurement.object_id == found.id)).all()
        for one in measured:
            one.is_bad = one.id != row.measurement_id
        nights = {e.name: e.night for e in session.scalars(select(Exposure))}
    n_same = sum(nights[name] == row.night for name in others) + 1
    assert possible()[0] == {n_same} and n_same > 1
    assert row.object not in {
        r.object for r in chain.candidates(own.settings, selection=Selection(unconfirmed=True))
    }
    with open_session(own.settings) as session:
        query = (
            select(ForcedFlux)
            .join(ImageRow, ImageRow.id == ForcedFlux.image_id)
            .join(Exposure, Exposure.id == ImageRow.exposure_id)
        )
        for flux in session.scalars(
            query.where(ForcedFlux.object_id == found.id, Exposure.name != row.exposure)
        ):
            flux.flux_err = 10 ** (0.4 * (flux.zp - row.mag)) / 4.0  # it would be seen at 4 sigma there
    assert possible()[0] == {1}
    listed = chain.candidates(own.settings, selection=Selection(unconfirmed=True))
    assert row.object in {r.object for r in listed}
    assert row.object not in {r.object for r in chain.candidates(own.settings)}


def test_what_a_bad_subtraction_shows_is_no_candidate_and_that_is_said(own, capsys):
    rows = chain.all_candidates(own.settings)
    name = rows[0].exposure
    assert chain.too_dense_sections(own.settings) == []
    with open_session(own.settings) as session:
        query = select(SourceList).join(ImageRow, ImageRow.id == SourceList.image_id)
        query = query.join(Exposure, Exposure.id == ImageRow.exposure_id)
        for listed in session.scalars(query.where(Exposure.name == name, SourceList.content == "detections")):
            listed.bitflag |= int(QualityFlag.TOO_DENSE)
    assert chain.too_dense_sections(own.settings) == [(name, "0"), (name, "1")]
    assert chain.too_dense_sections(own.settings, "1999-01-01") == []
    left = chain.all_candidates(own.settings)
    assert name not in {row.exposure for row in left}
    assert {row.object for row in left} >= {row.object for row in rows if row.exposure != name}
    one = next(row for row in rows if row.exposure != name and row.n_epochs > 1)
    now = next(row for row in left if row.object == one.object)
    assert now.n_possible < one.n_possible
    assert run(["candidates", "--min-epochs", "1"]) == 0
    assert "all of 2 sections that show too much (too_dense in `show`; qual" in capsys.readouterr().err


def test_notes_are_cut_on_a_terminal_and_whole_in_a_pipe(processed, capsys, monkeypatch):
    longest = "quality of a long sentence" * 9
    monkeypatch.setattr("seechange_core.chain.sheets.note", lambda _: longest)
    monkeypatch.setenv("COLUMNS", "90")
    assert run(["candidates", "-n", "2"]) == 0
    assert capsys.readouterr().out.count(longest) == 2
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run(["candidates", "-n", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(len(line) <= 100 for line in lines) and lines[1].endswith("…")


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
    listed = [row.object in best or truth_near(processed, row) == "variable" for row in rows]
    assert listed == [row.known != "" for row in rows] == sorted(listed)
    assert all(row.kind == "variable" for row in rows if row.known)
    assert rows[-1].known.startswith("V") and rows[-1].known.endswith("″)")


def test_a_known_minor_planet_is_marked_where_it_is_predicted_then(processed, tmp_path):
    """Orbits through what was seen once, at that very time and a day before; and through what stays there."""
    rows = chain.all_candidates(processed.settings)
    once = next(row for row in rows if row.n_sightings == 1 and row.score > 0)
    stays = next(row for row in rows if row.n_epochs > 1 and row.score > 0)
    site = chain.exposures(processed.settings, [once.exposure])[0].site
    orbits = orbits_of_asteroids([through(once), through(once, -1.0), through(stays)], site)
    settings = known(processed, movers=(orbit_table(tmp_path, orbits, ["tonight", "yesterday", "other"]),))
    marked = [row for row in chain.all_candidates(settings) if row.known]
    assert [(row.object, row.known, row.kind) for row in marked] == [(once.object, "tonight (0.0″)", "mover")]
    (seen_then,) = chain.identify.known_movers(settings, sightings(once, site))
    assert seen_then is not None and seen_then.apart_arcsec < 0.05
    old = settings.model_copy(update={"known": settings.known.model_copy(update={"mover_max_days": 0.1})})
    assert chain.identify.known_movers(old, sightings(once, site, later=1.0)) == [None]


def test_what_stands_still_or_is_of_another_brightness_is_no_minor_planet(processed, tmp_path):
    """A planet that moves by 30 arcsec an hour to the east, half an hour, and a wide radius around it."""
    row = chain.all_candidates(processed.settings)[0]
    site = chain.exposures(processed.settings, [row.exposure])[0].site
    orbits = orbits_of_asteroids([through(row)], site)
    settings = known(
        processed, movers=(orbit_table(tmp_path, orbits, ["it"], H=[15.0]),), mover_radius_arcsec=40.0
    )

    def names(moved_arcsec, mag=np.nan, steady=False, same=True):
        there = sightings(row, site, n=2)
        there.mjd_mid[1] += 0.5 / 24
        there.ra[1] += moved_arcsec / 3600 / np.cos(np.deg2rad(row.dec))
        there.mag[:], there.steady[:], there.thing[1] = mag, steady, 0 if same else 1
        return [entry is not None for entry in chain.identify.known_movers(settings, there)]

    assert names(15.0) == names(14.0) == [True, True]
    assert names(0.0) == names(20.0) == names(-15.0) == [False, False]
    assert names(0.0, same=False) == [True, True]  # its motion was not seen
    assert names(15.0, steady=True) == [False, False]
    (said,) = chain.identify.known_movers(settings, sightings(row, site))
    v = float(said.words.split()[2])
    assert names(15.0, v + 1.5) == names(15.0, v - 1.5) == [True, True]
    assert names(15.0, v + 2.5) == names(15.0, v - 2.5) == [False, False]


def through(row, days=0.0):
    """Return what passes through the place of a candidate, by 30 arcsec an hour to the east."""
    per_year = 30e3 * 24 * 365.25
    return {"ra": row.ra, "dec": row.dec, "pmra": per_year, "pmdec": 0.0, "epoch_mjd": row.mjd_mid + days}


def orbit_table(folder, orbits, labels, **more):
    """Write orbits as a table."""
    names = {"a": "a_au", "e": "e", "i": "incl_deg", "node": "node_deg", "peri": "peri_deg"}
    columns = {theirs: getattr(orbits, ours) for theirs, ours in names.items()}
    columns |= {"ma": orbits.mean_anomaly_deg, "epoch": orbits.epoch_mjd, "name": labels, **more}
    Table(columns).write(folder / "orbits.fits")
    return folder / "orbits.fits"


def sightings(row, site, later=0.0, n=1):
    """Make sightings of a candidate, each in an exposure of its own."""
    return chain.identify.Sightings(
        np.arange(n), np.full(n, row.mjd_mid + later), np.full(n, row.ra), np.full(n, row.dec),
        np.full(n, np.nan), [site] * n, np.full(n, 0.05), np.zeros(n, int), np.zeros(n, bool),
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
    assert {r.kind for r in rows[: rows.index(row)]} <= {"new", "brightened"}
    assert not {"new", "brightened"} & {r.kind for r in rows[rows.index(row) :]}
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
