"""kill -9 of a process that imports: a few moments here, many in ``make test-long``.

tests/storage/test_swap.py goes through every step, but only with a simulated kill.
"""

from __future__ import annotations

from pathlib import Path

from tests.import_process import Importer, check_recovery, moments


def test_a_killed_import_leaves_the_whole_old_or_the_whole_new_tree(tmp_path: Path) -> None:
    importer = Importer(tmp_path)
    for fraction in moments(6, seed=1):
        check_recovery(importer, fraction)
