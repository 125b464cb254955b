"""kill -9 at each step of each protocol: the session is there again, outputs off."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from unit_process import Start, UnitProcess, all_off, outputs, wait_until

from piod.calibrations.protocols.registry import PROTOCOLS
from tests.person import API
from tests.walks import FUSED, MODEL, OFFSET, PHOTODIODES, PUMP, STIRRER, Walk, furnish

pytestmark = pytest.mark.long

XR = ("--unit", "pio01", "--model", "/".join(MODEL))
MEDIA, IR = "13", "A"
RARELY = {"confirm_fit"}
"""Steps to which good measurements do not lead."""


class Session:
    """One session, of a person who takes it up after each outage."""

    def __init__(self, walk: Walk, data_dir: Path) -> None:
        self.walk = walk
        self.data_dir = data_dir
        self.answer: Mapping[str, Any] = {}
        """The last page that was shown."""

    def begin(self, unit: UnitProcess) -> None:
        body = {"protocol_name": self.walk.protocol, "target_device": self.walk.device}
        self.answer = unit.post(API, body)
        self.answer = unit.get(self.path)

    @property
    def path(self) -> str:
        return f"{API}/{self.answer['session']['session_id']}"

    @property
    def is_over(self) -> bool:
        return bool(self.answer["session"]["status"] != "in_progress")

    @property
    def step_id(self) -> str:
        return str(self.answer["step"]["step_id"])

    def prepare(self, unit: UnitProcess) -> dict[str, object]:
        """Put the vial in that belongs there; what is to be posted."""
        od = self.walk.vial(self.answer)
        if od is not None:
            unit.patch("/simulator/plant", {"vial": {"standard_od": od}})
        return {"inputs": self.walk.inputs(self.answer)}

    def go(self, unit: UnitProcess) -> None:
        self.answer = unit.post(f"{self.path}/inputs", self.prepare(unit))

    def kill_while_it_works(self, unit: UnitProcess) -> None:
        """Kill the daemon when the outputs of this step are on."""
        body = self.prepare(unit)
        answers: list[int] = []

        def ask() -> None:
            try:
                answers.append(unit.request("POST", f"{self.path}/inputs", body)[0])
            except OSError:
                pass  # the daemon died while it was asked

        def on() -> bool:
            held = outputs(unit.data_dir)
            # a standard is stirred first; its light comes on later
            return held["led"][IR] > 0 if self.walk.ods else any(held["pwm"].values())

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            wait_until("its outputs", on, 15)
        finally:
            unit.kill9()
            asking.join()
        assert answers == [], "it was over before"
        wait_until("their end", lambda: all_off(unit.data_dir), 5)


@pytest.mark.parametrize(
    ("walk", "scale"),
    [(PUMP, 3), (STIRRER, 20), (PHOTODIODES, 20), (FUSED, 20), (OFFSET, 20)],
    ids=lambda value: getattr(value, "protocol", ""),
)
def test_a_session_survives_a_kill_at_each_step(
    start: Start, tmp_path: Path, walk: Walk, scale: int
) -> None:
    data_dir = tmp_path / "unit"
    furnish(data_dir)
    (protocol,) = (each for each in PROTOCOLS if each.name == walk.protocol)
    steps = {step.id for step in protocol.steps}
    session = Session(walk, data_dir)
    taken, interrupted = set[str](), set[str]()
    while not taken >= steps - RARELY:
        unit = start(data_dir, *XR, "--time-scale", str(scale))
        assert all_off(data_dir)
        if not session.answer:
            session.begin(unit)
        assert unit.get(session.path) == session.answer
        if session.is_over:
            break
        while session.step_id in taken:  # it was killed there already
            session.go(unit)
        step_id = session.step_id
        if step_id in walk.hardware and step_id not in interrupted:
            interrupted.add(step_id)
            session.kill_while_it_works(unit)
        else:
            taken.add(step_id)
            session.go(unit)
            unit.kill9()
            wait_until("the guard", lambda: all_off(data_dir), 5)
    assert taken >= steps - RARELY
    assert interrupted == walk.hardware
    unit = start(data_dir, *XR, "--time-scale", "50")
    assert unit.get(session.path) == session.answer
    while not session.is_over:
        session.go(unit)
    assert session.answer["session"]["status"] == "complete"
    assert unit.get(session.path) == session.answer
    assert all_off(data_dir)
    kind = "estimators" if walk.device == "od_fused" else "calibrations"
    active = unit.get(f"/unit_api/active_{kind}")
    device = "od90" if walk.device == "od" else walk.device
    assert active[device]["created_at"] > "2026-02-12", "it is what was there before"


def test_sigterm_while_a_session_pumps_turns_it_off_and_ends_in_time(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")
    session = Session(PUMP, tmp_path / "unit")
    session.begin(unit)
    while session.step_id != "prime_pump_duration":
        session.go(unit)
    said: list[int] = []

    def ask() -> None:
        inputs = {"inputs": {"prime_duration_s": 60}}
        said.append(unit.request("POST", f"{session.path}/inputs", inputs)[0])

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until("the pump", lambda: outputs(unit.data_dir)["pwm"][MEDIA] > 0, 10)
    unit.signal(signal.SIGTERM)
    wait_until("its end", lambda: all_off(unit.data_dir), 1)
    assert unit.wait_exit(5) == 0
    asking.join()
    assert said == [409]
