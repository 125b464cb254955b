"""What an existing Pioreactor installation knows and piod takes over: the active pointers.

Calibrations and estimators are files, and are used where they lie. Which of them
are active stands in the installation's persistent cache, which stays its own. It is
read once, at the first start that finds it: from then on piod's pointers count,
and clearing one is not undone by the next start.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from piod.errors import PiodError
from piod.storage.archived_pointers import FOLDERS, UPSTREAM_CACHE, cached_pointers
from piod.storage.layout import STORAGE_FOLDER
from piod.storage.ledger import Ledger
from piod.storage.pointers import TAKEN_OVER, pointer_key

_log = logging.getLogger(__name__)


async def take_over_pointers(
    data_dir: Path,
    configured_cache: str | None,
    ledger: Ledger,
    hold: Callable[[], AbstractContextManager[None]],
) -> str | None:
    """Make active what was active in the installation that ``data_dir`` comes from; once.

    ``configured_cache`` is ``[storage] persistent_cache``, used if the cache does
    not lie in its usual place. If piod has pointers of its own, they stay and
    nothing is taken. ``hold`` is :meth:`piod.clock.Clock.hold`.

    Returns what is wrong, in words, when the cache cannot be read: the next start
    tries again. Raises StorageFull or StorageFailed when the ledger cannot keep it.
    """
    if await ledger.get_meta(TAKEN_OVER) is not None:
        return None
    storage = data_dir / STORAGE_FOLDER
    try:
        with hold():
            found = await asyncio.to_thread(_read, storage, configured_cache)
    except PiodError as refusal:
        problem = f"which calibrations were active before piod is not known: {refusal.message}"
        _log.error("%s. %s", problem, refusal.remediation)
        return problem
    if found is None:
        return None
    cache, pointers = found
    own = [key for kind in FOLDERS for key in await ledger.metas(pointer_key(kind, ""))]
    facts = {TAKEN_OVER: str(cache)}
    if own:
        _log.info("The active artifacts in %s are not taken over: piod has its own", cache)
    else:
        for (kind, device), name in pointers.items():
            facts[pointer_key(kind, device)] = name
            _log.info("%s %a of %a is active, as it was before piod", kind, name, device)
    await ledger.replace_meta([], facts)
    return None


def _read(
    storage: Path, configured_cache: str | None
) -> tuple[Path, dict[tuple[str, str], str]] | None:
    """The cache and what it says; None: there is none."""
    caches = [storage / UPSTREAM_CACHE]
    if configured_cache:
        caches.append(Path(configured_cache))
    for cache in caches:
        if cache.is_absolute() and os.path.isfile(cache):
            return cache, cached_pointers(storage, cache)
    return None
