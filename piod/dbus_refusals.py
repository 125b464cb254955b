"""What can go wrong with a call over the system bus, each as a refusal of its own.

No bus (:class:`BusAbsent`), the connection lost (:class:`ConnectionLost`), no such
service (:class:`ServiceAbsent`), one that went away (:class:`ServiceVanished`), denied
(:class:`Denied`), no answer in time (:class:`CallTimedOut`), an error of the service
(:class:`ServiceRefused`). :func:`refusal_of` makes them of the errors of the bus.
"""

from __future__ import annotations

from dataclasses import dataclass

from piod.errors import Forbidden, PiodError, Unavailable


@dataclass(frozen=True)
class BusObject:
    """An interface of an object of a service; ``provider`` is what runs the service."""

    service: str
    path: str
    interface: str
    provider: str


class BusAbsent(Unavailable):
    """There is no system bus, or it lets nobody in."""

    default_remediation = (
        "Check the system bus on this unit (systemctl status dbus), or do it on the machine "
        "itself, for example with sudo systemctl."
    )


class ConnectionLost(Unavailable):
    """The bus went away while it was waited for; what was asked may have been done."""

    default_remediation = (
        "See whether it was done; if not, check the system bus on this unit "
        "(systemctl status dbus) and try again."
    )


class ServiceAbsent(Unavailable):
    """Nobody provides the service, and the bus could not start it."""


class ServiceVanished(Unavailable):
    """The service went away while it was waited for; what was asked may have been done."""


class Denied(Forbidden):
    """The machine does not let piod do this."""

    default_remediation = (
        "Install piod's Debian package again: it brings the polkit rule that allows this. "
        "Where piod runs otherwise, allow it to piod's user with a rule in "
        "/etc/polkit-1/rules.d, as docs/operating.md tells."
    )


class CallTimedOut(Unavailable):
    """No answer within the deadline; what was asked may still be done."""


class ServiceRefused(Unavailable):
    """The service answered with an error; ``error_name`` is its name on the bus."""

    def __init__(self, message: str, *, error_name: str, remediation: str) -> None:
        super().__init__(message, remediation=remediation)
        self.error_name = error_name


ABSENT = (
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.TimedOut",  # it was started and did not come
)
ACTIVATION_FAILED = ("org.freedesktop.DBus.Error.Spawn.", "org.freedesktop.systemd1.")
VANISHED = ("org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected")
DENIED = (
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
)


def refusal_of(target: BusObject, what: str, name: str, text: str, action: str) -> PiodError:
    """What an error reply to the call ``what`` means: its name, and the text that came with it.

    ``action``: the polkit action that the call needs, or nothing. The names of errors are of
    the D-Bus specification and sd-bus-errors(3).
    """
    if name in DENIED:
        needs = f" (polkit action {action})" if action else ""
        return Denied(f"this machine does not allow piod to call {what}{needs}: {text}", cause=text)
    # when systemd cannot start a service for the bus, the error is systemd's own
    start_failed = name.startswith(ACTIVATION_FAILED) and not name.startswith(target.service)
    if name in ABSENT or start_failed:
        return ServiceAbsent(
            f"{target.service} is not there on this machine: {text}",
            cause=text,
            remediation=check_provider(target),
        )
    if name in VANISHED:
        return ServiceVanished(
            f"{target.service} went away before it answered {what}",
            cause=text,
            remediation="See whether it was done after all. " + check_provider(target),
        )
    return ServiceRefused(
        f"{what} failed: {text}", error_name=name, remediation=check_provider(target)
    )


def not_understood(target: BusObject, member: str) -> ServiceRefused:
    """The refusal of an answer that is not what the interface promises."""
    return ServiceRefused(
        f"the answer of {target.service} to {member} is not understood",
        error_name="",
        remediation=check_provider(target),
    )


def check_provider(target: BusObject) -> str:
    """The remediation for whatever is wrong with a service."""
    return f"Check {target.provider} on this unit and its log (journalctl), then try again."
