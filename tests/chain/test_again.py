"""A second walk makes only what is missing, whatever is missing."""

from importlib import import_module

from small_survey import STEP_NAMES, THROUGH_ZERO_POINT, assert_whole
from sqlalchemy import select, update

from seechange_core import chain
from seechange_core.chain import references
from seechange_core.flags import QualityFlag
from seechange_core.products import Background, Image, Psf, SourceList
from seechange_core.products.calibrator import Calibrator
from seechange_core.products.cutouts import Cutouts
from seechange_core.products.exposure import Exposure
from seechange_core.products.forced_flux import ForcedFlux
from seechange_core.products.image import parent_ids
from seechange_core.products.reference import Reference, reference_ids
from seechange_core.products.sighting import Sighting
from seechange_core.storage.engine import open_session

LOADED = dict.fromkeys(STEP_NAMES, "loaded")


def science_image(own, name, section="0"):
    query = select(Image).join(Exposure, Exposure.id == Image.exposure_id)
    return own.rows(query.where(Exposure.name == name, Image.section_id == section, Image.type == "science"))[
        0
    ]


def difference(own, image):
    return own.rows(select(Image).where(Image.new_image_id == image.id))[0]


def cutouts_of(own, image):
    query = select(Cutouts).join(Sighting, Sighting.id == Cutouts.sighting_id)
    query = query.join(SourceList, SourceList.id == Sighting.source_list_id)
    return own.rows(query.where(SourceList.image_id == difference(own, image).id))[0]


FILES = {
    "image": lambda own, image: image,
    "source_list": lambda own, image: own.rows(select(Psf).where(Psf.image_id == image.id))[0],
    "subtraction": difference,
    "detections": lambda own, image: own.rows(
        select(SourceList).where(SourceList.image_id == difference(own, image).id)
    )[0],
    "cutouts": cutouts_of,
}


def test_kernels_are_compiled_when_the_last_step_was_made(own, monkeypatch):
    """A walk that was told to end earlier has not compiled those of the steps after it."""
    told: list[bool] = []
    monkeypatch.setattr(import_module("seechange_core.chain.walk"), "mark_warm", lambda: told.append(True))
    name = own.science[2]
    assert own.outcomes(name, "0", steps=STEP_NAMES[-2:-1], redo=True) == {STEP_NAMES[-2]: "done"}
    assert own.outcomes(name, "0", steps=STEP_NAMES[-1:])[STEP_NAMES[-1]] == "loaded"
    assert told == []
    assert own.outcomes(name, "0", steps=STEP_NAMES[-1:], redo=True)[STEP_NAMES[-1]] == "done"
    assert told == [True]


def test_a_lost_file_is_made_again_and_nothing_else(own):
    name = own.science[2]
    image, counts, before = science_image(own, name), own.counts(), own.files()
    for step, find in FILES.items():
        path = own.settings.data_root / find(own, image).filepath
        path.unlink()
        assert own.outcomes(name, "0") == {**LOADED, step: "done"}, step
        assert path.exists()
    for kind in (SourceList, Background):
        row = own.rows(select(kind).where(kind.image_id == image.id))[0]
        (own.settings.data_root / row.filepath).unlink()
        assert own.outcomes(name, "0") == {**LOADED, "source_list": "done"}
    assert own.counts() == counts
    assert own.files().keys() == before.keys()
    assert_whole(own)


def test_a_lost_master_is_wanted_again(own):
    assert chain.masters_wanted(own.settings, "demo") == []
    for kind in ("dark", "bad_pixels"):
        row = own.rows(select(Calibrator).where(Calibrator.kind == kind).order_by(Calibrator.id))[-1]
        path = own.settings.data_root / row.filepath
        path.unlink()
        (wanted,) = chain.masters_wanted(own.settings, "demo")
        assert wanted.kind == ("dark" if kind == "dark" else "flat")
        report = chain.build_master(
            own.settings, "demo", wanted.kind, wanted.night, row.section_id, wanted.filter
        )
        assert report.outcome == "done" and path.exists()
        assert chain.masters_wanted(own.settings, "demo") == []
    assert_whole(own)


def test_a_lost_reference_is_built_again(own):
    row = own.rows(select(Reference))[0]
    counts = own.counts()
    build = (own.settings, "demo", row.region, row.filter)
    nights = [chain.exposures(own.settings)[0].night]
    assert [r.outcome for r in chain.build_reference(*build, nights=nights)] == ["loaded"]
    coadd = own.rows(select(Image).where(Image.id == row.image_id))[0]
    (own.settings.data_root / coadd.filepath).unlink()
    assert [r.outcome for r in chain.build_reference(*build, nights=nights)] == ["done"]
    assert own.counts() == counts
    assert own.outcomes(own.science[2], "0") == LOADED
    assert_whole(own)


def test_what_is_asked_to_be_redone_is_redone_and_ends_the_same(own):
    name = own.science[2]
    counts, before = own.counts(), own.files()
    old = {f.id: f for f in own.rows(select(ForcedFlux))}
    reports = own.walk(name, "0", redo=True)
    assert {str(r.outcome) for r in reports.values()} == {"done"}
    assert reports["forced_photometry"].metrics["n_fluxes"] > 0
    assert own.counts() == counts
    touched = {path for path, at in own.files().items() if before[path] != at}
    assert touched and all(f"/{name}/0/" in path for path in touched)
    new = own.rows(select(ForcedFlux))
    # Places of objects have become a little better since they were measured first.
    pulls = [(f.flux - old[f.id].flux) / f.flux_err for f in new if f.flux is not None]
    assert len(pulls) > 30 and max(map(abs, pulls)) < 0.15
    assert_whole(own)


def test_what_a_person_called_bad_is_still_bad_when_it_is_made_again(own):
    name, words = own.science[2], {"bitflag": int(QualityFlag.MARKED_BAD), "bad_reason": "a plane"}
    image, reference = science_image(own, name), own.rows(select(Reference))[0]
    with open_session(own.settings) as session:
        for kind, row in ((Image, image), (Reference, reference)):
            session.execute(update(kind).where(kind.id == row.id).values(**words))
    assert own.outcomes(name, "0", steps=("image",), redo=True) == {"image": "done"}
    build = (own.settings, "demo", reference.region, reference.filter)
    nights = [chain.exposures(own.settings)[0].night]
    assert [r.outcome for r in chain.build_reference(*build, nights=nights, redo=True)] == ["done"]
    for kind, row in ((Image, image), (Reference, reference)):
        (now,) = own.rows(select(kind).where(kind.id == row.id))
        assert {"bitflag": now.bitflag, "bad_reason": now.bad_reason} == words
    good = own.rows(select(Image).where(Image.id == reference.image_id))[0]
    assert (good.bitflag, good.bad_reason) == (0, None)


def test_only_the_step_asked_for_is_redone(own):
    name = own.science[3]
    before = own.files()
    assert own.outcomes(name, "0", steps=("zero_point", "detections"), redo=True) == {
        "zero_point": "done",
        "detections": "done",
    }
    touched = {path for path, at in own.files().items() if before[path] != at}
    assert touched and all("/detections_" in path or "/zero_point_preview_" in path for path in touched)
    assert own.outcomes(name, "0") == LOADED


def test_what_was_built_is_told_whatever_comes_after_it(started, monkeypatch):
    """One of the references without each image fails by somebody else's error; one image has nothing left."""
    ((region, band),) = chain.references_wanted(started.settings, "demo")
    some = [chain.references_wanted(started.settings, "demo", n) for n in (started.science[:1], ["none"], [])]
    assert some == [[(region, band)], [], []]
    measure, made = references.measure_coadd, []

    def second_breaks(*args):
        made.append(args)
        if len(made) == 2:
            raise RuntimeError("no memory")
        return measure(*args)

    with monkeypatch.context() as patch:
        patch.setattr(references, "measure_coadd", second_breaks)
        reports = chain.build_reference(started.settings, "demo", region, band, leave_one_out=True)
    assert [str(r.outcome) for r in reports] == ["loaded", "done", "failed", "done", "done"]
    assert "no memory" in reports[2].message and " without " in reports[2].exposure
    candidates = references.candidates_for_references
    monkeypatch.setattr(references, "candidates_for_references", lambda *args: candidates(*args)[:1])
    reports = chain.build_reference(started.settings, "demo", region, band, leave_one_out=True)
    assert [(str(r.outcome), r.reason) for r in reports] == [("done", ""), ("stopped", "no_reference")]
    assert len(started.rows(select(Reference))) == 1 + 3 + 1


def test_an_exposure_of_the_reference_stops_until_there_is_one_without_it(own):
    """Each section is subtracted from a coadd that lacks this very image, and the database can tell."""
    name = own.science[0]
    report = own.walk(name, "1")
    assert {s: str(r.outcome) for s, r in report.items()} == {
        s: "loaded" if s in THROUGH_ZERO_POINT else "stopped" if s == "subtraction" else "skipped"
        for s in STEP_NAMES
    }
    assert report["subtraction"].reason == "in_reference"
    assert "--leave-one-out" in report["subtraction"].message
    whole = own.rows(select(Reference))[0]
    nights = [chain.exposures(own.settings)[0].night]
    built = chain.build_reference(
        own.settings, "demo", whole.region, whole.filter, leave_one_out=True, nights=nights
    )
    assert [str(r.outcome) for r in built] == ["loaded", *["done"] * 4]
    for section in ("0", "1"):
        assert own.outcomes(name, section)["forced_photometry"] == "done"
        image = science_image(own, name, section)
        with open_session(own.settings, read_only=True) as session:
            (used,) = reference_ids(session, difference(own, image).id)
            reference = session.get_one(Reference, used)
            parents = parent_ids(session, reference.image_id)
        assert reference.left_out_exposure_id == image.exposure_id
        assert image.id not in parents and len(parents) == 3
    # An exposure of another night still takes the whole one.
    steps = STEP_NAMES[:-1]  # forced photometry follows the objects, and there are new sightings of some
    assert own.outcomes(own.science[2], "0", steps=steps) == dict.fromkeys(steps, "loaded")
