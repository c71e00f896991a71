"""cast-serve under twice the load that it can bear, and its end under load. Needs httpx.

    python benchmarks/many/service_load.py FOLDER [--seconds 60] [--model cast_s.onnx] [--workers 2] [--batch 1]

First the capacity is measured with as many clients as there are places; then requests arrive at twice that pace,
whether or not earlier ones were answered; then SIGTERM under the same load. The clients share the processor with the
service. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from cast_sdk.images import images_in

received = collections.Counter()  # answers of all phases by status, as the clients saw them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--model")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--query", default="masks=false")
    options = parser.parse_args()
    photos = [path.read_bytes() for path in images_in(options.folder, deep=True)[:100]]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(Path(sys.executable).parent / "cast-serve"), "--serve", f"127.0.0.1:{port}"]
    words += ["--workers", str(options.workers), "--batch", str(options.batch)]
    words += ["--model", options.model] if options.model else []
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}/v1/segment?{options.query}"
            asyncio.run(drive(process, url, photos, options))
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        text = log.read().decode()
    sent = len(re.findall(r'"path": "/v1/segment", "status": 200,', text))
    print(f"accepted and answered by the service: {sent}, received by clients: {received[200]}")
    print(f"log: {len(text.splitlines())} lines, tracebacks: {text.count('Traceback')}")
    print(f"exit code after SIGTERM: {process.returncode}")


async def drive(process: subprocess.Popen, url: str, photos: list[bytes], options: argparse.Namespace) -> None:
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:
        await ready(client, url)
        before = used(process.pid), received[200]
        pace = await capacity(client, url, photos, clients=4 * options.workers, seconds=min(10.0, options.seconds))
        spent = (used(process.pid) - before[0]) / (received[200] - before[1])
        print(
            f"load {os.getloadavg()[0]:.1f}; capacity {pace:.1f} requests/s with {4 * options.workers} clients, "
            f"{1e3 * spent:.1f} ms of the service's processor time each"
        )
        before = resident(process.pid)
        codes, times, peak = await flood(client, url, photos, 2 * pace, options.seconds, process.pid)
        p50, p90, p99 = np.percentile(times, (50, 90, 99)) if times else (0, 0, 0)
        print(
            f"at {2 * pace:.1f}/s for {options.seconds:g} s: {dict(codes)}, "
            f"so {len(times) / options.seconds:.1f} answers/s"
        )
        print(f"accepted requests: median {p50:.0f} ms, p90 {p90:.0f} ms, p99 {p99:.0f} ms")
        print(f"memory {before:.0f} MiB before, {peak[0]:.0f} at the first, {peak[-1]:.0f} at the last quarter's end")
        assert not set(codes) - {200, 429, 503}, codes
        await end(client, url, photos, 2 * pace, process)


async def ready(client: httpx.AsyncClient, url: str) -> None:
    for _ in range(600):
        try:
            if (await client.get(url.partition("/v1")[0] + "/readyz")).status_code == 200:
                return
        except httpx.TransportError:
            await asyncio.sleep(0.1)
    sys.exit("the service did not start")


async def capacity(client: httpx.AsyncClient, url: str, photos: list[bytes], clients: int, seconds: float) -> float:
    """Answers per second with so many clients that ask again at once; the first two seconds warm up."""
    done, begun = 0, time.monotonic() + 2

    async def one(number: int) -> None:
        nonlocal done
        while time.monotonic() < begun + seconds:
            answer = await client.post(url, content=photos[number % len(photos)])
            received[answer.status_code] += 1
            number += clients
            done += answer.status_code == 200 and time.monotonic() >= begun

    await asyncio.gather(*(one(number) for number in range(clients)))
    return done / seconds


async def flood(
    client: httpx.AsyncClient, url: str, photos: list[bytes], pace: float, seconds: float, pid: int
) -> tuple[collections.Counter, list[float], list[float]]:
    """Requests at a fixed pace: statuses, milliseconds of those with 200, memory at the end of each quarter."""
    codes: collections.Counter = collections.Counter()
    times: list[float] = []

    async def one(number: int) -> None:
        start = time.monotonic()
        try:
            answer = await client.post(url, content=photos[number % len(photos)])
        except httpx.TransportError as error:
            codes[type(error).__name__] += 1
            return
        codes[answer.status_code] += 1
        received[answer.status_code] += 1
        if answer.status_code == 200:
            times.append((time.monotonic() - start) * 1e3)
        elif "retry-after" not in answer.headers:
            codes["no Retry-After"] += 1

    waiting, begun, memory, number = set(), time.monotonic(), [], 0
    while (now := time.monotonic() - begun) < seconds:
        while number < pace * now:
            task = asyncio.create_task(one(number))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            number += 1
        if len(memory) < 4 * now // seconds:
            memory.append(resident(pid))
        await asyncio.sleep(0.005)
    await asyncio.gather(*waiting)
    memory.append(resident(pid))
    return codes, times, memory


async def end(client: httpx.AsyncClient, url: str, photos: list[bytes], pace: float, process: subprocess.Popen) -> None:
    """SIGTERM while requests are under way. Accepted are those that the service counts as such before it ends."""
    sent = asyncio.create_task(flood(client, url, photos, pace, 4.0, process.pid))
    await asyncio.sleep(1.5)
    text = (await client.get(url.partition("/v1")[0] + "/metrics")).text
    taken = re.search(r"^cast_places_taken (\S+)", text, re.M)
    process.send_signal(signal.SIGTERM)
    codes, _, _ = await sent
    code = await asyncio.to_thread(process.wait, 60)
    print(f"SIGTERM with {taken[1] if taken else '?'} requests under way: {dict(codes)}, exit code {code}")


def used(pid: int) -> float:
    """Processor seconds of a process."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Resident memory, MiB; 0 once the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError):
        return 0.0


if __name__ == "__main__":
    main()
