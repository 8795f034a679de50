"""Docstrings as the reference shows them: an extension of griffe.

Google's layout says `Example:`, griffe shows code under `Examples:` only. And what a
constructor says of itself is for who reads the source.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Changes docstrings before they are parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change one."""
        if obj.name == "__init__":
            obj.docstring = None
        elif obj.docstring is not None:
            text = obj.docstring.value
            text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
            obj.docstring.value = text
