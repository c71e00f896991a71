"""A report as one HTML file: headings, tables and pictures inside, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path

from cast_sdk.system.files import atomic_write

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; }
tr + tr { border-top: 1px solid #8884; } th { font-weight: 600; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; background: #fff; } code, pre { font-size: .9em; } pre { overflow-x: auto; }
.big { font-size: 1.6rem; font-weight: 600; }
"""


class Page:
    """A report that grows from top to bottom."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts = [f"<h1>{escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        self.parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str, kind: str = "") -> None:
        self.parts.append(f"<p{f' class={kind}' if kind else ''}>{escape(text)}</p>")

    def code(self, text: str) -> None:
        self.parts.append(f"<pre>{escape(text)}</pre>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        def cell(value: object) -> str:
            numeric = isinstance(value, (int, float)) or re.fullmatch(r"\d[\d.,]*( %)?", str(value)) is not None
            return f"<td{' class=n' if numeric else ''}>{escape(str(value))}</td>"

        header = "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>" if head else ""
        body = "".join("<tr>" + "".join(map(cell, row)) + "</tr>" for row in rows)
        self.parts.append(f"<table>{header}{body}</table>")

    def picture(self, file: Path, words: str) -> None:
        """A PNG or JPEG, inside the page."""
        kind = "png" if file.suffix == ".png" else "jpeg"
        data = base64.b64encode(file.read_bytes()).decode()
        self.parts.append(f'<p><img alt="{escape(words, quote=True)}" src="data:image/{kind};base64,{data}"></p>')

    def how_to_use(self, graph: Path, answer: str) -> None:
        """The command and the Python that run an exported file; `answer` is what to look at."""
        self.heading("Use it")
        self.code(f"{command_of(graph)} --json")
        path = json.dumps(str(graph), ensure_ascii=False)
        self.code(f'import cast_sdk\n\nseg = cast_sdk.Runtime({path}).segment("photo.jpg")\n{answer}')

    def write(self, path: Path) -> None:
        head = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body>"
        )
        with atomic_write(path) as temporary:
            text = head + "\n".join(self.parts) + "</body></html>\n"
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def command_of(graph: Path) -> str:
    """The command that runs an exported file, as a shell takes it."""
    return f"cast-segment PHOTOGRAPHS --model {shlex.quote(str(graph))} --out segments"
