"""Epochs without a flux are found and named; what is called bogus is measured when that is taken back."""

from sqlalchemy import delete, select

from seechange_core.chain import left_out, mark, object_light_curve
from seechange_core.chain.left_out import LeftOut
from seechange_core.products import Exposure, ForcedFlux, Image, Object
from seechange_core.storage.engine import open_session


def often_seen(own):
    covering = select(Object).where(Object.n_sightings > 1).order_by(Object.n_sightings.desc())
    return next(o for o in own.rows(covering) if len(object_light_curve(own.settings, o.name)) == 3)


def told(own, found):
    curve = object_light_curve(own.settings, found.name)
    return left_out(own.settings, found.ra, found.dec, curve)


def test_every_epoch_without_flux_has_its_reason(own):
    """Two exposures are in the reference and in nothing else; of the others each is taken away otherwise."""
    found = often_seen(own)
    curve = object_light_curve(own.settings, found.name)
    section = str(curve.section[0])
    before = {part.reason: part.epochs for part in told(own, found)}
    of_reference = {f"{name} {section}" for name in own.science[:2]}
    assert all(of_reference >= set(epochs) for epochs in before.values()), before
    assert set(before) == {"stopped at subtraction (in_reference)"}
    names = [str(name) for name in curve.exposure]
    mark(own.settings, names[0], "bad", "clouds")
    with open_session(own.settings) as session:
        flux = select(ForcedFlux).join(Image, Image.id == ForcedFlux.image_id)
        rows = {
            name: session.scalars(
                flux.join(Exposure, Exposure.id == Image.exposure_id).where(
                    Exposure.name == name, ForcedFlux.object_id == found.id, ForcedFlux.kind == "difference"
                )
            ).one()
            for name in names[1:]
        }
        rows[names[1]].flux = rows[names[1]].flux_err = None
        session.delete(rows[names[2]])
    added = {part.reason: part.epochs for part in told(own, found) if part.reason not in before}
    assert added == {
        "called bad": (f"{names[0]} {section}",),
        "no usable pixel there": (f"{names[1]} {section}",),
        "not measured there yet": (f"{names[2]} {section}",),
    }
    (later,) = own.ingest(
        own.variant("later", lambda _: None)
    )  # nothing but its header tells where it points
    assert LeftOut("not processed", (f"{later.name} {section}",)) in told(own, found)


def test_what_is_called_bogus_is_measured_when_that_is_taken_back(own):
    """Not before: what people have seen to be nothing would be most of all fluxes."""
    found, last = often_seen(own), own.science[4]
    section = str(object_light_curve(own.settings, found.name).section[-1])
    mark(own.settings, found.name, "bogus", "a spike")
    with open_session(own.settings) as session:
        session.execute(delete(ForcedFlux).where(ForcedFlux.object_id == found.id))
    assert own.outcomes(last, section)["forced_photometry"] == "loaded"
    assert len(object_light_curve(own.settings, found.name)) == 0
    mark(own.settings, found.name, "undo", "no, it is one")
    assert own.outcomes(last, section)["forced_photometry"] == "done"
    assert len(object_light_curve(own.settings, found.name)) == 3
