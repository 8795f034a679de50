"""The package from outside: its imports, its names, its README and its demo."""

import os
import re
import subprocess
import sys

import pytest
from event_files import read, runs
from helpers import ROOT

import tfschedules as tfs
from tfschedules.__main__ import main


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_importing_it_imports_no_backend_and_is_quick():
    code = (
        "import sys, time; t = time.process_time(); import tfschedules;"
        "print(time.process_time() - t);"
        "assert not {'keras', 'tensorflow', 'jax', 'matplotlib'} & set(sys.modules)"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    # Processor time, and ten times what it takes: a bound on what is imported.
    assert float(done.stdout) < 0.3


def test_every_public_name_is_there_and_documented():
    assert sorted(tfs.__all__) == tfs.__all__
    assert len(tfs.__all__) > 30
    for name in tfs.__all__:
        assert getattr(tfs, name).__doc__.strip()
    assert set(tfs.__all__) <= set(dir(tfs))
    with pytest.raises(AttributeError, match="no attribute 'Onecycle'"):
        tfs.Onecycle  # noqa: B018


def test_the_namespaces_are_found_without_an_import_of_their_own():
    assert {"estimator", "models"} <= set(dir(tfs))
    code = (
        "import sys, tfschedules as tfs;"
        "assert 'tfschedules.models' not in sys.modules;"
        "assert 'resnet' in dir(tfs.models) and 'keras' not in sys.modules;"
        "assert tfs.models.resnet.resnet.__name__ == 'resnet';"
        "assert not hasattr(tfs.models, 'resnets')"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


def quickstart():
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    return block


def test_the_quickstart_runs_as_written(tmp_path, monkeypatch, capfd):
    assert len([line for line in quickstart().splitlines() if line.strip()]) <= 20
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(quickstart(), "README.md", "exec"), scope)
    assert "Suggested learning rate: 0." in capfd.readouterr().out
    assert scope["model"].history.history["val_accuracy"][-1] > 0.9
    assert runs(tmp_path / "logs") == ["schedules"]


def test_the_readme_names_what_is_there():
    text = (ROOT / "README.md").read_text()
    table = text[text.index("## What is there") : text.index("## Why not")]
    named = set(re.findall(r"[A-Za-z_]+", " ".join(re.findall(r"`([^`]*)`", table))))
    assert set(tfs.__all__) - named <= {"Schedule", "ScaleFunction"}
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target


def test_the_citation_is_of_this_version():
    """The keys that the Citation File Format 1.2.0 requires, and what may go stale."""
    text = (ROOT / "CITATION.cff").read_text()
    top = dict(re.findall(r"^([a-z-]+):(.*)$", text, flags=re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= set(top)
    assert top["cff-version"].strip() == "1.2.0"
    assert top["version"].strip() == tfs.__version__
    setup = (ROOT / "setup.cfg").read_text()
    (licences,) = re.findall(r"^license_expression = (.*)$", setup, flags=re.MULTILINE)
    assert top["license"].strip() in licences.split(" AND ")
    assert f"Source ={top['repository-code']}\n" in setup


@pytest.mark.slow
def test_the_demo_does_the_whole_job(tmp_path, capfd):
    folder = tmp_path / "a folder"
    assert main(["demo", "--log-dir", str(folder), "--epochs", "3", "--seed", "1"]) == 0
    printed = capfd.readouterr().out
    assert "Suggested learning rate: 0." in printed
    assert f"tensorboard --logdir '{folder}'" in printed
    for name in ("constant", "cyclical", "warm restarts", "one cycle"):
        row = next(
            line for line in printed.splitlines() if line.startswith(f"│ {name}")
        )
        assert re.search(r"\d\.\d%", row)
    assert runs(folder) == [
        "constant", "cyclical", "demo.png", "one_cycle", "range_test",
        "range_test.json", "warm_restarts",
    ]  # fmt: skip
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    result = tfs.RangeTestResult.load(folder / "range_test.json")
    steps, rates, _ = read(folder / "one_cycle" / "schedules")["schedule/learning_rate"]
    assert len(steps) == 3 * 41
    assert rates.max() == pytest.approx(result.suggestion, rel=1e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--epochs", "1"], "--epochs: must be at least 2, not 1"),
        (["demo", "--seed", "-1"], r"--seed: must be in \[0, 2\*\*32\), not -1"),
        (["demo", "--epochs", "x"], "--epochs: invalid int value: 'x'"),
        ([], "required: command"),
        (["dance"], "invalid choice: 'dance'"),
    ],
)
def test_bad_arguments_of_the_command(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert re.search(message, capsys.readouterr().err)


def test_help_and_version_need_no_backend():
    for option in ("--help", "--version"):
        code = (
            "import sys, runpy; sys.argv = ['tfschedules', '" + option + "']\n"
            "try:\n    runpy.run_module('tfschedules', run_name='__main__')\n"
            "except SystemExit as end:\n    assert not end.code\n"
            "assert not {'keras', 'tensorflow', 'jax'} & set(sys.modules)"
        )
        done = python(code)
        assert done.returncode == 0, done.stderr
        assert done.stdout
    assert tfs.__version__ in done.stdout


def test_the_demo_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delitem(sys.modules, "tfschedules.commands.demo", raising=False)
    assert main(["demo"]) == 1
    printed = capsys.readouterr().err
    assert "rich" in printed
    assert 'pip install "tfschedules[demo]"' in printed
