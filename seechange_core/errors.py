"""Every error this project raises on purpose, in one small tree.

::

    SeeChangeError              names the thing, the value seen and the cure
    ├── UserError               a mistake in settings, arguments or a request
    │   ├── SettingsError
    │   ├── NotFoundError       the thing asked for does not exist
    │   └── IncompleteError     a file that belongs to it is not there (yet)
    ├── BadDataError            a file or its content cannot be used (outcome: failed)
    │   ├── FileDamagedError    truncated, not FITS, checksum differs
    │   ├── HeaderError         a needed header card is missing or unreadable
    │   ├── SectionMissingError the file lacks that section
    │   ├── PixelsError         all NaN, wrong shape, wrong type
    │   ├── CalibratorMissingError
    │   └── ConflictError       the same name with other content
    ├── Stop                    nobody's bug; the section ends here (outcome: stopped)
    │   ├── IgnoredFile         a file that is no exposure to work on: focus, pointing, test
    │   ├── SectionAbsent, DeadSection, NoStars (Trailed), NoCatalog (NoAnswer), NoSolution, Clouded
    │   └── NoReference, InReference
    ├── DatabaseBusyError       others wrote all the time, or each waited for the other: try again
    └── PipelineError           our own bug or a broken machine

`Stop` is an outcome, not a failure: the run goes on and succeeds.
"""

from typing import ClassVar


class SeeChangeError(Exception):
    """An error with a cure.

    Parameters
    ----------
    message
        What is wrong, with the value seen.
    cure
        What the reader can do about it.
    exposure, section, file
        The thing it happened to, where known.
    """

    reason: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        cure: str = "",
        exposure: str | None = None,
        section: str | int | None = None,
        file: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.exposure = exposure
        self.section = section
        self.file = file

    def __str__(self) -> str:
        place = ", ".join(
            f"{name} {value}"
            for name, value in (
                ("exposure", self.exposure),
                ("section", self.section),
                ("file", self.file),
            )
            if value is not None
        )
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} ({self.cure})" if self.cure else text

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the keywords, so that errors cross process borders whole."""
        return (_rebuild, (type(self), self.message, self.cure, self.exposure, self.section, self.file))


def _rebuild(
    kind: type[SeeChangeError],
    message: str,
    cure: str,
    exposure: str | None,
    section: str | int | None,
    file: str | None,
) -> SeeChangeError:
    return kind(message, cure=cure, exposure=exposure, section=section, file=file)


class UserError(SeeChangeError):
    """The request cannot be carried out as made."""

    reason = "user_error"


class SettingsError(UserError):
    """The settings have an unknown key, a wrong type or an impossible value."""

    reason = "settings"


class NotFoundError(UserError):
    """What was asked for does not exist."""

    reason = "not_found"


class IncompleteError(UserError):
    """A file that belongs to those asked for is not beside them, or not yet."""

    reason = "incomplete"


class BadDataError(SeeChangeError):
    """A file or its content cannot be used."""

    reason = "bad_data"


class FileDamagedError(BadDataError):
    """A file is truncated, of the wrong kind, or not what its checksum says."""

    reason = "file_damaged"


class HeaderError(BadDataError):
    """A needed header card is missing or cannot be read."""

    reason = "header"


class SectionMissingError(BadDataError):
    """The exposure's file does not hold that section."""

    reason = "section_missing"


class PixelsError(BadDataError):
    """The pixels cannot be used: no finite value, wrong shape, wrong type."""

    reason = "pixels"


class CalibratorMissingError(BadDataError):
    """A calibration step was asked for and its master frame does not exist."""

    reason = "calibrator_missing"


class ConflictError(BadDataError):
    """The same name is already known with other content."""

    reason = "conflict"


class Stop(SeeChangeError):
    """The section ends here for a reason that is nobody's bug."""

    reason = "stopped"


class IgnoredFile(Stop):
    """A file that needs no processing: focus, pointing, test. Its message begins with what it is."""

    reason = "ignored_file"

    @property
    def kind(self) -> str:
        """What its image-type card says, lower case."""
        return self.message.partition(":")[0]


class SectionAbsent(Stop):
    """The camera wrote the exposure without this section: its file says how much it holds, and holds it."""

    reason = "section_absent"


class DeadSection(Stop):
    """The detector section gives no signal."""

    reason = "dead_section"


class NoStars(Stop):
    """Too few stars to measure what the step needs."""

    reason = "no_stars"


class Trailed(NoStars):
    """No source has the shape of a star, for all are drawn out in one direction."""

    reason = "trailed"


class NoCatalog(Stop):
    """No reference catalog covers this field."""

    reason = "no_catalog"


class NoAnswer(NoCatalog):
    """The service that was to give the catalog does not answer, whatever it is asked."""

    reason = "no_answer"


class NoSolution(Stop):
    """No astrometric or photometric solution that can be trusted."""

    reason = "no_solution"


class Clouded(Stop):
    """The transparency is too low to go on."""

    reason = "clouded"


class NoReference(Stop):
    """No reference image covers enough of this section."""

    reason = "no_reference"


class InReference(Stop):
    """The only reference contains this exposure, and nothing is subtracted from itself."""

    reason = "in_reference"


class DatabaseBusyError(SeeChangeError):
    """Others were in the way of writing to the database: nothing was written."""

    reason = "database_busy"


class PipelineError(SeeChangeError):
    """A bug of ours, or a machine that broke."""

    reason = "pipeline"
