"""A page in one file: its modules joined to one script, without a build tool.

Modules use a small part of the language, which is checked: named imports at the start of a line, `export` before a
function, class or constant.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w.-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|class|const) ([\w$]+))", re.MULTILINE)
_LINK = re.compile(r'<link rel="stylesheet" href="([\w.-]+)">\n?')
_SCRIPT = re.compile(r'<script type="module" src="([\w.-]+)"></script>')


def page_folder() -> Path:
    """Folder of the files that pages share."""
    return Path(__file__).parent


def join_modules(entry: str, folders: Sequence[Path]) -> str:
    """The module `entry` and all that it imports as one script.

    Each imported module becomes a function call whose result holds its exports; names of different modules do not
    meet. The entry's own names stay at the top.

    Args:
        entry: file name of the first module.
        folders: where modules are looked for, in this order.

    Raises:
        ValueError: for a module that is missing, imports in a circle, or uses forms that joining does not know.
    """
    done: dict[str, str] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"modules import each other: {' > '.join((*above, name))}")
        if name in done:
            return
        text = _read(name, folders)
        for _, imported in _IMPORT.findall(text):
            add(imported, (*above, name))
        exports = _EXPORT.findall(text)
        body = _EXPORT.sub("", _IMPORT.sub(lambda m: f"const {{{m[1]}}} = {_holder(m[2])};\n", text))
        if trouble := re.search(r"^(?:import|export)\b.*|</script", body, re.MULTILINE):
            raise ValueError(f"{name}: joining does not know {trouble[0]!r}")
        if above:
            body = f"const {_holder(name)} = (() => {{\n{body}return {{ {', '.join(exports)} }};\n}})();\n"
        done[name] = body

    add(entry, ())
    return '"use strict";\n' + "".join(done.values())


def inline_page(page: Path, folders: Sequence[Path]) -> str:
    """The page with its style sheets and modules inside, as a browser takes it from one answer or one file."""
    html = page.read_text(encoding="utf-8")
    styles = [_read(name, folders) for name in _LINK.findall(html)]
    first = iter([f"<style>{''.join(styles)}</style>\n"])
    html = _LINK.sub(lambda m: next(first, ""), html)
    return _SCRIPT.sub(lambda m: f"<script>{join_modules(m[1], folders)}</script>", html)


def element_hash(page: str, tag: str) -> str:
    """Content-Security-Policy source of the one inline `<script>` or `<style>` without attributes of a page."""
    found = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    assert found is not None, f"the page has one <{tag}>"
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"


def _holder(name: str) -> str:
    return "module_" + re.sub(r"\W", "_", name.removesuffix(".js"))


def _read(name: str, folders: Sequence[Path]) -> str:
    for folder in folders:
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise ValueError(f"no file {name} in {', '.join(map(str, folders))}")
