"""Answers to the fields of a page, line for line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest

from piod.terminal.asking import ABORT, LEAVE, NotInStep, Terminal
from piod.terminal.pages import Page, read_page


def page_of(*fields: dict[str, object], actions: tuple[dict[str, object], ...] = ()) -> Page:
    return read_page(
        {
            "session": {
                "session_id": "s1",
                "protocol_name": "p",
                "target_device": "d",
                "status": "in_progress",
            },
            "step": {
                "step_id": "a",
                "step_type": "form",
                "title": "A",
                "body": "",
                "fields": list(fields),
                "metadata": {"actions": list(actions)},
            },
        }
    )


CHOICE = {
    "name": "next_action",
    "label": "Next",
    "field_type": "choice",
    "default": "record another standard",
    "options": ["record another standard", "continue to blank"],
}
KEEP = {"name": "keep", "label": "Keep them", "field_type": "bool", "default": False}
VOLUMES = {
    "name": "mls",
    "label": "Volumes (mL)",
    "field_type": "float_list",
    "default": [0.5, 1.0],
}
NOTE = {"name": "note", "label": "Note", "field_type": "string", "required": False}

Answered = Callable[[str], Terminal]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answered]:
    files = []

    def terminal(lines: str) -> Terminal:
        end, other = os.pipe()
        os.write(other, lines.encode())
        os.close(other)
        files.append(os.fdopen(end))
        monkeypatch.setattr(sys, "stdin", files[-1])
        return Terminal()

    yield terminal
    for file in files:
        file.close()


@pytest.mark.parametrize(
    ("field", "line", "value"),
    [
        (CHOICE, "2", "continue to blank"),
        (CHOICE, "continue to blank", "continue to blank"),
        (CHOICE, "", "record another standard"),
        (CHOICE, "3", "3"),  # the unit says what is wrong with it
        (KEEP, "Y", "yes"),
        (KEEP, "no", "no"),
        (KEEP, "", "no"),
        (VOLUMES, "", "0.5, 1"),
        (VOLUMES, " 2,3 ", "2,3"),
        (NOTE, "", None),
    ],
)
def test_what_is_typed_becomes_what_is_posted(
    answered: Answered, field: dict[str, object], line: str, value: str | None
) -> None:
    assert answered(f"{line}\n").inputs(page_of(field), {}) == {field["name"]: value}


def test_all_fields_of_a_page_are_asked_for_in_their_order(answered: Answered) -> None:
    typed: dict[str, str] = {}
    assert answered("1\ny\n").inputs(page_of(CHOICE, KEEP), typed) == {
        "next_action": "record another standard",
        "keep": "yes",
    }
    assert answered("\n\n").inputs(page_of(CHOICE, KEEP), typed) == {
        "next_action": "record another standard",
        "keep": "yes",
    }


def test_an_action_is_chosen_by_its_name_or_its_number(
    answered: Answered, capsys: pytest.CaptureFixture[str]
) -> None:
    redo: dict[str, object] = {"label": "Do it again", "inputs": {"action": "redo_last"}}
    other: dict[str, object] = {"label": "Skip", "inputs": {"skip": True, "why": "empty"}}
    page = page_of(KEEP, actions=(redo, other))
    assert answered(":redo_last\n").inputs(page, {}) == {"action": "redo_last"}
    assert answered(":2\n").inputs(page, {}) == {"skip": True, "why": "empty"}
    assert "  :2  Skip" in capsys.readouterr().out


def test_a_session_is_left_or_aborted_at_any_question(answered: Answered) -> None:
    assert answered(":leave\n").inputs(page_of(KEEP), {}) == LEAVE
    assert answered(":abort\n").inputs(page_of(), {}) == ABORT
    assert answered("").inputs(page_of(KEEP), {}) == LEAVE


@pytest.mark.parametrize("line", ["maybe", ":redo_last"])
def test_an_answer_that_fits_no_question_ends_a_script(answered: Answered, line: str) -> None:
    with pytest.raises(NotInStep):
        answered(f"{line}\n").inputs(page_of(KEEP), {})


def test_what_was_measured_is_never_guessed(answered: Answered) -> None:
    volume: dict[str, object] = {"name": "ml", "label": "Volume (mL)", "field_type": "float"}
    with pytest.raises(NotInStep, match="an answer is needed"):
        answered("\n").inputs(page_of(volume), {})
