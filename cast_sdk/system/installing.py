"""What an extra of this package needs, and commands that install it: the packages themselves, by name."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterable
from typing import NamedTuple

from cast_sdk.errors import MissingDependencyError

DISTRIBUTION = "cast-sdk"


class Requirement(NamedTuple):
    """One package that an extra asks for."""

    name: str
    bounds: str  # such as ">=2.9"
    marker: str  # such as 'extra == "export"'; "" for a base dependency

    @property
    def lowest(self) -> str:
        """The lowest version allowed, or ""."""
        match = re.search(r"[>=]=\s*([\w.]+)", self.bounds)
        return match[1] if match else ""


def parse(line: str) -> Requirement:
    """One line of a distribution's metadata (`Requires-Dist`)."""
    wanted, _, marker = line.partition(";")
    match = re.match(r"\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*\(?([^)]*)\)?", wanted)
    assert match is not None, line
    return Requirement(match[1], match[2].strip(), marker.strip())


def requirements(extra: str) -> list[Requirement]:
    """What an extra asks for, from the metadata of the installed package.

    Raises:
        MissingDependencyError: when the package was put on the path without being installed.
    """
    from importlib import metadata  # slow, and only errors need it

    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError as error:
        raise MissingDependencyError(
            "cast-sdk is on Python's path but not installed.",
            found="no metadata of cast-sdk",
            remedy="install it: pip install with its wheel, or with the folder of its source",
        ) from error
    parsed = [parse(line) for line in lines]
    return [one for one in parsed if re.search(rf"""extra == ["']{re.escape(extra)}["']""", one.marker)]


def unmet(wanted: Iterable[Requirement]) -> list[tuple[Requirement, str | None]]:
    """Those that are not installed (None) or older than asked for (their version)."""
    from importlib import metadata  # slow, and only errors need it

    found: list[tuple[Requirement, str | None]] = []
    for one in wanted:
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            found.append((one, None))
            continue
        if _release(version) < _release(one.lowest):
            found.append((one, version))
    return found


def pip_install(extra: str) -> str:
    """The command that installs what an extra lacks here; all of it where nothing is missing by name."""
    wanted = requirements(extra)
    lacking = [one for one, _ in unmet(wanted)] or wanted
    return "pip install " + " ".join(shlex.quote(one.name + one.bounds) for one in lacking)


def require(extra: str, doing: str) -> None:
    """Check at once that everything an extra needs is here and new enough.

    Args:
        extra: Name of an extra of this package, such as "export".
        doing: What the user wants, as the subject of a sentence: "Exporting".

    Raises:
        MissingDependencyError: names what is missing or too old, and the command that installs it.
    """
    lacking = unmet(requirements(extra))
    if not lacking:
        return
    names = ", ".join(one.name for one, _ in lacking)
    states = [f"{one.name} {version or 'not installed'} ({one.bounds or 'any'} needed)" for one, version in lacking]
    raise MissingDependencyError(f"{doing} needs {names}.", found="; ".join(states), remedy=pip_install(extra))


def install_again() -> str:
    """The command that installs cast-sdk once more from where it came from, its dependencies left alone."""
    from importlib import metadata  # slow, and only errors need it

    text = None
    with contextlib.suppress(metadata.PackageNotFoundError):
        text = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    source = json.loads(text) if text else {}
    url = str(source.get("url", ""))
    where = shlex.quote(url.removeprefix("file://")) if url else "WHEEL"
    editable = "-e " if source.get("dir_info", {}).get("editable") else ""
    return f"pip install --force-reinstall --no-deps {editable}{where}"


def _release(version: str) -> tuple[int, ...]:
    """The numbers at the start of a version: (2, 9, 0) for 2.9.0a0+nv25."""
    numbers = [int(match[0]) for part in version.split(".") if (match := re.match(r"\d+", part))]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


# Import names that differ from the name of the package.
_PACKAGE_OF = {
    "cv2": "opencv-python",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}


def explain(error: ModuleNotFoundError, *extras: str) -> MissingDependencyError:
    """What to say where an import failed: the package, and the command that installs what its extra lacks.

    Args:
        error: The failed import.
        extras: Names of extras to look through, the likeliest first.
    """
    module = (error.name or str(error)).partition(".")[0]
    package = _PACKAGE_OF.get(module, module)
    extra = next((extra for extra in extras if package in {one.name for one in requirements(extra)}), None)
    return MissingDependencyError(
        f"This needs {package}, which is not installed.",
        found=str(error),
        remedy=pip_install(extra) if extra else f"pip install {package}",
    )
