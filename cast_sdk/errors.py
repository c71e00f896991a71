"""Errors that say the rule, what was found and what to do about it."""

from __future__ import annotations


class CastError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        rule: What must hold, as a sentence.
        found: What was found instead.
        remedy: What to do, preferably a command or an argument.
    """

    def __init__(self, rule: str, *, found: str | None = None, remedy: str | None = None) -> None:
        self.rule, self.found, self.remedy = rule, found, remedy
        parts = [rule]
        if found is not None:
            parts.append(f"Found: {found}")
        if remedy is not None:
            parts.append(f"Remedy: {remedy}")
        super().__init__("\n  ".join(parts))

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling (worker processes send errors back).
        return _rebuild, (type(self), self.rule, self.found, self.remedy)


def _rebuild(kind: type[CastError], rule: str, found: str | None, remedy: str | None) -> CastError:
    return kind(rule, found=found, remedy=remedy)


class InputError(CastError):
    """An image, label map, source or argument that cannot be used."""


class CheckpointError(CastError):
    """A checkpoint that is missing, damaged, foreign or of another model."""


class ArtifactError(CastError):
    """An exported file (.onnx, .engine) that is missing, damaged, foreign or does not fit this machine."""


class ExportError(CastError):
    """An export that was refused or that failed its verification."""


class MissingDependencyError(CastError):
    """A package, compiler, device or driver that the request needs is not there."""


class RecipeError(CastError):
    """A training recipe, data folder or resume request that does not fit."""
