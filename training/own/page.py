"""A report as one HTML file: headings, tables and pictures inside, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
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

    def items(self, lines: Sequence[str]) -> None:
        self.parts.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        def cell(value: object) -> str:
            numeric = isinstance(value, (int, float)) or (isinstance(value, str) and value[:1].isdigit())
            return f"<td{' class=n' if numeric else ''}>{escape(str(value))}</td>"

        header = "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>" if head else ""
        body = "".join("<tr>" + "".join(map(cell, row)) + "</tr>" for row in rows)
        self.parts.append(f"<table>{header}{body}</table>")

    def picture(self, file: Path, words: str) -> None:
        """A PNG or JPEG, inside the page."""
        kind = "png" if file.suffix == ".png" else "jpeg"
        data = base64.b64encode(file.read_bytes()).decode()
        self.parts.append(f'<p><img alt="{escape(words, quote=True)}" src="data:image/{kind};base64,{data}"></p>')

    def write(self, path: Path) -> None:
        head = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body>"
        )
        with atomic_write(path) as temporary:
            text = head + "\n".join(self.parts) + "</body></html>\n"
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
