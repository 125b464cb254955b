"""The machine that systemd runs, asked over the system bus: logind, systemd, timedated.

:class:`Machine` is the :class:`~piod.system.SystemPort` of a unit that is not
simulated. The methods and properties that it uses are described in
org.freedesktop.login1(5), org.freedesktop.systemd1(5) and org.freedesktop.timedate1(5);
what polkit has to allow for each stands beside the call.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from piod.dbus import Signals, SystemBus
from piod.dbus_refusals import BusObject, Denied, ServiceRefused, not_understood
from piod.errors import Conflict, PiodError, Unavailable
from piod.system import SystemPort, UpdateOutcome, UpdateRequest
from piod.update_files import SEE_LOG, UPDATE_UNIT, Running, UpdateFiles, interrupted

log = logging.getLogger(__name__)

LOGIND = BusObject(
    "org.freedesktop.login1",
    "/org/freedesktop/login1",
    "org.freedesktop.login1.Manager",
    "systemd-logind.service",
)
SYSTEMD = BusObject(
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
    "systemd",
)
TIMEDATED = BusObject(
    "org.freedesktop.timedate1",
    "/org/freedesktop/timedate1",
    "org.freedesktop.timedate1",
    "systemd-timedated.service",
)

LOOK_TIMEOUT_S = 3.0
"""For what a client waits for: less than the front end waits for an answer."""
RESTART_TIMEOUT_S = 110.0
"""For all units of a restart; systemd itself gives a unit 90 s to start."""
NTP_STOPS_WITHIN_S = 10.0
PUT_BACK_TIMEOUT_S = 3.0
"""The daemon may be ending meanwhile."""
SYNCHRONISED_WITHIN_S = 100.0
POLL_S = 0.5
CLOCK_POLL_S = 0.2
UPDATE_POLL_S = 2.0
UNKNOWN_FOR_S = 300.0
"""How long an update is waited for while systemd cannot be asked about it."""

NTP_STILL_ON = "org.freedesktop.timedate1.AutomaticTimeSyncEnabled"
ALREADY_SUBSCRIBED = "org.freedesktop.systemd1.AlreadySubscribed"
AT_WORK = ("active", "activating", "reloading", "deactivating", "maintenance")
"""States of a unit that has not come to its end."""


class Machine(SystemPort):
    """Asks ``bus``; an update goes through ``updates`` and the unit that the package ships.

    ``ntp_note``: a file that is there while time synchronisation is off because piod
    sets the clock; should piod be killed meanwhile, :meth:`recover` turns it on again.
    """

    def __init__(self, bus: SystemBus, updates: UpdateFiles, ntp_note: Path) -> None:
        self._bus = bus
        self._updates = updates
        self._ntp_note = ntp_note
        self._clock_change = asyncio.Lock()
        self._accepted: set[str] = set()
        """Updates that systemd has begun for this process."""

    async def check(self) -> None:
        await self._bus.check()

    async def disconnect(self) -> None:
        await self._bus.close()

    # -- power ------------------------------------------------------------------------

    async def reboot(self) -> None:
        await self._power("Reboot", "org.freedesktop.login1.reboot")

    async def power_off(self) -> None:
        await self._power("PowerOff", "org.freedesktop.login1.power-off")

    async def _power(self, member: str, action: str) -> None:
        """Never tried again by itself: a lost answer may belong to a machine that goes down."""
        action = f"{action}, and {action}-multiple-sessions while somebody is logged in"
        interactive = False
        await self._bus.call(LOGIND, member, "b", interactive, action=action)

    # -- clock ------------------------------------------------------------------------

    async def recover(self) -> None:
        async with self._clock_change:
            if not await asyncio.to_thread(os.path.lexists, self._ntp_note):
                return
            if not await self._clock_flag("NTP"):
                await self._set_ntp(True)
                log.warning(
                    "automatic time synchronisation is on again: piod was ended while it had "
                    "turned it off to set the clock"
                )
            await asyncio.to_thread(self._forget_ntp)

    async def set_time(self, unix_s: float, ntp: bool | None = None) -> None:
        asked_at = time.monotonic()
        async with self._clock_change:
            await self._set_time(unix_s, ntp, asked_at)

    async def _set_time(self, unix_s: float, ntp: bool | None, asked_at: float) -> None:
        is_on = await self._clock_flag("NTP")
        was_on = is_on or await asyncio.to_thread(os.path.lexists, self._ntp_note)
        if not is_on:
            await self._set_clock(unix_s, asked_at)
        else:
            await asyncio.to_thread(self._note_ntp)
            try:
                await self._set_ntp(False)
                await self._set_clock(unix_s, asked_at)
            except BaseException:  # also when this is cancelled
                await self._turn_ntp_on_again()
                raise
        if was_on if ntp is None else ntp:
            try:
                await self._set_ntp(True)
            except PiodError as refusal:
                raise Unavailable(
                    "the clock was set, but automatic time synchronisation could not be "
                    f"turned on: {refusal.message}",
                    cause=refusal.cause,
                    remediation="Turn it on on this unit: sudo timedatectl set-ntp true.",
                ) from refusal
        await asyncio.to_thread(self._forget_ntp)

    async def synchronise_clock(self) -> None:
        if not await self._clock_flag("CanNTP"):
            raise Unavailable(
                "this machine has no service that sets its clock by a time server",
                remediation="Install one on this unit: sudo apt install systemd-timesyncd.",
            )
        async with self._clock_change:
            await self._set_ntp(True)
            await asyncio.to_thread(self._forget_ntp)
        until = time.monotonic() + SYNCHRONISED_WITHIN_S
        while not await self._clock_flag("NTPSynchronized"):
            if time.monotonic() > until:
                raise Unavailable(
                    f"no time server has set the clock within {SYNCHRONISED_WITHIN_S:g} s; "
                    "synchronisation stays on and goes on trying",
                    remediation="Check that this unit reaches its time server: "
                    "timedatectl timesync-status.",
                )
            await asyncio.sleep(POLL_S)

    async def clock_synchronised(self) -> bool | None:
        try:
            return await self._clock_flag("NTPSynchronized")
        except PiodError as refusal:
            log.debug("whether the clock is synchronised is not known: %s", refusal.message)
            return None

    async def _clock_flag(self, name: str) -> bool:
        value = await self._bus.get(TIMEDATED, name, timeout_s=LOOK_TIMEOUT_S)
        if not isinstance(value, bool):
            raise not_understood(TIMEDATED, name)
        return value

    async def _set_clock(self, unix_s: float, asked_at: float) -> None:
        """It was to be ``unix_s`` at ``asked_at`` (monotonic).

        timedated refuses while the time service that was told to stop has not yet done so.
        """
        until = time.monotonic() + NTP_STOPS_WITHIN_S
        relative = interactive = False
        while True:
            now_us = round((unix_s + time.monotonic() - asked_at) * 1e6)
            try:
                await self._bus.call(
                    TIMEDATED,
                    "SetTime",
                    "xbb",
                    now_us,
                    relative,
                    interactive,
                    action="org.freedesktop.timedate1.set-time",
                )
            except ServiceRefused as refusal:
                if refusal.error_name != NTP_STILL_ON or time.monotonic() > until:
                    raise
            else:
                return
            await asyncio.sleep(CLOCK_POLL_S)

    async def _set_ntp(self, on: bool) -> None:
        interactive = False
        action = "org.freedesktop.timedate1.set-ntp"
        await self._bus.call(TIMEDATED, "SetNTP", "bb", on, interactive, action=action)

    async def _turn_ntp_on_again(self) -> None:
        try:
            async with asyncio.timeout(PUT_BACK_TIMEOUT_S):
                await self._set_ntp(True)
            await asyncio.to_thread(self._forget_ntp)
        except Denied:
            pass  # then it could not be turned off either; recover looks after the note
        except (TimeoutError, PiodError) as error:
            log.error("automatic time synchronisation may be off now: %s", error or "no answer")

    def _note_ntp(self) -> None:
        """On disk when this returns. Raises Unavailable."""
        try:
            self._ntp_note.touch()
            _sync_folder(self._ntp_note.parent)
        except OSError as error:
            raise Unavailable(
                "the clock was not set: piod could not note that time synchronisation has to be "
                "turned on again afterwards",
                cause=str(error),
                remediation="Check the disk and the permissions of the data directory.",
            ) from error

    def _forget_ntp(self) -> None:
        try:
            self._ntp_note.unlink()
            _sync_folder(self._ntp_note.parent)
        except FileNotFoundError:
            pass
        except OSError as error:  # the next start looks at it, and finds nothing to do
            log.error("%s could not be removed: %s", self._ntp_note, error.strerror or error)

    # -- services ---------------------------------------------------------------------

    async def unit_states(self, names: Sequence[str]) -> Mapping[str, str]:
        return {name: await self._unit_state(name) for name in names}

    async def restart_units(self, names: Sequence[str]) -> None:
        # the signal is listened to first: it may come before the reply that names the job
        async with self._bus.signals(SYSTEMD, "JobRemoved") as removed:
            await self._subscribe()
            until = time.monotonic() + RESTART_TIMEOUT_S
            for name in names:
                job = await self._begin_job("RestartUnit", name)
                try:
                    async with asyncio.timeout(until - time.monotonic()):
                        result = await _result(removed, job)
                except TimeoutError:
                    result = f"not over after {RESTART_TIMEOUT_S:g} s"
                if result != "done":
                    raise Unavailable(
                        f"{name} was not restarted: systemd's job is {result}",
                        remediation=f"Look at it on this unit: systemctl status {name}, "
                        f"journalctl -u {name}.",
                    )

    async def _subscribe(self) -> None:
        """systemd sends signals to nobody who has not asked for them."""
        try:
            await self._bus.call(SYSTEMD, "Subscribe")
        except ServiceRefused as refusal:
            if refusal.error_name != ALREADY_SUBSCRIBED:
                raise

    async def _begin_job(self, member: str, name: str) -> str:
        """Have systemd begin to start or restart a unit; the path of its job."""
        action = f"org.freedesktop.systemd1.manage-units for {name}"
        answer = await self._bus.call(SYSTEMD, member, "ss", name, "replace", action=action)
        match answer:
            case [str(path)]:
                return path
        raise not_understood(SYSTEMD, member)

    async def _unit_state(self, name: str) -> str:
        """Its ActiveState; not-found when systemd knows no such unit."""
        return await self._state_of(await self._unit(name))

    async def _unit(self, name: str) -> BusObject:
        loaded = await self._bus.call(SYSTEMD, "LoadUnit", "s", name, timeout_s=LOOK_TIMEOUT_S)
        match loaded:
            case [str(path)]:
                interface = "org.freedesktop.systemd1.Unit"
                return BusObject(SYSTEMD.service, path, interface, SYSTEMD.provider)
        raise not_understood(SYSTEMD, "LoadUnit")

    async def _state_of(self, unit: BusObject) -> str:
        if await self._bus.get(unit, "LoadState", timeout_s=LOOK_TIMEOUT_S) == "not-found":
            return "not-found"
        return str(await self._bus.get(unit, "ActiveState", timeout_s=LOOK_TIMEOUT_S))

    # -- updates ----------------------------------------------------------------------

    async def start_update(self, request: UpdateRequest) -> None:
        state = await self._update_state()
        if state == "not-found":
            raise Unavailable(
                f"this machine cannot update piod: it has no {UPDATE_UNIT}",
                remediation="That unit comes with piod's Debian package. A piod that was "
                "installed otherwise is updated the way it was installed.",
            )
        if state in AT_WORK:
            raise Conflict(
                f"an update is under way ({UPDATE_UNIT} is {state})",
                remediation="Wait until it is over, then try again if it is still needed.",
            )
        await asyncio.to_thread(self._updates.write_request, request)
        # not awaited to its end: the update may well end this process first
        await self._begin_job("StartUnit", UPDATE_UNIT)
        self._accepted.add(request.request_id)

    async def update_outcome(self, request_id: str) -> UpdateOutcome | None:
        known_at = time.monotonic()
        while True:
            going_on = await self._update_goes_on()
            if going_on is not None:
                known_at = time.monotonic()
            # read after the unit was looked at: one that has ended has written all it will
            found = await asyncio.to_thread(self._updates.read_outcome, request_id)
            if isinstance(found, UpdateOutcome) and not going_on:
                return found
            over = going_on is False or time.monotonic() - known_at > UNKNOWN_FOR_S
            if over and isinstance(found, Running):
                return interrupted(found.step)
            if over:
                silent = UpdateOutcome(False, f"it ended without a word. {SEE_LOG}")
                return silent if request_id in self._accepted else None
            await asyncio.sleep(UPDATE_POLL_S)

    async def _update_state(self) -> str:
        """ActiveState of the updater; ``activating`` also while systemd has yet to begin it."""
        unit = await self._unit(UPDATE_UNIT)
        match await self._bus.get(unit, "Job", timeout_s=LOOK_TIMEOUT_S):
            case [int(number), str()] if number:
                return "activating"
        return await self._state_of(unit)

    async def _update_goes_on(self) -> bool | None:
        """Whether the updater is at work; None: an update may take the bus away for a while."""
        try:
            return await self._update_state() in AT_WORK
        except PiodError as refusal:
            log.debug("whether the update goes on is not known now: %s", refusal.message)
            return None


def _sync_folder(path: Path) -> None:
    """Put the names in it on disk. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


async def _result(removed: Signals, job: str) -> str:
    """The word with which systemd ends ``job``: done, failed, timeout, dependency, …"""
    while True:
        match await removed.next():
            case [_, path, _, str(result)] if path == job:
                return result
