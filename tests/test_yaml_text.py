"""YAML that others wrote: what is not loaded, and what is said about it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from piod import yaml_text
from piod.yaml_text import YamlProblem


def test_plain_document_is_loaded() -> None:
    assert yaml_text.load("a: [1, 2.5, x, null, true]\nb: {c: 0x2C}\n") == {
        "a": [1, 2.5, "x", None, True],
        "b": {"c": 44},
    }
    assert yaml_text.load("# nothing\n") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3: "),
        ("a: b: c", "line 1: mapping values are not allowed"),
        ("a: 1\n---\nb: 2\n", "line 2: but found another document"),
        ("a: &x [1]\nb: *x\n", "line 2: aliases"),
        ("[" * 100 + "]" * 100, "nested deeper than 32"),
        ("- a\n" * 30_000, "line 20000: more than 20000 values"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("created_at: 2026-13-45T00:00:00Z", "month must be in 1..12"),
        ("!!bool maybe", "a value cannot be read"),
        ("!!timestamp x", "a value cannot be read"),
        ("!!int ''", "a value cannot be read"),
        ("n: " + "9" * 5000, "a value cannot be read"),
        ("a\0b", "control characters"),
        ("\ud800", "a value cannot be read"),
        ("? [a]\n: b\n", "unhashable"),
    ],
)
def test_what_cannot_be_read_is_a_problem_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(YamlProblem) as refusal:
        yaml_text.load(text)
    assert problem in str(refusal.value)


def test_deep_nesting_does_not_take_the_process_down() -> None:
    # In a process of its own: with PyYAML's own loading this is a crash, not an exception.
    script = (
        "from piod import yaml_text\n"
        "try:\n    yaml_text.load('[' * 200_000)\n"
        "except yaml_text.YamlProblem as problem:\n    print(problem)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (0, "line 1: nested deeper than 32 levels\n")
