"""What piod costs: ``python -m bench`` measures it and prints a table.

Each line is a figure beside a named baseline that was measured in the same run,
in turns with it, so that their ratio holds on a machine that is busy or slow. (Two figures
are beside ones that are quoted; they say so.)

- :mod:`bench.requests`: requests against a bare aiohttp handler (:mod:`bench.bare`)
- :mod:`bench.kernel`: round trips of an ask
- :mod:`bench.jobs`: from POST run to ready, from POST stop to off
- :mod:`bench.footprint`: imports, time until ready to serve, memory
- :mod:`bench.simulated_time`: how fast simulated time goes, and what it costs
- :mod:`bench.files`: listing calibrations, exporting a large data directory
- :mod:`bench.seven_jobs`: memory and processor time of an experiment
- :mod:`bench.doses`: from POST to the pump on, and how exact its on-time is
- :mod:`bench.sessions`: fifty calibration sessions at once

Needs nothing but what piod itself runs with. Linux only.
"""
