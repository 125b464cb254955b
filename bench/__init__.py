"""What piod costs: ``python -m bench`` measures it and prints a table.

Each line is a figure beside a named baseline that was measured in the same run,
in turns with it, so that their ratio holds on a machine that is busy or slow.

- :mod:`bench.requests`: requests against a bare aiohttp handler (:mod:`bench.bare`)
- :mod:`bench.kernel`: round trips of an ask
- :mod:`bench.jobs`: from POST run to ready, from POST stop to off
- :mod:`bench.footprint`: imports, time until ready to serve, memory
- :mod:`bench.simulated_time`: how fast simulated time goes, and what it costs

Needs nothing but what piod itself runs with. Linux only.
"""
