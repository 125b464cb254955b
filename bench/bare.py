"""The bare aiohttp handler: as little as can stand between aiohttp and an answer.

``python -m bench.bare '{"/path": body bytes, …}'`` answers GET and POST of each
path with that many bytes, called JSON, from static routes, without access log.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable

from aiohttp import web


def handler(body: bytes) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Answers ``body``, as piod's handlers answer theirs."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, headers={"Content-Type": "application/json"})

    return answer


async def serve(body_bytes: dict[str, int]) -> None:
    """Until SIGTERM, on a free port that is told on stdout."""
    application = web.Application()
    for path, length in body_bytes.items():
        resource = application.router.add_resource(path)
        for method in ("GET", "POST"):
            resource.add_route(method, handler(b"x" * length))
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"bare: serving http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await over.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
