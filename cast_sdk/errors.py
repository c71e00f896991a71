"""Every error this package raises on purpose: what is wrong, what was found and what to do about it."""

from __future__ import annotations

from cast_sdk.system.secrets import mask


class CastError(Exception):
    """Base of every error this package raises on purpose.

    Passwords and tokens in the text are masked.

    Args:
        problem: What is wrong here, as a sentence: "The frame is empty (0 x 640)."
        found: What was found, where the first sentence does not say it.
        remedy: What to do, preferably a command or an argument.
    """

    def __init__(self, problem: str, *, found: str | None = None, remedy: str | None = None) -> None:
        self.problem = mask(problem)
        self.found, self.remedy = (None if text is None else mask(str(text)) for text in (found, remedy))
        parts = [self.problem]
        if self.found is not None:
            parts.append(f"Found: {self.found}")
        if self.remedy is not None:
            parts.append(f"Remedy: {self.remedy}")
        super().__init__("\n  ".join(parts))

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling (worker processes send errors back).
        return _rebuild, (type(self), self.problem, self.found, self.remedy)


def _rebuild(kind: type[CastError], problem: str, found: str | None, remedy: str | None) -> CastError:
    return kind(problem, found=found, remedy=remedy)


class InputError(CastError):
    """An image, label map, source or argument that cannot be used."""


class NotFiniteError(InputError):
    """Numbers inside a model that are NaN, infinite or too large for their type."""


class TooLargeError(InputError):
    """More bytes or pixels than a server takes."""


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


class StreamError(CastError):
    """A stage or the source of a running stream failed; the original exception is the cause."""


class EngineError(CastError):
    """TensorRT or CUDA refused something while an engine was built, loaded or run."""


class CudaError(EngineError):
    """A CUDA call failed."""
