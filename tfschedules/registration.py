"""Saved schedules, optimizers and models load after `import tfschedules`.

That does not import Keras, whose loader knows only classes that are registered.
Schedules are when `tfschedules.schedules` is imported: at once where Keras is there
already, else as soon as something imports it. In place of the optimizer, which needs
much more, and of the layers of `tfschedules.models`, something is registered that
imports them when they are loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_HOMES = {
    "LayerwiseOptimizer": "tfschedules.layers.optimizer",
    "Attention": "tfschedules.models.attention",
    "LSTMCell": "tfschedules.models.lstm",
}


def register_with_keras() -> None:
    """Register what can be saved now, or when Keras is imported."""
    if sys.modules.get("keras") is not None:  # None: its import is blocked
        _register()
    else:
        sys.meta_path.insert(0, _WaitForKeras())  # type: ignore[arg-type]


def _register() -> None:
    if "tfschedules.schedules" not in sys.modules:  # else they are on their way
        importlib.import_module("tfschedules.schedules")
    registered: dict[str, Any] = sys.modules["keras"].saving.get_custom_objects()
    for name in _HOMES:
        registered.setdefault(f"tfschedules>{name}", _ImportedWhenLoaded(name))


class _ImportedWhenLoaded:
    """What Keras finds in place of a class."""

    def __init__(self, name: str) -> None:
        self.name = name

    def from_config(self, *arguments: Any, **named: Any) -> Any:
        module = importlib.import_module(_HOMES[self.name])
        return getattr(module, self.name).from_config(*arguments, **named)


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
