"""Data directories and archives for the tests of export and import."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

UNIT = "pio01"
METADATA = "pioreactor_export_metadata.json"
ABOUT = json.dumps({"metadata_version": 1, "name": UNIT}).encode()

OLD = {
    "config.ini": "[a]\nold = 1\n",
    "unit_config.ini": "[b]\nold = 1\n",
    "hardware/hats/1.2/pwm.yaml": "# old wiring\n",
    "ui/jobs/stirring.yaml": "# old ui\n",
    "plugins/old.py": "OLD = 1\n",
    "storage/calibrations/stirring/old.yaml": "old\n",
    "storage/estimators/od/old.yaml": "old\n",
    "storage/notes.txt": "old notes\n",
}
NEW = {
    "config.ini": "[a]\nnew = 1\n",
    "models/mine.yaml": "new\n",
    "plugins/new.py": "NEW = 1\n",
    "storage/calibrations/stirring/new.yaml": "new\n",
    "storage/calibrations/media_pump/deep/er/new.yaml": "new\n",
    "storage/notes.txt": "new notes\n",
    "storage/more.txt": "x" * 5000,
}
STAYS = {"piod.lock", "piod.sock", "simulator", ".piod-import"}


def write_tree(root: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def zip_of(
    files: Mapping[str, str | bytes], *, about: bytes | None = ABOUT, method: int = 8
) -> bytes:
    """A zip with these entries (of a folder the name ends with ``/``), then ``about``."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        if about is not None:
            archive.writestr(METADATA, about)
    return packed.getvalue()


def zip_of_entry(name: str, mode: int, content: bytes = b"/etc/passwd") -> bytes:
    """A zip with one entry of any kind, and the metadata."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, content)
        archive.writestr(METADATA, ABOUT)
    return packed.getvalue()


def fingerprint(root: Path) -> str:
    """Of all that a user has in a tree: names, kinds and contents.

    Not of what belongs to the running piod: nobody but SQLite may open the ledger.
    """
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name.split("/")[0] in STAYS or name.startswith("storage/piod.sqlite"):
            continue
        mode = os.lstat(path).st_mode
        digest.update(f"{name} {stat.S_IFMT(mode):o}\0".encode("utf-8", "surrogateescape"))
        if stat.S_ISREG(mode):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        elif stat.S_ISLNK(mode):
            digest.update(os.fsencode(os.readlink(path)))
    return digest.hexdigest()


def names_in(root: Path) -> list[str]:
    """The files of a tree, sorted."""
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir())
