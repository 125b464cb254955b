"""Calibrations and estimators: lists, records, uploads, and which are active."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypedDict, TypeVar

from aiohttp import hdrs, web
from marshmallow import Schema, fields

from piod.calibrations.estimators import FusedEstimator
from piod.calibrations.fields import InvalidRecord
from piod.calibrations.listing import MAX_BYTES, Contents, Listing
from piod.calibrations.names import check_name
from piod.calibrations.protocols import CalibrationProtocol, calibration_protocols
from piod.calibrations.protocols.turn import Facts
from piod.calibrations.records import Calibration
from piod.calibrations.store import SUFFIX, ArtifactStore, CalibrationStore, EstimatorStore
from piod.calibrations.views import calibration_view, estimator_view
from piod.errors import Conflict, NotFound, StorageFailed
from piod.http.answers import json_answer, json_bytes
from piod.http.decode import Decoded, StrictBool, StrictText, decode_json
from piod.http.downloads import send_zip
from piod.http.routes import JSON_MEDIA
from piod.storage.zips import ZipEntry

R = TypeVar("R")

DONE = {"status": "success"}


class _CalibrationBody(TypedDict):
    calibration_data: str
    set_as_active: bool


class CalibrationSchema(Decoded[_CalibrationBody]):
    example = {
        "calibration_data": "calibration_type: simple_stirring\n"
        "calibration_name: stirring-2026-06-12\n"
        "calibrated_on_pioreactor_unit: pio01\n"
        "created_at: 2026-06-12T07:00:00Z\n"
        "curve_data_: {type: poly, coefficients: [21.5, 40.0]}\n"
        "recorded_data: {x: [10.0, 20.0, 30.0], y: [256.0, 468.0, 686.0]}\n"
        "pwm_hz: 200.0\n"
        "voltage: 12.0\n",
        "set_as_active": True,
    }
    set_as_active = StrictBool(
        load_default=False,
        metadata={"description": "Whether the device shall use it from now on."},
    )
    calibration_data = StrictText(
        required=True,
        metadata={"description": "The calibration as YAML text. It is kept as it is."},
    )


CALIBRATION_EXAMPLE = {
    "calibration_type": "od600",
    "calibration_name": "cal_1",
    "calibrated_on_pioreactor_unit": "pio01",
    "created_at": "2026-02-11T14:05:09.500Z",
    "curve_data_": {"type": "poly", "coefficients": [-0.05, 0.62, 0.03]},
    "x": "OD600",
    "y": "Voltage",
    "recorded_data": {"x": [1.2, 0.6, 0.0], "y": [0.702, 0.384, 0.03]},
    "ir_led_intensity": 80.0,
    "angle": "90",
    "pd_channel": "2",
    "is_active": True,
    "pioreactor_unit": "pio01",
}
ESTIMATOR_EXAMPLE = {
    "estimator_type": "od_fused_estimator",
    "estimator_name": "est_1",
    "calibrated_on_pioreactor_unit": "pio01",
    "created_at": "2026-03-18T16:45:00.125Z",
    "ir_led_intensity": 80.0,
    "angles": ["90"],
    "mu_splines": {
        "90": {"type": "akima", "knots": [-2.0, 0.5], "coefficients": [[-3.5, 1.5, 0.0, 0.0]]}
    },
    "sigma_splines_log": {
        "90": {"type": "akima", "knots": [-2.0, 0.5], "coefficients": [[-3.1, 0.0, 0.0, 0.0]]}
    },
    "min_logc": -2.0,
    "max_logc": 0.5,
    "sigma_floor": 0.04,
    "recorded_data": {"by_angle": {"90": {"x": [-2.0, 0.5], "y": [-3.5, 0.25]}}},
    "y": "log(Voltage)",
    "low_conc_scales": {},
    "is_active": False,
    "pioreactor_unit": "pio01",
    "device": "od_fused",
}
PROTOCOL_EXAMPLE = {
    "id": "stirring_dc_based",
    "target_device": "stirring",
    "protocol_name": "dc_based",
    "priority": 99,
    "title": "Speed by duty cycle",
    "description": "Step the stirrer through duty cycles, and fit the curve to RPM.",
    "requirements": ["A vial with a stir bar"],
    "unavailable_because": None,
}


def _about(text: str) -> dict[str, str]:
    return {"description": text}


class CalibrationView(Schema):
    """A calibration as it is told; those after pioreactor_unit depend on its type."""

    calibration_type = fields.String(metadata=_about("simple_peristaltic_pump, od600, …"))
    calibration_name = fields.String(metadata=_about("As its file."))
    calibrated_on_pioreactor_unit = fields.String(metadata=_about("The unit that made it."))
    created_at = fields.String(metadata=_about("UTC."))
    curve_data_ = fields.Dict(metadata=_about("type (poly, spline, akima) and its numbers."))
    x = fields.String(metadata=_about("What x is."))
    y = fields.String(metadata=_about("What y is."))
    recorded_data = fields.Dict(metadata=_about("The points, as lists x and y."))
    is_active = fields.Boolean(metadata=_about("Whether the device uses it."))
    pioreactor_unit = fields.String(metadata=_about("This unit."))
    hz = fields.Float(metadata=_about("PWM frequency of a pump, Hz."))
    dc = fields.Float(metadata=_about("Duty cycle of a pump, %."))
    voltage = fields.Float(metadata=_about("Supply of a pump or stirrer, V."))
    pwm_hz = fields.Float(metadata=_about("PWM frequency of a stirrer, Hz."))
    ir_led_intensity = fields.Float(metadata=_about("Of OD, %."))
    angle = fields.String(metadata=_about("Of a photodiode, degrees."))
    pd_channel = fields.String(metadata=_about("Of a photodiode."))


class EstimatorView(Schema):
    """An estimator as it is told."""

    estimator_type = fields.String(metadata=_about("od_fused_estimator."))
    estimator_name = fields.String(metadata=_about("As its file."))
    calibrated_on_pioreactor_unit = fields.String(metadata=_about("The unit that made it."))
    created_at = fields.String(metadata=_about("UTC."))
    ir_led_intensity = fields.Float(metadata=_about("%"))
    angles = fields.List(fields.String(), metadata=_about("The angles that it goes by."))
    mu_splines = fields.Dict(metadata=_about("Mean of ln(reading) by log10 OD, for each angle."))
    sigma_splines_log = fields.Dict(metadata=_about("ln of its spread, likewise."))
    min_logc = fields.Float(metadata=_about("Least log10 OD."))
    max_logc = fields.Float(metadata=_about("Greatest log10 OD."))
    sigma_floor = fields.Float(metadata=_about("Least spread."))
    recorded_data = fields.Dict(metadata=_about("What it was made of."))
    y = fields.String(metadata=_about("What y is."))
    low_conc_scales = fields.Dict(metadata=_about("How little an angle counts in thin cultures."))
    is_active = fields.Boolean(metadata=_about("Whether the device uses it."))
    pioreactor_unit = fields.String(metadata=_about("This unit."))
    device = fields.String(metadata=_about("Not in active_estimators."))


class ByDevice(Schema):
    """Any device is a key."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """The whole list as bytes, and of what it was made."""

    seen: Contents
    active: Mapping[str, str]
    body: bytes


class ArtifactHandlers(Generic[R]):
    """What calibrations and estimators have in common.

    ``render``: a record as a JSON value. ``name_field``: how the path calls the
    name. ``tells_device``: whether lists and single records name the device.
    ``missing_is_empty``: whether a folder that is not there is an empty list, or 404.
    """

    name_field: ClassVar[str]
    tells_device: ClassVar[bool]
    missing_is_empty: ClassVar[bool]

    def __init__(
        self,
        store: ArtifactStore[R],
        render: Callable[[R], Mapping[str, object]],
        unit_name: str,
    ) -> None:
        self._store = store
        # without its closing brace: what follows depends on the moment
        self._render: Callable[[R], bytes] = lambda record: json_bytes(render(record))[:-1]
        self._listing = Listing(store, self._render)
        self._last_answer: _Answer | None = None
        self._unit = json_bytes(unit_name)

    async def all(self, request: web.Request) -> web.Response:
        """By device, those that can be read."""
        seen = await self._contents()
        active = await self._active()
        answer = self._last_answer
        if answer is None or answer.seen is not seen or answer.active is not active:
            body = b"{%b}" % b",".join(
                b"%b:%b" % (json_bytes(device), self._list(device, rendered, active))
                for device, rendered in seen.items()
                if rendered
            )
            answer = _Answer(seen, active, body)
            self._last_answer = answer if len(body) <= MAX_BYTES else None
        return _json(answer.body)

    async def of_device(self, request: web.Request) -> web.Response:
        """Those of one device that can be read."""
        device = check_name(request.match_info["device"], "device")
        seen = await self._contents()
        rendered = seen.get(device, {} if self.missing_is_empty else None)
        if rendered is None:
            raise self._no_folder(f"the device {device!r}")
        return _json(self._list(device, rendered, await self._active()))

    async def one(self, request: web.Request) -> web.Response:
        """One of them; 500 when its file cannot be used."""
        device, name = self._named(request)
        try:
            record = await self._store.read(device, name)
        except InvalidRecord as error:
            raise StorageFailed(
                error.message, remediation="Correct the file on the unit, or delete it."
            ) from error
        is_active = (await self._active()).get(device) == name
        told = device if self.tells_device else None
        return _json(self._told(self._render(record), is_active, told))

    async def active(self, request: web.Request) -> web.Response:
        """By device, the active ones that can be read."""
        seen = await self._contents()
        found = (
            (device, seen[device][name])
            for device, name in (await self._active()).items()
            if name in seen.get(device, ())
        )
        return _json(
            b"{%b}"
            % b",".join(
                b"%b:%b" % (json_bytes(device), self._told(content, True, None))
                for device, content in found
            )
        )

    async def delete(self, request: web.Request) -> web.Response:
        """Delete one; it is active no more."""
        device, name = self._named(request)
        await self._store.delete(device, name)
        kind = self._store.kind.capitalize()
        return json_answer({"msg": f"{kind} {name!r} for device {device!r} deleted successfully."})

    async def activate(self, request: web.Request) -> web.Response:
        """Make one the active one of its device."""
        device, name = self._named(request)
        try:
            await self._store.activate(device, name)
        except InvalidRecord as error:
            raise Conflict(
                error.message, remediation="Correct the file on the unit, or choose another."
            ) from error
        return json_answer(DONE)

    async def deactivate(self, request: web.Request) -> web.Response:
        """Make none the active one of a device."""
        await self._store.deactivate(request.match_info["device"])
        return json_answer(DONE)

    def _named(self, request: web.Request) -> tuple[str, str]:
        return request.match_info["device"], request.match_info[self.name_field]

    async def _contents(self) -> Contents:
        """What there is; without the folder 404, or nothing."""
        seen = await self._listing.contents()
        if seen is not None:
            return seen
        if self.missing_is_empty:
            return {}
        raise self._no_folder("the unit")

    async def _active(self) -> Mapping[str, str]:
        return await self._store.pointers.all(self._store.kind)

    def _list(self, device: str, rendered: Mapping[str, bytes], active: Mapping[str, str]) -> bytes:
        told = device if self.tells_device else None
        active_name = active.get(device)
        return b"[%b]" % b",".join(
            self._told(content, name == active_name, told) for name, content in rendered.items()
        )

    def _told(self, content: bytes, active: bool, device: str | None) -> bytes:
        return b'%b,"is_active":%b,"pioreactor_unit":%b%b}' % (
            content,
            b"true" if active else b"false",
            self._unit,
            b"" if device is None else b',"device":' + json_bytes(device),
        )

    def _no_folder(self, whose: str) -> NotFound:
        return NotFound(
            f"{whose} has no folder of {self._store.kind}s",
            remediation=f"Create one of its {self._store.kind}s; the folder is made with it.",
        )


class CalibrationHandlers(ArtifactHandlers[Calibration]):
    """Calibrations, and the protocols that make them.

    ``protocols`` are those that there are, ``facts`` what is true of the unit at the moment.
    """

    name_field = "cal_name"
    tells_device = False
    missing_is_empty = False

    def __init__(
        self,
        store: CalibrationStore,
        unit_name: str,
        protocols: Iterable[type[CalibrationProtocol]],
        facts: Callable[[], Facts],
    ) -> None:
        super().__init__(store, calibration_view, unit_name)
        self._unit_name = unit_name
        self._protocols = protocols
        self._facts = facts

    async def create(self, request: web.Request) -> web.Response:
        """Keep an uploaded calibration, and make it the active one if that is asked for."""
        body = await decode_json(request, CalibrationSchema)
        path = await self._store.add(
            request.match_info["device"],
            body["calibration_data"],
            set_as_active=body["set_as_active"],
        )
        answer = {"msg": "Calibration created successfully.", "path": str(path)}
        return json_answer(answer, status=201)

    async def archive(self, request: web.Request) -> web.StreamResponse:
        """All calibration files, usable or not, as a zip."""
        if not await self._store.exists():
            raise self._no_folder("the unit")
        return await send_zip(
            request,
            f"{self._unit_name}_calibrations.zip",
            _entries(self._store.directory),
            self._store.hold,
        )

    async def protocols(self, request: web.Request) -> web.Response:
        """The protocols that this unit offers."""
        return json_answer(
            [
                {
                    "id": protocol.id,
                    "target_device": protocol.target_device,
                    "protocol_name": protocol.protocol_name,
                    "priority": protocol.priority,
                    "title": protocol.title,
                    "description": protocol.description,
                    "requirements": protocol.requirements,
                    "unavailable_because": protocol.unavailable_because,
                }
                for protocol in calibration_protocols(self._protocols, self._facts())
            ]
        )


class EstimatorHandlers(ArtifactHandlers[FusedEstimator]):
    """Estimators."""

    name_field = "estimator_name"
    tells_device = True
    missing_is_empty = True

    def __init__(self, store: EstimatorStore, unit_name: str) -> None:
        super().__init__(store, estimator_view, unit_name)


def _entries(directory: Path) -> Iterator[ZipEntry]:
    """The YAML files below ``directory``; links that leave it are left out."""
    root = directory.resolve()
    for path in sorted(directory.rglob(f"*{SUFFIX}")):
        if path.is_file() and path.resolve().is_relative_to(root):
            yield ZipEntry(path.relative_to(directory).as_posix(), path)


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: JSON_MEDIA})
