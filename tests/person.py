"""A person at a browser: takes a calibration session from page to page, over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from tests.unit import Unit

API = "/unit_api/calibrations/sessions"

Inputs: TypeAlias = Mapping[str, object]
Reply: TypeAlias = Inputs | Callable[[], Awaitable[Inputs]]
"""What is posted at a step; or what finds it out, and may put another vial in on the way."""


class Person:
    """One session of one person."""

    def __init__(self, unit: Unit, answer: Mapping[str, Any]) -> None:
        self.unit = unit
        self.answer = answer
        """What the page shows."""
        self.pages = [self.step_id]
        """The steps that were seen, in their order."""

    @classmethod
    async def begin(cls, unit: Unit, protocol: str, device: str) -> Person:
        body = {"protocol_name": protocol, "target_device": device}
        status, answer = await unit.request("POST", API, body)
        assert status == 201, answer
        return cls(unit, answer)

    @property
    def step(self) -> Mapping[str, Any]:
        step: Mapping[str, Any] = self.answer["step"]
        return step

    @property
    def step_id(self) -> str:
        return str(self.step["step_id"])

    @property
    def data(self) -> Mapping[str, Any]:
        data: Mapping[str, Any] = self.answer["session"]["data"]
        return data

    @property
    def result(self) -> Mapping[str, Any]:
        assert self.step_id == "complete", self.step_id
        result: Mapping[str, Any] = self.answer["session"]["result"]
        return result

    @property
    def path(self) -> str:
        return f"{API}/{self.answer['session']['session_id']}"

    async def post(self, **inputs: object) -> tuple[int, Any]:
        """Status and answer; the page changes if the step was accepted."""
        status, answer = await self.unit.request("POST", f"{self.path}/inputs", {"inputs": inputs})
        if status == 200:
            self.answer = answer
            self.pages.append(self.step_id)
        return status, answer

    async def go(self, **inputs: object) -> None:
        """Take the step, which must be accepted."""
        status, answer = await self.post(**inputs)
        assert status == 200, (self.step_id, answer)

    async def refused(self, about: str, **inputs: object) -> None:
        """A 400 that is ``about`` something, and leaves the session as it is."""
        before = await self.unit.get(self.path)
        status, answer = await self.post(**inputs)
        assert status == 400, answer
        assert about in answer["error"], answer["error"]
        assert await self.unit.get(self.path) == before

    async def walk(self, replies: Mapping[str, Reply], until: str = "complete") -> None:
        """From step to step, with nothing posted where ``replies`` say nothing."""
        while self.step_id != until:
            assert self.step_id != "complete", f"it never came to {until}"
            reply = replies.get(self.step_id, {})
            await self.go(**(await reply() if callable(reply) else reply))


async def put_in(unit: Unit, od: float) -> None:
    """A vial with a standard of that OD."""
    await patch(unit, vial={"standard_od": od})


async def patch(unit: Unit, **changes: object) -> None:
    """Do something to the plant."""
    status, body = await unit.request("PATCH", "/simulator/plant", changes)
    assert status == 200, body
