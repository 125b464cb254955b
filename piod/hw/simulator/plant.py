"""The truth of the simulated unit: its parts, and the outputs that drive them.

Nothing here knows asyncio, files or wall time. Whoever owns a plant says what
time it is, in seconds on one scale that never goes back, and the plant goes on
to that time when it is asked: in closed form from event to event, so that a
month costs no more than a second. The parts (``vial``, ``stirrer``) know
themselves only; what one does to another is written here.
"""

from __future__ import annotations

from .fields import Fields
from .stirrer import Stirrer
from .vial import Vial

TYPE_CHECKING = False  # typing itself is not needed at run time
if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PIN = 1000
MAX_SEED = 2**63


class Plant:
    """One reactor. The same seed and the same inputs give the same outcome.

    ``stirring_pin``: the GPIO number of the PWM output that drives the stirring
    motor; None: no output does.
    """

    STATE = ("seed", "stirring_pin", "pwm", "vial", "stirrer")
    PATCHABLE = (*Vial.PATCHABLE, "stirrer")

    def __init__(
        self,
        *,
        seed: int,
        stirring_pin: int | None,
        volume_ml: float,
        capacity_ml: float,
        now_s: float = 0.0,
    ) -> None:
        self.seed = seed
        self.stirring_pin = stirring_pin
        self.vial = Vial(volume_ml, capacity_ml)
        self.stirrer = Stirrer(seed)
        self._now_s = now_s
        self._duties: dict[int, float] = {}
        self._recordings: list[list[float]] = []

    @property
    def now_s(self) -> float:
        """The time up to which everything has happened."""
        return self._now_s

    @property
    def duties(self) -> Mapping[int, float]:
        """What the PWM outputs hold, by pin, percent; a pin never driven is absent."""
        return self._duties

    def advance_to(self, now_s: float) -> None:
        """Let everything happen up to ``now_s``; a time that is over changes nothing."""
        if now_s > self._now_s:
            self.stirrer.advance(self._now_s, now_s, self.vial.volume_ml, self._recordings)
            self._now_s = now_s

    def call_now(self, now_s: float) -> None:
        """Go over to another scale of time, on which the present is ``now_s``."""
        self._now_s = now_s

    def set_pwm(self, pin: int, duty_percent: float, now_s: float) -> None:
        """An output changes at ``now_s``."""
        self.advance_to(now_s)
        self._duties[pin] = duty_percent
        if pin == self.stirring_pin:
            self.stirrer.drive(duty_percent, self.vial.volume_ml)

    def set_outputs(self, duties: Mapping[int, float], now_s: float) -> None:
        """All outputs change at ``now_s``; those not named are off."""
        for pin in sorted({*self._duties, *duties}):
            duty_percent = duties.get(pin, 0.0)
            if duty_percent != self._duties.get(pin, 0.0):
                self.set_pwm(pin, duty_percent, now_s)
        self.advance_to(now_s)

    def wire(self, stirring_pin: int | None) -> None:
        """The stirring motor hangs on another output from now on."""
        if stirring_pin != self.stirring_pin:
            self.stirring_pin = stirring_pin
            self.stirrer.drive(self._stirring_percent(), self.vial.volume_ml)

    def jam_stirrer(self, jammed: bool, now_s: float) -> None:
        """Something holds the bar, or lets it go, at ``now_s``."""
        self.advance_to(now_s)
        self.stirrer.jam(jammed)

    # -- the hall sensor ---------------------------------------------------------

    @property
    def records(self) -> int:
        """How many recordings are going on."""
        return len(self._recordings)

    def start_recording(self, now_s: float) -> list[float]:
        """A list to which the falling edges from ``now_s`` on are added as time goes on."""
        self.advance_to(now_s)
        recording: list[float] = []
        self._recordings.append(recording)
        return recording

    def stop_recording(self, recording: list[float], now_s: float) -> None:
        """``recording`` is complete at ``now_s`` and gets no more edges."""
        self.advance_to(now_s)
        self._recordings = [other for other in self._recordings if other is not recording]

    # -- what others see and put in ----------------------------------------------

    def truth(self) -> dict[str, object]:
        """What a perfect observer would see: mL, RPM, percent."""
        return {
            "volume_ml": self.vial.volume_ml,
            "capacity_ml": self.vial.capacity_ml,
            "rpm": round(self.stirrer.rpm, 3),
            "stirrer": self.stirrer.truth(),
            "pwm": {str(pin): duty for pin, duty in sorted(self._duties.items())},
        }

    def patch(self, changes: object) -> None:
        """Change the truth as ``changes`` says, wholly or, with BadRequest, not at all."""
        fields = Fields(changes, "", self.PATCHABLE)
        applying = [self.vial.patch(fields)]
        if "stirrer" in fields:
            applying.append(self.stirrer.patch(fields.value("stirrer")))
        for apply in applying:
            apply()

    def to_json(self) -> dict[str, object]:
        """The whole state but time, for :meth:`from_json`.

        The noise needs no state: it is drawn from the seed, by time and by turn.
        """
        return {
            "seed": self.seed,
            "stirring_pin": self.stirring_pin,
            "pwm": {str(pin): duty for pin, duty in sorted(self._duties.items())},
            "vial": self.vial.to_json(),
            "stirrer": self.stirrer.to_json(),
        }

    @classmethod
    def from_json(cls, state: object, now_s: float) -> Plant:
        """The plant as it was, its present called ``now_s``; BadRequest if unreadable."""
        fields = Fields(state, "plant", cls.STATE)
        vial = Vial.from_json(fields.value("vial"))
        stirring_pin = None
        if fields.value("stirring_pin") is not None:
            stirring_pin = fields.integer("stirring_pin", 0, MAX_PIN)
        plant = cls(
            seed=fields.integer("seed", -MAX_SEED, MAX_SEED),
            stirring_pin=stirring_pin,
            volume_ml=vial.volume_ml,
            capacity_ml=vial.capacity_ml,
            now_s=now_s,
        )
        plant._duties = read_duties(fields.value("pwm"), "pwm")
        plant.stirrer = Stirrer.from_json(
            fields.value("stirrer"), plant.seed, plant._stirring_percent()
        )
        return plant

    def _stirring_percent(self) -> float:
        return 0.0 if self.stirring_pin is None else self._duties.get(self.stirring_pin, 0.0)


def read_duties(value: object, name: str) -> dict[int, float]:
    """Duty cycles by pin, percent, out of JSON, where pins are text; BadRequest."""
    known = value if isinstance(value, dict) else {}
    pins = [pin for pin in known if isinstance(pin, str) and pin.isascii() and pin.isdecimal()]
    fields = Fields(value, name, pins)
    return {int(pin): fields.number(pin, 0, 100) for pin in pins}
