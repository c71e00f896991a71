"""The page at /docs: what OpenAPI says, as plain HTML that loads nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#17212b}"
    "code,pre{font:14px/1.45 ui-monospace,monospace;background:#eef3f4;border-radius:4px}code{padding:.1em .3em}"
    "pre{padding:.8rem;white-space:pre-wrap}table{border-collapse:collapse;width:100%}td,th{text-align:left;"
    "border-bottom:1px solid #d5dee2;padding:.35rem .6rem .35rem 0;vertical-align:top}h2{margin-top:2.2rem}"
    ".method{color:#fff;background:#0f766e;border-radius:4px;padding:.15em .5em;font-size:.8em}"
    "@media(prefers-color-scheme:dark){body{background:#0b0f14;color:#dbe4ee}code,pre{background:#17212b}"
    "td,th{border-color:#2a3542}a{color:#5eead4}}"
)


def page(document: dict[str, Any]) -> str:
    """HTML of an OpenAPI document."""
    about = document["info"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(about['title'])}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(about['title'])} {escape(about['version'])}</h1><p>{escape(about['description'])}</p>",
        '<p>For programs: <a href="/openapi.json">openapi.json</a></p>',
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation(path, method.upper(), operation))
    return "".join([*parts, "</body></html>"])


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [
        f'<h2><span class="method">{method}</span> <code>{escape(path)}</code></h2>',
        f"<p><b>{escape(operation.get('summary', ''))}.</b> {_text(operation.get('description', ''))}</p>",
    ]
    if body := operation.get("requestBody"):
        kinds = ", ".join(f"<code>{escape(kind)}</code>" for kind in body["content"])
        raw = any(kind.startswith("image/") for kind in body["content"])
        example = "--data-binary @photo.jpg -H 'content-type: image/jpeg'" if raw else "-F image=@a.jpg -F image=@b.jpg"
        example = '-H "authorization: Bearer $TOKEN" ' * bool(operation.get("security")) + example
        parts.append(f"<p>Body: {kinds}</p><pre>curl {escape(example)} http://HOST:PORT{escape(path)}</pre>")
    if parameters := operation.get("parameters"):
        rows = "".join(
            f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(_default(one['schema']))}</td>"
            f"<td>{escape(one.get('description', ''))}</td></tr>"
            for one in parameters
        )
        parts.append(f"<table><tr><th>parameter</th><th>default</th><th></th></tr>{rows}</table>")
    rows = "".join(
        f"<tr><td>{escape(str(code))}</td><td>{escape(answer['description'])}</td></tr>"
        for code, answer in sorted(operation["responses"].items())
    )
    parts.append(f"<table><tr><th>status</th><th></th></tr>{rows}</table>")
    return "".join(parts)


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    return "" if value is None else str(value).lower()


def _text(text: str) -> str:
    """Escaped, with `code` in code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))
