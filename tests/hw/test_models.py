"""Reactor models: the built-in table, the owner's own, the strictest limits."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from piod.errors import BadRequest
from piod.hw.models import Limits, load_models

OWN = """\
model_name: my_flask
model_version: "2.0"
display_name: My flask
reactor_capacity_ml: 100
reactor_max_fill_volume_ml: 90
reactor_diameter_mm: 50.5
max_temp_to_reduce_heating: 50
max_temp_to_disable_heating: 55
max_temp_to_shutdown: 60
"""


def test_built_in_models_have_their_limits(tmp_path: Path) -> None:
    models = load_models(tmp_path / "none")
    assert len(list(models)) == 7
    assert models.get("pioreactor_20ml", "1.0").limits == Limits(20, 18, 63, 65, 66)
    assert models.get("pioreactor_20ml", "1.1").limits == Limits(20, 18, 78, 80, 85)
    xr = models.get("pioreactor_40ml_XR", "1.5")
    assert xr.limits == Limits(40, 38, 78, 80, 85)
    assert xr.display_name == "Pioreactor 40ml XR, v1.5"
    assert xr.key == ("pioreactor_40ml_XR", "1.5")
    assert not xr.is_contrib
    assert {model.key for model in models if model.is_legacy} == {
        ("pioreactor_20ml", "1.0"),
        ("pioreactor_20ml", "1.1"),
        ("pioreactor_40ml", "1.0"),
    }


def test_unknown_model_is_refused_and_the_known_ones_named(tmp_path: Path) -> None:
    with pytest.raises(
        BadRequest, match=r"unknown .* pioreactor_20ml/9 \(known: pioreactor_20ml/1\.0,"
    ):
        load_models(tmp_path).get("pioreactor_20ml", "9")


def test_strictest_limits_are_below_every_model(tmp_path: Path) -> None:
    assert load_models(tmp_path).strictest_limits() == Limits(20, 18, 63, 65, 66)
    (tmp_path / "own.yaml").write_text(OWN)
    assert load_models(tmp_path).strictest_limits() == Limits(20, 18, 50, 55, 60)


def test_own_model_is_added_and_may_replace_a_built_in_one(tmp_path: Path) -> None:
    (tmp_path / "own.yml").write_text(OWN + "is_contrib: false\nis_legacy: true\n")
    (tmp_path / "other.yaml").write_text(
        OWN.replace("my_flask", "pioreactor_20ml").replace("2.0", "1.1")
    )
    (tmp_path / "notes.txt").write_text("nothing")
    models = load_models(tmp_path)
    own = models.get("my_flask", "2.0")
    assert (own.is_contrib, own.is_legacy, own.reactor_diameter_mm) == (True, False, 50.5)
    assert models.get("pioreactor_20ml", "1.1").limits.reactor_max_fill_volume_ml == 90
    assert len(list(models)) == 8


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"2.0"', "2.0", "model_version must be text: write it in quotes, '2.0'"),
        ("display_name: My flask\n", "", "display_name must be text"),
        ("ml: 100", "ml: lots", "reactor_capacity_ml must be a number"),
        ("ml: 100", "ml: 80", "must not exceed"),
        ("ml: 100", "ml: 1" + "0" * 400, "reactor_capacity_ml must be above 0"),
        ("heating: 50", "heating: .nan", "max_temp_to_reduce_heating must be above 0"),
        ("heating: 50", "heating: true", "max_temp_to_reduce_heating must be a number"),
        ("heating: 50", "heating: 56", "must not decrease"),
        ("mm: 50.5", "mm: [", "line 8: "),
    ],
)
def test_unusable_model_is_logged_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, old: str, new: str, problem: str
) -> None:
    assert old in OWN
    (tmp_path / "a.yaml").write_text(OWN.replace(old, new))
    (tmp_path / "b.yaml").write_text(OWN)
    with caplog.at_level(logging.ERROR):
        models = load_models(tmp_path)
    (record,) = caplog.records
    assert record.getMessage().startswith("Reactor model in a.yaml skipped: ")
    assert problem in record.getMessage()
    assert models.get("my_flask", "2.0").limits.reactor_capacity_ml == 100
