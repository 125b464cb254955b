"""What jobs remember: by experiment and key, in batches or at once."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from piod.events import JsonValue
from piod.storage.ledger import Ledger
from piod.storage.memory import ExperimentMemory


def now() -> float:
    return 1_790_000_000.0


async def test_values_are_kept_by_experiment_and_survive_a_new_start(tmp_path: Path) -> None:
    ledger = await Ledger.open(tmp_path / "piod.sqlite", nullcontext)
    one, other = (ExperimentMemory(ledger, name, now) for name in ("E", "F"))
    value: JsonValue = {"2": 0.5, "é": [1, None, True]}
    await one.keep("od_blank", value)
    one.keep_later("filter", 1)
    one.keep_later("filter", 2)
    assert await one.recall("filter") == 2
    assert await other.recall("od_blank") is None
    await ledger.close()
    ledger = await Ledger.open(tmp_path / "piod.sqlite", nullcontext)
    one = ExperimentMemory(ledger, "E", now)
    assert await one.recall("od_blank") == value
    assert await one.recall("filter") == 2
    await one.keep("od_blank", None)
    assert await one.recall("od_blank") is None
    await ledger.close()


async def test_an_older_value_of_a_batch_never_wins_over_a_durable_one(tmp_path: Path) -> None:
    ledger = await Ledger.open(tmp_path / "piod.sqlite", nullcontext)
    memory = ExperimentMemory(ledger, "E", now)
    memory.keep_later("filter", "old")
    await memory.keep("filter", None)
    await ledger.database.flush()
    assert await memory.recall("filter") is None
    await ledger.close()


async def test_what_is_no_json_is_refused_at_once(tmp_path: Path) -> None:
    ledger = await Ledger.open(tmp_path / "piod.sqlite", nullcontext)
    with pytest.raises(ValueError, match="JSON"):
        ExperimentMemory(ledger, "E", now).keep_later("filter", float("nan"))
    await ledger.close()
