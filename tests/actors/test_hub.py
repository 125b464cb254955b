from __future__ import annotations

import asyncio

from piod.actors.hub import Hub, Lagged
from piod.events import JobIdentity, JsonValue, PwmChanged, SettingPublished


def event(number: int) -> PwmChanged:
    return PwmChanged({17: float(number)}, at=float(number))


async def test_every_subscriber_receives_every_event_in_order() -> None:
    hub = Hub()
    with hub.subscribe() as one, hub.subscribe() as two:
        for number in range(3):
            hub.publish(event(number))
        for subscription in (one, two):
            assert [await anext(subscription) for _ in range(3)] == [event(n) for n in range(3)]


async def test_a_slow_subscriber_loses_its_oldest_events_and_is_told_how_many() -> None:
    hub = Hub()
    with hub.subscribe(capacity=10) as slow, hub.subscribe(capacity=100) as quick:
        for number in range(25):
            hub.publish(event(number))
        assert await anext(slow) == Lagged(15)
        assert await anext(slow) == event(15)
        assert await anext(quick) == event(0)


async def test_publishing_never_waits_for_anyone() -> None:
    hub = Hub()
    with hub.subscribe(capacity=1):
        for number in range(10_000):
            hub.publish(event(number))  # not a coroutine: it cannot wait


async def test_a_waiting_subscriber_is_woken() -> None:
    hub = Hub()
    with hub.subscribe() as subscription:
        waiting = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        hub.publish(event(1))
        assert await waiting == event(1)


async def test_a_closed_subscription_ends_after_what_has_arrived() -> None:
    hub = Hub()
    subscription = hub.subscribe()
    hub.publish(event(1))
    subscription.close()
    hub.publish(event(2))
    assert [received async for received in subscription] == [event(1)]


def setting(job_id: str, name: str, value: JsonValue) -> SettingPublished:
    job = JobIdentity("pio01", "E", "stirring", job_id)
    return SettingPublished(job, name, value, str(value), persist=False, at=0.0)


def test_it_knows_what_the_newest_living_job_of_a_name_publishes() -> None:
    hub = Hub()
    assert hub.settings_of("stirring") is None
    hub.publish(setting("1", "$state", "ready"))
    hub.publish(setting("1", "target_rpm", 400.0))
    hub.publish(setting("2", "target_rpm", 500.0))
    assert hub.settings_of("stirring") == {"target_rpm": 500.0}
    hub.publish(setting("2", "$state", "lost"))
    assert hub.settings_of("stirring") == {"$state": "ready", "target_rpm": 400.0}
    hub.publish(setting("1", "target_rpm", None))
    assert hub.settings_of("stirring") == {"$state": "ready"}
    hub.publish(setting("1", "$state", "disconnected"))
    hub.publish(setting("1", "target_rpm", None))  # a straggler
    assert hub.settings_of("stirring") is None
