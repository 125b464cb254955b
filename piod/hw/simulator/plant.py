"""The truth of the simulated unit: its parts, and the outputs that drive them.

Nothing here knows asyncio, files or wall time. Whoever owns a plant says what
time it is, in seconds on one scale that never goes back, and the plant goes on
to that time when it is asked: from event to event, in closed form where there is
one; growth and dilution in steps (``culture``) until nothing changes any more, so
that a month costs no more than a second. The parts (``vial``, ``culture``, ``heat``,
``optics``, ``pumps``, ``stirrer``) know themselves only; what one does to another is
written here.
"""

from __future__ import annotations

from .culture import SMALLEST_BULK_ML, Culture, stirring_of, warmth_of
from .fields import Fields
from .heat import Heat, TemperatureSensor
from .optics import BUBBLE_PROBABILITY, Optics
from .pumps import ALT_MEDIA, MEDIA, ROLES, WASTE, Pump
from .stirrer import Stirrer
from .vial import Vial

TYPE_CHECKING = False  # typing itself is not needed at run time
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_PIN = 1000
MAX_SEED = 2**63

STIRRING, HEATING = "stirring", "heating"
DRIVEN = (STIRRING, HEATING, *ROLES)
"""What PWM outputs drive."""

MIXING_RPM = 100.0
"""A bar that is slower does not mix what comes in."""

UNSETTLED_STEP_S = 60.0
"""While the temperature is on its way."""
SETTLED_K = 0.01
SHORTEST_STEP_S = 0.001
"""To the next change of the stirrer: so that its time, too, goes on with each step."""
FRESH_FRACTION = 0.05
"""Of the bulk: what may join it in one step."""
STEADY = 1e-9
"""A step that changes everything by less, as a fraction, is the last one that counts."""

RAIL_VOLTS = 12.0
RAIL_DIVIDER = 0.134
"""Of the rail's voltage: what the input ``aux`` of the ADC sees."""


class Plant:
    """One reactor. The same seed and the same inputs give the same outcome.

    ``stirring_pin``, ``heating_pin`` and ``pump_pins`` (by ``media``, ``alt_media``
    and ``waste``): the GPIO numbers of the PWM outputs that drive them; None or
    missing: no output does. Volumes are in mL. ``ir_channel``: of the IR LED.
    """

    STATE = ("seed", "pins", "pwm", "vial", "stirrer", "culture", "heat", "pumps", "optics")
    PATCHABLE = (
        *Vial.PATCHABLE,
        *Culture.PATCHABLE,
        *Heat.PATCHABLE,
        "stirrer",
        "pumps",
    )

    def __init__(
        self,
        *,
        seed: int,
        stirring_pin: int | None,
        heating_pin: int | None = None,
        pump_pins: Mapping[str, int] | None = None,
        ir_channel: str | None = "A",
        volume_ml: float,
        capacity_ml: float,
        efflux_ml: float | None = None,
        max_fill_ml: float | None = None,
        now_s: float = 0.0,
    ) -> None:
        self.seed = seed
        self.vial = Vial(volume_ml, capacity_ml, efflux_ml, max_fill_ml)
        self.culture = Culture()
        self.heat = Heat()
        self.optics = Optics(seed, ir_channel)
        self.pumps = {role: Pump(seed, role) for role in ROLES}
        self.stirrer = Stirrer(seed)
        self._sensor = TemperatureSensor(seed)
        self._pins = _pins(stirring_pin, heating_pin, pump_pins or {})
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

    # -- time ----------------------------------------------------------------------

    def advance_to(self, now_s: float) -> None:
        """Let everything happen up to ``now_s``; a time that is over changes nothing."""
        steady = False
        while now_s > self._now_s:
            left_s = now_s - self._now_s
            step_s, steady = self._go_on(left_s, steady)
            self._now_s = now_s if step_s >= left_s else self._now_s + step_s

    def _go_on(self, left_s: float, steady: bool) -> tuple[float, bool]:
        """One step of at most ``left_s``: how long it was, and whether all is steady now.

        ``steady``: it was so before: then nothing changes until the next event.
        """
        vial, culture, heat = self.vial, self.culture, self.heat
        media, alt_media, waste = (self.pumps[role].flow_ml_per_s for role in ROLES)
        inflow = media + alt_media
        outflow = vial.outflow_ml_per_s(inflow, waste)
        event_s = min(left_s, vial.event_s(inflow, outflow))
        for pump in self.pumps.values():
            if pump.dead_s > 0:
                event_s = min(event_s, pump.dead_s)
        turning_s = self.stirrer.steady_for_s(vial.volume_ml, MIXING_RPM)
        event_s = min(event_s, max(turning_s, SHORTEST_STEP_S))
        if self.stirrer.rpm >= MIXING_RPM and vial.has_layer:
            culture.join(*vial.mix_layer())
        mixed = self.stirrer.rpm >= MIXING_RPM
        warmth = warmth_of(heat.liquid_celsius)
        settled = heat.unsettled_k < SETTLED_K

        if inflow == 0 and not vial.has_layer and culture.rests(warmth if settled else 1.0):
            step_s, steady = event_s, False
            self._turn_and_flow(step_s, media, alt_media, outflow, mixed)
            culture.decay(step_s)
        elif steady and settled:
            step_s, steady = event_s, False
            self._turn_and_flow(step_s, media, alt_media, outflow, mixed)
            culture.hold(step_s)
        else:
            culture_s = culture.longest_step_s(warmth)
            if not settled:
                culture_s = min(culture_s, UNSETTLED_STEP_S)
            if inflow > 0:
                fresh_ml = FRESH_FRACTION * max(vial.bulk_ml, SMALLEST_BULK_ML)
                culture_s = min(culture_s, fresh_ml / inflow)
            if not mixed:
                culture_s = min(culture_s, vial.layer_step_s(media, alt_media))
            step_s = min(event_s, culture_s)
            bulk_ml = vial.bulk_ml
            joined = self._turn_and_flow(step_s, media, alt_media, outflow, mixed)
            changed = culture.advance(
                step_s,
                (
                    warmth,
                    warmth_of(heat.liquid_in(step_s / 2)),
                    warmth_of(heat.liquid_in(step_s)),
                ),
                stirring_of(self.stirrer.rpm),
                bulk_ml,
                vial.bulk_ml - bulk_ml,
                *joined,
            )
            steady = settled and step_s == culture_s and changed < STEADY
        heat.advance(step_s)
        self.optics.advance(step_s)
        if inflow > 0:
            self.optics.dosed()
        for role, flow in ((MEDIA, media), (ALT_MEDIA, alt_media), (WASTE, outflow)):
            self.pumps[role].advance(step_s, flow * step_s)
        return step_s, steady

    def _turn_and_flow(
        self, seconds: float, media: float, alt_media: float, outflow: float, mixed: bool
    ) -> tuple[float, float]:
        """Stirrer and volumes go on; how much media and alt media joined the bulk, mL."""
        vial = self.vial
        self.stirrer.advance(self._now_s, self._now_s + seconds, vial.volume_ml, self._recordings)
        joined = vial.mix(seconds, media, alt_media, mixed)
        vial.flow(seconds, media + alt_media, outflow)
        return joined

    def call_now(self, now_s: float) -> None:
        """Go over to another scale of time, on which the present is ``now_s``."""
        self._sensor.call_now(self._now_s, now_s)
        self.optics.forget()
        self._now_s = now_s

    # -- what drives it ------------------------------------------------------------

    def set_pwm(self, pin: int, duty_percent: float, now_s: float) -> None:
        """An output changes at ``now_s``."""
        self.advance_to(now_s)
        self._duties[pin] = duty_percent
        for driven, its_pin in self._pins.items():
            if its_pin == pin:
                self._drive(driven)
        self.optics.forget()

    def set_outputs(self, duties: Mapping[int, float], now_s: float) -> None:
        """All PWM outputs change at ``now_s``; those not named are off."""
        for pin in sorted({*self._duties, *duties}):
            duty_percent = duties.get(pin, 0.0)
            if duty_percent != self._duties.get(pin, 0.0):
                self.set_pwm(pin, duty_percent, now_s)
        self.advance_to(now_s)

    def set_led(self, channel: str, percent: float, now_s: float) -> None:
        """The level of an LED, ``A`` to ``D``, changes at ``now_s``."""
        self.advance_to(now_s)
        self.optics.set_led(channel, percent)

    def set_leds(self, levels: Mapping[str, float], now_s: float) -> None:
        """All LEDs change at ``now_s``; those not named are off."""
        for channel, percent in self.optics.levels.items():
            if percent != levels.get(channel, 0.0):
                self.set_led(channel, levels.get(channel, 0.0), now_s)
        self.advance_to(now_s)

    def wire(
        self,
        stirring_pin: int | None,
        heating_pin: int | None = None,
        pump_pins: Mapping[str, int] | None = None,
        ir_channel: str | None = "A",
    ) -> None:
        """Everything hangs on these outputs from now on."""
        self._pins = _pins(stirring_pin, heating_pin, pump_pins or {})
        for driven in DRIVEN:
            self._drive(driven)
        self.optics.ir_channel = ir_channel
        self.optics.forget()

    def _drive(self, driven: str) -> None:
        """Its output has changed, or it hangs on another one."""
        duty_percent = self._duty_of(driven)
        if driven == STIRRING:
            self.stirrer.drive(duty_percent, self.vial.volume_ml)
        elif driven == HEATING:
            self.heat.duty_percent = duty_percent
        else:
            self.pumps[driven].drive(duty_percent)

    def _duty_of(self, driven: str) -> float:
        pin = self._pins[driven]
        return 0.0 if pin is None else self._duties.get(pin, 0.0)

    # -- what is broken ------------------------------------------------------------

    def jam_stirrer(self, jammed: bool, now_s: float) -> None:
        """Something holds the bar, or lets it go, at ``now_s``."""
        self.advance_to(now_s)
        self.stirrer.jam(jammed)

    def break_heater(self, stuck_percent: float | None, now_s: float) -> None:
        """The heater gets this, whatever its output says; None: it is sound again."""
        self.advance_to(now_s)
        self.heat.stuck_percent = stuck_percent

    def break_pumps(self, broken: Collection[str], now_s: float) -> None:
        """These pump nothing from ``now_s`` on, the others do."""
        self.advance_to(now_s)
        for role, pump in self.pumps.items():
            pump.broken = role in broken

    def break_sensor(
        self,
        now_s: float,
        *,
        stuck: bool = False,
        stuck_celsius: float | None = None,
        offset_k: float = 0.0,
        drift_k_per_s: float = 0.0,
    ) -> None:
        """How the temperature sensor lies from ``now_s`` on.

        ``stuck``: it shows ``stuck_celsius``, or what it shows now.
        """
        self.advance_to(now_s)
        board = self.heat.board_celsius
        self._sensor.lie(offset_k, drift_k_per_s, now_s)
        self._sensor.stick(stuck, stuck_celsius, board, now_s)

    def set_bubbles(self, probability: float | None, now_s: float) -> None:
        """An OD reading meets a bubble with that probability; None: the usual one."""
        self.advance_to(now_s)
        self.optics.bubbles(BUBBLE_PROBABILITY if probability is None else probability)

    # -- what the chips measure ----------------------------------------------------

    def photodiode_volts(self, angle: str | None, now_s: float, *, hum: bool = True) -> float:
        """What a photodiode gives at ``now_s``, with its noise.

        ``angle``: 45, 90, 135, 180 or REF; None: the dark offset of an input to
        which nothing is connected. ``hum``: of the mains, 60 Hz. A time that is
        over is answered for the present.
        """
        optics = self.optics
        if not optics.knows(now_s):
            self.advance_to(now_s)
            optics.look(now_s, self.culture.biomass, self.stirrer.rpm)
        return optics.volts(angle, now_s, hum)

    def pcb_sensor_celsius(self, now_s: float) -> float:
        """What the sensor on the heating PCB feels at ``now_s``; not quantised."""
        self.advance_to(now_s)
        return self._sensor.celsius(self.heat.board_celsius, now_s)

    def aux_volts(self, now_s: float) -> float:
        """The rail of the PWM outputs as the ADC sees it."""
        return RAIL_VOLTS * RAIL_DIVIDER

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
        """What a perfect observer would see: mL, mL/s, OD, °C, RPM, percent, per hour."""
        warmth = warmth_of(self.heat.liquid_celsius)
        return {
            **self.vial.truth(),
            **self.culture.truth(warmth, stirring_of(self.stirrer.rpm)),
            **self.heat.truth(),
            "rpm": round(self.stirrer.rpm, 3),
            "stirrer": self.stirrer.truth(),
            "pumps": {role: pump.truth() for role, pump in self.pumps.items()},
            **self.optics.truth(),
            "pwm": {str(pin): duty for pin, duty in sorted(self._duties.items())},
        }

    def patch(self, changes: object) -> None:
        """Change the truth as ``changes`` says, wholly or, with BadRequest, not at all."""
        fields = Fields(changes, "", self.PATCHABLE)
        applying = [self.vial.patch(fields), self.culture.patch(fields), self.heat.patch(fields)]
        if "stirrer" in fields:
            applying.append(self.stirrer.patch(fields.value("stirrer")))
        if "pumps" in fields:
            pumps = Fields(fields.value("pumps"), "pumps", ROLES)
            applying += [self.pumps[r].patch(pumps.value(r)) for r in ROLES if r in pumps]
        for apply in applying:
            apply()
        self.optics.forget()

    def to_json(self) -> dict[str, object]:
        """The whole state but time and faults, for :meth:`from_json`.

        The noise needs no state: it is drawn from the seed, by time, turn or reading.
        """
        return {
            "seed": self.seed,
            "pins": self._pins,
            "pwm": {str(pin): duty for pin, duty in sorted(self._duties.items())},
            "vial": self.vial.to_json(),
            "stirrer": self.stirrer.to_json(),
            "culture": self.culture.to_json(),
            "heat": self.heat.to_json(),
            "pumps": {role: pump.to_json() for role, pump in self.pumps.items()},
            "optics": self.optics.to_json(),
        }

    @classmethod
    def from_json(cls, state: object, now_s: float) -> Plant:
        """The plant as it was, its present called ``now_s``; BadRequest if unreadable."""
        fields = Fields(state, "plant", cls.STATE)
        vial = Vial.from_json(fields.value("vial"))
        wired = Fields(fields.value("pins"), "pins", DRIVEN)
        pins = {
            driven: None if wired.value(driven) is None else wired.integer(driven, 0, MAX_PIN)
            for driven in DRIVEN
        }
        plant = cls(
            seed=fields.integer("seed", -MAX_SEED, MAX_SEED),
            stirring_pin=None,
            volume_ml=vial.volume_ml,
            capacity_ml=vial.capacity_ml,
            now_s=now_s,
        )
        seed, plant.vial, plant._pins = plant.seed, vial, pins
        plant._duties = read_duties(fields.value("pwm"), "pwm")
        duties = {driven: plant._duty_of(driven) for driven in DRIVEN}
        plant.stirrer = Stirrer.from_json(fields.value("stirrer"), seed, duties[STIRRING])
        plant.culture = Culture.from_json(fields.value("culture"))
        plant.heat = Heat.from_json(fields.value("heat"), duties[HEATING])
        pumps = Fields(fields.value("pumps"), "pumps", ROLES)
        plant.pumps = {
            role: Pump.from_json(pumps.value(role), seed, role, duties[role]) for role in ROLES
        }
        plant.optics = Optics.from_json(fields.value("optics"), seed)
        return plant


def _pins(
    stirring_pin: int | None, heating_pin: int | None, pump_pins: Mapping[str, int]
) -> dict[str, int | None]:
    pumps = {role: pump_pins.get(role) for role in ROLES}
    return {STIRRING: stirring_pin, HEATING: heating_pin, **pumps}


def read_duties(value: object, name: str) -> dict[int, float]:
    """Duty cycles by pin, percent, out of JSON, where pins are text; BadRequest."""
    known = value if isinstance(value, dict) else {}
    pins = [pin for pin in known if isinstance(pin, str) and pin.isascii() and pin.isdecimal()]
    fields = Fields(value, name, pins)
    return {int(pin): fields.number(pin, 0, 100) for pin in pins}
