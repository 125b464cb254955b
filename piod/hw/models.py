"""The reactor models: volumes and temperature limits, by (name, version).

:func:`load_models` gives the built-in models and those that the unit's owner
described in ``models/*.yaml``. Source: handbook jobs-and-hardware.md §1.2 (the
values of upstream 26.2.26).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from piod.errors import BadRequest

logger = logging.getLogger(__name__)

_IMPLAUSIBLE = 1e6  # no vial has a cubic metre


@dataclass(frozen=True)
class Limits:
    """What a vial and its heater may be brought to. Volumes in mL, temperatures in °C.

    Above ``max_temp_to_reduce_heating`` the heater is turned down, above
    ``max_temp_to_disable_heating`` off, above ``max_temp_to_shutdown`` the unit
    is powered off.
    """

    reactor_capacity_ml: float
    reactor_max_fill_volume_ml: float
    max_temp_to_reduce_heating: float
    max_temp_to_disable_heating: float
    max_temp_to_shutdown: float


@dataclass(frozen=True)
class Model:
    """One reactor model; ``is_contrib``: described on this unit, not built in."""

    model_name: str
    model_version: str
    display_name: str
    reactor_diameter_mm: float
    limits: Limits
    is_legacy: bool
    is_contrib: bool

    @property
    def key(self) -> tuple[str, str]:
        """Name and version: what a model is known by."""
        return self.model_name, self.model_version


class Models:
    """The models that this unit knows."""

    def __init__(self, models: Mapping[tuple[str, str], Model]) -> None:
        self._models = MappingProxyType(dict(models))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Models) and self._models == other._models

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def get(self, name: str, version: str) -> Model:
        """The model of that name and version; BadRequest that names the known ones."""
        model = self._models.get((name, version))
        if model is None:
            known = ", ".join("/".join(key) for key in self._models)
            raise BadRequest(
                f"unknown reactor model {name}/{version} (known: {known})",
                remediation="Name a known model and version, or describe yours in a YAML file "
                "in the folder models of the data directory.",
            )
        return model

    def strictest_limits(self) -> Limits:
        """The limits that no known model exceeds; they hold while no model is known."""
        limits = [model.limits for model in self]
        return Limits(
            *(min(getattr(each, field) for each in limits) for field in Limits.__dataclass_fields__)
        )


def load_models(directory: Path) -> Models:
    """The built-in models, and over them those of ``directory/*.yaml`` and ``*.yml``.

    A file that describes no usable model is logged and skipped. ``directory``
    need not exist. Blocks while it reads.
    """
    models = {model.key: model for model in BUILT_IN}
    files = [path for path in directory.glob("*") if path.suffix in (".yaml", ".yml")]
    for path in sorted(files):
        try:
            model = _read(path)
        except (OSError, ValueError) as error:
            logger.error("Reactor model in %s skipped: %s", path.name, error)
        else:
            models[model.key] = model
    return Models(models)


def _read(path: Path) -> Model:
    from piod import yaml_text

    document = yaml_text.load(path.read_text(encoding="utf-8"))
    if not isinstance(document, Mapping):
        raise ValueError("it must hold a mapping of fields to values")
    limits = Limits(*(_number(document, field) for field in Limits.__dataclass_fields__))
    if limits.reactor_max_fill_volume_ml > limits.reactor_capacity_ml:
        raise ValueError("reactor_max_fill_volume_ml must not exceed reactor_capacity_ml")
    if not (
        limits.max_temp_to_reduce_heating
        <= limits.max_temp_to_disable_heating
        <= limits.max_temp_to_shutdown
    ):
        raise ValueError(
            "max_temp_to_reduce_heating, max_temp_to_disable_heating and max_temp_to_shutdown "
            "must not decrease in this order"
        )
    return Model(
        model_name=_text(document, "model_name"),
        model_version=_text(document, "model_version"),
        display_name=_text(document, "display_name"),
        reactor_diameter_mm=_number(document, "reactor_diameter_mm"),
        limits=limits,
        is_legacy=False,
        is_contrib=True,
    )


def _text(document: Mapping[str, object], field: str) -> str:
    value = document.get(field)
    if isinstance(value, int | float):
        raise ValueError(f"{field} must be text: write it in quotes, '{value}'")
    if not isinstance(value, str) or not value:
        raise ValueError(f"{field} must be text")
    return value


def _number(document: Mapping[str, object], field: str) -> float:
    value = document.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{field} must be a number")
    if not 0 < value < _IMPLAUSIBLE:
        raise ValueError(f"{field} must be above 0 and below {_IMPLAUSIBLE:g}")
    return float(value)


def _built_in(
    volume_ml: int, version: str, temperatures: tuple[float, float, float], *, xr: bool = False
) -> Model:
    return Model(
        model_name=f"pioreactor_{volume_ml}ml" + ("_XR" if xr else ""),
        model_version=version,
        display_name=f"Pioreactor {volume_ml}ml{' XR' if xr else ''}, v{version}",
        reactor_diameter_mm=27.0,
        limits=Limits(float(volume_ml), volume_ml - 2.0, *temperatures),
        is_legacy=version != "1.5",
        is_contrib=False,
    )


_USUAL_TEMPERATURES = (78.0, 80.0, 85.0)

BUILT_IN = (
    _built_in(20, "1.0", (63.0, 65.0, 66.0)),
    _built_in(20, "1.1", _USUAL_TEMPERATURES),
    _built_in(20, "1.5", _USUAL_TEMPERATURES),
    _built_in(20, "1.5", _USUAL_TEMPERATURES, xr=True),
    _built_in(40, "1.0", _USUAL_TEMPERATURES),
    _built_in(40, "1.5", _USUAL_TEMPERATURES),
    _built_in(40, "1.5", _USUAL_TEMPERATURES, xr=True),
)
