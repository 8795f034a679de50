"""Small reference networks, written to be read.

- `resnet`: residual networks for small pictures; an untrained block is the identity.
- `lstm`: a long short-term memory with its gates written out.
- `attention`: soft, content-based attention over a memory, and between two sequences.

They are what the demo, the tests, the notebooks and the benchmarks train. Each module
names the papers that it follows.
"""

import importlib
import pkgutil
from typing import Any

# Imported when asked for, as they need Keras: `tfs.models.resnet.resnet(depth=20)`.
_MODULES = [
    module.name
    for module in pkgutil.iter_modules(__path__)
    if not module.name.startswith("_")
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
