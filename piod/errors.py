"""What piod refuses, as exceptions: one class for each kind of refusal.

Each class carries the HTTP status that the front end answers with, a cause and
a remediation. ``message`` must be understandable by itself: leaders forward
only that text. Whatever escapes the daemon and is not one of these is a bug.

Below the front end nothing knows HTTP; ``status`` is here so that the mapping
stands in one place and a new refusal cannot forget it.
"""

from __future__ import annotations

from typing import ClassVar


class PiodError(Exception):
    """A refusal: what was wrong, with what, and what to do.

    ``message`` says what was wrong and names the thing; ``cause`` gives the
    underlying reason (default: the message); ``remediation`` the next step.
    """

    status: ClassVar[int] = 500
    default_remediation: ClassVar[str] = "Look at the log of piod on this unit."

    def __init__(
        self, message: str, *, cause: str | None = None, remediation: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.cause = message if cause is None else cause
        self.remediation = self.default_remediation if remediation is None else remediation


class BadRequest(PiodError):
    """The request is malformed or a field is missing, mistyped or out of range."""

    status = 400
    default_remediation = "Correct the request and send it again."


class Unauthorized(PiodError):
    """The request changes something and lacks the unit's api_key."""

    status = 401
    default_remediation = (
        "Send the header 'Authorization: Basic <api_key>' with the api_key of this unit's "
        "[ui_basic_auth] configuration."
    )


class Forbidden(PiodError):
    """The request is understood and not allowed here."""

    status = 403
    default_remediation = "Check the permissions and the configuration of this unit."


class NotFound(PiodError):
    """There is no such thing."""

    status = 404
    default_remediation = "Check the name and the URL."


class Conflict(PiodError):
    """It contradicts what the unit is doing or how it is configured."""

    status = 409
    default_remediation = "Resolve the conflict, then try again."


class PayloadTooLarge(PiodError):
    """The body is larger than this endpoint takes."""

    status = 413
    default_remediation = "Send a smaller body."


class TooManyRequests(PiodError):
    """The same request came again too soon."""

    status = 429
    default_remediation = "Wait a second, then try again."


class Unavailable(PiodError):
    """A part that is needed (hardware, a service, an actor) is not there now."""

    status = 503
    default_remediation = "Try again later; if it persists, look at the log of piod on this unit."


class StorageFull(PiodError):
    """The disk has no room for what was to be kept."""

    status = 507
    default_remediation = "Free space on the disk of this unit, then try again."


class StorageFailed(PiodError):
    """The disk or the database refused to keep something."""

    status = 500
    default_remediation = "Check the disk of this unit and the log of piod."


class ConfigurationError(BadRequest):
    """The configuration, or an override of it, cannot be used."""

    default_remediation = "Correct the configuration that the message names, then try again."


class OverflowRefused(BadRequest):
    """A dose could bring the vial to its maximum fill volume, or over it."""

    default_remediation = (
        "Remove waste first, dose less, or correct current_volume_ml of the experiment."
    )


class LeaseTaken(Conflict):
    """The output belongs to another owner."""


class VolumeInDoubt(Conflict):
    """It is not known well enough what is in the vial; nothing may be added."""

    default_remediation = (
        "Look at the vial, then set current_volume_ml of the experiment, or remove waste down to "
        "the efflux tube."
    )


class BusError(Unavailable):
    """A hardware bus failed an access (no answer, an error of the kernel driver)."""

    default_remediation = "Check the HAT and its cables; the log of piod has the details."
    item: int | None = None
    """Which item of a list of accesses failed, from 0."""


class DeviceMissing(BusError):
    """A bus, chip or pin is not there. Not a bug: it is looked for again."""

    default_remediation = (
        "Check that the HAT is seated and that the overlays of docs/install.md are enabled."
    )
