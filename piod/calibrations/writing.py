"""Calibrations and estimators that piod makes, as text for their files and as JSON.

The YAML is what upstream reads: ``created_at`` is an unquoted timestamp.
"""

from __future__ import annotations

import json

from piod.calibrations.estimators import FusedEstimator
from piod.calibrations.records import Calibration
from piod.calibrations.views import calibration_view, estimator_view
from piod.events import JsonValue


def artifact_json(artifact: Calibration | FusedEstimator) -> dict[str, JsonValue]:
    """All fields of ``artifact`` under the names of its file, as the API tells them."""
    whole: dict[str, JsonValue] = json.loads(json.dumps(_view(artifact), allow_nan=False))
    return whole


def artifact_text(artifact: Calibration | FusedEstimator) -> str:
    """``artifact`` as the text of its file."""
    import yaml

    fields = {**artifact_json(artifact), "created_at": artifact.created_at}
    text: str = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return text


def _view(artifact: Calibration | FusedEstimator) -> dict[str, object]:
    if isinstance(artifact, FusedEstimator):
        return estimator_view(artifact)
    return calibration_view(artifact)
