"""The active pointers, as the ledger keeps them."""

from __future__ import annotations

from pathlib import Path

from piod.clock import SimulatedClock
from piod.storage.ledger import Ledger
from piod.storage.pointers import ActivePointers


async def test_pointers_survive_a_restart(tmp_path: Path, clock: SimulatedClock) -> None:
    ledger = await Ledger.open(tmp_path / "piod.sqlite", clock.hold)
    pointers = ActivePointers(ledger)
    assert await pointers.get("calibration", "od") is None
    assert await pointers.all("calibration") == {}
    await pointers.set("calibration", "stirring", "a")
    await pointers.set("calibration", "od", "b")
    await pointers.set("calibration", "od", "c d")
    await pointers.set("estimator", "od", "e")
    await pointers.set("calibration", "waste_pump", "gone")
    await pointers.remove("calibration", "waste_pump")
    await pointers.remove("calibration", "never")
    await ledger.close()
    ledger = await Ledger.open(tmp_path / "piod.sqlite", clock.hold)
    pointers = ActivePointers(ledger)
    assert list((await pointers.all("calibration")).items()) == [("od", "c d"), ("stirring", "a")]
    assert await pointers.get("estimator", "od") == "e"
    assert await pointers.get("estimator", "stirring") is None
    await ledger.close()


async def test_facts_are_found_by_the_beginning_of_their_key_alone(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    ledger = await Ledger.open(tmp_path / "piod.sqlite", clock.hold)
    for key in ("a_:1", "aX:2", "a_:", "b", "a%"):
        await ledger.put_meta(key, key)
    ledger.mark_alive("2026-01-01T00:00:00.000Z")
    assert set(await ledger.metas("a_:")) == {"a_:", "a_:1"}
    assert set(await ledger.metas("a%")) == {"a%"}
    # what is not written yet counts too
    assert (await ledger.metas("alive"))["alive_at"] == "2026-01-01T00:00:00.000Z"
    await ledger.remove_meta("a_:")
    assert set(await ledger.metas("a_:")) == {"a_:1"}
    await ledger.close()
