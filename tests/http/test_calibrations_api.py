"""Calibrations and estimators over HTTP: what is kept, told, active, and refused."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import resource
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml
from yarl import URL

from piod.calibrations.listing import FRESH_S
from piod.clock import SimulatedClock
from tests.calibrations.test_estimators import FUSED
from tests.unit import Unit, running_unit

API = "/unit_api"
OD = """\
calibration_type: od600
calibration_name: cal_1
calibrated_on_pioreactor_unit: pio07
created_at: 2026-05-20 18:02:11+02:00
curve_data_: {type: poly, coefficients: [-0.05, 0.62, 0.03]}
recorded_data: {x: [0, 0.6], y: [0.03, 0.384]}
ir_led_intensity: 80
angle: '90'
pd_channel: '2'
"""
SPLINE = """\
calibration_type: simple_stirring
calibration_name: stir
calibrated_on_pioreactor_unit: pio07
created_at: 2026-06-13T10:20:00Z
curve_data_: {type: spline, knots: [10, 30], coefficients: [[250, 22, 0, -0.01]]}
recorded_data: {x: [], y: []}
pwm_hz: 67.0
voltage: 11.7
"""
VIEW = {
    "calibration_type": "od600",
    "calibration_name": "cal_1",
    "calibrated_on_pioreactor_unit": "pio07",
    "created_at": "2026-05-20T16:02:11.000Z",
    "curve_data_": {"type": "poly", "coefficients": [-0.05, 0.62, 0.03]},
    "x": "OD600",
    "y": "Voltage",
    "recorded_data": {"x": [0.0, 0.6], "y": [0.03, 0.384]},
    "ir_led_intensity": 80.0,
    "angle": "90",
    "pd_channel": "2",
    "is_active": False,
    "pioreactor_unit": "pio01",
}


def assert_refusal(answer: tuple[int, Any], status: int, *words: str) -> None:
    """The error object, exactly, with ``words`` in its ``error``."""
    got, body = answer
    assert got == status, body
    assert set(body) == {"error", "error_info"}
    assert set(body["error_info"]) == {"cause", "remediation", "status"}
    assert body["error_info"]["status"] == status
    for word in words:
        assert word in body["error"]


async def upload(unit: Unit, text: str, device: str = "od90", **more: object) -> tuple[int, Any]:
    body = {"calibration_data": text, **more}
    return await unit.request("POST", f"{API}/calibrations/{device}", body)


def put(unit: Unit, kind: str, device: str, name: str, text: str | bytes) -> Path:
    """A file as somebody with a shell leaves it."""
    path = unit.data_dir / "storage" / kind / device / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def files(unit: Unit) -> list[str]:
    root = unit.data_dir / "storage" / "calibrations"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


# -- keeping and telling --------------------------------------------------------------


async def test_a_fresh_unit_has_nothing_and_says_so(unit: Unit) -> None:
    for path in ("calibrations", "active_calibrations", "estimators", "active_estimators"):
        assert await unit.get(f"{API}/{path}") == {}
    assert await unit.get(f"{API}/estimators/od_fused") == []


async def test_an_upload_is_on_disk_as_it_came_when_the_answer_comes(unit: Unit) -> None:
    text = "# by hand\n" + OD + "note: ünïcode\npioreactor_unit: pio07\n"
    status, body = await upload(unit, text)
    assert status == 201
    path = unit.data_dir / "storage" / "calibrations" / "od90" / "cal_1.yaml"
    assert body == {"msg": "Calibration created successfully.", "path": str(path)}
    assert path.read_bytes() == text.encode()
    assert await unit.get(f"{API}/calibrations/od90/cal_1") == VIEW
    assert await unit.get(f"{API}/calibrations/od90") == [VIEW]
    assert await unit.get(f"{API}/calibrations") == {"od90": [VIEW]}
    assert await unit.get(f"{API}/active_calibrations") == {}


async def test_an_upload_can_be_made_active_at_once_and_replaces_its_namesake(unit: Unit) -> None:
    assert (await upload(unit, OD, set_as_active=True))[0] == 201
    active = {**VIEW, "is_active": True}
    assert await unit.get(f"{API}/active_calibrations") == {"od90": active}
    assert (await upload(unit, OD.replace("80", "70"), set_as_active=False))[0] == 201
    assert await unit.get(f"{API}/calibrations/od90") == [{**active, "ir_led_intensity": 70.0}]


async def test_each_device_has_its_own_active_calibration(unit: Unit) -> None:
    await upload(unit, OD, "od90")
    await upload(unit, OD.replace("cal_1", "cal 2"), "od90")
    await upload(unit, OD, "od45")
    await upload(unit, SPLINE, "stirring")
    for path in ("od90/cal%202", "stirring/stir", "od90/cal_1"):
        status, body = await unit.request("PATCH", f"{API}/active_calibrations/{path}")
        assert (status, body) == (200, {"status": "success"})
    active = await unit.get(f"{API}/active_calibrations")
    assert {device: one["calibration_name"] for device, one in active.items()} == {
        "od90": "cal_1",
        "stirring": "stir",
    }
    everything = await unit.get(f"{API}/calibrations")
    assert {
        device: [(one["calibration_name"], one["is_active"]) for one in listed]
        for device, listed in everything.items()
    } == {
        "od45": [("cal_1", False)],
        "od90": [("cal 2", False), ("cal_1", True)],
        "stirring": [("stir", True)],
    }
    for _ in range(2):
        answer = await unit.request("DELETE", f"{API}/active_calibrations/od90")
        assert answer == (200, {"status": "success"})
    assert set(await unit.get(f"{API}/active_calibrations")) == {"stirring"}


async def test_every_change_shows_in_the_next_list(unit: Unit) -> None:
    async def told() -> list[tuple[str, bool]]:
        lists = await unit.get(f"{API}/calibrations")
        return [(one["calibration_name"], one["is_active"]) for one in lists.get("od90", [])]

    assert await told() == []
    await upload(unit, OD)
    assert await told() == [("cal_1", False)]
    await unit.request("PATCH", f"{API}/active_calibrations/od90/cal_1")
    assert await told() == [("cal_1", True)]
    await upload(unit, OD.replace("cal_1", "cal_2"))
    assert await told() == [("cal_1", True), ("cal_2", False)]
    await upload(unit, OD.replace("cal_1", "cal_2"), set_as_active=True)
    assert await told() == [("cal_1", False), ("cal_2", True)]
    await unit.request("DELETE", f"{API}/active_calibrations/od90")
    assert await told() == [("cal_1", False), ("cal_2", False)]
    await unit.request("DELETE", f"{API}/calibrations/od90/cal_1")
    assert await told() == [("cal_2", False)]


async def test_deleting_says_so_and_leaves_none_active(unit: Unit) -> None:
    await upload(unit, OD, set_as_active=True)
    path = f"{API}/calibrations/od90/cal_1"
    assert await unit.request("DELETE", path) == (
        200,
        {"msg": "Calibration 'cal_1' for device 'od90' deleted successfully."},
    )
    assert files(unit) == []
    assert await unit.get(f"{API}/active_calibrations") == {}
    assert await unit.get(f"{API}/calibrations/od90") == []
    assert await unit.get(f"{API}/calibrations") == {}
    assert_refusal(await unit.request("DELETE", path), 404, "no calibration 'cal_1' of od90")
    await upload(unit, OD)
    assert await unit.get(f"{API}/active_calibrations") == {}


async def test_what_is_kept_and_active_survives_a_restart(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock) as unit:
        await upload(unit, OD, set_as_active=True)
    async with running_unit(tmp_path, clock) as unit:
        [active] = (await unit.get(f"{API}/active_calibrations")).values()
        assert active == {**VIEW, "is_active": True}


async def test_jobs_use_the_active_calibration(unit: Unit) -> None:
    text = SPLINE.replace("[[250, 22, 0, -0.01]]", "[[400, 10, 0, 0]]")
    await upload(unit, text, "stirring", set_as_active=True)
    await unit.run("stirring", options={"target_rpm": 500})
    assert unit.duty == pytest.approx(20, abs=3)


async def test_reads_may_be_cached_for_ten_seconds_and_changes_may_not(unit: Unit) -> None:
    await upload(unit, OD)
    for path in ("calibrations", "calibrations/od90", "calibrations/od90/cal_1", "estimators"):
        async with unit.client.get(f"{API}/{path}") as answer:
            assert answer.headers["Cache-Control"] == "public, max-age=10"
            assert answer.headers["Content-Type"] == "application/json"
    async with unit.client.patch(f"{API}/active_calibrations/od90/cal_1") as answer:
        assert "Cache-Control" not in answer.headers


async def test_crud_answers_the_documented_verb_alone(unit: Unit) -> None:
    for method, path, allow in [
        ("POST", "active_calibrations/od90/cal_1", "PATCH"),
        ("PUT", "calibrations/od90", "GET, HEAD, POST"),
        ("PATCH", "calibrations/od90", "GET, HEAD, POST"),
        ("POST", "calibrations/od90/cal_1", "DELETE, GET, HEAD"),
        ("POST", "estimators/od_fused", "GET, HEAD"),
        ("GET", "active_estimators/od_fused", "DELETE"),
    ]:
        async with unit.client.request(method, f"{API}/{path}") as answer:
            assert set(answer.headers["Allow"].split(",")) == set(allow.split(", "))
            assert_refusal((answer.status, await answer.json()), 405)


# -- files that others left ------------------------------------------------------------


async def test_a_file_that_cannot_be_used_is_left_out_of_lists_and_500_alone(unit: Unit) -> None:
    await upload(unit, OD)
    path = put(unit, "calibrations", "od90", "bad", "calibration_type: od\n")
    put(unit, "calibrations", "od90", "latin", b"a: \xe9\n")
    put(unit, "calibrations", "waste_pump", "worse", "[1, 2")
    assert await unit.get(f"{API}/calibrations") == {"od90": [VIEW]}
    answer = await unit.request("GET", f"{API}/calibrations/od90/bad")
    assert_refusal(answer, 500, "'bad' of od90 cannot be used", "calibration_name: is missing")
    assert_refusal(await unit.request("GET", f"{API}/calibrations/od90/latin"), 500, "UTF-8")
    answer = await unit.request("PATCH", f"{API}/active_calibrations/od90/bad")
    assert_refusal(answer, 409, "cannot be used")
    assert (await unit.request("DELETE", f"{API}/calibrations/od90/bad"))[0] == 200
    assert not path.exists()


async def test_a_change_by_hand_shows_in_a_moment(unit: Unit) -> None:
    await upload(unit, OD)
    await unit.get(f"{API}/calibrations")
    await asyncio.sleep(FRESH_S)
    put(unit, "calibrations", "od90", "cal_1", OD.replace("80", "79"))
    [told] = await unit.get(f"{API}/calibrations/od90")
    assert told["ir_led_intensity"] == 79.0


async def test_an_active_file_that_vanished_is_active_no_more_in_lists(unit: Unit) -> None:
    await upload(unit, OD, set_as_active=True)
    await upload(unit, SPLINE, "stirring", set_as_active=True)
    put(unit, "calibrations", "od90", "cal_1", "nothing of use")
    await asyncio.sleep(FRESH_S)
    assert set(await unit.get(f"{API}/active_calibrations")) == {"stirring"}
    (unit.data_dir / "storage/calibrations/stirring/stir.yaml").unlink()
    assert await unit.get(f"{API}/active_calibrations") == {}


async def test_a_missing_folder_is_404_for_calibrations_and_nothing_for_estimators(
    unit: Unit,
) -> None:
    assert_refusal(await unit.request("GET", f"{API}/calibrations/od90"), 404, "od90")
    assert await unit.get(f"{API}/estimators/nowhere") == []
    for kind in ("calibrations", "estimators"):
        (unit.data_dir / "storage" / kind).rmdir()
    for path in ("calibrations", "active_calibrations", "zipped_calibrations"):
        assert_refusal(await unit.request("GET", f"{API}/{path}"), 404, "no folder of calibrations")
    for path in ("estimators", "active_estimators"):
        assert await unit.get(f"{API}/{path}") == {}
    assert (await upload(unit, OD))[0] == 201  # and the folder is there again
    assert set(await unit.get(f"{API}/calibrations")) == {"od90"}


# -- refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["calibration_data", "missing"]),
        ({"calibration_data": None}, ["calibration_data", "null"]),
        ({"calibration_data": 5}, ["calibration_data", "text"]),
        ({"calibration_data": ["a"]}, ["calibration_data", "text"]),
        ({"calibration_data": ""}, ["calibration_data", "empty"]),
        ({"calibration_data": "a\0b"}, ["NUL"]),
        *(
            ({"calibration_data": OD, "set_as_active": value}, ["set_as_active"])
            for value in (0, 1, None, "yes", "true", [], {})
        ),
        ({"calibration_data": "nonsense", "set_as_active": 1}, ["set_as_active"]),
        ([], ["object"]),
        ("text", ["object"]),
    ],
)
async def test_a_wrong_body_is_400_names_the_field_and_writes_nothing(
    unit: Unit, body: object, words: list[str]
) -> None:
    answer = await unit.request("POST", f"{API}/calibrations/od90", body)
    assert_refusal(answer, 400, *words)
    assert files(unit) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"{",
        b'{"calibration_data": "a"',
        b'{"calibration_data": NaN}',
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"calibration_data": ' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}",
        b"calibration_data=x",
    ],
)
async def test_a_body_that_is_no_json_object_is_400(unit: Unit, data: bytes) -> None:
    async with unit.client.post(f"{API}/calibrations/od90", data=data) as answer:
        assert_refusal((answer.status, await answer.json()), 400)
    assert files(unit) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", ["not readable YAML", "line"]),
        ("just text", ["mapping"]),
        ("[" * 100_000, ["nested deeper"]),
        ("a: &x [1]\nb: [*x, *x]", ["aliases"]),
        ("- a\n" * 100_000, ["more than 20000 values"]),
        ("!!python/object/apply:os.system [ls]", ["YAML"]),
        (OD.replace("od600", "od_magic"), ["calibration_type", "simple_stirring"]),
        (OD.replace("2026-05-20 18:02:11+02:00", "'2026-05-20T18:02:11Z'"), ["created_at"]),
        (OD.replace("angle: '90'", "angle: 90"), ["angle", "quotes"]),
        (OD.replace("y: [0.03, 0.384]", "y: [0.03]"), ["recorded_data", "equally long"]),
        (OD.replace("cal_1", "../cal"), ["calibration_name"]),
        (OD.replace("cal_1", ".cal"), ["calibration_name"]),
        (OD.replace("cal_1", "a  b"), ["calibration_name"]),
        (OD.replace("cal_1", "é"), ["calibration_name"]),
        (OD.replace("cal_1", "x" * 300), ["calibration_name"]),
        (OD.replace("cal_1", "''"), ["calibration_name", "empty"]),
        (SPLINE, ["simple_stirring", "od90"]),
    ],
)
async def test_a_wrong_calibration_is_400_with_the_reason_and_writes_nothing(
    unit: Unit, text: str, words: list[str]
) -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert_refusal(await upload(unit, text, set_as_active=True), 400, *words)
    assert loop.time() - before < 1
    assert files(unit) == []
    assert await unit.get(f"{API}/active_calibrations") == {}


async def test_no_device_may_be_called_as_the_sessions_are(unit: Unit) -> None:
    assert_refusal(await upload(unit, OD, "sessions"), 400, "target_device")  # starts none
    assert_refusal(await unit.request("GET", f"{API}/calibrations/sessions"), 404)


async def test_a_body_over_a_megabyte_is_413(unit: Unit) -> None:
    async def size(padding: int) -> tuple[int, Any]:
        body = json.dumps({"calibration_data": f"{OD}# {'x' * padding}"}).encode()
        path = f"{API}/calibrations/od90"
        async with unit.client.post(path, data=io.BytesIO(body)) as answer:
            return answer.status, await answer.json()

    assert_refusal(await size(1_048_576), 413)
    assert files(unit) == []
    assert (await size(1_000_000))[0] == 201


BAD_NAMES = [
    "%2e%2e",
    "%2E%2E%2F",
    "..%2f..%2fx",
    "%252e%252e%252f",
    "a%2Fb",
    "a%5Cb",
    "a%00b",
    "a%0Ab",
    "%20a",
    "a%20%20b",
    ".a",
    "-a",
    "%C3%A9",
    "%FF",
    "a:b",
    "$broadcast",
    "x" * 300,
]


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_a_wrong_name_is_400_on_every_verb(unit: Unit, name: str) -> None:
    put(unit, "calibrations", "..", "secret", OD)
    put(unit, "estimators", "..", "secret", FUSED)
    for kind, active in (
        ("calibrations", "active_calibrations"),
        ("estimators", "active_estimators"),
    ):
        for method, path in [
            ("GET", f"{kind}/{name}"),
            ("GET", f"{kind}/{name}/a"),
            ("GET", f"{kind}/od90/{name}"),
            ("DELETE", f"{kind}/{name}/a"),
            ("DELETE", f"{kind}/od90/{name}"),
            ("PATCH", f"{active}/{name}/a"),
            ("PATCH", f"{active}/od90/{name}"),
            ("DELETE", f"{active}/{name}"),
        ]:
            url = URL(str(unit.client.make_url("/")) + f"unit_api/{path}", encoded=True)
            async with unit.client.session.request(method, url) as answer:
                assert_refusal((answer.status, await answer.json()), 400)
    url = URL(str(unit.client.make_url("/")) + f"unit_api/calibrations/{name}", encoded=True)
    body = json.dumps({"calibration_data": OD.replace("od600", "od")})
    async with unit.client.session.post(url, data=body) as answer:
        assert_refusal((answer.status, await answer.json()), 400)
    assert (unit.data_dir / "storage" / "secret.yaml").exists()


async def test_plain_dots_in_a_path_reach_nothing(unit: Unit) -> None:
    put(unit, "calibrations", "..", "secret", OD)
    host, port = unit.client.server.host, unit.client.server.port
    for path in (
        "calibrations/../secret",
        "calibrations/od90/../../secret",
        "calibrations//secret",
    ):
        reader, writer = await asyncio.open_connection(host, port)
        request = f"DELETE /unit_api/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.split()[1] in (b"400", b"404", b"405")
    assert (unit.data_dir / "storage" / "secret.yaml").exists()


async def test_what_is_not_there_is_404(unit: Unit) -> None:
    for method, path in [
        ("GET", "calibrations/od90/nothing"),
        ("DELETE", "calibrations/od90/nothing"),
        ("PATCH", "active_calibrations/od90/nothing"),
        ("GET", "estimators/od_fused/nothing"),
        ("DELETE", "estimators/od_fused/nothing"),
        ("PATCH", "active_estimators/od_fused/nothing"),
    ]:
        assert_refusal(await unit.request(method, f"{API}/{path}"), 404, "'nothing'")
    assert await unit.get(f"{API}/active_calibrations") == {}
    assert await unit.get(f"{API}/active_estimators") == {}


# -- a disk that refuses -----------------------------------------------------------------


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


async def test_a_write_that_the_kernel_refuses_leaves_the_old_file_and_pointer(
    unit: Unit,
) -> None:
    await upload(unit, OD, set_as_active=True)
    other = OD.replace("cal_1", "cal_2")
    await upload(unit, other)
    padding = "# " + "x" * 900_000 + "\n"
    with files_no_longer_than(800_000):
        for text in (OD, other, OD.replace("cal_1", "new")):
            answer = await upload(unit, text.replace("80", "70") + padding, set_as_active=True)
            assert_refusal(answer, 500, "could not be written", "File too large")
    assert files(unit) == ["od90/cal_1.yaml", "od90/cal_2.yaml"]
    [active] = (await unit.get(f"{API}/active_calibrations")).values()
    assert (active["calibration_name"], active["ir_led_intensity"]) == ("cal_1", 80.0)
    assert (await unit.get(f"{API}/calibrations/od90/cal_2"))["ir_led_intensity"] == 80.0


@pytest.mark.parametrize(
    ("reason", "status"), [(errno.ENOSPC, 507), (errno.EROFS, 500), (errno.EIO, 500)]
)
async def test_a_disk_that_is_full_or_fails_while_flushing_leaves_nothing_behind(
    unit: Unit, monkeypatch: pytest.MonkeyPatch, reason: int, status: int
) -> None:
    await upload(unit, OD, set_as_active=True)

    def refuse(file: int) -> None:
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as disk:
        disk.setattr("piod.storage.files.os.fsync", refuse)
        answer = await upload(unit, OD.replace("cal_1", "cal_2"), set_as_active=True)
    assert_refusal(answer, status, "cal_2.yaml could not be written", os.strerror(reason))
    assert files(unit) == ["od90/cal_1.yaml"]
    assert (await unit.get(f"{API}/active_calibrations"))["od90"]["calibration_name"] == "cal_1"


async def test_a_device_that_is_a_file_is_a_failure_with_its_reason(unit: Unit) -> None:
    (unit.data_dir / "storage" / "calibrations" / "od90").write_text("a file")
    assert_refusal(await upload(unit, OD), 500, "could not be")
    assert_refusal(await unit.request("GET", f"{API}/calibrations/od90/cal_1"), 404)
    assert_refusal(await unit.request("GET", f"{API}/calibrations/od90"), 404)
    assert await unit.get(f"{API}/calibrations") == {}


# -- estimators --------------------------------------------------------------------------


def without(told: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in told.items() if key not in keys}


async def test_estimators_are_listed_with_their_device_and_activated(unit: Unit) -> None:
    put(unit, "estimators", "od_fused", "fused-two-decades", FUSED)
    put(unit, "estimators", "od_fused", "bad", "nothing of use")
    path = f"{API}/estimators/od_fused/fused-two-decades"
    told = await unit.get(path)
    source = yaml.safe_load(FUSED)
    assert told["device"] == "od_fused"
    assert told["pioreactor_unit"] == "pio01"
    assert told["is_active"] is False
    assert told["created_at"] == "2026-03-18T16:45:00.125Z"
    assert told["low_conc_scales"] == {}
    for key in ("estimator_type", "angles", "mu_splines", "sigma_splines_log", "sigma_floor"):
        assert told[key] == source[key]
    assert told["recorded_data"]["by_angle"] == source["recorded_data"]["by_angle"]
    assert await unit.get(f"{API}/estimators/od_fused") == [told]
    assert await unit.get(f"{API}/estimators") == {"od_fused": [told]}
    active_path = f"{API}/active_estimators/od_fused"
    answer = await unit.request("PATCH", f"{active_path}/fused-two-decades")
    assert answer == (200, {"status": "success"})
    assert await unit.get(f"{API}/active_estimators") == {
        "od_fused": {**without(told, "device"), "is_active": True}
    }
    assert_refusal(await unit.request("PATCH", f"{active_path}/bad"), 409, "cannot be used")
    assert_refusal(await unit.request("GET", f"{API}/estimators/od_fused/bad"), 500)
    assert await unit.request("DELETE", active_path) == (200, {"status": "success"})
    assert await unit.get(f"{API}/active_estimators") == {}


async def test_deleting_an_estimator_leaves_none_active(unit: Unit) -> None:
    file = put(unit, "estimators", "od_fused", "fused-two-decades", FUSED)
    await unit.request("PATCH", f"{API}/active_estimators/od_fused/fused-two-decades")
    answer = await unit.request("DELETE", f"{API}/estimators/od_fused/fused-two-decades")
    assert answer == (
        200,
        {"msg": "Estimator 'fused-two-decades' for device 'od_fused' deleted successfully."},
    )
    assert not file.exists()
    file.write_text(FUSED)
    assert await unit.get(f"{API}/active_estimators") == {}


# -- the zip -----------------------------------------------------------------------------


async def test_the_zip_holds_every_file_usable_or_not_and_no_estimators(unit: Unit) -> None:
    await upload(unit, OD)
    await upload(unit, SPLINE, "stirring")
    put(unit, "calibrations", "od90", "bad", "nothing of use")
    put(unit, "estimators", "od_fused", "fused", FUSED)
    root = unit.data_dir / "storage" / "calibrations"
    (root / "od90" / "notes.txt").write_text("not a calibration")
    (unit.data_dir / "secret.yaml").write_text("secret")
    (root / "od90" / "link.yaml").symlink_to(unit.data_dir / "secret.yaml")
    (root / "od90" / "alias.yaml").symlink_to("bad.yaml")
    async with unit.client.get(f"{API}/zipped_calibrations") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/zip"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["Content-Disposition"] == (
            'attachment; filename="pio01_calibrations.zip"'
        )
        archive = ZipFile(io.BytesIO(await answer.read()))
    assert archive.testzip() is None
    assert archive.namelist() == [
        "od90/alias.yaml",
        "od90/bad.yaml",
        "od90/cal_1.yaml",
        "stirring/stir.yaml",
    ]
    assert archive.read("od90/cal_1.yaml").decode() == OD
    async with unit.client.head(f"{API}/zipped_calibrations") as answer:
        assert answer.status == 200
        assert await answer.read() == b""


async def test_an_empty_unit_has_an_empty_zip(unit: Unit) -> None:
    async with unit.client.get(f"{API}/zipped_calibrations") as answer:
        assert ZipFile(io.BytesIO(await answer.read())).namelist() == []


async def test_a_client_that_leaves_during_the_zip_harms_nothing(unit: Unit) -> None:
    for number in range(20):
        put(unit, "calibrations", "od90", f"c{number}", os.urandom(500_000))
    answer = await unit.client.get(f"{API}/zipped_calibrations")
    await answer.content.readexactly(1000)
    answer.close()
    assert set(await unit.get(f"{API}/calibrations")) == set()


# -- protocols ---------------------------------------------------------------------------


async def test_protocols_follow_the_configuration_of_the_moment(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    config = "[od_config.photodiode_channel]\n1=REF\n2=90\n"
    async with running_unit(tmp_path, clock, config_ini=config) as unit:
        protocols = await unit.get(f"{API}/calibration_protocols")
        for protocol in protocols:
            assert set(protocol) == {
                "id",
                "target_device",
                "protocol_name",
                "priority",
                "title",
                "description",
                "requirements",
                "unavailable_because",
            }
        standards = [p["id"] for p in protocols if p["protocol_name"] == "standards"]
        assert standards == ["od90_standards"]
        (tmp_path / "config.ini").write_text(config + "3=45\n")
        protocols = await unit.get(f"{API}/calibration_protocols")
        standards = [p["id"] for p in protocols if p["protocol_name"] == "standards"]
        assert standards == ["od_standards", "od45_standards", "od90_standards"]
