"""Plugins in a whole unit: they are there after a start, and cannot keep it from its end."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from unit_process import Start, all_off, wait_until

BLINK = Path(__file__).resolve().parents[2] / "docs" / "examples" / "blink.py"


def test_a_unit_with_good_bad_and_hanging_plugins(tmp_path: Path, start: Start) -> None:
    data_dir = tmp_path / "unit"
    (data_dir / "plugins").mkdir(parents=True)
    (data_dir / "plugins" / "blink.py").write_text(BLINK.read_text())
    (data_dir / "plugins" / "chatty.py").write_text("print('piod: serving nothing')\nexit(7)\n")
    unit = start(data_dir)
    assert unit.stdout == f"piod: serving http://127.0.0.1:{unit.port}\n"
    blink, chatty = unit.get("/unit_api/plugins/installed")
    assert (blink["jobs"], blink["error"]) == (["blink"], None)
    assert "SystemExit: 7" in chatty["error"]
    unit.result(unit.post("/unit_api/jobs/run/job_name/blink", {"options": {"period_s": 0.2}}))
    wait_until("the stirrer", lambda: unit.duty == 20, 5)

    hanging = tmp_path / "hanging.py"
    hanging.write_text(f"open({str(tmp_path / 'hangs')!r}, 'w')\nwhile True: pass\n")
    body = {"args": ["hanging"], "options": {"source": str(hanging)}}
    assert unit.request("POST", "/unit_api/plugins/install", body)[0] == 202
    wait_until("the plugin that hangs", (tmp_path / "hangs").exists, 5)
    assert unit.health()["status"] == "ok"
    began = time.monotonic()
    unit.signal(signal.SIGTERM)
    assert unit.wait_exit(5) == 0
    assert time.monotonic() - began < 5
    assert all_off(data_dir)
