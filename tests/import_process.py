"""An import in a process of its own, to be killed: ``python -m tests.import_process``.

It says ``go`` when it begins, imports the archive, says ``done`` and ends.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.trees import NEW, OLD, UNIT, fingerprint, write_tree, zip_of

ROOT = Path(__file__).parents[1]
STAMP = "20260131T124500Z"

# enough files that a kill hits the unpacking, the flushing and the exchange alike
MANY_NEW = NEW | {f"storage/many/{n}.txt": f"{n}\n" * 50 for n in range(60)}
MANY_OLD = OLD | {f"top{n}/x.txt": "old\n" for n in range(20)}
MANY_NEW |= {f"top{n}/x.txt": "new\n" for n in range(10, 30)}


def main(data_dir: Path, packed: Path) -> None:
    from piod.storage import imports
    from piod.storage.archives import check_archive

    print("go", flush=True)
    with packed.open("rb") as file:
        archive = check_archive(file, UNIT, force=False)
        for _ in imports.unpack(archive, data_dir, STAMP):
            pass
        imports.install(data_dir, STAMP)
    print("done", flush=True)


class Importer:
    """Imports ``MANY_NEW`` over ``MANY_OLD`` in ``folder``, again and again, killed or not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._packed = folder / "archive.zip"
        self._packed.write_bytes(zip_of(MANY_NEW))
        self._count = 0
        self.whole_old = self.whole_new = ""
        untouched = folder / "untouched"
        write_tree(untouched, MANY_OLD)
        self.whole_old = fingerprint(untouched)
        started = time.monotonic()
        whole, self._duration_s = self._run(None)
        assert time.monotonic() - started < 30
        self.whole_new = fingerprint(whole)
        assert self.whole_new != self.whole_old

    def killed_at(self, fraction: float) -> Path:
        """The data directory of an import that was killed after this part of its usual time."""
        return self._run(fraction * self._duration_s)[0]

    def _run(self, kill_after_s: float | None) -> tuple[Path, float]:
        self._count += 1
        data_dir = self._folder / f"unit{self._count}"
        write_tree(data_dir, MANY_OLD)
        command = [sys.executable, "-m", "tests.import_process", str(data_dir), str(self._packed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"go\n"
            started = time.monotonic()
            if kill_after_s is None:
                assert process.stdout.readline() == b"done\n"
                return data_dir, time.monotonic() - started
            time.sleep(kill_after_s)
            process.send_signal(signal.SIGKILL)
        return data_dir, kill_after_s


def moments(count: int, seed: int) -> Iterator[float]:
    """Random parts of the whole, one from each of ``count`` equal stretches and a bit beyond."""
    chance = random.Random(seed)
    for n in range(count):
        yield (n + chance.random()) / count * 1.05


def check_recovery(importer: Importer, fraction: float) -> bool:
    """Kill an import, recover, and see one whole tree; whether it is the new one."""
    from piod.storage import swap

    data_dir = importer.killed_at(fraction)
    is_new = swap.recover(data_dir)
    assert fingerprint(data_dir) == (importer.whole_new if is_new else importer.whole_old)
    if is_new:
        assert swap.facts(data_dir) == {
            "volumes_unconfirmed": "1",
            "pointers_taken_over": "import",
        }
        swap.finish(data_dir)
        swap.recover(data_dir)
    assert not (data_dir / ".piod-import").exists()
    return is_new


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
