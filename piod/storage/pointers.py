"""Which calibration and which estimator is active for each device.

A pointer is a name, kept in the ledger. Whether there is a file of that name is
not this module's business.
"""

from __future__ import annotations

from collections.abc import Mapping

from piod.storage.ledger import Ledger

TAKEN_OVER = "pointers_taken_over"
"""Key in the ledger; set when the pointers of an installation from before piod no more count."""


class ActivePointers:
    """The active artifacts: for a kind (``calibration``, ``estimator``), one name per device.

    Changes are durable when they return. Every method raises StorageFull or
    StorageFailed when the disk refuses; the pointer is then as it was. Reading
    costs a look into the ledger only after something has changed there.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._read: dict[str, tuple[int, Mapping[str, str]]] = {}

    async def get(self, kind: str, device: str) -> str | None:
        """The name that is active for ``device``; None when there is none."""
        return (await self.all(kind)).get(device)

    async def all(self, kind: str) -> Mapping[str, str]:
        """The active names of a kind, by device, in the order of the devices.

        The same object as long as nothing has changed.
        """
        changes = self._ledger.meta_changes
        known = self._read.get(kind)
        if known is not None and known[0] == changes:
            return known[1]
        start = pointer_key(kind, "")
        facts = await self._ledger.metas(start)
        names = {key.removeprefix(start): name for key, name in facts.items()}
        self._read[kind] = (changes, names)
        return names

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
