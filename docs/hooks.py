"""MkDocs hooks: pages that follow from the tree instead of being kept beside it.

- The front page is the README; CONTRIBUTING and CHANGELOG are pages as well.
- Each module that is the home of public names has a reference page, read from the
  source without importing it.
- The gallery is drawn from the schedules themselves: docs/gallery.py. This alone
  imports the package.
- Every other Markdown file under docs/ is in the navigation by its name.

A public class, function or method without a docstring, its own or inherited, is a
warning, and so is a public schedule that is not in the gallery; the build is strict:
it fails.
"""

from __future__ import annotations

import functools
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

import gallery
import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PAGES = {  # files of the repository that are pages
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
NAMESPACES = ("estimator", "models")  # public as modules: tfschedules.models.resnet

log = logging.getLogger("mkdocs.hooks")


def on_config(config: Any) -> Any:
    """Lay the navigation out."""
    docs = Path(config.docs_dir)
    guides = sorted(page.name for page in docs.glob("*.md"))
    records = sorted(page.name for page in docs.glob("design/[0-9]*.md"))
    config.nav = [
        {"Home": "index.md"},
        {"Guides": [*guides, "gallery.md"]},
        {"Reference": [{name: _reference(name)} for name in _public_names()]},
        {"Design": ["design/README.md", *(f"design/{name}" for name in records)]},
        {"Project": ["contributing.md", "changelog.md"]},
    ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    made: dict[str, str | bytes] = {
        page: _relink((ROOT / name).read_text("utf-8")) for name, page in PAGES.items()
    }
    homes = _public_names()
    schedules = {*homes["schedules"], *homes["recipes"]} - {"Schedule"}
    for name in gallery.missing(schedules):
        log.warning("Public schedules and the gallery's table differ in: %s", name)
    made |= gallery.pages()
    for module, names in homes.items():
        options = "".join(f"\n        - {name}" for name in names)
        made[_reference(module)] = (
            f"# `tfschedules.{module}`\n\n::: tfschedules.{module}\n"
            + (f"    options:\n      members:{options}\n" if names else "")
        )
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leave a guide's links to files of the repository that are no pages as text."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def relink(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        if path.endswith(".md"):
            return match.group()  # MkDocs' own to check
        if not (ROOT / path).exists():
            log.warning("%s: a link leads nowhere: %s", page.file.src_uri, target)
        return text

    return re.sub(r"(?<!!)\[([^]]*)\]\((\.\./[^)#\s]+)\)", relink, markdown)


def _reference(module: str) -> str:
    return f"reference/{module}.md"


def _relink(markdown: str) -> str:
    """Turn links between files of the repository into links between pages.

    A link to a file that is no page, as to a notebook, is left as its text.
    """

    def relink(match: re.Match[str]) -> str:
        bang, text, path, anchor = match.groups("")
        path = posixpath.normpath(path)
        if path in PAGES:
            return f"{bang}[{text}]({PAGES[path]}{anchor})"
        if path.startswith("docs/") and (ROOT / path).is_file():
            return f"{bang}[{text}]({path.removeprefix('docs/')}{anchor})"
        if not (ROOT / path).exists():
            log.warning("A link leads nowhere: %s", match.group())
        return text

    return re.sub(
        r"(!?)\[([^]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)", relink, markdown
    )


@functools.cache
def _public_names() -> dict[str, list[str]]:
    """Public names by the module they live in; none: all of the module."""
    package = griffe.load("tfschedules", search_paths=[ROOT])
    homes: dict[str, list[str]] = {}
    for name in package.exports or []:
        target = package.members[str(name)]
        if not target.is_alias:
            continue
        module, _, name = target.target_path.removeprefix("tfschedules.").rpartition(
            "."
        )
        if module not in package.modules:
            log.info("%s is not there yet: tfschedules.%s", name, module)
            continue
        homes.setdefault(module, []).append(name)
        _check_docstrings(package[module][name])
    for module in NAMESPACES:
        if module in package.modules:
            homes[module] = []
    return dict(sorted(homes.items()))


def _check_docstrings(public: Any) -> None:
    if not public.has_docstring:
        log.warning("No docstring: %s", public.path)
    if not public.is_class:
        return
    for name, member in public.members.items():
        if name.startswith("_") or not member.is_function or member.has_docstring:
            continue
        declared = [base.members[name] for base in public.mro() if name in base.members]
        if not any(other.has_docstring for other in declared):
            log.warning("No docstring: %s", member.path)
