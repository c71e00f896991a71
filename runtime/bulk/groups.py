"""The columns of a data set that can be chosen, as the command and the schema know them. Loads nothing."""

from __future__ import annotations

GROUPS = ("class", "embedding", "levels")
