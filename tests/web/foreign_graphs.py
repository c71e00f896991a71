"""Graphs whose descriptions are not those of the graph that they were made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import onnx

from cast_sdk.bundled import path as bundled

PLAIN = ["embedding", "logits", "level1", "level2", "level3", "level4"]  # outputs of a model whose levels are assigned
Change = Callable[[str], str]


def foreign(**changes: Change | None) -> bytes:
    """The bundled graph without its weights and with other metadata; None: without that entry."""
    graph = onnx.load(bundled("cast_tiny.onnx"))
    graph.graph.ClearField("initializer")
    for entry in list(graph.metadata_props):
        if (change := changes.get(entry.key)) is not None:
            entry.value = change(entry.value)
        elif entry.key in changes:
            graph.metadata_props.remove(entry)
    return graph.SerializeToString()


def with_fields(**fields: Any) -> Change:
    return lambda text: json.dumps({**json.loads(text), **fields})
