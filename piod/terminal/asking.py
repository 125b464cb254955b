"""What a person at a terminal, or a script through a pipe, answers to a page.

:class:`Terminal` prints and reads lines; :meth:`Terminal.inputs` asks for all that a page wants
and gives the inputs to be posted. Commands begin with a colon: ``:redo_last``, ``:leave``,
``:abort``. A script answers line for line what a person would.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from piod.errors import BadRequest
from piod.terminal.pages import Action, Field, Inputs, Page

LEAST_WIDTH = 40
MOST_WIDTH = 100
YES, NO = frozenset({"y", "yes"}), frozenset({"n", "no"})


class NoAnswers(BadRequest):
    """Nobody is there to be asked."""

    default_remediation = (
        "Run it in a terminal, or give the answers through a pipe, one line for each question."
    )


class NoMoreAnswers(Exception):
    """The answers have ended: the pipe, or the terminal with Ctrl-D."""


@dataclass(frozen=True)
class Ending:
    """The person ends it here: for later, or for good."""

    how: Literal["leave", "abort"]


LEAVE, ABORT = Ending("leave"), Ending("abort")


class Terminal:
    """Standard input and output. ``by_hand``: a person types; else the answers are all there.

    ``rewrites``: a line can be written over. Raises NoAnswers when there is nobody to ask.
    """

    def __init__(self) -> None:
        self.by_hand = sys.stdin is not None and sys.stdin.isatty()
        self.rewrites = sys.stdout.isatty()
        if not self.by_hand and not _is_pipe_or_file():
            raise NoAnswers("piod calibrate has nobody to ask: its input is no terminal")
        if self.by_hand:
            import readline  # noqa: F401  (input() edits lines once it is there)
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="replace")  # a ° that the terminal lacks ends nothing

    @property
    def width(self) -> int:
        return max(LEAST_WIDTH, min(shutil.get_terminal_size().columns - 1, MOST_WIDTH))

    def say(self, text: str = "") -> None:
        print(text, flush=True)

    def rewrite(self, text: str) -> None:
        """``text`` in place of the line that the cursor is in."""
        print(f"\r{text[: self.width]:<{self.width}}\r", end="", flush=True)

    def line(self, prompt: str) -> str:
        """One answer, without blanks around it. Raises NoMoreAnswers, KeyboardInterrupt."""
        if self.by_hand:
            try:
                return input(prompt).strip()
            except EOFError:
                raise NoMoreAnswers from None
        print(prompt, end="", flush=True)
        line = sys.stdin.readline()
        print(line.strip(), flush=True)
        if not line:
            raise NoMoreAnswers
        return line.strip()

    def inputs(self, page: Page, typed: dict[str, str]) -> Inputs | Ending:
        """All that ``page`` asks for, or what the person chose instead.

        ``typed``: what was typed before on this page; it is offered again, and kept up to date.
        """
        for command, action in _commands(page).items():
            self.say(f"  {command}  {action.label}")
        try:
            if not page.fields:
                self._checked(page, "Press Enter to go on. ", lambda text: None, "")
                return {}
            return {field.name: self._field(page, field, typed) for field in page.fields}
        except _Chosen as chosen:
            return chosen.what
        except NoMoreAnswers:
            self.say()
            return LEAVE

    def ask_how_to_end(self) -> Ending | None:
        """After Ctrl-C: abort, leave, or go on (None). Ctrl-C again leaves."""
        if not self.by_hand:
            return LEAVE
        self.say()
        try:
            while True:
                answer = self.line("(a)bort the session, (l)eave it for later, or (g)o on? [g] ")
                match answer.lower()[:1]:
                    case "a":
                        return ABORT
                    case "l":
                        return LEAVE
                    case "g" | "":
                        return None
        except (KeyboardInterrupt, NoMoreAnswers):
            self.say()
            return LEAVE

    # -- one field ------------------------------------------------------------------

    def _field(self, page: Page, field: Field, typed: dict[str, str]) -> str | None:
        if field.help_text:
            self.say(f"  {field.help_text}")
        options = field.options if field.kind == "choice" else ()
        for number, option in enumerate(options, start=1):
            self.say(f"  {number}) {option}")
        default = typed.get(field.name, field.default)

        def read(text: str) -> str | None:
            """What is wrong with it; None: nothing."""
            if not text and default is None and field.required:
                return f"{field.label}: an answer is needed."
            if field.kind == "bool" and text and text.lower() not in YES | NO:
                return "Answer yes or no."
            return None

        shown = f" [{default}]" if default is not None else ""
        text = self._checked(page, f"{field.label}{shown}: ", read, default or "")
        if text.isdecimal() and text not in options and 1 <= int(text) <= len(options):
            text = options[int(text) - 1]
        if text.lower() in YES | NO and field.kind == "bool":
            text = "yes" if text.lower() in YES else "no"
        typed[field.name] = text
        return text or None

    def _checked(
        self, page: Page, prompt: str, wrong: Callable[[str], str | None], default: str
    ) -> str:
        """An answer that is not ``wrong``; an empty one is ``default``."""
        while True:
            text = self.line(prompt)
            if text.startswith(":"):
                self._command(page, text)
                continue
            if not self.by_hand and text and not page.fields:
                # an answer to another question: the script and the session are not in step
                raise NotInStep(f"{page.title!r} asks for nothing, and was answered {text[:80]!r}")
            why = wrong(text)
            if why is None:
                return text or default
            if not self.by_hand:
                raise NotInStep(f"{page.title!r} was answered {text[:80]!r}: {why}")
            self.say(why)

    def _command(self, page: Page, text: str) -> None:
        """Raises _Chosen; what is no command here is told, and asked again."""
        commands = _commands(page)
        if text in commands:
            raise _Chosen(commands[text].inputs)
        if text in (":leave", ":abort"):
            raise _Chosen(LEAVE if text == ":leave" else ABORT)
        if not self.by_hand:
            raise NotInStep(f"{page.title!r} has no command {text[:80]!r}")
        self.say(f"Commands here: {', '.join([*commands, ':leave', ':abort'])}.")


class NotInStep(BadRequest):
    """A script's answer does not fit the question; nothing further of it is used."""

    default_remediation = "Correct the answers; go on from here with --session."


class _Chosen(Exception):
    def __init__(self, what: Inputs | Ending) -> None:
        super().__init__()
        self.what = what


def _commands(page: Page) -> dict[str, Action]:
    """What the page offers besides going on, by what is typed for it."""
    return {f":{action.name or n}": action for n, action in enumerate(page.actions, start=1)}


def _is_pipe_or_file() -> bool:
    """Whether standard input holds answers: /dev/null and a closed one do not."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)
