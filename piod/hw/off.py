"""How to turn one output off without the daemon: recipes.

The daemon writes a recipe when it claims an output; whoever is left carries it
out with :func:`turn_off`: the guard process, or ``piod safe-outputs``. A recipe
is one line of text, so that a pipe can carry it:

    pwm /sys/class/pwm/pwmchip0/pwm1
    line 17 /dev/gpiochip0
    i2c 73 0101FF /dev/i2c-1
    simulated pwm:17 pwm:17,pwm:13,led:A /home/pioreactor/.pioreactor/simulator/outputs.json

The guard lives on these few imports: json or dataclasses would double its memory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

EVERY = "*"
"""Instead of one simulated output: all that the file names."""

# <linux/gpio.h>, character device ABI v2: GPIO_V2_GET_LINE_IOCTL on a struct gpio_v2_line_request.
_GET_LINE = 0xC250B407
_REQUEST_BYTES = 592
_REQUEST_CONSUMER_AT = 256
_REQUEST_CONFIG_AT = 288
_REQUEST_ATTRIBUTE_AT = 320
_REQUEST_LINES_AT = 560
_REQUEST_FD_AT = 588
_FLAG_OUTPUT = 0x8
_ATTRIBUTE_OUTPUT_VALUES = 2


def pwm_recipe(channel: str) -> str:
    """Stop a PWM channel of the kernel; ``channel`` is its sysfs directory."""
    return _one_line(f"pwm {os.path.abspath(channel)}")


def line_recipe(chip: str, line: int) -> str:
    """Drive a line of a GPIO character device low; its holder must be gone."""
    return _one_line(f"line {line} {os.path.abspath(chip)}")


# <linux/i2c-dev.h>: also while a driver of the kernel has the address
_I2C_SLAVE_FORCE = 0x0706
_NO_ANSWER = (errno.ENXIO, errno.EREMOTEIO)
_I2C_ATTEMPTS = 4
_I2C_PAUSE_S = 0.005
_RP2040 = "RP2040"
_DAC43608_ALL_DOWN = b"\x01\x01\xff"


def led_recipe(chip: str, address: int, channel: str, device: str = "/dev/i2c-1") -> str:
    """Turn an LED off at its chip: ``RP2040``, or ``DAC43608``, which turns all off at once.

    The bytes are those of handbook jobs-and-hardware §1.4.
    """
    written = bytes(["ABCD".index(channel), 0]) if chip == _RP2040 else _DAC43608_ALL_DOWN
    return _one_line(f"i2c {address} {written.hex()} {os.path.abspath(device)}")


def is_slow(recipe: str) -> bool:
    """Whether it may have to wait, for seconds, for a bus that is stuck: to be done last."""
    return recipe.startswith("i2c ")


def simulated_recipe(path: str, output: str, known: Iterable[str]) -> str:
    """Put ``output`` (``pwm:17``, ``led:A`` or EVERY) to 0 in the file of simulated outputs.

    ``known`` are all outputs of that unit: what an unreadable file is replaced by.
    """
    return _one_line(f"simulated {output} {','.join(known)} {os.path.abspath(path)}")


def needs_holder_gone(recipe: str) -> bool:
    """Whether the recipe can only work once the daemon has let go of the output."""
    return recipe.startswith("line ")


def turn_off(recipe: str) -> None:
    """Carry a recipe out; returns when the output is off, at once if it was.

    Raises OSError when it could not be turned off, ValueError for a text that
    is no recipe. Harmless to repeat.
    """
    kind, _, rest = recipe.partition(" ")
    if kind == "pwm" and rest:
        _stop_pwm(rest)
    elif kind == "line":
        line, _, chip = rest.partition(" ")
        _drive_low(chip, int(line))
    elif kind == "i2c" and rest.count(" ") >= 2:
        address, written, device = rest.split(" ", 2)
        _write_i2c(device, int(address), bytes.fromhex(written))
    elif kind == "simulated" and rest.count(" ") >= 2:
        output, known, path = rest.split(" ", 2)
        _zero_simulated(path, output, known.split(","))
    else:
        raise ValueError(f"not a recipe: {recipe!r}")


def _one_line(recipe: str) -> str:
    if "\n" in recipe:
        raise ValueError(f"a recipe is one line: {recipe!r}")
    return recipe


# -- PWM of the kernel -----------------------------------------------------------


def _stop_pwm(channel: str) -> None:
    if not os.path.isdir(channel):
        return  # not exported: nobody can have turned it on
    failure: OSError | None = None
    for name in ("duty_cycle", "enable"):
        try:
            write_attribute(f"{channel}/{name}", "0")
        except OSError as error:
            failure = failure or error
    # A channel that never had a period refuses both writes (EINVAL), and is off.
    if failure is not None and not _is_stopped(channel):
        raise failure


def write_attribute(path: str, text: str) -> None:
    """Write one value to a file of sysfs. Raises OSError with what the kernel answers."""
    with open(path, "w") as attribute:
        attribute.write(text)


def _is_stopped(channel: str) -> bool:
    for name in ("enable", "duty_cycle"):
        try:
            with open(f"{channel}/{name}") as attribute:
                if attribute.read().strip() == "0":
                    return True
        except OSError:
            continue  # the other one may tell
    return False


# -- a GPIO line -----------------------------------------------------------------


def _drive_low(chip: str, line: int) -> None:
    request = bytearray(_REQUEST_BYTES)
    struct.pack_into("=I", request, 0, line)
    struct.pack_into("=32s", request, _REQUEST_CONSUMER_AT, b"piod off")
    struct.pack_into("=QI", request, _REQUEST_CONFIG_AT, _FLAG_OUTPUT, 1)
    # one attribute: the output value 0 for the first (and only) line
    struct.pack_into("=IIQQ", request, _REQUEST_ATTRIBUTE_AT, _ATTRIBUTE_OUTPUT_VALUES, 0, 0, 1)
    struct.pack_into("=I", request, _REQUEST_LINES_AT, 1)
    device = os.open(chip, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _GET_LINE, request, True)
        os.close(struct.unpack_from("=i", request, _REQUEST_FD_AT)[0])
    finally:
        os.close(device)


# -- an LED behind the I2C bus -------------------------------------------------------


def _write_i2c(device: str, address: int, written: bytes) -> None:
    """Write one message. A chip that does not answer drives nothing: no HAT, or no firmware."""
    try:
        bus = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return  # without a bus nobody can have turned it on
    try:
        fcntl.ioctl(bus, _I2C_SLAVE_FORCE, address)
        for attempt in range(1, _I2C_ATTEMPTS + 1):
            try:
                os.write(bus, written)
                return
            except OSError as error:
                if error.errno not in _NO_ANSWER:
                    raise
            if attempt < _I2C_ATTEMPTS:
                time.sleep(_I2C_PAUSE_S)
    finally:
        os.close(bus)


# -- the simulated outputs --------------------------------------------------------


def _zero_simulated(path: str, output: str, known: list[str]) -> None:
    directory, name = os.path.split(path)
    if not os.path.isdir(directory):
        return  # the simulated unit is gone, and its outputs with it
    try:
        with open(path, encoding="utf-8") as file:
            levels = _parse_levels(file.read())
    except (OSError, ValueError):
        levels = {}
    if not levels:
        # Nobody can tell what was on: off, for all, is the only answer that is safe.
        levels = dict.fromkeys(known, 0.0)
    for each in levels if output == EVERY else [output]:
        levels[each] = 0.0
    temporary = os.path.join(directory, f".{name}.off-{os.getpid()}")
    replace_file(path, temporary, _format_levels(levels))


def replace_file(path: str, temporary: str, text: str) -> None:
    """Write ``text`` to ``temporary``, beside ``path``, and rename it there. Raises OSError.

    What lies at ``temporary`` is a stale one, or a link: root may do this in a folder that
    others may write. It is removed, never followed. The group may write the new file, as
    far as the umask allows.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        made = os.open(temporary, flags, 0o664)
    except FileExistsError:
        os.unlink(temporary)
        made = os.open(temporary, flags, 0o664)
    try:
        with open(made, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # renamed all the same, or the directory cannot be written any more
        raise


def _parse_levels(text: str) -> dict[str, float]:
    """``{"pwm": {"17": 40.0}, "led": {"A": 0}}`` as ``{"pwm:17": 40.0, "led:A": 0.0}``.

    Reads this shape of JSON only; raises ValueError for any other.
    """
    body = "".join(text.split())
    if not (body.startswith("{") and body.endswith("}}")):
        raise ValueError("not a file of simulated outputs")
    levels = {}
    for group in body[1:-1].split("}")[:-1]:
        kind, _, entries = group.partition("{")
        for entry in entries.split(","):
            if entry:
                name, _, level = entry.partition(":")
                levels[f"{_unquoted(kind)}:{_unquoted(name)}"] = float(level)
    return levels


def _unquoted(text: str) -> str:
    name = text.strip(',:"')
    if not name.isalnum():
        raise ValueError("not a file of simulated outputs")
    return name


def _format_levels(levels: dict[str, float]) -> str:
    groups: dict[str, list[str]] = {"pwm": [], "led": []}
    for output, level in levels.items():
        kind, _, name = output.partition(":")
        groups.setdefault(kind, []).append(f'"{name}": {level!r}')
    return "{" + ", ".join(f'"{k}": {{{", ".join(v)}}}' for k, v in groups.items()) + "}"
