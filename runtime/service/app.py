"""The JSON service: paths, parameters, and what each answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, Response

from cast_sdk import __version__
from cast_sdk.errors import CastError, InputError, TooLargeError
from cast_sdk.runtime.output.serialise import to_dict
from cast_sdk.runtime.result import Segmentation
from cast_sdk.runtime.service.guide import page
from cast_sdk.runtime.service.metrics import Metrics
from cast_sdk.runtime.service.photos import MAX_BYTES
from cast_sdk.runtime.service.queue import Full, Queue
from cast_sdk.runtime.service.web import UPLOAD_SECONDS, failed, read_body

MAX_IMAGES = 16  # of one request
MAX_BATCH_BYTES = 4 * MAX_BYTES
PROBES = ("/healthz", "/readyz")

Masks = Annotated[bool, Query(description="Include the run-length mask of each segment.")]
Top = Annotated[int, Query(ge=0, le=100, description="How many classes.")]


class Problem(BaseModel):
    """Why there is no result."""

    error: str
    found: str | None = None


class State:
    """Whether the service takes requests, and how many it is answering."""

    draining = False
    answering = 0


_GUARD = {
    401: "The service needs its token.",
    403: "A page of another site asks.",
    421: "The service answers to this machine's own names alone.",
}
_WHY = {
    **_GUARD,
    400: "The form is not one, has no photograph, or has more than are taken at once.",
    408: f"The upload took more than {UPLOAD_SECONDS:g} s.",
    413: f"More than {MAX_BYTES >> 20} MiB ({MAX_BATCH_BYTES >> 20} MiB for several) or 50 megapixels.",
    415: "No JPEG, PNG or WebP file, or a damaged one.",
    422: "A parameter is out of its range.",
    429: "Every place is taken; Retry-After says when to try again.",
    500: "The model failed.",
    503: "The service is ending; Retry-After says when to try again.",
}
_AGAIN = {"Retry-After": {"description": "In how many seconds to try again.", "schema": {"type": "integer"}}}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": why, **({"headers": _AGAIN} if code in (429, 503) else {})}
    for code, why in _WHY.items()
}
_IMAGE = {"schema": {"type": "string", "format": "binary"}}


def _body(field: dict[str, Any], *, raw: bool) -> dict[str, Any]:
    """OpenAPI's words for a body: a form with `image`, or (raw) the photograph itself."""
    form = {"schema": {"type": "object", "required": ["image"], "properties": {"image": field}}}
    content: dict[str, Any] = dict.fromkeys(("image/jpeg", "image/png", "image/webp"), _IMAGE) if raw else {}
    return {"requestBody": {"required": True, "content": {**content, "multipart/form-data": form}}}


def _fields(*names: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's words for a good answer, and for all others."""
    schema = {"type": "object", "required": list(names)}
    return {200: {"description": "The result.", "content": {"application/json": {"schema": schema}}}, **_PROBLEMS}


_ONE = _body({"type": "string", "format": "binary"}, raw=True)
_SEVERAL = _body(
    {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1, "maxItems": MAX_IMAGES}, raw=False
)


def build(queue: Queue, metrics: Metrics, state: State, *, token: bool = False) -> FastAPI:
    """The application. `/docs` is a page of its own that loads nothing from elsewhere.

    Args:
        queue: of the model.
        metrics: what `/metrics` tells.
        state: of the service.
        token: whether the guard around it asks for one: it is said in OpenAPI.
    """
    app = FastAPI(
        title="cast-serve",
        version=__version__,
        description=f"Class, embedding and nested segments of photographs, by {queue.runtime.spec.name}.",
        docs_url=None,
        redoc_url=None,
        telemetry={"auto_configure": False},  # of newer FastAPI: nothing is sent because a variable says so
    )
    spec = queue.runtime.spec
    bearer = [Security(HTTPBearer(auto_error=False, scheme_name="token"))] if token else []  # the guard checks it
    one_level = Query(None, ge=0, le=len(spec.clusters), description="Segments of this level alone; without: of all.")

    @app.post(
        "/v1/segment",
        responses=_fields("model", "size", "top", "embedding", "levels"),
        openapi_extra=_ONE,
        dependencies=bearer,
        summary="Class, embedding and segments",
    )
    async def segment(request: Request, level: int | None = one_level, masks: Masks = True, top: Top = 5) -> Response:
        """The photograph is the body, or the field `image` of a form. The answer is that of `Segmentation.to_json`."""
        return await one(request, partial(_described, levels=None if level is None else [level], masks=masks, top=top))

    @app.post(
        "/v1/embedding",
        responses=_fields("model", "size", "embedding"),
        openapi_extra=_ONE,
        dependencies=bearer,
        summary="The embedding alone",
    )
    async def embedding(request: Request) -> Response:
        """`model`, `size` [height, width] and `embedding`."""
        return await one(request, _embedded)

    @app.post(
        "/v1/segment-batch",
        responses=_fields("results"),
        openapi_extra=_SEVERAL,
        dependencies=bearer,
        summary="Several photographs",
    )
    async def segment_batch(
        request: Request, level: int | None = one_level, masks: Masks = True, top: Top = 5
    ) -> Response:
        """Fields `image` of a form. `results` has, in order, for each what `/v1/segment` answers, or `error` and
        `found`."""
        answer = partial(_described, levels=None if level is None else [level], masks=masks, top=top)
        if not _is_form(request):
            raise HTTPException(415, "The body is not a form (multipart/form-data).")
        queue.reserve()
        places = 1
        try:
            photos = await _upload(request, MAX_BATCH_BYTES)
            if len(photos) > queue.places:  # waiting would not help
                raise HTTPException(
                    400,
                    f"The form has {len(photos)} photographs, and the service runs with --queue {queue.places}: "
                    "send fewer at once.",
                )
            queue.reserve(len(photos) - 1)
            places = len(photos)
            found = await asyncio.gather(*(queue.run(data, answer) for data in photos), return_exceptions=True)
        finally:
            queue.release(places)
        return _answer(b'{"results":[' + b",".join(map(_or_problem, found)) + b"]}")

    @app.get("/healthz", summary="Whether the process lives")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether requests are taken", responses={503: _PROBLEMS[503]})
    async def ready() -> Response:
        if state.draining:
            return ending()
        return _answer(_json({"status": "ready", "model": spec.name}))

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses={code: _PROBLEMS[code] for code in (*_GUARD, 503)},
        dependencies=bearer,
    )
    async def counters() -> Response:
        return Response(metrics.text(), media_type=metrics.content_type)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page(app.openapi()))

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return Response(status_code=307, headers={"location": "/docs"})

    async def one(request: Request, answer: Callable[[Segmentation], bytes]) -> Response:
        queue.reserve()
        try:
            photos = await _upload(request, MAX_BYTES)
            if len(photos) != 1:
                raise HTTPException(400, f"The form has {len(photos)} photographs, and one is taken here.")
            return _answer(await queue.run(photos[0], answer))
        finally:
            queue.release()

    _answer_errors(app, metrics)
    return app


def _answer_errors(app: FastAPI, metrics: Metrics) -> None:
    @app.exception_handler(Full)
    async def full(request: Request, error: Full) -> Response:
        metrics.refused.inc()
        return _problem(429, "Every place is taken.", headers={"retry-after": str(error.retry_after)})

    @app.exception_handler(CastError)
    async def ours(request: Request, error: CastError) -> Response:
        kinds = ((TooLargeError, 413), (InputError, 415))
        return failed(next((code for kind, code in kinds if isinstance(error, kind)), 500), error)

    @app.exception_handler(RequestValidationError)
    async def parameters(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _problem(422, f"{first['loc'][-1]}: {first['msg']}", found=str(first.get("input"))[:40])

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(TimeoutError)
    @app.exception_handler(asyncio.TimeoutError)
    @app.exception_handler(ClientDisconnect)
    async def slow(request: Request, error: Exception) -> Response:
        return _problem(408, f"An upload takes at most {UPLOAD_SECONDS:g} s.", headers={"connection": "close"})


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


async def _upload(request: Request, limit: int) -> list[bytes]:
    """The photographs of a request: its body, or the fields `image` of its form."""
    data = await asyncio.wait_for(read_body(request, limit, form=_is_form(request)), UPLOAD_SECONDS)
    if not _is_form(request):
        return [data]

    async def stream() -> Any:
        yield data

    try:
        parser = MultiPartParser(request.headers, stream(), max_files=MAX_IMAGES, max_fields=MAX_IMAGES)
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise HTTPException(400, f"The form cannot be read: {getattr(error, 'message', error)}") from error
    try:
        photos = [await value.read() for value in form.getlist("image") if isinstance(value, UploadFile)]
    finally:
        await form.close()
    if not photos:
        raise HTTPException(400, "The form has no file in the field image.")
    return photos


def _described(result: Segmentation, *, levels: Sequence[int] | None, masks: bool, top: int) -> bytes:
    return _json(to_dict(result, masks=masks, levels=levels, top=top))


def _embedded(result: Segmentation) -> bytes:
    vector = [float(f"{value:.6g}") for value in result.embedding]
    return _json({"model": result.spec.name, "size": list(result.size), "embedding": vector})


def _or_problem(value: bytes | BaseException) -> bytes:
    if isinstance(value, CastError):
        return _json({"error": value.problem, "found": value.found})
    if isinstance(value, BaseException):
        raise value
    return value


def _answer(data: bytes) -> Response:
    return Response(data, media_type="application/json")


def _problem(code: int, error: str, *, found: str | None = None, headers: Any = None) -> Response:
    return JSONResponse({"error": error, "found": found}, status_code=code, headers=headers)


def ending() -> Response:
    """The answer of a service that takes no more requests."""
    return _problem(503, "The service is ending.", headers={"retry-after": "5", "connection": "close"})


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
