"""The service does what its OpenAPI document says: schemathesis asks what the document allows, and what it does not."""

from __future__ import annotations

import json

import pytest
import readers
from running_service import Running

pytest.importorskip("fastapi", reason="FastAPI, of the extra serve, is not installed")

TOKEN = "a-token-for-the-tests"
PATHS = {"/v1/segment", "/v1/segment-batch", "/v1/embedding", "/healthz", "/readyz", "/metrics"}


@pytest.fixture(params=[None, TOKEN], ids=["open", "with a token"])
def running(request):
    running = Running(places=32, token=request.param)
    yield running
    running.end()


def headers(running):
    return {"Authorization": f"Bearer {TOKEN}"} if running.service.token else {}


def test_schemathesis_finds_nothing(running, tmp_path):
    words = ["run", f"http://127.0.0.1:{running.service.port}/openapi.json", "--max-examples", "8", "--seed", "1"]
    words += ["--exclude-checks", "positive_data_acceptance", "--no-color"]  # bytes made at random are no photograph
    words += [word for pair in headers(running).items() for word in ("--header", ": ".join(pair))]
    code = "from schemathesis.cli import schemathesis; schemathesis()"
    done = readers.run(["-c", code, *words], cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Tested: 6" in done.stdout and "No issues found" in done.stdout
    assert running.request("GET", "/readyz")[0] == 200 and running.service.queue.taken == 0


def test_the_document_says_what_the_guard_asks(running):
    document = json.loads(running.request("GET", "/openapi.json", headers=headers(running))[1])
    assert set(document["paths"]) == PATHS
    for path, methods in document["paths"].items():
        (operation,) = methods.values()
        guarded = running.service.token and path not in ("/healthz", "/readyz")
        assert operation.get("security") == ([{"token": []}] if guarded else None), path
        if path.startswith("/v1/"):
            assert {"401", "403", "421"} <= operation["responses"].keys()
            for code in ("429", "503"):
                assert "Retry-After" in operation["responses"][code]["headers"]
    page = running.request("GET", "/docs", headers=headers(running))[1].decode()
    assert page.count("authorization: Bearer $TOKEN") == (3 if running.service.token else 0)
