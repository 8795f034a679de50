"""MkDocs hooks: pages that follow from the tree instead of being kept beside it.

- The front page is the README. ARCHITECTURE, CONTRIBUTING and CHANGELOG are pages.
- The reference is made of the package's own docstrings: docs/reference.py.
- The gallery is drawn from the schedules themselves: docs/gallery.py; and pictures of
  the guides by docs/figures.py.
- Every other Markdown file under docs/ has its place in `SECTIONS`.

A page in no section is a warning; so are a public name that is not documented
and a public schedule that is not in the gallery. The build is strict: it fails.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

import figures
import gallery
import reference
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PAGES = {  # files of the repository that are pages
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "notebooks/README.md": "notebooks.md",
}
# Which page is where, in the order of reading.
SECTIONS = {
    "Tutorial": ["tutorial.md", "notebooks.md"],
    "How-to": [
        "schedules.md",
        "choosing.md",
        "step_size.md",
        "range_test.md",
        "layers.md",
        "tensorboard.md",
        "resume.md",
        "mixed_precision.md",
        "distributed.md",
        "custom_schedules.md",
        "loops.md",
        "several_optimizers.md",
        "recipes.md",
        "where.md",
        "troubleshooting.md",
    ],
    "Explanation": [
        "why_range_test.md",
        "running_mean.md",
        "suggestion.md",
        "drive.md",
        "insides.md",
    ],
    "Coming from": [
        "from_fastai.md",
        "from_torch.md",
        "from_keras.md",
        "from_others.md",
        "from_addons.md",
        "estimator.md",
    ],
}

log = logging.getLogger("mkdocs.hooks")


def on_config(config: Any) -> Any:
    """Lay the navigation out."""
    docs = Path(config.docs_dir)
    pages = {page.name for page in docs.glob("*.md")}
    for page in sorted(pages - {page for those in SECTIONS.values() for page in those}):
        log.warning("A page in no section of docs/hooks.py: %s", page)
    records = sorted(page.name for page in docs.glob("design/[0-9]*.md"))
    config.nav = [
        {"Home": "index.md"},
        *({section: those} for section, those in SECTIONS.items()),
        {"Gallery": "gallery.md"},
        {"Reference": reference.nav()},
        {
            "Design": [
                "architecture.md",
                "design/README.md",
                *(f"design/{name}" for name in records),
            ]
        },
        {"Project": ["contributing.md", "changelog.md"]},
    ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    made: dict[str, str | bytes] = {
        page: _relink((ROOT / name).read_text("utf-8"), posixpath.dirname(name))
        for name, page in PAGES.items()
    }
    homes = reference.public_names()
    schedules = {*homes["schedules"]} - {"Schedule", "epochs", "fit_share"}
    for name in gallery.missing(schedules):
        log.warning("Public schedules and the gallery's table differ in: %s", name)
    made |= gallery.pages()
    made |= figures.pages()
    made |= reference.pages()
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leave a guide's links to files of the repository that are no pages as text.

    The page of the decision records gets a list of them.
    """
    if page.file.src_uri == "design/README.md":
        markdown = f"{markdown}\n## The records\n\n{_records()}\n"
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


def _records() -> str:
    """Links to the decision records, by their titles."""
    records = sorted((ROOT / "docs" / "design").glob("[0-9]*.md"))
    titles = [path.read_text("utf-8").partition("\n")[0] for path in records]
    return "\n".join(
        f"- [{title.removeprefix('# ')}]({path.name})"
        for title, path in zip(titles, records, strict=True)
    )


def _relink(markdown: str, folder: str) -> str:
    """Turn links from a file in `folder` to others into links between pages.

    A link to a file that is no page is left as its text, one to a notebook as its name.
    """

    def relink(match: re.Match[str]) -> str:
        bang, text, path, anchor = match.groups("")
        path = posixpath.normpath(posixpath.join(folder, path))
        if path in PAGES:
            return f"{bang}[{text}]({PAGES[path]}{anchor})"
        if path.startswith("docs/") and (ROOT / path).is_file():
            return f"{bang}[{text}]({path.removeprefix('docs/')}{anchor})"
        if not (ROOT / path).exists():
            log.warning("A link leads nowhere: %s", match.group())
        return f"`{posixpath.basename(path)}`" if path.endswith(".ipynb") else text

    return re.sub(
        r"(!?)\[([^]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)", relink, markdown
    )
