"""``python -m bench [TOPIC …]``: measure and print, about eight minutes for all."""

from __future__ import annotations

import argparse
import sys
import time

from bench import (
    doses,
    files,
    footprint,
    jobs,
    kernel,
    requests,
    sessions,
    seven_jobs,
    simulated_time,
)
from bench.figures import HEADING, line
from bench.processes import Broken, environment

TOPICS = {
    "requests": requests.measure,
    "kernel": kernel.measure,
    "jobs": jobs.measure,
    "footprint": footprint.measure,
    "simulated_time": simulated_time.measure,
    "files": files.measure,
    "seven_jobs": seven_jobs.measure,
    "doses": doses.measure,
    "sessions": sessions.measure,
}


def main() -> int:
    """Print the table; 1 when something could not be measured, missed aims or not."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What piod costs.")
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=f"of {', '.join(TOPICS)}")
    topics: list[str] = parser.parse_args().topics or list(TOPICS)
    unknown = [topic for topic in topics if topic not in TOPICS]
    if unknown:
        parser.error(f"there is no topic {unknown[0]!r}; there are {', '.join(TOPICS)}")
    started_s = time.monotonic()
    print(environment(), HEADING, sep="\n", flush=True)
    try:
        for topic in topics:
            for figure in TOPICS[topic]():
                print(line(figure), flush=True)
    except Broken as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(f"medians; {time.monotonic() - started_s:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
