"""The reference: a page for each room that public names live in, and a list of all.

A public name that is not documented (docs/documented.py) is a warning.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import documented
import griffe

from tfschedules._support import lazy

ROOT = Path(__file__).parent.parent
INDEX = "reference/index.md"

log = logging.getLogger("mkdocs.hooks")


def nav() -> list[str | dict[str, str]]:
    """The list, then the modules by their names."""
    return [INDEX, *({module: _page(module)} for module in public_names())]


def pages() -> dict[str, str]:
    """Markdown by the path of its page."""
    made = {INDEX: "# Reference\n\nEvery public name, by the room that it lives in.\n"}
    for module, names in public_names().items():
        options = "".join(f"\n        - {name}" for name in names)
        made[_page(module)] = (
            f"# `tfschedules.{module}`\n\n::: tfschedules.{module}\n    options:\n"
            + (f"      members:{options}\n" if names else "      members: false\n")
        )
        made[INDEX] += _entry(module, names)
    return made


def _entry(module: str, names: list[str]) -> str:
    """A module's part of the list: what each of its names is, in a sentence."""
    path = f"tfschedules.{module}"
    entry = f"\n## [`{module}`]({module}.md)\n\n{_summary(_package()[module])}\n\n"
    for name in names:
        summary = _summary(_package()[f"{module}.{name}"])
        entry += f"- [`{name}`][{path}.{name}]: {summary}\n"
    return entry


def _summary(documented_object: Any) -> str:
    """The first paragraph of a docstring."""
    return " ".join(documented_object.docstring.value.partition("\n\n")[0].split())


def _page(module: str) -> str:
    return f"reference/{module}.md"


@functools.cache
def _package() -> Any:
    return griffe.load("tfschedules", search_paths=[ROOT])


@functools.cache
def public_names() -> dict[str, list[str]]:
    """Public names by the module they live in."""
    package = _package()
    homes: dict[str, list[str]] = {}
    for name, home in sorted(lazy.homes("tfschedules").items()):
        if home == "tfschedules":
            homes |= _names_within(package[name], name)
        else:
            homes.setdefault(home.removeprefix("tfschedules."), []).append(name)
    for module, names in homes.items():
        for name in names:
            public = package[f"{module}.{name}"]
            for gap in documented.gaps(
                public.final_target if public.is_alias else public
            ):
                log.warning("%s", gap)
    return dict(sorted(homes.items()))


def _names_within(module: Any, path: str) -> dict[str, list[str]]:
    """The names of `__all__`, or all public ones, with those of the modules inside."""
    if module.exports is not None:
        return {path: [str(name) for name in module.exports]}
    names = [
        name
        for name, member in module.members.items()
        if not (name.startswith("_") or member.is_alias)
        and (member.is_function or member.is_class)
    ]
    homes = {path: names}
    for name, inner in module.modules.items():
        if inner.is_alias or name.startswith("_"):
            continue
        homes |= _names_within(inner, f"{path}.{name}")
    return homes
