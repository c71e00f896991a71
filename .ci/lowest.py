"""The oldest versions that the installed cast-sdk allows, one pin a line: python .ci/lowest.py [EXTRA ...]"""

from __future__ import annotations

import re
import sys
from importlib import metadata

from cast_sdk.system.installing import DISTRIBUTION, parse


def pins(lines: list[str], extras: set[str]) -> list[str]:
    """Pins for the base dependencies and those of the extras.

    Args:
        lines: `Requires-Dist` of the distribution.
    """
    found = []
    for one in map(parse, lines):
        extra = re.search(r"""extra == ["']([\w-]+)["']""", one.marker)
        if extra is None or extra[1] in extras:
            assert one.lowest, f"{one.name} has no lower bound"
            found.append(f"{one.name}=={one.lowest}")
    return sorted(set(found))


if __name__ == "__main__":
    print("\n".join(pins(metadata.requires(DISTRIBUTION) or [], set(sys.argv[1:]))))
