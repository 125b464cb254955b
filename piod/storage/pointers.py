"""Which calibration and which estimator is active for each device.

A pointer is a name, kept in the ledger. Whether there is a file of that name is
not this module's business.
"""

from __future__ import annotations

from collections.abc import Mapping

from piod.storage.ledger import Ledger


class ActivePointers:
    """The active artifacts: for a kind (``calibration``, ``estimator``), one name per device.

    Changes are durable when they return. Every method raises StorageFull or
    StorageFailed when the disk refuses; the pointer is then as it was.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def get(self, kind: str, device: str) -> str | None:
        """The name that is active for ``device``; None when there is none."""
        return await self._ledger.get_meta(pointer_key(kind, device))

    async def all(self, kind: str) -> Mapping[str, str]:
        """The active names of a kind, by device, in the order of the devices."""
        start = pointer_key(kind, "")
        facts = await self._ledger.metas(start)
        return {key.removeprefix(start): name for key, name in facts.items()}

    async def set(self, kind: str, device: str, name: str) -> None:
        """Make ``name`` the active one of ``device``."""
        await self._ledger.put_meta(pointer_key(kind, device), name)

    async def remove(self, kind: str, device: str) -> None:
        """Make none the active one of ``device``."""
        if await self.get(kind, device) is not None:
            await self._ledger.remove_meta(pointer_key(kind, device))


def pointer_key(kind: str, device: str) -> str:
    """Under which key of the ledger's facts the pointer is kept."""
    return f"active_{kind}:{device}"
