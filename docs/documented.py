"""What a public name lacks: a docstring, an argument in it, an example.

- A class, a function, each of its public methods and properties has a docstring, its
  own or inherited.
- Every parameter is in the docstring's `Args` or `Attributes`.
- A method that Keras or TensorFlow calls, as `on_epoch_begin(epoch, logs)`, is
  documented there.
- A class and a function has an example that runs, `>>> `.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any


def gaps(public: Any) -> Iterator[str]:
    """What is missing, in words, of griffe's object of a public class or function."""
    if not public.has_docstring:
        yield f"No docstring: {public.path}"
        return
    if ">>> " not in public.docstring.value:
        yield f"No example: {public.path}"
    yield from _arguments(public)
    if not public.is_class:
        return
    for name, member in public.members.items():
        method = member.is_function or "property" in member.labels
        if name.startswith("_") or not method or _is_called_from_elsewhere(member):
            continue
        if member.has_docstring:
            yield from _arguments(member)
            continue
        declared = [base.members[name] for base in public.mro() if name in base.members]
        if not any(other.has_docstring for other in declared):
            yield f"No docstring: {member.path}"


def _arguments(function: Any) -> Iterator[str]:
    written = {
        argument.name.lstrip("*")
        for section in function.docstring.parse("google")
        if section.kind.value in ("parameters", "attributes")
        for argument in section.value
    }
    for parameter in getattr(function, "parameters", ()):
        if parameter.name.lstrip("*") not in {*written, "self", "cls"}:
            yield f"No argument {parameter.name!r} in the docstring: {function.path}"


def _is_called_from_elsewhere(method: Any) -> bool:
    """Whether it overrides a method of a class that is not this package's."""
    owner = getattr(importlib.import_module(method.module.path), method.parent.name)
    return any(
        method.name in vars(base) and not base.__module__.startswith("tfschedules")
        for base in inspect.getmro(owner)
    )
