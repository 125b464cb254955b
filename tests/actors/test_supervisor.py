from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from piod.actors.actor import Actor, ActorGone, Message, Ref
from piod.actors.supervisor import Child, Supervisor
from piod.clock import SimulatedClock
from piod.restarts import FOR_EVER, NEVER, RestartPolicy


@dataclass(frozen=True)
class Hello(Message["Fragile", int]):
    """Answers which life it is."""


@dataclass(frozen=True)
class Crash(Message["Fragile", None]):
    pass


class Fragile(Actor[Hello | Crash]):
    def __init__(self, life_number: int, diary: list[str], name: str = "fragile") -> None:
        super().__init__(name)
        self.life_number = life_number
        self.diary = diary

    async def starting(self) -> None:
        self.diary.append(f"{self.name} {self.life_number} starts")

    async def receive(self, message: Hello | Crash) -> object:
        if isinstance(message, Crash):
            raise RuntimeError("fell over")
        return self.life_number

    async def ended(self) -> None:
        self.diary.append(f"{self.name} {self.life_number} ended")


class Nursery:
    """A supervisor with one fragile child, and the times of its lives."""

    def __init__(self, clock: SimulatedClock, policy: RestartPolicy) -> None:
        self.diary: list[str] = []
        self.lives: list[float] = []
        self.states: list[str] = []
        self.supervisor = Supervisor(clock)

        def factory() -> Fragile:
            self.lives.append(clock.monotonic())
            return Fragile(len(self.lives), self.diary)

        self.child: Child[object] = self.supervisor.start(
            "fragile", factory, policy, on_change=lambda child: self.states.append(child.state)
        )
        self.ref: Ref[Fragile] = self.child.ref  # type: ignore[assignment]


async def crash(ref: Ref[Fragile]) -> None:
    with pytest.raises(ActorGone, match="fell over"):
        await ref.ask(Crash(), timeout=1)


async def test_a_crashed_child_is_made_anew_after_a_back_off(clock: SimulatedClock) -> None:
    nursery = Nursery(clock, RestartPolicy(max_restarts=3, backoff_s=1, max_backoff_s=60))
    await asyncio.sleep(0)
    assert await nursery.ref.ask(Hello(), timeout=1) == 1
    await crash(nursery.ref)
    with pytest.raises(ActorGone, match="crashed: RuntimeError: fell over"):
        await nursery.ref.ask(Hello(), timeout=1)
    await clock.sleep(1.1)
    assert await nursery.ref.ask(Hello(), timeout=1) == 2
    assert nursery.child.restarts == 1
    await nursery.supervisor.stop_all()


async def test_restarts_back_off_exponentially_then_the_child_is_visibly_failed(
    clock: SimulatedClock,
) -> None:
    policy = RestartPolicy(max_restarts=3, within_s=600, backoff_s=1, max_backoff_s=3)
    nursery = Nursery(clock, policy)
    await asyncio.sleep(0)
    for pause in (1, 2, 3, None):
        await crash(nursery.ref)
        if pause is not None:
            await clock.sleep(pause + 0.001)
    await nursery.child.ended
    assert [round(at) for at in nursery.lives] == [0, 1, 3, 6]
    assert nursery.child.state == "failed"
    assert str(nursery.child.error) == "fell over"
    assert nursery.states[-1] == "failed"


async def test_crashes_long_ago_do_not_count(clock: SimulatedClock) -> None:
    nursery = Nursery(clock, RestartPolicy(max_restarts=1, within_s=60, backoff_s=1))
    await asyncio.sleep(0)
    for _ in range(5):
        await crash(nursery.ref)
        await clock.sleep(100)
    assert nursery.child.restarts == 5
    await nursery.supervisor.stop_all()


async def test_never_means_never(clock: SimulatedClock) -> None:
    nursery = Nursery(clock, NEVER)
    await asyncio.sleep(0)
    await crash(nursery.ref)
    await nursery.child.ended
    assert nursery.child.state == "failed"
    assert nursery.lives == [0.0]


async def test_for_ever_goes_on_at_a_capped_pace(clock: SimulatedClock) -> None:
    nursery = Nursery(clock, FOR_EVER)
    await asyncio.sleep(0)
    for _ in range(50):
        await crash(nursery.ref)
        await clock.sleep(FOR_EVER.max_backoff_s + 0.001)
    assert nursery.child.restarts == 50
    await nursery.supervisor.stop_all()


async def test_one_child_crashing_leaves_the_others_alone(clock: SimulatedClock) -> None:
    supervisor, diary = Supervisor(clock), list[str]()
    one = supervisor.start("one", lambda: Fragile(1, diary, "one"), NEVER)
    two = supervisor.start("two", lambda: Fragile(1, diary, "two"), NEVER)
    await asyncio.sleep(0)
    await crash(one.ref)  # type: ignore[arg-type]
    assert await two.ref.ask(Hello(), timeout=1) == 1  # type: ignore[arg-type]
    await supervisor.stop_all()
    assert two.state == "stopped"


async def test_shutdown_goes_in_reverse_order_of_the_start(clock: SimulatedClock) -> None:
    supervisor, diary = Supervisor(clock), list[str]()
    for name in ("bus", "job", "front"):
        supervisor.start(name, lambda name=name: Fragile(1, diary, name), NEVER)  # type: ignore[misc]
    await asyncio.sleep(0)
    await supervisor.stop_all()
    assert diary[3:] == ["front 1 ended", "job 1 ended", "bus 1 ended"]


async def test_stopping_during_the_back_off_ends_the_child(clock: SimulatedClock) -> None:
    nursery = Nursery(clock, RestartPolicy(backoff_s=30))
    await asyncio.sleep(0)
    await crash(nursery.ref)
    await clock.sleep(1)
    await nursery.supervisor.stop(nursery.child)
    await clock.sleep(100)
    assert nursery.lives == [0.0]
    assert nursery.child.state == "stopped"


async def test_a_child_that_will_not_end_is_given_up_on(
    clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = asyncio.Event()

    class Stubborn(Fragile):
        async def ended(self) -> None:
            await let_go.wait()

    supervisor = Supervisor(clock, stop_timeout_s=0.05)
    child = supervisor.start("stubborn", lambda: Stubborn(1, []), NEVER)
    await asyncio.sleep(0)
    await supervisor.stop(child)
    assert "stubborn did not end within 0.05 s" in caplog.text
    let_go.set()
    await child.ended
