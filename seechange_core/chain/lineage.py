"""Which process builds on which, and the provenance of each under given settings."""

from dataclasses import dataclass

from seechange_core.catalogs.services import SERVICES
from seechange_core.instrument import get_code_version, get_instrument_instance
from seechange_core.params import Params
from seechange_core.products.provenance import record_provenance, set_tag
from seechange_core.provenance import ProvenanceKey, digest
from seechange_core.settings import Settings, use_settings
from seechange_core.stages import (
    associate,
    astrometry,
    combine,
    cut,
    detect,
    extract,
    force,
    illumination,
    judge,
    measure,
    photometry,
    preprocess,
    quality_limits,
    reference,
    subtract,
)
from seechange_core.storage.engine import open_session


@dataclass(frozen=True)
class Process:
    """One process: the stages whose code and parameters it runs, and the processes it builds on.

    Attributes
    ----------
    stages
        Settings block, parameters and code version of each stage. Of the block `quality`, the limits that
        its product is judged by.
    upstreams
        Names of other processes.
    """

    stages: tuple[tuple[str, type[Params], str], ...]
    upstreams: tuple[str, ...] = ()


_COMBINE = ("combine", combine.CombineParams, combine.CODE_VERSION)
_EXTRACT = ("extract", extract.ExtractParams, extract.CODE_VERSION)
_PHOTOMETRY = ("photometry", photometry.PhotometryParams, photometry.CODE_VERSION)
_IMAGE_LIMITS, _SOURCE_LIMITS, _ASTROMETRY_LIMITS, _ZERO_POINT_LIMITS = (
    ("quality", kind, judge.CODE_VERSION)
    for kind in (
        quality_limits.ImageLimits,
        quality_limits.SourceLimits,
        quality_limits.AstrometryLimits,
        quality_limits.ZeroPointLimits,
    )
)
_SUBTRACTION_LIMITS, _DETECTION_LIMITS = (
    ("quality", kind, judge.CODE_VERSION)
    for kind in (quality_limits.SubtractionLimits, quality_limits.DetectionLimits)
)

#: Every process by the name of its asset, upstreams before downstreams.
PROCESSES: dict[str, Process] = {
    "exposure": Process(()),
    "bias": Process((_COMBINE,), ("exposure",)),
    "dark": Process((_COMBINE,), ("exposure", "bias")),
    "flat": Process((_COMBINE,), ("exposure", "bias", "dark")),
    "twilight_flat": Process((_COMBINE,), ("exposure", "bias", "dark")),
    "illumination": Process(
        (("illumination", illumination.IlluminationParams, illumination.CODE_VERSION),),
        ("flat", "twilight_flat"),
    ),
    "bad_pixels": Process(
        (("bad_pixels", combine.BadPixelParams, combine.CODE_VERSION),), ("dark", "flat", "twilight_flat")
    ),
    "image": Process(
        (("preprocess", preprocess.PreprocessParams, preprocess.CODE_VERSION), _IMAGE_LIMITS),
        ("exposure", "bias", "dark", "flat", "twilight_flat", "illumination", "bad_pixels"),
    ),
    "source_list": Process((_EXTRACT, _SOURCE_LIMITS), ("image",)),
    "world_coordinates": Process(
        (("astrometry", astrometry.AstrometryParams, astrometry.CODE_VERSION), _ASTROMETRY_LIMITS),
        ("source_list",),
    ),
    "zero_point": Process((_PHOTOMETRY, _ZERO_POINT_LIMITS), ("source_list", "world_coordinates")),
    "reference": Process(
        (
            ("reference", reference.ReferenceParams, reference.CODE_VERSION),
            *(_EXTRACT, _PHOTOMETRY, _SOURCE_LIMITS, _ZERO_POINT_LIMITS),
        ),
        ("image", "source_list", "world_coordinates", "zero_point"),
    ),
    "subtraction": Process(
        (("subtract", subtract.SubtractParams, subtract.CODE_VERSION), _SUBTRACTION_LIMITS),
        ("zero_point", "reference"),
    ),
    "detections": Process(
        (("detect", detect.DetectParams, detect.CODE_VERSION), _DETECTION_LIMITS), ("subtraction",)
    ),
    "cutouts": Process((("cut", cut.CutParams, cut.CODE_VERSION),), ("detections",)),
    "measurement": Process(
        (
            ("measure", measure.MeasureParams, measure.CODE_VERSION),
            ("associate", associate.AssociateParams, associate.CODE_VERSION),
        ),
        ("cutouts",),
    ),
    "forced_photometry": Process(
        (("force", force.ForceParams, force.CODE_VERSION),), ("subtraction", "measurement")
    ),
}


def provenances(settings: Settings, instrument: str) -> dict[str, ProvenanceKey]:
    """Return the provenance of every process of an instrument under these settings.

    Raises
    ------
    SettingsError
        If a stage's parameters are wrong: this is where all blocks are checked.
    """
    keys: dict[str, ProvenanceKey] = {}
    for name, process in PROCESSES.items():
        parameters: dict[str, object] = {"instrument": instrument, "options": settings.options(instrument)}
        if name != "exposure":
            parameters = _parameters(settings, instrument, process)
        if name == "world_coordinates" and (catalog := catalog_name(settings)):
            parameters["catalog"] = catalog
        keys[name] = ProvenanceKey(
            process=name,
            # The instrument's code says what its files mean: it is the code of its exposures.
            code_version="+".join(version for _, _, version in process.stages)
            or get_code_version(instrument),
            parameters=parameters,
            upstreams=tuple(keys[upstream].id for upstream in process.upstreams),
        )
    return keys


def check_settings(settings: Settings) -> None:
    """Check the parameters of all stages, and the instruments that the settings name, before any work.

    Raises
    ------
    SettingsError
        At the first name that is not known or value that is impossible, with the key's path.
    """
    stages = [stage for process in PROCESSES.values() for stage in process.stages]
    for instrument in (None, *settings.instruments):
        for name, kind, _ in stages:
            settings.params(_whole(name, kind), name, instrument)
    with use_settings(settings):
        for instrument in settings.instruments:
            get_instrument_instance(instrument)


def catalog_name(settings: Settings) -> str | None:
    """Name the catalog that the settings ask for, whichever mirror serves it; None if they do not say."""
    if settings.catalog or settings.catalog_fetch is None:
        return settings.catalog
    service = SERVICES.get(settings.catalog_fetch)  # of one that nobody knows, the step that asks it says so
    return settings.catalog_fetch if service is None else service.content


def _parameters(settings: Settings, instrument: str, process: Process) -> dict[str, object]:
    """Return the values that can change what a process makes, by stage; of the limits, its own."""
    found: dict[str, dict[str, object]] = {}
    for stage, kind, _ in process.stages:
        values = settings.params(_whole(stage, kind), stage, instrument).critical()
        found.setdefault(stage, {}).update({n: v for n, v in values.items() if n in kind.model_fields})
    return dict(found)


def _whole(stage: str, kind: type[Params]) -> type[Params]:
    """Return what checks a whole block: each process knows only its own limits of `quality`."""
    return quality_limits.QualityParams if stage == "quality" else kind


_recorded: dict[tuple[str, str, str], str] = {}


def record_provenances(settings: Settings, instrument: str) -> None:
    """Make sure that the database knows the provenance of every process, and let the tag name them.

    Remembers what it did last, so that it costs nothing in every section.
    """
    keys = provenances(settings, instrument)
    where = (settings.database_url, settings.tag, instrument)
    what = digest([key.id for key in keys.values()])
    if _recorded.get(where) == what:
        return
    with open_session(settings) as session:
        for key in keys.values():
            set_tag(session, settings.tag, record_provenance(session, key), instrument)
    _recorded[where] = what
