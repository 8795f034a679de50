"""Every block of code on every page is run, or shown to be run elsewhere."""

import re
import shlex
import subprocess
import sys
from configparser import ConfigParser

import pytest
from packaging.requirements import Requirement
from pages import PAGES, ROOT, blocks, run, same
from tensorboard import program

from tfschedules.__main__ import main

DOCS = ROOT / "docs"
LANGUAGES = {"python", "py", "text", "bash", "markdown"}
GUIDES = {page.relative_to(ROOT).as_posix(): page for page in PAGES}


def blocks_of(language):
    return [
        pytest.param(name, block, id=f"{name}:{block.line}")
        for name, page in GUIDES.items()
        for block in blocks(page)
        if block.language == language
    ]


def test_every_block_has_a_language_that_is_checked():
    for name, page in GUIDES.items():
        text = page.read_text("utf-8")
        found = blocks(page)
        # None is overlooked, and none is a block by its indentation or by tildes.
        assert len(re.findall(r"^ *```", text, flags=re.MULTILINE)) == 2 * len(found)
        assert "\n~~~" not in text
        before = None
        for block in found:
            where = f"{name}, line {block.line}"
            assert block.language in LANGUAGES, where
            if block.language == "text":
                assert before in ("python", "py"), f"{where}: what has printed it?"
            before = block.language


def test_the_checks_see_what_they_are_to_see(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- fails: E -->\n```python\n1\n```\n\n- a\n\n  ```bash\n  b\n  ```\n"
    )
    first, second = blocks(page)
    assert (first.note, first.line, first.code) == ("fails: E", 2, "1\n")
    assert (second.language, second.note, second.code) == ("bash", None, "b\n")
    page.write_text("```python\nprint(1.5)\n```\n\n```text\n1.6\n```\n")
    with pytest.raises(AssertionError, match=r"line 5: printed was\n1\.5"):
        run(page, "python")
    assert same("rate ... 3\n", "rate  0.1 of 3\n")


# Python ---------------------------------------------------------------------------


def python_pages():
    for page in PAGES:
        code = [b.code for b in blocks(page) if b.language == "python" and not b.note]
        if code and page != ROOT / "README.md":  # tests/house/test_package.py runs that
            marks = [pytest.mark.tensorflow] if "import tensorflow" in str(code) else []
            yield pytest.param(page, id=page.name, marks=marks)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    # The page on schedules shows a ReduceLROnPlateau beside one, and says so.
    "ignore:Another callback has set the learning rate:UserWarning"
)
@pytest.mark.parametrize("page", list(python_pages()))
def test_a_page_runs_as_written(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(page, "python")


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "block"), [b for b in blocks_of("python") if b.values[1].note]
)
def test_a_block_with_a_note_does_as_it_says(name, block, tmp_path):
    kind, _, what = block.note.partition(": ")
    if kind == "elsewhere":
        assert_is_a_test(what)
        compile(block.code, name, "exec")
        return
    assert kind == "fails", f"{name}, line {block.line}: an unknown note"
    done = subprocess.run(
        [sys.executable, "-c", block.code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode
    assert what in done.stderr


def assert_is_a_test(named):
    file, _, test = named.partition("::")
    assert f"def {test}(" in (ROOT / file).read_text("utf-8"), named


# Commands -------------------------------------------------------------------------

# Lines that are run where they are named, and not here.
ELSEWHERE = {
    'pip install -e ".[demo]" && tfschedules demo': ".ci/run",
    'pip install -e ".[test]" && pytest': ".ci/run",
    "curl 'http://localhost:6006/data/plugin/schedules/runs'": (
        "tests/tensorboard_plugin/test_tensorboard_plugin.py::"
        "test_runs_are_listed_with_their_tags_and_last_steps"
    ),
    "pre-commit install": ".pre-commit-config.yaml",
}


@pytest.mark.parametrize(("name", "block"), blocks_of("bash"))
def test_a_command_is_one_that_works(name, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in block.code.replace("\\\n", " ").splitlines():
        if line in ELSEWHERE:
            where = ELSEWHERE[line]
            if "::" in where:
                assert_is_a_test(where)
            elif where == ".ci/run":
                assert line.split(" && ")[0] in (ROOT / where).read_text("utf-8")
            assert (ROOT / where.partition("::")[0]).is_file()
            continue
        command, *arguments = shlex.split(line, comments=True) or ["#"]
        assert command in COMMANDS, f"{name}, line {block.line}: {line}"
        COMMANDS[command](*arguments)


def pip(install, *arguments):
    """One set of pins has what is to be installed, and extras are ours."""
    assert install == "install"
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    ours, wanted = set(config["options.extras_require"]), []
    for argument in arguments:
        if argument.startswith("-"):
            assert argument in ("-e", "-U"), argument
            continue
        one = Requirement(re.sub(r"^\.(?=\[|$)", "tfschedules", argument))
        if one.name == "tfschedules":
            assert one.extras <= ours, argument
        elif one.name != "notebook":  # an editor, as one likes
            wanted.append(one)
    files = (ROOT / ".ci").glob("constraints-*.txt")
    assert any(has_all(path.read_text("utf-8"), wanted) for path in files), arguments


def has_all(pins, wanted):
    found = dict(re.findall(r"^([\w.-]+)==(\S+)$", pins, flags=re.MULTILINE))
    return all(one.name in found and found[one.name] in one.specifier for one in wanted)


def tensorboard(*arguments):
    """It takes the options."""
    program.TensorBoard().configure(["tensorboard", *arguments])


def tfschedules(*arguments):
    assert main([*arguments]) == 0


def jupyter(notebook, folder):
    """`.ci/run notebooks` executes those in the folder."""
    assert (notebook, folder) == ("notebook", "notebooks")
    assert list((ROOT / folder).glob("*.ipynb"))


COMMANDS = {
    "jupyter": jupyter,
    "pip": pip,
    "tensorboard": tensorboard,
    "tfschedules": tfschedules,
}


# Other blocks, the gallery, tables ------------------------------------------------


def test_decision_records_are_written_as_their_page_says():
    records = sorted(DOCS.glob("design/[0-9]*.md"))
    (template,) = [
        b for b in blocks(DOCS / "design/README.md") if b.language == "markdown"
    ]
    for record in records:
        text = record.read_text("utf-8")
        assert text.startswith(f"# {int(record.name[:4])}. "), record.name
        for part in ("**Question.**", "**Decision.**"):  # the others as there is need
            assert part in template.code
            assert part in text, (record.name, part)


def test_the_gallery_has_every_schedule_and_draws_its_lines():
    import gallery

    import tfschedules as tfs

    public = {name for name in tfs.__all__ if hasattr(tfs.schedules, name)}
    public -= {"Schedule", "epochs", "fit_share"}
    assert gallery.missing(public) == []
    assert gallery.missing(public | {"Parabola"}) == ["Parabola"]
    for name, lines in gallery.TABLE.items():
        for line in lines:
            assert f"tfs.{name}(" in line
    picture = gallery._picture("tfs.Constant(0.1)", "dark")
    assert b"<svg" in picture
    assert gallery._CURVE["dark"].encode() in picture
    assert picture == gallery._picture("tfs.Constant(0.1)", "dark")


def test_every_test_in_the_table_of_environments_is_there():
    table = (DOCS / "where.md").read_text("utf-8")
    links = re.findall(r"\[`(test_\w+)`\]\((\S+)\)", table)
    assert len(links) > 20
    for name, target in links:
        assert f"def {name}(" in (DOCS / target).read_text("utf-8")
