"""Work that ends its process at chosen items: must be importable, because it runs in processes of its own."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from cast_sdk.errors import InputError


@dataclass(frozen=True)
class Doubling:
    """`make` of a pool: doubles numbers. A negative one ends the process; one that `once` names does so once."""

    folder: Path
    once: tuple[int, ...] = ()
    broken: bool = False

    def __call__(self):
        if self.broken:
            raise InputError("The model is not there.")
        return self._work

    def _work(self, task, started):
        out = []
        for position, item in enumerate(task.items):
            if position in task.failed:
                out.append(task.failed[position])
                continue
            started(position)
            mark = self.folder / str(item)
            if item < 0 or (item in self.once and not mark.exists()):
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            out.append(2 * item)
        started(-1)
        return out


@dataclass(frozen=True)
class Fragile:
    """A recipe of rows whose process ends at the images with "deadly" in their names."""

    recipe: object

    @property
    def options(self):
        return self.recipe.options

    @property
    def model(self):
        return b"sent"  # no need to send it

    def __call__(self):
        rows = self.recipe()
        read = rows._reader.read

        def deadly(item):
            if "deadly" in item.path:
                os.kill(os.getpid(), signal.SIGSEGV)
            return read(item)

        rows._reader.read = deadly
        return rows


@dataclass(frozen=True)
class Odd:
    """A recipe of rows: the pixels of an image named "odd" divide by nothing, and those of "lost" end the network."""

    recipe: object

    def __call__(self):
        rows = self.recipe()
        read, infer, prepare = rows._reader.read, rows._runtime.infer, rows._runtime.prepare
        last = ""

        def reading(item):
            nonlocal last
            last = item.path
            return read(item)

        def preparing(frame):
            return 1 // 0 if "odd" in last else prepare(frame)

        def inferring(prepared):
            if "lost" in last:
                raise RuntimeError("the device is gone")
            return infer(prepared)

        rows._reader.read, rows._runtime.prepare, rows._runtime.infer = reading, preparing, inferring
        return rows


class Lost:
    """A `make` of a pool, larger than any pipe, whose process is killed before it has read all of it."""

    def __reduce__(self):
        return tuple, ((_Killing(), bytes(1 << 22)),)


class _Killing:
    def __reduce__(self):
        return _end_this_process, ()


def _end_this_process():
    os.kill(os.getpid(), signal.SIGKILL)


class Unsendable:
    """A recipe that ends the process that it is sent to, wherever it arrives."""

    model = b"sent"
    options: dict = {"model": "m.onnx"}  # noqa: RUF012

    def __reduce__(self):
        return os._exit, (3,)
