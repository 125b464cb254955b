"""One session from page to page: show, ask, advance, until it is over or left.

While a step is being taken, its hardware works: the time and the progress are shown, and Ctrl-C
aborts the session at once, since that is what stops the hardware. At a question nothing is on,
and Ctrl-C asks. A session that is left, or whose terminal is closed, waits on the unit.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from enum import IntEnum

from piod.errors import PiodError
from piod.events import JsonValue
from piod.terminal import drawing
from piod.terminal.asking import LEAVE, Ending, NotInStep, Terminal
from piod.terminal.pages import (
    Chart,
    Inputs,
    Object,
    Page,
    chart_of_calibration,
    chart_of_estimator,
    read_chart,
    read_page,
)
from piod.terminal.unit_client import UnitClient, UnitRefused, UnitSilent
from piod.terminal.waiting import REDRAW_EVERY_S, Waiting

SESSIONS = ("calibrations", "sessions")
ADVANCE_TIMEOUT_S = 310.0
"""The unit answers an advance within 300 s, if only that it still works."""
LAST_WORD_S = 5.0
"""How long the refused advance of an aborted session is waited for."""


class Outcome(IntEnum):
    """How it ended, as exit status."""

    COMPLETE = 0
    NOT_COMPLETE = 1


class Walk:
    """A session of ``client``'s unit and whoever sits at ``terminal``."""

    def __init__(self, client: UnitClient, terminal: Terminal) -> None:
        self._client = client
        self._terminal = terminal

    def from_page(self, page: Page) -> Outcome:
        """Until the session is over or left. Raises UnitRefused, UnitSilent, NotInStep."""
        typed: dict[str, str] = {}
        try:
            page = self._settled(page)
            while page.status == "in_progress":
                self._show(page)
                inputs = self._ask(page, typed)
                if inputs == LEAVE:
                    return self._left(page)
                if isinstance(inputs, Ending):
                    return self._aborted(page)
                after = self._elsewhere(page) or self._advanced(page, inputs)
                if after is not None:
                    page, typed = after, {}
        except _Stopped:
            return self._aborted(page)
        except KeyboardInterrupt:
            self._terminal.say()
            return self._left(page)
        except (NotInStep, UnitSilent):
            self._left(page)
            raise
        return self._over(page)

    # -- a page -----------------------------------------------------------------------

    def _show(self, page: Page) -> None:
        text = drawing.page_text(page, self._terminal.width, self._client.url)
        self._terminal.say(f"\n{text}\n")

    def _ask(self, page: Page, typed: dict[str, str]) -> Inputs | Ending:
        while True:
            try:
                return self._terminal.inputs(page, typed)
            except KeyboardInterrupt:
                ending = self._terminal.ask_how_to_end()
                if ending is not None:
                    return ending

    def _elsewhere(self, page: Page) -> Page | None:
        """Where the session is, if it has gone on elsewhere, in a browser say; None: it has not.

        What was answered belongs to ``page``: it must not start a pump on another.
        """
        now = self._settled(self._page(page.session_id))
        if (now.step_id, now.updated_at) == (page.step_id, page.updated_at):
            return None
        self._terminal.say("\n(The session has gone on elsewhere meanwhile.)")
        if not self._terminal.by_hand:
            raise NotInStep(f"{page.title!r} was answered too late: the session has gone on")
        return now

    # -- advancing --------------------------------------------------------------------

    def _advanced(self, page: Page, inputs: Inputs) -> Page | None:
        """The next page; None: refused, with the reason told, and the same page again."""
        path = (*SESSIONS, page.session_id, "inputs")
        body: JsonValue = {"inputs": dict(inputs)}
        answer: Future[JsonValue] = Future()

        def post() -> None:
            try:
                answer.set_result(self._client.post(*path, body=body, timeout_s=ADVANCE_TIMEOUT_S))
            except PiodError as refusal:
                answer.set_exception(refusal)

        try:
            threading.Thread(target=post, daemon=True).start()
            with self._waiting(page) as waiting:
                while not answer.done():
                    waiting.show()
                    _wait(answer, REDRAW_EVERY_S)
            return read_page(answer.result())
        except KeyboardInterrupt:
            self._abort(page)
            _wait(answer, LAST_WORD_S)
            raise _Stopped from None
        except UnitRefused as refusal:
            now = self._settled(self._page(page.session_id))
            if now.step_id != page.step_id or now.status != page.status:
                return now  # it was taken all the same, or somewhere else
            self._tell(refusal)
            if not self._terminal.by_hand:
                # the next line was meant for another question
                raise NotInStep(f"{page.title!r} refused what it was answered") from refusal
            return None

    def _settled(self, page: Page) -> Page:
        """The page, once no step is being taken any more."""
        try:
            with self._waiting(page) as waiting:
                while page.progress is not None:
                    waiting.show()
                    time.sleep(REDRAW_EVERY_S)
                    page = self._page(page.session_id)
        except KeyboardInterrupt:
            self._abort(page)
            raise _Stopped from None
        return page

    def _waiting(self, page: Page) -> Waiting:
        def progress() -> float | None:
            try:
                return self._page(page.session_id).progress
            except PiodError:
                return None  # whether the step succeeds, its own answer tells

        return Waiting(self._terminal, progress)

    def _page(self, session_id: str) -> Page:
        return read_page(self._client.get(*SESSIONS, session_id))

    # -- ends -------------------------------------------------------------------------

    def _abort(self, page: Page) -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # this is not to be cut short
        try:
            self._client.post(*SESSIONS, page.session_id, "abort")
        except PiodError as refusal:
            raise UnitSilent(
                f"the unit did not say that the session is aborted: {refusal.message}",
                remediation="If something of the unit still runs, 'piod safe-outputs' on the unit "
                "turns it off.",
            ) from refusal
        finally:
            signal.signal(signal.SIGINT, before)

    def _aborted(self, page: Page) -> Outcome:
        now = self._page(page.session_id)
        if now.status == "in_progress":
            self._abort(page)
            now = self._page(page.session_id)
        return self._over(now)

    def _left(self, page: Page) -> Outcome:
        self._terminal.say(
            "The session waits on the unit. Go on with:\n"
            f"  piod calibrate --session {page.session_id}"
        )
        return Outcome.NOT_COMPLETE

    def _over(self, page: Page) -> Outcome:
        if page.status != "complete":
            self._terminal.say(f"\nThe session is {page.status}. {page.error or ''}".rstrip())
            self._terminal.say("What it had switched on is off.")
            return Outcome.NOT_COMPLETE
        result = page.result or {}
        width = self._terminal.width
        self._terminal.say(f"\n== {page.title} ==\n")
        for chart in self._charts(result):
            self._terminal.say(f"{drawing.chart_text(chart, width)}\n")
        self._terminal.say(drawing.result_text(result, width))
        return Outcome.COMPLETE

    def _charts(self, result: Object) -> Iterator[Chart]:
        """The chart of the result; else one of each calibration that it links to."""
        try:
            told = result.get("chart")
            if told is not None:
                yield read_chart(told)
                return
            for link in drawing.links(result):
                device = str(link["device"])
                if (name := link.get("calibration_name")) is not None:
                    answer = self._client.get("calibrations", device, str(name))
                    yield chart_of_calibration(answer)
                elif (name := link.get("estimator_name")) is not None:
                    yield chart_of_estimator(self._client.get("estimators", device, str(name)))
        except PiodError as refusal:
            self._terminal.say(f"(There is no plot of it: {refusal.message})\n")

    def _tell(self, refusal: PiodError) -> None:
        self._terminal.say(
            drawing.paragraphs(
                f"\n! {refusal.message}\n  {refusal.remediation}", self._terminal.width
            )
        )


class _Stopped(Exception):
    """The person has aborted the session while its hardware worked."""


def _wait(answer: Future[JsonValue], timeout_s: float) -> None:
    """Until it is there, ``timeout_s`` at most."""
    try:
        answer.exception(timeout_s)
    except TimeoutError:
        pass  # not yet
