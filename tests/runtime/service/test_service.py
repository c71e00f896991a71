"""The JSON service against good clients, too many of them, strangers, hostile ones, and its own end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pictures
import pytest
from running_service import Running
from standin import StandIn

pytest.importorskip("fastapi", reason="FastAPI, of the extra serve, is not installed")
pytest.importorskip("prometheus_client", reason="prometheus-client, of the extra serve, is not installed")
pytest.importorskip("python_multipart", reason="python-multipart, of the extra serve, is not installed")

from cast_sdk.errors import InputError
from cast_sdk.runtime.service import photos
from cast_sdk.runtime.service.server import Service, default_places

TOKEN = "a-token-for-the-tests"
BOUNDARY = "a-line-between"


@pytest.fixture(scope="module")
def running():
    running = Running(places=32)
    yield running
    assert running.request("GET", "/readyz")[0] == 200, "the service did not survive its tests"
    running.end()


def photo(seed: int = 0, suffix: str = ".jpg", size=(60, 90)) -> bytes:
    image = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    return cv2.imencode(suffix, image)[1].tobytes()


def form(*parts: bytes, field: str = "image") -> tuple[bytes, dict[str, str]]:
    line = f"--{BOUNDARY}\r\n"
    head = f'content-disposition: form-data; name="{field}"; filename="a.jpg"\r\n\r\n'
    body = b"".join((line + head).encode() + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()
    return body, {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def expected(data: bytes, **options) -> dict:
    return StandIn().segment(photos.read_photo(data)).to_dict(**options)


def same(answer: dict, wanted: dict) -> bool:
    """Equal but for the time it took."""
    return {**answer, "timing_ms": None} == {**json.loads(json.dumps(wanted)), "timing_ms": None}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_the_answer_is_what_to_json_gives(running, suffix):
    data = photo(1, suffix)
    status, answer = running.post("/v1/segment", data)
    assert status == 200 and same(answer, expected(data))
    status, answer = running.post("/v1/segment", *form(data))
    assert status == 200 and same(answer, expected(data))


def test_level_masks_and_top(running):
    data = photo(2)
    status, answer = running.post("/v1/segment?level=2&masks=false&top=1", data)
    assert status == 200 and [level["level"] for level in answer["levels"]] == [2]
    assert len(answer["top"]) == 1 and answer["levels"] == [expected(data, masks=False)["levels"][2]]
    for query in ("level=5", "level=-1", "level=x", "top=101", "masks=perhaps"):
        status, answer = running.post(f"/v1/segment?{query}", data)
        assert status == 422 and answer["error"]


def test_embedding(running):
    data = photo(3)
    status, answer = running.post("/v1/embedding", data)
    assert status == 200 and set(answer) == {"model", "size", "embedding"}
    assert answer["embedding"] == expected(data)["embedding"] and answer["size"] == [60, 90]


def test_several_photographs_in_order_one_of_them_broken(running):
    data = [photo(seed) for seed in range(4)]
    broken = data[1][:200]
    status, answer = running.post("/v1/segment-batch?masks=false", *form(data[0], broken, data[2], data[3]))
    assert status == 200 and len(answer["results"]) == 4
    assert set(answer["results"][1]) == {"error", "found"}
    for place in (0, 2, 3):
        assert same(answer["results"][place], expected(data[place], masks=False))
    assert running.post("/v1/segment-batch", *form(*data * 5))[0] == 400  # more than 16
    assert running.post("/v1/segment-batch", data[0])[0] == 415  # no form
    assert running.post("/v1/segment", *form(*data[:2]))[0] == 400
    assert running.post("/v1/segment", *form(data[0], field="picture"))[0] == 400


def test_a_batch_that_can_never_fit_is_told_so_and_not_to_wait():
    small = Running(places=2)
    try:
        data = [photo(seed) for seed in range(3)]
        status, answer = small.post("/v1/segment-batch", *form(*data))
        assert status == 400 and "3 photographs" in answer["error"] and "--queue 2" in answer["error"]
        assert small.post("/v1/segment-batch", *form(*data[:2]))[0] == 200
        assert small.service.queue.taken == 0
    finally:
        small.end()


def test_the_places_of_few_workers_take_a_whole_batch():
    assert [default_places(workers) for workers in (1, 2, 3, 64)] == [16, 16, 24, 512]
    full = Running(threads=1, places=default_places(1))
    try:
        status, answer = full.post("/v1/segment-batch?masks=false", *form(*[photo()] * 16))
        assert status == 200 and all(one["top"] for one in answer["results"])
    finally:
        full.end()


def test_one_photograph_of_a_batch_is_as_small_as_one_alone(running):
    data = photo()
    huge = data + bytes(photos.MAX_BYTES)
    status, answer = running.post("/v1/segment-batch?masks=false", *form(data, huge, data))
    assert status == 200
    assert answer["results"][1]["error"] == "The photograph is larger than 16 MiB."
    assert same(answer["results"][0], expected(data, masks=False)) and "top" in answer["results"][2]


@pytest.mark.parametrize(("path", "size"), [("/v1/segment-batch", 64), ("/v1/segment", 16)])
def test_a_form_that_is_too_large_is_called_a_form(running, path, size):
    _, headers = form(b"")
    status, answer = running.post(path, None, {**headers, "content-length": str((size << 20) + 1)})
    assert status == 413 and answer["error"] == f"The form is larger than {size} MiB."
    status, answer = running.post("/v1/segment", None, {"content-length": str((16 << 20) + 1)})
    assert status == 413 and answer["error"] == "The photograph is larger than 16 MiB."


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("stage", ["add_superpixels", "infer", "finish"])
def test_what_nobody_foresaw_is_answered_and_logged(stage, batch, monkeypatch, caplog):
    failing = Running(threads=1, places=16, batch=batch)
    try:
        good, bad = photo(1), photo(2, size=(50, 50))
        stages = failing.service.queue.runtime
        real = getattr(stages, stage)

        def fail(prepared, *more):
            first = prepared[0] if isinstance(prepared, list) else prepared
            if first.frame.shape[:2] == (50, 50):
                raise ZeroDivisionError("planted in the model")
            return real(prepared, *more)

        monkeypatch.setattr(stages, stage, fail)
        with caplog.at_level("ERROR", logger="cast_sdk.service"):
            status, answer = failing.post("/v1/segment", bad)
        assert status == 500
        assert answer == {"error": "The model failed on this photograph.", "found": "ZeroDivisionError"}
        assert "planted in the model" in caplog.text, "the log does not say what happened"
        status, answer = failing.post("/v1/segment-batch?masks=false", *form(bad, good))
        assert status == 200 and answer["results"][0]["error"] == "The model failed on this photograph."
        assert failing.post("/v1/segment", good)[0] == 200 and failing.service.queue.taken == 0
    finally:
        failing.end()


def test_probes_counters_and_the_page(running):
    assert running.request("GET", "/healthz")[:2] == (200, b'{"status":"ok"}')
    assert running.post("/v1/segment", b"words")[0] == 415
    text = running.request("GET", "/metrics")[1].decode()
    assert re.search(r'cast_requests_total\{path="/v1/segment",status="415"\} [1-9]', text)
    assert "cast_places_taken 0.0" in text
    status, page, headers = running.request("GET", "/docs")
    assert status == 200 and "/v1/segment-batch" in page.decode()
    assert not re.search(rb"(?:src|href)=\"(?:https?:)?//|@import|url\(", page), "the page fetches from elsewhere"
    assert "default-src 'none'" in headers["content-security-policy"] and "x-request-id" in headers
    document = json.loads(running.request("GET", "/openapi.json")[1])
    assert set(document["paths"]["/v1/segment"]["post"]["requestBody"]["content"]) >= {
        "image/jpeg",
        "multipart/form-data",
    }


def test_too_many_are_refused_and_told_when_to_come_again():
    busy = Running(wait=0.3, threads=1, places=2)
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda seed: busy.request("POST", "/v1/segment", photo(seed)), range(8)))
        codes = sorted(status for status, _, _ in answers)
        assert set(codes) == {200, 429} and codes.count(200) >= 2
        refused = [(json.loads(data), headers) for status, data, headers in answers if status == 429]
        assert all(int(headers["retry-after"]) >= 1 and body["error"] for body, headers in refused)
        assert busy.service.queue.taken == 0
    finally:
        busy.end()


def test_what_waits_together_is_run_together_with_the_same_results():
    together = Running(wait=0.2, threads=1, places=16, batch=8)
    try:
        data = [photo(seed) for seed in range(8)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda one: together.post("/v1/segment", one), data))
        assert all(
            status == 200 and same(answer, expected(one)) for (status, answer), one in zip(answers, data, strict=True)
        )
        text = together.request("GET", "/metrics")[1].decode()
        assert float(re.search(r"cast_batch_size_count (\S+)", text)[1]) < 8
    finally:
        together.end()


def test_the_end_answers_what_was_accepted_and_refuses_what_is_new():
    ending = Running(wait=0.5, threads=1, places=8)
    with ThreadPoolExecutor(5) as pool:
        accepted = [pool.submit(ending.request, "POST", "/v1/segment", photo(seed)) for seed in range(3)]
        while ending.service.queue.taken < 3:
            time.sleep(0.01)
        ending.service.end()
        while ending.request("GET", "/healthz")[0] != 200:
            pass
        status, _, headers = ending.request("POST", "/v1/segment", photo(9))
        assert status == 503 and headers["retry-after"] and headers["connection"] == "close"
        assert ending.request("GET", "/readyz")[0] == 503
        assert [one.result()[0] for one in accepted] == [200, 200, 200]
    ending.end()
    with pytest.raises(OSError):
        ending.request("GET", "/healthz")


def test_a_token_guards_all_but_the_probes():
    locked = Running(token=TOKEN)
    try:
        assert locked.post("/v1/segment", photo())[0] == 401
        assert locked.request("GET", "/metrics")[0] == 401 and locked.request("GET", "/openapi.json")[0] == 401
        assert locked.request("GET", "/healthz")[0] == 200 and locked.request("GET", "/readyz")[0] == 200
        assert locked.post("/v1/segment", photo(), {"authorization": f"Bearer {TOKEN}"})[0] == 200
        assert locked.post("/v1/segment", photo(), {"authorization": f"Bearer {TOKEN}x"})[0] == 401
        page = locked.request("GET", "/")
        assert page[0] == 401 and b"cast-serve printed a token" in page[1]
    finally:
        locked.end()
    with pytest.raises(InputError, match="only 5 characters"):
        Service(StandIn(), port=0, token="short")


def test_strangers_pages_and_hosts_are_refused(running):
    assert running.post("/v1/segment", photo(), {"origin": "https://evil.example"})[0] == 403
    assert running.post("/v1/segment", photo(), {"host": "evil.example"})[0] == 421
    assert running.request("GET", "/v1/segment")[0] == 405 and running.request("GET", "/nothing")[0] == 404


HOSTILE = {
    "empty": (b"", {}, 415),
    "words": (b"words", {}, 415),
    "half a picture": (photo()[:300], {}, 415),
    "too long": (None, {"content-length": str(photos.MAX_BYTES + 1)}, 413),
    "a bomb": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\0\0\0", {}, (413, 415)),
    "a form without end": (form(photo())[0][:-20], form()[1], (400, 415)),
    "a form of nothing": (b"", form()[1], 400),
    "a form without a boundary": (form(photo())[0], {"content-type": "multipart/form-data"}, 400),
    "a gif": (b"GIF89a" + bytes(50), {}, 415),
    "no bits per channel": (pictures.png_of_depth(0), {}, 415),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies(running, name):
    body, headers, wanted = HOSTILE[name]
    for path in ("/v1/segment", "/v1/embedding"):
        status, data, _ = running.request("POST", path, body, headers)
        assert status in (wanted if isinstance(wanted, tuple) else (wanted,)), (path, status, data)
        assert set(json.loads(data)) == {"error", "found"} and b"Traceback" not in data


def test_a_hundred_hostile_requests_are_refused_and_the_next_good_one_is_answered(running):
    whole = {suffix: photo(5, suffix) for suffix in (".jpg", ".png", ".webp")}
    rng = np.random.default_rng(11)
    for number in range(100):
        data = whole[(".jpg", ".png", ".webp")[number % 3]]
        body, headers = data[: int(rng.integers(1, len(data) - 8))], {}  # cut off somewhere
        if number % 4 == 1:
            body = rng.bytes(int(rng.integers(1, 2000)))
        if number % 4 == 2:
            body, headers = form(body, *[body] * (number % 20))
        if number % 4 == 3:
            headers = ({"host": "evil.example"}, {"origin": "http://evil.example"})[number % 8 == 3]
        status, answer, _ = running.request("POST", "/v1/segment", body, headers)
        assert status in (400, 403, 413, 415, 421), (number, status, answer)
        assert set(json.loads(answer)) <= {"error", "found"}
    status, answer = running.post("/v1/segment", whole[".png"])
    assert status == 200 and same(answer, expected(whole[".png"]))
    assert running.service.queue.taken == 0


def test_the_command_says_what_it_cannot_do():
    words = [sys.executable, "-m", "cast_sdk.runtime.commands.serve", "--serve", "nowhere"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "is not an address HOST:PORT" in done.stderr


def test_the_documented_client_runs(running, tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "service.md").read_text()
    (block,) = [one for one in re.findall(r"^```python\n(.*?)^```", page, re.S | re.M) if "urlopen" in one]
    (tmp_path / "photo.jpg").write_bytes(photo())
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block.replace("127.0.0.1:8000", f"127.0.0.1:{running.service.port}"), names)
    assert names["result"]["levels"][0]["level"] == 2
