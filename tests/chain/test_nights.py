"""The transparency of a night in the database: many judge at once, sets shrink, and what was made follows.

The rows are those that the walk writes, without pixels: what is true is which exposures lost light.
"""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

import numpy as np
import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from seechange_core import frames
from seechange_core.chain import quality
from seechange_core.chain.lineage import provenances
from seechange_core.chain.quality import bits_of_zero_points, judge_night, save_zero_point
from seechange_core.chain.section import Section
from seechange_core.flags import ExposureFlag, QualityFlag
from seechange_core.products import CatalogRelease, Image, Psf, SourceList, WorldCoordinates, ZeroPoint
from seechange_core.products.background import Background
from seechange_core.products.base import save
from seechange_core.products.exposure import Exposure
from seechange_core.products.image import set_parents
from seechange_core.products.outcome import StepOutcome, record_outcome
from seechange_core.products.provenance import record_provenance
from seechange_core.products.reference import Reference, set_references
from seechange_core.provenance import digest
from seechange_core.settings import Settings
from seechange_core.storage.engine import open_session
from seechange_core.storage.orm import new_id

CLEAR, LOST_MAG, TIME_S = 27.0, 0.8, 30.0
CARDS = {
    **{"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 30.5},
    **{"CRPIX2": 20.5, "CD1_1": -7.5e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 7.5e-5},
    **{"CUNIT1": "deg", "CUNIT2": "deg"},
}
SOLUTION = frames.WcsSolution(CARDS, (40, 60), rms_mas=9.0, n_matched=20, n_catalog=30, error_mas=2.0)


class Sky:
    """A survey's rows."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        with open_session(settings) as session:
            for key in provenances(settings, "demo").values():
                record_provenance(session, key)
        self.sections: dict[str, Section] = {}
        self.images: dict[str, uuid.UUID] = {}
        self.zps: dict[str, float] = {}
        self.catalog = self.release("c", "0")

    def release(self, name: str, content: str, *, relative: bool = False) -> uuid.UUID:
        row = CatalogRelease(
            name=name, content_hash=content * 64, n_stars=1, path=name, epoch=2016.0, bands=["r"],
            is_relative=relative,
        )  # fmt: skip
        with open_session(self.settings) as session:
            return save(session, row).id

    def exposure(self, name: str, night: str = "2026-11-22", bitflag: int = 0) -> Section:
        """Register an exposure."""
        with open_session(self.settings) as session:
            session.execute(
                Exposure.__table__.insert().values(
                    id=new_id(), filename=f"{name}.fits", name=name, instrument="demo", night=night,
                    mjd=61000.0 + len(self.sections) / 100, mjd_mid=61000.1, exp_time=TIME_S, filter="r",
                    ra=150.0, dec=2.0, type="science", header={}, bitflag=bitflag,
                )
            )  # fmt: skip
            row = session.scalars(select(Exposure).where(Exposure.name == name)).one()
        self.sections[name] = Section(self.settings, row, 0)
        return self.sections[name]

    def of(self, step: str, name: str) -> dict[str, str]:
        """Provenance and data version of what a step makes of something."""
        any_section = next(iter(self.sections.values()))
        return {
            "provenance_id": any_section.provenance_id(step),
            "data_version": digest(any_section.provenance_id(step), name),
        }

    def solve(self, name: str, lost_mag: float, catalog: uuid.UUID | None = None, time_s: float = TIME_S):
        """Write what the steps up to the zero point make, without the outcome."""
        image = Image(
            type="science", exposure_id=self.sections[name].exposure.id, section_id="0", instrument="demo",
            filter="r", mjd_start=61000.0, mjd_mid=61000.1, exposure_time_s=time_s, ra=150.0, dec=2.0,
            **self.of("image", name),
        )  # fmt: skip
        with open_session(self.settings) as session:
            self.images[name] = save(session, image, replace=True).id
            *_, row = self._solutions(session, self.images[name], name, "zero_point", catalog)
            self.zps[name] = CLEAR - lost_mag
            save_zero_point(session, row.take(_zero_point(self.zps[name])))

    def _solutions(
        self, session: Session, image: uuid.UUID, name: str, step: str, catalog: uuid.UUID | None = None
    ) -> tuple[SourceList, WorldCoordinates, ZeroPoint]:
        """Write sources and astrometry; the zero point is not in the database yet."""
        link: dict[str, uuid.UUID] = {"image_id": image}
        sources = save(session, SourceList(**link, **self.of(step, name)), replace=True)
        link |= {"source_list_id": sources.id, "catalog_id": catalog or self.catalog}
        wcs = save(session, WorldCoordinates(**link, **self.of(step, name)).take(SOLUTION), replace=True)
        link |= {"world_coordinates_id": wcs.id}
        return sources, wcs, ZeroPoint(filter="r", **link, **self.of(step, name))

    def record(self, name: str, status: str = "done") -> None:
        """Record the outcome, as the walk does before it judges."""
        row = StepOutcome(
            exposure_id=self.sections[name].exposure.id, section_id="0", step="zero_point", status=status,
            metrics={"zp": self.zps[name]}, **self.of("zero_point", name),
        )  # fmt: skip
        with open_session(self.settings) as session:
            record_outcome(session, row)

    def judge(self, name: str) -> None:
        judge_night(self.sections[name])

    def take(self, name: str, lost_mag: float = 0.0, **changes) -> None:
        """Do all of that."""
        self.solve(name, lost_mag, **changes)
        self.record(name)
        self.judge(name)

    def coadd(self, name: str, parents: list[str]) -> tuple[uuid.UUID, uuid.UUID]:
        """Make a reference of images: the ids of coadd and reference."""
        keys = self.of("reference", name)
        region = {"instrument": "demo", "filter": "r"}
        image = Image(
            type="coadd", section_id=name, mjd_start=61000.0, mjd_mid=61000.1, exposure_time_s=TIME_S,
            ra=150.0, dec=2.0, **region, **keys,
        )  # fmt: skip
        with open_session(self.settings) as session:
            image = save(session, image)
            set_parents(session, image, [self.images[n] for n in parents])
            sources, wcs, row = self._solutions(session, image.id, name, "reference")
            zero_point = save(session, row.take(_zero_point(CLEAR)))
            psf = Psf(image_id=image.id, fwhm_pix=3.0, n_stars=9, degree=0, floor=0.01, **keys)
            psf_id = save(session, psf).id
            background_id = save(session, Background(image_id=image.id, level_e=9.0, rms_e=3.0, **keys)).id
            row = Reference(
                ref_set="s", region=name, image_id=image.id, psf_id=psf_id, background_id=background_id,
                source_list_id=sources.id, world_coordinates_id=wcs.id, zero_point_id=zero_point.id,
                n_images=len(parents), **region, **keys,
            ).cover(SOLUTION)  # fmt: skip
            return image.id, save(session, row).id

    def difference(self, name: str, reference: uuid.UUID, session: Session) -> uuid.UUID:
        """Subtract a reference from an image, and detect there."""
        image = Image(
            type="difference", exposure_id=self.sections[name].exposure.id, section_id="0",
            instrument="demo", filter="r", new_image_id=self.images[name], mjd_start=61000.0,
            mjd_mid=61000.1, exposure_time_s=TIME_S, ra=150.0, dec=2.0, **self.of("subtraction", name),
        )  # fmt: skip
        image = save(session, image)
        set_references(session, image, [reference])
        save(session, SourceList(image_id=image.id, content="detections", **self.of("detections", name)))
        return image.id

    def clouded(self, *names: str) -> list[str]:
        """Which of the exposures have zero points with the bit."""
        versions = {self.of("zero_point", n)["data_version"]: n for n in names or self.sections}
        query = select(ZeroPoint.data_version, ZeroPoint.bitflag).where(ZeroPoint.data_version.in_(versions))
        with open_session(self.settings, read_only=True) as session:
            rows = session.execute(query).all()
        assert {bits for _, bits in rows} <= {0, int(QualityFlag.CLOUDS)}
        return sorted(versions[version] for version, bits in rows if bits)

    def bits(self, image: uuid.UUID) -> int:
        """The bits of an image, which all that was measured on it has too."""
        with open_session(self.settings, read_only=True) as session:
            (own,) = session.scalars(select(Image.bitflag).where(Image.id == image))
            for kind in (SourceList, Psf, WorldCoordinates, ZeroPoint):
                assert set(session.scalars(select(kind.bitflag).where(kind.image_id == image))) <= {own}
        return own

    def lost(self, name: str) -> float | None:
        """What the outcome says that clouds took; None if it does not say."""
        with open_session(self.settings, read_only=True) as session:
            query = select(StepOutcome).where(StepOutcome.exposure_id == self.sections[name].exposure.id)
            (row,) = session.scalars(query)
        assert row.metrics["zp"] == self.zps[name]
        return row.metrics.get("cloud_mag")


def _zero_point(zp: float) -> frames.ZeroPointSolution:
    return frames.ZeroPointSolution(
        zp, 0.01, "r", color_term=0.0, n_stars=20, scatter_mag=0.02, aperture_corrections=(0.1,)
    )


def at_once(*calls: Callable[[], None]) -> None:
    """Call functions in as many threads, all starting at the same moment."""
    gate = threading.Barrier(len(calls))

    def start(call: Callable[[], None]) -> None:
        gate.wait(timeout=30)
        call()

    with ThreadPoolExecutor(len(calls)) as pool:
        for future in [pool.submit(start, call) for call in calls]:
            future.result(timeout=60)


@pytest.fixture
def sky(database: Settings) -> Iterator[Sky]:
    return Sky(database)


def test_many_at_once_judge_as_one_after_the_other(sky):
    """Two nights of six exposures and a reference of both, redone again and again in other weather."""
    rng, nights = np.random.default_rng(8), {"a": "2026-11-22", "b": "2026-11-23"}
    names = [f"{night}{n}" for night in nights for n in range(6)]
    for name in names:
        sky.exposure(name, nights[name[0]])
        sky.take(name)
    coadd, reference = sky.coadd("region", ["a0", "b0", "b1"])
    with open_session(sky.settings) as session:
        difference = sky.difference("a1", reference, session)
    for _ in range(5):
        # Of five the highest counts, of six the one below it: two at least are clear.
        gone = {
            night: rng.permutation([0, 0, 0.1, LOST_MAG, 0.1, rng.choice([0.1, LOST_MAG])])
            for night in nights
        }
        lost = {name: float(gone[name[0]][int(name[1])]) for name in names}
        at_once(*(partial(sky.take, name, lost[name]) for name in names))
        truth = [name for name in names if lost[name] == LOST_MAG]
        assert sky.clouded() == truth
        assert [sky.lost(name) for name in names] == pytest.approx(list(lost.values()), abs=0.01)
        of_reference = bool({"a0", "b0", "b1"} & set(truth))
        assert sky.bits(coadd) == (QualityFlag.CLOUDS if of_reference else 0)
        assert sky.bits(difference) == (QualityFlag.CLOUDS if of_reference or "a1" in truth else 0)


def test_who_judges_is_not_overtaken(sky, monkeypatch):
    """One finds a clouded exposure alone; before it writes that, a clear one comes and judges."""
    for name in ("cloudy", "gone", "clear"):
        sky.exposure(name)
    sky.take("cloudy", LOST_MAG)
    sky.take("gone")
    assert sky.clouded() == ["cloudy"]
    sky.record("gone", "failed")
    sky.solve("clear", 0.0)
    has_read, may_write, look = threading.Event(), threading.Event(), quality._of_the_night

    def pause(session: Session, section: Section) -> list:
        seen = look(session, section)
        if section is sky.sections["gone"]:
            has_read.set()
            assert may_write.wait(timeout=30)
        return seen

    def come() -> None:
        assert has_read.wait(timeout=30)
        sky.record("clear")
        sky.judge("clear")

    monkeypatch.setattr(quality, "_of_the_night", pause)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(sky.judge, "gone"), pool.submit(come)]
        wait(both, timeout=0.5)
        may_write.set()
        for future in both:
            future.result(timeout=60)
    assert sky.clouded() == ["cloudy"]


def test_a_difference_in_the_making_is_not_missed(sky):
    """Between the look at the zero points and the commit of the difference, somebody judges the night."""
    for name in ("cloudy", "other", "clear"):
        sky.exposure(name)
    for name in ("cloudy", "other"):
        sky.take(name, LOST_MAG)
    _, reference = sky.coadd("region", ["other"])
    assert sky.clouded() == []
    sky.solve("clear", 0.0)
    sky.record("clear")
    judge = threading.Thread(target=sky.judge, args=("clear",))
    version = sky.of("zero_point", "cloudy")["data_version"]
    with open_session(sky.settings) as session:
        row = session.scalars(select(ZeroPoint).where(ZeroPoint.data_version == version)).one()
        assert bits_of_zero_points(session, [row]) == 0
        judge.start()
        judge.join(timeout=0.3)
        assert judge.is_alive(), "nobody waited"
        difference = sky.difference("cloudy", reference, session)
    judge.join(timeout=60)
    assert sky.clouded() == ["cloudy", "other"]
    assert sky.bits(difference) == QualityFlag.CLOUDS


def test_a_judgement_and_a_difference_do_not_wait_for_each_other(sky, monkeypatch):
    """The older reference's zero point is found clouded after the image's: that is the order for all."""
    for name in ("parent", "new", "clear"):
        sky.exposure(name)
    sky.take("parent", LOST_MAG)
    coadd, reference = sky.coadd("region", ["parent"])
    sky.take("new", LOST_MAG)
    sky.solve("clear", 0.0)
    sky.record("clear")
    with open_session(sky.settings, read_only=True) as session:
        used = ZeroPoint.image_id.in_([coadd, sky.images["new"]])
        rows = session.scalars(select(ZeroPoint).where(used).order_by(ZeroPoint.id)).all()
    assert [row.image_id for row in rows] == [coadd, sky.images["new"]]
    has_written, may_go_on, pass_on = threading.Event(), threading.Event(), quality._pass_on

    def pause(*args) -> None:
        has_written.set()
        assert may_go_on.wait(timeout=30)
        pass_on(*args)

    def subtract() -> int:
        assert has_written.wait(timeout=30)
        with open_session(sky.settings) as session:
            bits = bits_of_zero_points(session, rows)
            sky.difference("new", reference, session)
            return bits

    monkeypatch.setattr(quality, "_pass_on", pause)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(sky.judge, "clear"), pool.submit(subtract)]
        wait(both, timeout=0.5)
        may_go_on.set()
        assert [future.result(timeout=60) for future in both] == [None, QualityFlag.CLOUDS]
    assert sky.clouded() == ["new", "parent"]
    assert sky.bits(coadd) == QualityFlag.CLOUDS


def test_a_coadd_is_clouded_as_long_as_an_image_in_it_was_seen_so(sky):
    """Also while that image has no zero point: its pixels are in the coadd all the same."""
    for name in ("a", "b", "clear"):
        sky.exposure(name)
    sky.take("a", LOST_MAG)
    sky.take("b", LOST_MAG)
    coadd, reference = sky.coadd("region", ["a", "b"])
    sky.solve("clear", 0.0)
    with open_session(sky.settings) as session:
        difference = sky.difference("clear", reference, session)
    sky.record("clear")
    sky.judge("clear")
    assert sky.bits(coadd) == sky.bits(difference) == QualityFlag.CLOUDS
    sky.record("a", "failed")
    sky.judge("a")
    sky.take("b")
    assert sky.clouded("b") == []
    assert sky.bits(coadd) == sky.bits(difference) == QualityFlag.CLOUDS
    sky.record("a")
    sky.judge("a")
    assert sky.clouded() == ["a"]
    assert sky.bits(coadd) == sky.bits(difference) == QualityFlag.CLOUDS
    sky.take("a")
    assert sky.bits(coadd) == sky.bits(difference) == 0


@pytest.mark.parametrize("how", ["marked bad", "failed", "outcome gone", "another night", "another catalog"])
def test_what_leaves_a_night_no_longer_counts(sky, how):
    """A zero point too high by mistake clouds its neighbour and the reference made of that, until it goes."""
    for name in ("high", "good", "new"):
        sky.exposure(name, "2026-11-22" if name != "new" else "2026-11-25")
        sky.take(name, 0.0)
    coadd, reference = sky.coadd("region", ["good"])
    with open_session(sky.settings) as session:
        difference = sky.difference("new", reference, session)
    sky.take("high", -LOST_MAG)
    assert sky.clouded() == ["good"]
    assert sky.bits(coadd) == sky.bits(difference) == QualityFlag.CLOUDS
    high = sky.sections["high"].exposure.id
    with open_session(sky.settings) as session:
        if how == "marked bad":
            bad = int(ExposureFlag.MARKED_BAD)
            session.execute(update(Exposure).where(Exposure.id == high).values(bitflag=bad))
        elif how == "outcome gone":
            session.execute(delete(StepOutcome).where(StepOutcome.exposure_id == high))
        elif how == "another night":
            session.execute(update(Exposure).where(Exposure.id == high).values(night="2026-11-24"))
    if how == "failed":
        sky.record("high", "failed")
    elif how == "another catalog":
        sky.take("high", -LOST_MAG, catalog=sky.release("other", "1"))
    sky.judge("good")
    assert sky.clouded() == []
    assert sky.bits(coadd) == sky.bits(difference) == 0
    # Alone, nothing is known of it.
    assert sky.lost("good") is None


def test_a_catalog_that_grows_is_the_same_and_a_relative_one_is_good_with_itself(sky):
    for name in ("one", "two", "three", "four"):
        sky.exposure(name)
    sky.take("one", catalog=sky.release("gaia", "1"))
    sky.take("two", LOST_MAG, catalog=sky.release("gaia", "2"))
    assert sky.clouded() == ["two"]
    sky.take("three", catalog=sky.release("own", "3", relative=True))
    sky.take("four", LOST_MAG, catalog=sky.release("own", "4", relative=True))
    assert sky.clouded() == ["two"]


def test_an_exposure_of_no_time_does_not_hide_the_clouds(sky):
    for name in ("zero", "clear", "cloudy"):
        sky.exposure(name)
    sky.take("zero", time_s=0.0)
    sky.take("cloudy", LOST_MAG)
    sky.take("clear")
    assert sky.clouded() == ["cloudy"]
    assert sky.lost("zero") == 0.0
