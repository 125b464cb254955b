"""The plant runs on while no daemon looks after it.

The outputs keep what they hold when the daemon dies, and so the pumps pump and
the stirrer turns. A start of the daemon and ``safe-outputs`` first call
:func:`run_on`. Two files in ``<data-dir>/simulator`` say what happened:

- ``plant.json``: the plant as the daemon last saved it, with the duties then;
- ``outputs.json``: what the outputs hold, and since when, by its mtime: the
  daemon, the guard or ``safe-outputs`` wrote it last.

So the plant goes from its saved instant to that mtime with its own duties, and
from there to now with those of ``outputs.json``. Wall time counts one to one.

``plant.json``: ``{"saved_unix_s": wall time, "simulated_unix_s": the unit's own
time then, "plant": {…}}``.
"""

from __future__ import annotations

import json
import os

from piod.errors import BadRequest
from piod.hw.off import replace_file

from .fields import Fields
from .plant import Plant, read_duties

TYPE_CHECKING = False  # typing itself is not needed at run time
if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PLANT_FILE = "plant.json"
OUTPUTS_FILE = "outputs.json"

LED_CHANNELS = "ABCD"

MAX_UNIX_S = 1e11


def output_names(pwm_pins: Iterable[int]) -> list[str]:
    """Every output of a unit as the guard and ``safe-outputs`` name it: ``pwm:17``, ``led:A``."""
    return [f"pwm:{pin}" for pin in pwm_pins] + [f"led:{channel}" for channel in LED_CHANNELS]


class Resumed:
    """A plant brought up to the present.

    Its time scale is wall Unix time until :meth:`Plant.call_now` changes it.
    ``start_time``: the Unix time at which the unit's clock is to start; never
    before the time at which it stopped.
    """

    def __init__(self, plant: Plant, start_time: float) -> None:
        self.plant = plant
        self.start_time = start_time


def run_on(directory: Path, now_wall: float) -> Resumed | None:
    """Bring the plant kept in ``directory`` up to the wall time ``now_wall`` and save it.

    None: there is none. A file that cannot be understood is set aside with a
    warning: without ``plant.json`` there is no plant; without ``outputs.json``
    every output counts as off since the plant was saved. Raises OSError if the
    disk refuses.
    """
    read = _read(directory / PLANT_FILE)
    if read is None:
        return None
    try:
        fields = Fields(read, "", ("saved_unix_s", "simulated_unix_s", "plant"))
        saved_wall = fields.number("saved_unix_s", 0, MAX_UNIX_S)
        simulated = fields.number("simulated_unix_s", 0, MAX_UNIX_S)
        plant = Plant.from_json(fields.value("plant"), saved_wall)
    except BadRequest as refusal:
        _set_aside(directory / PLANT_FILE, refusal.message)
        return None
    # A wall clock that was set back in between means: no time has passed.
    now = max(now_wall, saved_wall)
    duties, levels, since = read_outputs(directory / OUTPUTS_FILE)
    since = saved_wall if since is None else min(max(since, saved_wall), now)
    plant.advance_to(since)
    plant.set_outputs(duties, since)
    plant.set_leds(levels, since)
    plant.advance_to(now)
    start_time = max(simulated + (now - saved_wall), now_wall)
    replace_text(directory / PLANT_FILE, saved_text(plant, now_wall, start_time))
    return Resumed(plant, start_time)


def saved_text(plant: Plant, wall: float, simulated: float) -> str:
    """The content of ``plant.json`` for a plant that is at the present."""
    kept = {"saved_unix_s": wall, "simulated_unix_s": simulated, "plant": plant.to_json()}
    return json.dumps(kept) + "\n"


def read_outputs(path: Path) -> tuple[dict[int, float], dict[str, float], float | None]:
    """PWM duties by pin and LED levels by channel in ``outputs.json``, and its mtime.

    Missing or not understood: nothing is on, since an unknown time (None).
    """
    try:
        since = os.stat(path).st_mtime
    except OSError:
        return {}, {}, None
    read = _read(path)
    if read is None:
        return {}, {}, None
    try:
        outputs = Fields(read, "", ("pwm", "led"))
        duties = read_duties(outputs.value("pwm"), "pwm")
        led = Fields(outputs.value("led"), "led", LED_CHANNELS)
        levels = {name: led.number(name, 0, 100) for name in LED_CHANNELS if name in led}
        return duties, levels, since
    except BadRequest as refusal:
        _set_aside(path, refusal.message)
        return {}, {}, None


def replace_text(path: Path, text: str) -> None:
    """Write ``text`` beside ``path``, then rename it there; OSError.

    The process id in the temporary name keeps two writers apart.
    """
    temporary = f"{path}.{os.getpid()}.new"
    try:
        replace_file(str(path), temporary, text)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(temporary), exist_ok=True)
        replace_file(str(path), temporary, text)


def _read(path: Path) -> object:
    """The JSON in ``path``; None if there is no file or it had to be set aside."""
    try:
        with open(path, encoding="utf-8") as file:
            value: object = json.load(file)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        _set_aside(path, str(error))
        return None
    if value is None:
        _set_aside(path, "it holds null")
    return value


def _set_aside(path: Path, reason: str) -> None:
    import logging  # rarely needed, and safe-outputs is in a hurry

    aside = f"{path}.corrupt"
    os.replace(path, aside)
    logging.getLogger(__name__).warning(
        "%s is not understood (%s); moved to %s and not used", path, reason, aside
    )
