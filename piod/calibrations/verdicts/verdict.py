"""A verdict: what is wrong, in words that a person can act on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from piod.errors import BadRequest
from piod.events import JsonValue


class UnusableMeasurement(BadRequest):
    """What was measured makes no usable calibration; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """One thing that is wrong: ``what``, with its figures, and how to ``mend`` it.

    ``code`` names the kind of it for programs. ``blocks``: no usable calibration can come of
    it, so the step must not be accepted.
    """

    code: str
    what: str
    mend: str
    blocks: bool = False

    def view(self) -> dict[str, JsonValue]:
        """As JSON: for metadata and results."""
        return {"code": self.code, "what": self.what, "mend": self.mend, "blocks": self.blocks}


def refuse_blocking(verdicts: Iterable[Verdict], field: str | None = None) -> None:
    """Raise UnusableMeasurement when one of ``verdicts`` blocks, with all that do.

    ``field``: the input that they are about.
    """
    blocking = [verdict for verdict in verdicts if verdict.blocks]
    if blocking:
        about = "" if field is None else f"{field}: "
        raise UnusableMeasurement(
            about + "; ".join(verdict.what for verdict in blocking),
            remediation=" ".join(dict.fromkeys(verdict.mend for verdict in blocking)),
        )


def told(verdicts: Iterable[Verdict]) -> str:
    """``verdicts`` as text for the body of a step, one a line; empty when there are none."""
    return "\n".join(f"Note: {verdict.what}. {verdict.mend}" for verdict in verdicts)
