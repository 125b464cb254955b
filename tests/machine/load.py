"""Clients that ask a unit without end, as its leader and open pages do."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter

from tests.machine.container import wait_until
from tests.machine.installed import Installed

CLIENTS = 8
PAUSE_S = 0.02


class Load:
    """Clients in the container, each request on a new connection, until :meth:`end`."""

    def __init__(self, unit: Installed) -> None:
        self._unit = unit
        self._over = threading.Event()
        self.answers: Counter[str] = Counter()
        """How often each came: a status, or what the client met instead of an answer."""
        self._longest_s = 0.0
        self._threads = [threading.Thread(target=self._ask_inside) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    @property
    def summary(self) -> str:
        return f"{self.answers.total()} requests, the longest {self._longest_s:.2f} s"

    def _ask_inside(self) -> None:
        self._unit.inside_network(self._ask)

    def _ask(self) -> None:
        while not self._over.wait(PAUSE_S):
            begun = time.monotonic()
            try:
                answer = str(self._unit.health_from_inside())
            except (OSError, http.client.HTTPException, ValueError) as error:
                answer = repr(error)
            self._longest_s = max(self._longest_s, time.monotonic() - begun)
            self.answers[answer] += 1

    def wait_for_answers(self, more: int = 50) -> None:
        """Until so many more requests have got their answer."""
        enough = self.answers["200"] + more
        wait_until("more answers", lambda: self.answers["200"] >= enough)

    def end(self) -> None:
        """Returns when every client has its last answer."""
        self._over.set()
        for thread in self._threads:
            thread.join()
