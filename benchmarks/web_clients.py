"""Viewers of the live page without a browser: they take packets and confirm them. Used by soak.py and viewers.py."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time


async def watch(url: str, seconds: float) -> int:
    """Frames that one viewer takes in `seconds`."""
    from websockets.asyncio.client import connect

    frames, deadline = 0, time.monotonic() + seconds
    async with connect(url, max_size=None, compression=None) as line:
        while time.monotonic() < deadline:
            message = await asyncio.wait_for(line.recv(), 30)
            if isinstance(message, bytes):
                frames += 1
                await line.send("ack")
    return frames


async def crowd(url: str, count: int, seconds: float) -> list[int]:
    return list(await asyncio.gather(*(watch(url, seconds) for _ in range(count))))


async def come_and_go(url: str, count: int) -> None:
    """`count` viewers that stay for some seconds, leave and come again, until the server is gone."""

    async def visitor(seed: int) -> None:
        chance = random.Random(seed)
        while True:
            await watch(url, chance.uniform(0.5, 6.0))
            await asyncio.sleep(chance.uniform(0.0, 2.0))

    await asyncio.gather(*(visitor(seed) for seed in range(count)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="stay so long and print the frames of each; default: come and go")
    options = parser.parse_args()
    try:
        if options.seconds:
            print(json.dumps(asyncio.run(crowd(options.url, options.count, options.seconds))))
        else:
            asyncio.run(come_and_go(options.url, options.count))
    except (OSError, EOFError) as error:
        sys.exit(f"the server is gone: {error}")


if __name__ == "__main__":
    main()
