"""The way of a person through each of the five protocols: what is typed at which page.

A :class:`Walk` is told the page, as the API shows it, and says what to post there and which
vial belongs into the reactor. So it goes on from wherever a session is, in this process
or in another. :func:`furnish` lays the data directory out so that every protocol can be run,
and every name that is typed is taken already.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from piod.calibrations.estimators import FusedEstimator
from piod.calibrations.fits import fit_fused
from piod.calibrations.writing import artifact_text
from piod.clock import SimulatedClock
from piod.hw.simulator.optics import BLANK_VOLTS, CELL_GAIN, CELL_VOLTS, SATURATION_OD
from tests.person import Person, put_in
from tests.unit import Unit, running_unit

MODEL = ("pioreactor_20ml_XR", "1.5")
ANGLES = {"pd1": "45", "pd2": "90", "pd3": "135", "pd4": "REF"}
CONFIG = (
    "[leds]\nA=IR\n[od_reading.config]\nref_normalization=unity\n"
    "[od_config.photodiode_channel]\n1=45\n2=90\n3=135\n4=REF\n"
    "[stirring.config]\ninitial_target_rpm=500\n"
)
MODEL_ODS = (0.05, 0.15, 0.4, 1.0, 2.5, 6.0)
LIGHT = 204 / 257
"""Of the IR LED at the usual 80 %."""

Page = Mapping[str, Any]


@dataclass(frozen=True)
class Walk:
    """One protocol. Where neither a list nor a rule is given for a page, nothing is posted."""

    protocol: str
    device: str
    typed: Mapping[str, Mapping[str, object]]
    """By step."""
    hardware: frozenset[str]
    """Steps at which outputs go on."""
    ods: Sequence[float] = ()
    """Of the standards, in their order."""
    standards_key: str = "standards"
    """Of the data: what was measured of each standard so far."""
    od_field: tuple[str, str] = ("", "")
    """The step at which the OD of a standard is typed, and into which field."""
    more_field: tuple[str, str, object, object] = ("", "", None, None)
    """The step that asks for another standard, its field, and what is yes and no there."""
    blank_step: str = field(default="measure_blank")

    def inputs(self, page: Page) -> dict[str, object]:
        """What to post at ``page``: it is accepted there."""
        step_id, measured = page["step"]["step_id"], self._measured(page)
        if step_id == self.od_field[0]:
            return {self.od_field[1]: self.ods[measured]}
        if step_id == self.more_field[0]:
            _, name, yes, no = self.more_field
            return {name: yes if measured < len(self.ods) else no}
        return dict(self.typed.get(step_id, {}))

    def vial(self, page: Page) -> float | None:
        """The OD of what belongs into the reactor at ``page``; None: whatever is there."""
        step_id, measured = page["step"]["step_id"], self._measured(page)
        if step_id not in self.hardware or not self.ods:
            return None
        return 0.0 if step_id == self.blank_step else self.ods[measured]

    def _measured(self, page: Page) -> int:
        return len(page["session"]["data"].get(self.standards_key, ()))


PUMP = Walk(
    "duration_based",
    "media_pump",
    {
        "name_input": {"calibration_name": "mine"},
        "name_overwrite_confirm": {"overwrite": True},
        "volume_targets": {"mls_to_calibrate_for": [0.5, 1.0]},
        "pwm_settings": {"hz": 250, "dc": 100},
        "prime_pump_duration": {"prime_duration_s": 5},
        "tracer_volume": {"volume_ml": 0.1},
        "test_volume": {"volume_ml": 0.5},
        "confirm_fit": {"keep": True},
    },
    frozenset({"prime_pump_duration", "tracer_run", "test_run"}),
)
STIRRER = Walk(
    "dc_based", "stirring", {"confirm_fit": {"keep": True}}, frozenset({"run_calibration"})
)
PHOTODIODES = Walk(
    "standards",
    "od",
    {
        "name_input": {"calibration_name": "mine"},
        "name_overwrite_confirm": {"overwrite": True},
        "rpm_input": {"rpm": 500},
        "measure_blank": {"od600_blank": 0},
        "confirm_fit": {"keep": True},
    },
    frozenset({"measure_standard", "measure_blank"}),
    ods=(2.0, 1.0, 0.4),
    standards_key="od600_values",
    od_field=("measure_standard", "od600_value"),
    more_field=(
        "another_standard",
        "next_action",
        "record another standard",
        "continue to blank",
    ),
)
FUSED = Walk(
    "od_fusion_standards",
    "od_fused",
    {
        "name": {"estimator_name": "mine"},
        "name_overwrite": {"overwrite": True},
        "rpm": {"rpm": 500},
    },
    frozenset({"record_observation"}),
    ods=(0.1, 0.4, 1.0, 4.0),
    od_field=("measure_standard", "od_value"),
    more_field=("another_standard", "another", True, False),
)
OFFSET = Walk(
    "od_fusion_offset",
    "od_fused",
    {
        "select_worker": {"source_unit": "pio01"},
        "select_estimator": {"source_estimator_name": "theirs"},
        "name": {"estimator_name": "mine"},
        "name_overwrite": {"overwrite": True},
        "rpm": {"rpm": 500},
    },
    frozenset({"record_observation"}),
    ods=(0.2, 2.0),
    od_field=("standard_od", "standard_od"),
)
WALKS = (PUMP, STIRRER, PHOTODIODES, FUSED, OFFSET)


async def take(person: Person, walk: Walk, vials: Walk | None = None) -> None:
    """Take the step; with the vials of another walk, if one is given."""
    od = (vials or walk).vial(person.answer)
    if od is not None:
        await put_in(person.unit, od)
    await person.go(**walk.inputs(person.answer))


async def walk_to(person: Person, walk: Walk, step_id: str) -> None:
    """Take steps until the session is at ``step_id``."""
    while person.step_id != step_id:
        await take(person, walk)


@asynccontextmanager
async def xr(data_dir: Path, clock: SimulatedClock) -> AsyncIterator[Unit]:
    """A unit that is laid out so."""
    furnish(data_dir)
    async with running_unit(
        data_dir, clock, default_model=MODEL, wired_for=MODEL, angles=ANGLES
    ) as unit:
        yield unit


def furnish(data_dir: Path) -> None:
    """An XR with its configuration, a fused model ``theirs``, and ``mine`` of every device."""
    data_dir.mkdir(exist_ok=True)
    (data_dir / "config.ini").write_text(CONFIG)
    storage = data_dir / "storage"
    _write(storage / "calibrations" / "media_pump" / "mine.yaml", _curve("media_pump"))
    _write(storage / "calibrations" / "od90" / "mine.yaml", _curve("od90"))
    for name in ("mine", "theirs"):
        text = artifact_text(true_model(name))
        _write(storage / "estimators" / "od_fused" / f"{name}.yaml", text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _curve(device: str) -> str:
    if device == "media_pump":
        kind = "calibration_type: simple_peristaltic_pump\nhz: 250\ndc: 100\nvoltage: 12\n"
    else:
        angle = device.removeprefix("od")
        kind = f"calibration_type: od600\nangle: '{angle}'\nir_led_intensity: 80\npd_channel: '2'\n"
    return (
        f"{kind}calibration_name: mine\ncalibrated_on_pioreactor_unit: pio01\n"
        "created_at: 2026-02-11T14:05:09.500Z\n"
        "curve_data_: {type: poly, coefficients: [0.1, 0.0]}\nrecorded_data: {x: [], y: []}\n"
    )


def true_model(name: str) -> FusedEstimator:
    """What the simulated optics do in truth, as a fused model."""
    fit = fit_fused(
        [
            (angle, math.log10(od), math.log(volts))
            for od in MODEL_ODS
            for angle, volts in true_volts(od).items()
        ]
    )
    return FusedEstimator(
        estimator_name=name,
        calibrated_on_pioreactor_unit="pio01",
        created_at=datetime(2026, 2, 11, tzinfo=UTC),
        ir_led_intensity=80.0,
        angles=fit.angles,
        mu_splines=fit.mu_splines,
        sigma_splines_log=fit.sigma_splines_log,
        min_logc=fit.min_logc,
        max_logc=fit.max_logc,
        sigma_floor=fit.sigma_floor,
        recorded_data={"by_angle": fit.by_angle},
        y="log(Voltage)",
        low_conc_scales={},
        raw={},
    )


def true_volts(od: float) -> dict[str, float]:
    """What the photodiode of each angle gives."""
    cells = CELL_VOLTS * od / (1 + od / SATURATION_OD)
    return {angle: LIGHT * (BLANK_VOLTS[angle] + CELL_GAIN[angle] * cells) for angle in CELL_GAIN}
