"""Saved schedules load after `import tfschedules`, which does not import Keras.

Keras's loader knows only classes that are registered. They are when
`tfschedules.schedules` is imported: at once where Keras is there already, else as soon
as something imports it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def register_with_keras() -> None:
    """Register the schedules now, or when Keras is imported."""
    if "keras" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _WaitForKeras())  # type: ignore[arg-type]


def _register() -> None:
    if "tfschedules.schedules" not in sys.modules:  # else they are on their way
        importlib.import_module("tfschedules.schedules")


class _WaitForKeras:
    """A finder that finds nothing, but sees Keras being looked for."""

    def find_spec(
        self, name: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            del loader.exec_module  # the loader's own again
            execute(module)
            _register()

        loader.exec_module = execute_and_register
        return spec
