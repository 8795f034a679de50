"""Packages whose names are loaded when they are first used.

The names stand once, in the file `__init__.pyi` beside a package's `__init__.py`. Type
checkers and editors read it, and so does `attach`.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Names(NamedTuple):
    """What a package defines: `__getattr__`, `__dir__` and `__all__`."""

    get: Callable[[str], Any]
    dir: Callable[[], list[str]]
    all: list[str]


def homes(package: str) -> dict[str, str]:
    """The public names of a package that has an `__init__.pyi`, and their modules.

    In that file `from .module import Name as Name` makes a public name. A line
    `from . import module as module` makes a module public: its home is the package.
    """
    stub = pkgutil.get_data(package, "__init__.pyi")
    assert stub is not None
    found: dict[str, str] = {}
    for line in ast.parse(stub).body:
        if isinstance(line, ast.ImportFrom) and line.level == 1:
            home = package if line.module is None else f"{package}.{line.module}"
            found |= {name.name: home for name in line.names}
    return found


def attach(package: str) -> Names:
    """What a package defines that has an `__init__.pyi`; modules are none of `__all__`.

    Args:
        package: Its `__name__`.

    Example:
        A whole `__init__.py`::

            __getattr__, __dir__, __all__ = lazy.attach(__name__)
    """
    home_of = homes(package)

    def __getattr__(name: str) -> Any:
        if name not in home_of:
            # With these two Python itself asks "Did you mean …?".
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}",
                name=name,
                obj=sys.modules[package],
            )
        if home_of[name] == package:
            return importlib.import_module(f"{package}.{name}")
        value = getattr(importlib.import_module(home_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    exported = sorted(name for name, home in home_of.items() if home != package)
    return Names(__getattr__, __dir__, exported)
