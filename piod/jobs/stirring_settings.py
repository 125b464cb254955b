"""What stirring is told: its options, its published settings, ``[stirring.config]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from piod.config import Config
from piod.errors import BadRequest
from piod.events import JsonValue
from piod.jobs.job import Option, Options, Setting

MAX_TARGET_RPM = 5000.0
SECTION = "stirring.config"
DODGING = "enable_dodging_od"
DURING = "target_rpm_during_od_reading"
OUTSIDE = "target_rpm_outside_od_reading"
NEEDS_RPM = "enable_dodging_od needs a target speed, and this stirring runs without RPM feedback"
NEEDS_RPM_REMEDIATION = "Run stirring with use_rpm."

OPTIONS = (
    Option(
        "target_rpm",
        "float range",
        "the speed to keep, RPM",
        minimum=0,
        maximum=1500,
        clamp=True,
    ),
    Option("use_rpm", "boolean", "lead the duty cycle by the measured speed"),
    Option("duty_cycle", "float range", "first duty cycle, %", minimum=0, maximum=100),
    Option(
        "target_rpm_during_od_reading",
        "float",
        "speed while OD is read, RPM",
        minimum=0,
        maximum=MAX_TARGET_RPM,
    ),
    Option(
        "target_rpm_outside_od_reading",
        "float",
        "speed between OD readings, RPM",
        minimum=0,
        maximum=MAX_TARGET_RPM,
    ),
    Option("enable_dodging_od", "boolean", "change speed around OD readings"),
)

SETTINGS = (
    Setting(
        "target_rpm",
        "float",
        settable=True,
        unit="RPM",
        minimum=0,
        maximum=MAX_TARGET_RPM,
        kept=True,
    ),
    Setting("measured_rpm", "MeasuredRPM", unit="RPM"),
    Setting("duty_cycle", "float", settable=True, unit="%", minimum=0, maximum=100, kept=True),
    Setting(
        "target_rpm_during_od_reading",
        "float",
        settable=True,
        unit="RPM",
        minimum=0,
        maximum=MAX_TARGET_RPM,
    ),
    Setting(
        "target_rpm_outside_od_reading",
        "float",
        settable=True,
        unit="RPM",
        minimum=0,
        maximum=MAX_TARGET_RPM,
    ),
    Setting("enable_dodging_od", "boolean", settable=True),
    Setting("currently_dodging_od", "boolean"),
    Setting("stalled", "boolean"),
)


@dataclass(frozen=True)
class StirringSettings:
    """What stirring is told, from its options and ``[stirring.config]``."""

    use_rpm: bool
    target_rpm: float
    duty_percent: float
    """Duty cycle without RPM feedback, and the line's reference with it."""
    duty_is_given: bool
    """A person named the first duty cycle; it is used instead of the feed-forward."""
    period_s: float
    rpm_during_od_reading: float
    rpm_outside_od_reading: float
    enable_dodging_od: bool

    @classmethod
    def of(cls, options: Options, config: Config) -> StirringSettings:
        """Options win over the configuration.

        A target that a run names is the speed between OD readings, too, unless it names
        another one for that. Raises ConfigurationError; BadRequest.
        """
        section = SECTION

        def number(option: str, key: str, default: float, high: float) -> float:
            given = options.get(option)
            if isinstance(given, int | float):
                return float(given)
            return config.number(section, key, default, minimum=0, maximum=high)

        def boolean(option: str, default: bool) -> bool:
            given = options.get(option)
            return given if isinstance(given, bool) else config.boolean(section, option, default)

        use_rpm = boolean("use_rpm", True)
        enable_dodging_od = boolean(DODGING, False)
        if enable_dodging_od and not use_rpm:
            raise BadRequest(NEEDS_RPM, remediation=NEEDS_RPM_REMEDIATION)
        target_rpm = number("target_rpm", "initial_target_rpm", 500.0, MAX_TARGET_RPM)
        outside_rpm = number(OUTSIDE, OUTSIDE, target_rpm, MAX_TARGET_RPM)
        if "target_rpm" in options and OUTSIDE not in options:
            outside_rpm = target_rpm
        return cls(
            use_rpm=use_rpm,
            target_rpm=target_rpm,
            duty_percent=number("duty_cycle", "initial_duty_cycle", 30.0, 100.0),
            duty_is_given="duty_cycle" in options,
            period_s=config.number(section, "duration_between_updates_seconds", 23.0, minimum=1.0),
            rpm_during_od_reading=number(DURING, DURING, 0.0, MAX_TARGET_RPM),
            rpm_outside_od_reading=outside_rpm,
            enable_dodging_od=enable_dodging_od,
        )


def check_changes(changes: Mapping[str, JsonValue], *, use_rpm: bool, dodges: bool) -> None:
    """Raises BadRequest for a change of settings that a running stirring cannot follow.

    ``use_rpm``: whether it has a target speed; ``dodges``: whether it dodges OD readings now.
    """
    if "target_rpm" in changes and not use_rpm:
        raise BadRequest(
            "target_rpm cannot be set: this stirring runs without RPM feedback",
            remediation="Set duty_cycle, or run stirring with use_rpm.",
        )
    will_dodge = changes.get(DODGING, dodges)
    if will_dodge and not use_rpm:
        raise BadRequest(NEEDS_RPM, remediation=NEEDS_RPM_REMEDIATION)
    for setting in (DURING, OUTSIDE):
        if setting in changes and not will_dodge:
            raise BadRequest(
                f"{setting} can be set only while stirring dodges OD readings",
                remediation=f"Set {DODGING} first, or with it.",
            )
