"""Reading YAML that others wrote: hardware maps, models, calibrations.

:func:`load` is the only door to PyYAML for reading. PyYAML is imported at the
first use: it costs start-up time, and a unit with the shipped hardware and no
calibration never needs it.
"""

from __future__ import annotations

MAX_DEPTH = 32
"""Deepest nesting that is read; the records of this project stay below 8."""

MAX_VALUES = 20_000
"""How many scalars, lists and mappings are read; the records of this project have hundreds.
Each costs time: a megabyte of them keeps a small Raspberry Pi busy for half a minute."""


class YamlProblem(ValueError):
    """The text is not YAML that piod reads; the message says why and, mostly, on which line."""


def load(text: str) -> object:
    """The one document in ``text``, of plain types (YAML 1.1); None when it is empty.

    Raises :class:`YamlProblem`, also for what would be risky to load: nesting
    beyond MAX_DEPTH, more than MAX_VALUES, and aliases, with which a small text
    can stand for an endless document.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text.encode("utf-8")
        # The events come first, from a flat loop: composing a deeply nested
        # document recurses in C and takes the whole process down.
        depth = values = 0
        for event in yaml.parse(text, Loader=loader):
            mark = event.start_mark
            line = 0 if mark is None else mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                raise YamlProblem(f"line {line}: aliases (*{event.anchor}) are not supported")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > MAX_DEPTH:
                raise YamlProblem(f"line {line}: nested deeper than {MAX_DEPTH} levels")
            values += isinstance(event, yaml.NodeEvent)
            if values > MAX_VALUES:
                raise YamlProblem(f"line {line}: more than {MAX_VALUES} values")
        document: object = yaml.load(text, Loader=loader)  # a safe loader, C or Python
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or error.context or "not YAML"
        raise YamlProblem(reason if mark is None else f"line {mark.line + 1}: {reason}") from error
    except yaml.YAMLError as error:
        raise YamlProblem(" ".join(str(error).split())) from error
    except (ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
        # PyYAML's constructors let these escape for scalars that look like a
        # timestamp or a number, or are tagged so, and are none.
        if isinstance(error, YamlProblem):
            raise
        raise YamlProblem(f"a value cannot be read: {error}") from error
    return document
