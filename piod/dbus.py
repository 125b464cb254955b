"""The system bus: method calls, properties and signals, each with a deadline.

:class:`SystemBus` is the interface: ``call``, ``get``, ``signals``, ``check`` and
``close``. It connects when it is first used, and anew after a connection was lost;
after a failure to connect it fails at once, with the reason, for a while that grows.

Each way to fail is a refusal of its own (:mod:`piod.dbus_refusals`).

The messages are encoded and decoded by dbus-next, which nobody else imports and which
is imported when the first connection is made. Its own connection is not used: it can
block the event loop for ever (docs/decisions/0007).
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import struct
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from piod.dbus_refusals import (
    BusAbsent,
    BusObject,
    CallTimedOut,
    ConnectionLost,
    ServiceVanished,
    check_provider,
    not_understood,
    refusal_of,
)
from piod.errors import PiodError

if TYPE_CHECKING:
    from dbus_next.message import Message

log = logging.getLogger(__name__)

STANDARD_ADDRESS = "unix:path=/run/dbus/system_bus_socket"
CONNECT_TIMEOUT_S = 2.0
CHECK_TIMEOUT_S = 3.0
"""More than the connection takes, less than the front end waits."""
CALL_TIMEOUT_S = 20.0
"""Enough for a service that D-Bus starts for this call, and for polkit, on a small computer."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""How long after a failure to connect no other attempt is made; doubles each time."""
LARGEST_MESSAGE_BYTES = 1 << 20
"""Far more than what is asked here is answered with; the bus itself allows 128 MiB."""

Argument = bool | int | str
"""What a method is called with."""

BUS = BusObject(
    "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "dbus.service"
)


class SystemBus:
    """One connection to a bus, made when it is needed.

    ``address`` as D-Bus writes it; None: $DBUS_SYSTEM_BUS_ADDRESS, else the standard one.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address or os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or STANDARD_ADDRESS
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._refusal = ""
        """Why the last attempt to connect failed."""
        self._pause_s = FIRST_PAUSE_S
        self._next_attempt = time.monotonic()

    async def call(
        self,
        target: BusObject,
        member: str,
        signature: str = "",
        *arguments: Argument,
        action: str = "",
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Sequence[object]:
        """Call a method; the values that it answers.

        ``action`` names the polkit action that it needs. Raises the refusals of piod.dbus_refusals.
        """
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._connected()
                return await connection.call(target, member, signature, arguments, action)
        except TimeoutError:
            raise CallTimedOut(
                f"there was no answer to {member} of {target.service} within {timeout_s:g} s",
                remediation=f"Check {target.provider} on this unit: it may hang. See whether it "
                "was done after all, then try again.",
            ) from None

    async def get(
        self, target: BusObject, name: str, *, timeout_s: float = CALL_TIMEOUT_S
    ) -> object:
        """A property of an object. Raises as :meth:`call`."""
        properties = BusObject(
            target.service, target.path, "org.freedesktop.DBus.Properties", target.provider
        )
        answer = await self.call(
            properties, "Get", "ss", target.interface, name, timeout_s=timeout_s
        )
        from dbus_next.signature import Variant

        match answer:
            case [Variant() as variant]:
                value: object = variant.value
                return value
        raise not_understood(target, name)

    async def check(self) -> None:
        """Refuse unless the bus answers; a connection that does not is given up."""
        try:
            await self.call(BUS, "GetId", timeout_s=CHECK_TIMEOUT_S)
        except CallTimedOut:
            await self.close()
            raise BusAbsent(
                f"the system bus ({self._address}) does not answer within {CHECK_TIMEOUT_S:g} s"
            ) from None

    @asynccontextmanager
    async def signals(self, source: BusObject, member: str) -> AsyncIterator[Signals]:
        """Hear a signal from now on. Raises as :meth:`call`."""
        changed = (
            f"type='signal',sender='{BUS.service}',interface='{BUS.interface}',"
            f"member='NameOwnerChanged',arg0='{source.service}'"
        )
        heard = (
            f"type='signal',sender='{source.service}',interface='{source.interface}',"
            f"path='{source.path}',member='{member}'"
        )
        connection = await self._connected()
        signals = Signals(source, member)
        connection.listeners.append(signals)
        try:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    for rule in (changed, heard):
                        await connection.call(BUS, "AddMatch", "s", (rule,))
                    owner = await connection.call(BUS, "GetNameOwner", "s", (source.service,))
            except TimeoutError:
                raise CallTimedOut(
                    f"the system bus did not answer within {CALL_TIMEOUT_S:g} s",
                    remediation=check_provider(BUS),
                ) from None
            signals.owner = owner[0]
            yield signals
        finally:
            connection.listeners.remove(signals)
            for rule in (changed, heard):
                if connection.lost is None:
                    connection.send(BUS, "RemoveMatch", "s", (rule,))

    async def close(self) -> None:
        """Give up the connection. The next call makes another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection is not None and self._connection.lost is None:
                return self._connection
            await self.close()
            wait_s = self._next_attempt - time.monotonic()
            if wait_s > 0:
                raise BusAbsent(f"{self._refusal}; the next attempt is in {wait_s:.1f} s")
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    self._connection = await _open(self._address)
            except TimeoutError:
                reason = f"no answer within {CONNECT_TIMEOUT_S:g} s"
            except EOFError:
                reason = "it closed the connection"
            except OSError as error:
                reason = error.strerror or str(error)
            except (ValueError, asyncio.LimitOverrunError) as error:
                reason = str(error)
            except PiodError as refusal:
                reason = refusal.cause
            else:
                self._pause_s = FIRST_PAUSE_S
                return self._connection
            self._next_attempt = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._refusal = f"the system bus ({self._address}) cannot be reached: {reason}"
            raise BusAbsent(self._refusal)


class Signals:
    """Signals as they arrive, for as long as the service lives and the connection holds."""

    def __init__(self, source: BusObject, member: str) -> None:
        self._source = source
        self._member = member
        self.owner: object = None
        """The connection of the service; others may send signals of the same name."""
        self._arrived: asyncio.Queue[Sequence[object] | PiodError] = asyncio.Queue()

    async def next(self) -> Sequence[object]:
        """The values of the next one. Raises ServiceVanished or ConnectionLost."""
        arrived = await self._arrived.get()
        if isinstance(arrived, PiodError):
            raise arrived
        return arrived

    def hear(self, message: Message) -> None:
        """Take it if it is one of these."""
        service = self._source.service
        if (message.sender, message.member) == (BUS.service, "NameOwnerChanged"):
            if message.body[0] == service:
                self._arrived.put_nowait(
                    ServiceVanished(
                        f"{service} went away while {self._member} was awaited",
                        remediation=check_provider(self._source),
                    )
                )
        elif (message.path, message.interface, message.member) == (
            self._source.path,
            self._source.interface,
            self._member,
        ) and message.sender == self.owner:
            self._arrived.put_nowait(list(message.body))

    def lose(self, reason: str) -> None:
        """The connection is lost."""
        self._arrived.put_nowait(
            ConnectionLost(
                "the connection to the system bus was lost while "
                f"{self._member} of {self._source.service} was awaited",
                cause=reason,
            )
        )


# -- one connection ------------------------------------------------------------------


class _Connection:
    """One connection that is open until it is ``lost``: the reason, or None."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lost: str | None = None
        self.listeners: list[Signals] = []
        self._writer = writer
        self._serial = 0
        self._waiting: dict[int, asyncio.Future[Message | None]] = {}
        """Replies that are awaited, by the serial of the call."""
        self._reading = asyncio.create_task(self._read(reader))

    def send(
        self, target: BusObject, member: str, signature: str, arguments: Sequence[Argument]
    ) -> int:
        """Send a call, whatever becomes of it; its serial."""
        self._serial += 1
        self._writer.write(_encode(self._serial, target, member, signature, arguments))
        return self._serial

    async def call(
        self,
        target: BusObject,
        member: str,
        signature: str,
        arguments: Sequence[Argument],
        action: str = "",
    ) -> Sequence[object]:
        """As :meth:`SystemBus.call`, without a deadline."""
        what = f"{member} of {target.service}"
        if self.lost is not None:
            raise ConnectionLost(
                f"the connection to the system bus was lost before {what} was called",
                cause=self.lost,
            )
        serial = self.send(target, member, signature, arguments)
        waiting: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        self._waiting[serial] = waiting
        try:
            reply = await waiting
        finally:
            del self._waiting[serial]
        if reply is None:
            raise ConnectionLost(
                f"the connection to the system bus was lost before the answer to {what}",
                cause=self.lost,
            )
        if reply.error_name:
            text = str(reply.body[0] if reply.body else reply.error_name)
            raise refusal_of(target, what, reply.error_name, text, action)
        return list(reply.body)

    async def close(self) -> None:
        self._lose("piod closed it")
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading

    async def _read(self, reader: asyncio.StreamReader) -> None:
        reason = "piod closed it"
        try:
            while True:
                self._take(_decode(await _read_message(reader)))
        except EOFError:
            reason = "the bus closed it"
        except OSError as error:
            reason = error.strerror or str(error)
        except Exception as error:  # dbus-next raises many kinds; the stream is of no use then
            log.error("a message of the system bus cannot be read", exc_info=error)
            reason = f"a message cannot be read: {error}"
        finally:
            self._lose(reason)

    def _take(self, message: Message) -> None:
        reply = self._waiting.get(message.reply_serial or 0)
        if reply is not None:
            if not reply.done():
                reply.set_result(message)
        elif not message.reply_serial:
            for listener in self.listeners:
                listener.hear(message)

    def _lose(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        self._writer.transport.abort()
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_result(None)
        for listener in self.listeners:
            listener.lose(reason)


async def _open(address: str) -> _Connection:
    """A connection that has said Hello.

    Raises OSError, EOFError, ValueError, LimitOverrunError or a refusal.
    """
    await asyncio.to_thread(load_library)
    path = _socket_path(address)
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        await _authenticate(reader, writer)
    except BaseException:
        writer.transport.abort()
        raise
    connection = _Connection(reader, writer)
    try:
        await connection.call(BUS, "Hello", "", ())
    except BaseException:
        await connection.close()
        raise
    return connection


def _socket_path(address: str) -> str:
    """The path of ``unix:path=…``, with a NUL in front when it is abstract."""
    from dbus_next._private.address import parse_address
    from dbus_next.errors import InvalidAddressError

    try:
        [(transport, options), *_] = parse_address(address)  # type: ignore[no-untyped-call] # unannotated there
    except InvalidAddressError as error:
        raise ValueError(str(error)) from None
    if transport == "unix" and "path" in options:
        return str(options["path"])
    if transport == "unix" and "abstract" in options:
        return "\0" + str(options["abstract"])
    raise ValueError("only addresses with unix:path= or unix:abstract= are understood")


async def _authenticate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say which user this is; the kernel vouches for it (D-Bus specification, EXTERNAL)."""
    uid = str(os.getuid()).encode().hex()
    writer.write(f"\0AUTH EXTERNAL {uid}\r\n".encode())
    answer = await reader.readuntil(b"\r\n")
    if not answer.startswith(b"OK "):
        raise ValueError(f"it refused piod's user: {answer.decode(errors='replace').strip()}")
    writer.write(b"BEGIN\r\n")


# -- messages ------------------------------------------------------------------------


def load_library() -> None:
    """Import what is needed of dbus-next. It takes a small computer a while: in a thread.

    Without GLib, which dbus-next loads where it can, for a main loop that piod has not:
    that takes three times as much again (docs/decisions/0007).
    """
    unwanted = "gi"
    if unwanted in sys.modules:
        import dbus_next.message
    else:
        sys.modules[unwanted] = None  # type: ignore[assignment] # how an import is forbidden
        try:
            import dbus_next.message  # noqa: F401
        finally:
            del sys.modules[unwanted]


def _encode(
    serial: int, target: BusObject, member: str, signature: str, arguments: Sequence[Argument]
) -> bytes:
    from dbus_next.message import Message

    message = Message(
        destination=target.service,
        path=target.path,
        interface=target.interface,
        member=member,
        signature=signature,
        body=list(arguments),
        serial=serial,
    )
    return bytes(message._marshall())  # type: ignore[no-untyped-call] # unannotated there


HEAD_BYTES = 16
"""Up to and with the length of the header's fields."""


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    """The bytes of one message (D-Bus specification, message format). Raises EOFError."""
    head = await reader.readexactly(HEAD_BYTES)
    order = "<" if head[:1] == b"l" else ">"
    body_bytes, _, fields_bytes = struct.unpack_from(order + "III", head, 4)
    rest_bytes = -fields_bytes % 8 + fields_bytes + body_bytes
    if rest_bytes > LARGEST_MESSAGE_BYTES:
        raise ValueError(f"it is {rest_bytes} bytes long")
    return head + await reader.readexactly(rest_bytes)


def _decode(message: bytes) -> Message:
    from dbus_next._private.unmarshaller import Unmarshaller

    reading = Unmarshaller(io.BytesIO(message))  # type: ignore[no-untyped-call] # unannotated there
    decoded: Message | None = reading.unmarshall()  # type: ignore[no-untyped-call] # the same
    if decoded is None:
        raise ValueError("it is shorter than it says")
    return decoded
