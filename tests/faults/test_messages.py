"""Messages that name the argument given, paths, and fits of no epochs."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers import ROOT

import tfschedules as tfs
from tfschedules.__main__ import main
from tfschedules._support import paths
from tfschedules.drive import Snapshot

X = np.ones((16, 2), "float32")
Y = np.ones((16, 1), "float32")


def compiled(optimizer: Any = None) -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer or keras.optimizers.SGD(0.25, momentum=0.5), "mse")
    return model


# Arguments that were given ------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tfs.one_cycle(0.1, 100, div_factor=1e-60),
            r"`div_factor` must be so large .* <= 1e\+38.* Received: div_factor=1e-60",
        ),
        (
            lambda: tfs.one_cycle(0.1, tfs.epochs(3), final_div_factor=1e-50),
            r"`final_div_factor` must be so large .* Received: final_div_factor=1e-50",
        ),
        (
            lambda: tfs.one_cycle(0.1, 100, div_factor=1e-320),
            r"`div_factor` must be so large .* Received: div_factor=1e-320",
        ),
        (
            lambda: tfs.OneCycle(0.1, div_factor=1e-320),
            r"`div_factor` must be so large",
        ),
        (
            lambda: tfs.one_cycle(1.0, tfs.epochs(2), final_div_factor=1e-310),
            r"`final_div_factor` must be so large",
        ),
        (
            lambda: tfs.warmup(tfs.ScaleFunction(lambda x: x + np.inf), 5),
            r"`schedule` must be finite at its step 0",
        ),
        (
            lambda: tfs.cyclical(0.1, 0.2, 5, scale_fn=3),
            r"`scale_fn` must be a function.* scale_fn=3",
        ),
        (
            lambda: tfs.OneCycle(0.1, start_step=2**63),
            r"`start_step` must be <= \d+\. Received: start_step=9223372036854775808",
        ),
        (
            lambda: tfs.RangeTest(hyperparameters={"momentum": np.ma.masked}),
            r'`hyperparameters\["momentum"\]` must be a number.* masked value is none',
        ),
        (
            lambda: tfs.Piecewise([1], np.ma.array([0.1, 0.2], mask=[False, True])),
            r"`values` must be a number. Received: values=masked",
        ),
        (lambda: tfs.RangeTest(min_lr=1e-60), r"`min_lr` must be >= 1e-37.*float32"),
        (lambda: tfs.RangeTest(max_lr=1e39), r"`max_lr` must be <= 1e\+38.*float32"),
        (lambda: tfs.OneCycle("0.1"), r"`max_lr` must be a number.*Leave the quotes"),
        (
            lambda: tfs.OneCycle(np.array([0.1])),
            r"`max_lr` must be a number.*give float\(max_lr\)",
        ),
    ],
)
def test_an_error_names_the_argument_that_was_given(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_a_position_that_is_taken_counts_to_the_step() -> None:
    model = compiled()
    schedule = tfs.Repeat(tfs.Linear(1.0, 0.0, 4), 4)
    start = 2**30 - 2
    callback = tfs.HyperparameterScheduler(learning_rate=schedule, start_step=start)
    model.fit(X, Y, batch_size=16, epochs=1, verbose=0, callbacks=[callback])
    assert float(model.optimizer.learning_rate) == 1.0 - (start % 4) / 4


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: tfs.OneCycle(maxlr=0.1), "max_lr"),
        (lambda: tfs.OneCycle(learning_rate=0.1), "max_lr"),
        (lambda: tfs.one_cycle(lr=0.1, total_steps=5), "max_lr"),
        (lambda: tfs.WarmRestarts(0.1, first_decay_steps=5), "first_cycle"),
        (lambda: tfs.warm_restarts(0.1, T_0=5), "first_cycle"),
        (lambda: tfs.Cosine(initial_learning_rate=0.1), "start"),
        (lambda: tfs.Linear(0.1, 0.0, decay_steps=5), "steps"),
        (lambda: tfs.RangeTest(start_lr=1e-6), "min_lr"),
        (lambda: tfs.SnapshotEnsemble(filepath="a"), "directory"),
        (lambda: tfs.HyperparameterScheduler(start_stp=5), "start_step"),
        (lambda: tfs.HyperparameterScheduler(learningrate=0.1), "learning_rate"),
        (lambda: tfs.find_learning_rate(compiled(), X, Y, num_iter=9), "steps"),
        (
            lambda: tfs.find_learning_rate(compiled(), X, Y, class_weights={}),
            "class_weight",
        ),
        (
            lambda: tfs.compare_range_tests(compiled(), X, Y, weightdecay=[0.1]),
            "weight_decay",
        ),
        (lambda: tfs.fine_tune(compiled(), (X, Y), 1, freeze=2), "freeze_epochs"),
    ],
)
def test_a_name_of_others_or_misspelt_is_told(call: Any, meant: str) -> None:
    with pytest.raises(TypeError, match=rf"Did you mean `{meant}`\?"):
        call()


def test_a_hyperparameter_that_is_misspelt_is_told_by_fit() -> None:
    callback = tfs.HyperparameterScheduler(momentun=tfs.Constant(0.5))
    with pytest.raises(ValueError, match=r"'momentun'.* Did you mean `momentum`\? It"):
        compiled().fit(X, Y, verbose=0, callbacks=[callback])


def test_a_name_that_nothing_is_like_has_no_guess() -> None:
    with pytest.raises(TypeError, match=r"`zzz`\. Received: zzz=1\. It has: max_lr, "):
        tfs.OneCycle(0.1, zzz=1)
    with pytest.raises(AttributeError, match="'OneCylce'") as caught:
        tfs.OneCylce  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("OneCylce", tfs)  # Python guesses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plt", "linear"], r"'plt' .*Did you mean plot"),
        (["demo", "--logdir", "x"], r"option: --logdir\. Did you mean --log-dir"),
        (["demo", "--log-dir", "gs://b"], r"--log-dir must be the path of a folder of"),
        (["--verson"], r"option: --verson\. Did you mean --version"),
    ],
)
def test_the_command_line_tells_what_is_meant(
    arguments: list[str], message: str, capsys: Any
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ("0.1", r"`callbacks` must be a list"),
        ([5], r"`callbacks` must be a list of callbacks\. Received: 5 .*in it"),
        ([tfs.Constant(0.1)], r"Received: Constant.*A schedule is no callback"),
        (tfs.one_cycle(0.1, 5), r"`callbacks` must be a list"),
        ([keras.callbacks.History], r"Received: <class"),
    ],
)
def test_what_is_no_callback_is_told(callbacks: Any, message: str) -> None:
    model = compiled()
    with pytest.raises(TypeError, match=message):
        tfs.find_learning_rate(model, X, Y, callbacks=callbacks)
    with pytest.raises(TypeError, match=message):
        tfs.fine_tune(model, (X, Y), 1, callbacks=callbacks)


# Paths --------------------------------------------------------------------------------

RESULT = tfs.RangeTestResult.from_sweep(
    np.geomspace(1e-4, 1, 20), np.linspace(1, 0, 20), steps=20
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: Any) -> Path:
    """The home of a user who works elsewhere."""
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def sweep(**arguments: Any) -> None:
    tfs.find_learning_rate(compiled(), X, Y, steps=4, verbose=0, **arguments)


def train(*callbacks: Any) -> None:
    compiled().fit(X, Y, batch_size=4, epochs=1, verbose=0, callbacks=callbacks)


WRITERS = {
    "TensorBoardLogger": lambda path: train(tfs.TensorBoardLogger(path)),
    "RangeTest": lambda path: train(tfs.RangeTest(steps=4, log_dir=path)),
    "find_learning_rate": lambda path: sweep(log_dir=path),
    "SnapshotEnsemble": lambda path: train(
        tfs.WarmRestarts(0.1, 2), tfs.SnapshotEnsemble(path)
    ),
    "save": RESULT.save,
    "save_csv": RESULT.save_csv,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_home_and_a_file_url_are_what_they_say(name: str, home: Path) -> None:
    if name == "SnapshotEnsemble" and keras.backend.backend() == "torch":
        pytest.skip("it is refused on torch")
    WRITERS[name]("~/a place")
    there = home / "a place"
    assert there.exists()
    first = sorted(path.name for path in home.rglob("*"))
    WRITERS[name](f"file://{there.as_posix().replace(' ', '%20')}2")
    assert (home / "a place2").exists()
    assert not list((home.parent / "work").iterdir())
    assert len(first) * 2 == len(list(home.rglob("*")))


def test_what_was_saved_is_read_and_drawn_there(home: Path) -> None:
    RESULT.save("~/a.json")
    for path in ("~/a.json", home / "a.json", f"file://{home.as_posix()}/a.json"):
        assert tfs.RangeTestResult.load(path).suggestion == RESULT.suggestion
    if keras.backend.backend() != "torch":  # which has no snapshots
        train(tfs.WarmRestarts(0.1, 2), tfs.SnapshotEnsemble("~/kept"))
        assert len(tfs.SnapshotEnsemble.load("~/kept")) == 2
    line = ["linear", "--start", "0", "--end", "1", "--steps", "9"]
    assert main(["plot", *line, "--output=~/line.svg"]) == 0
    assert (home / "line.svg").is_file()
    assert not list((home.parent / "work").iterdir())


def test_a_snapshot_of_a_sweep_is_in_the_home(home: Path, monkeypatch: Any) -> None:
    seen: list[Any] = []
    (home / "scratch").mkdir()

    def snapshot(model: Any, folder: Any, **arguments: Any) -> Any:
        seen.append(folder)
        return Snapshot(model, folder, **arguments)

    monkeypatch.setattr("tfschedules.finding.range_test.Snapshot", snapshot)
    sweep(snapshot_dir="~/scratch")
    assert seen == [str(home / "scratch")]


LOCAL = {
    "snapshot_dir": lambda path: tfs.RangeTest(snapshot_dir=path),
    "directory": lambda path: tfs.SnapshotEnsemble(path),
    "path": lambda path: RESULT.save(path),
}
LOGS = {
    "log_dir": lambda path: tfs.TensorBoardLogger(path),
    "log_dir ": lambda path: tfs.RangeTest(log_dir=path),
    "log_dir  ": lambda path: sweep(log_dir=path),
}


@pytest.mark.parametrize("name", [*LOCAL, *LOGS])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        (5, r"must be the path of a .* Received: {}=5 \(of type int\)"),
        (b"logs", r"must be the path .* Give os\.fsdecode"),
        ("", r"must be the path of a "),
        ("a\0b", r"must not hold a null character"),
        ("~nobody-is-called-so/logs", r"no home is known .* '\./~nobody"),
        ("file://logs/a", r"three slashes"),
        ("file:logs", r"three slashes"),
        (Path("gs://bucket/logs"), r"gs:/bucket"),
    ],
)
def test_what_is_no_path_is_refused(
    name: str, path: Any, message: str, home: Path
) -> None:
    message = message.replace("{}", name.strip())
    with pytest.raises((TypeError, ValueError), match=f"`{name.strip()}` .*{message}"):
        (LOCAL | LOGS)[name](path)
    assert not list((home.parent / "work").iterdir())


@pytest.mark.parametrize("name", LOCAL)
def test_a_url_is_no_path_of_this_machine(name: str, home: Path) -> None:
    with pytest.raises(ValueError, match=rf"`{name}` .* of this machine.*'gs'"):
        LOCAL[name]("gs://bucket/a")
    assert not list((home.parent / "work").iterdir())


def test_other_paths_stay_as_they_are() -> None:
    for path in (
        "logs",
        "./~",
        "a/~/b",
        "C:/logs",
        "/tmp/x:y",
        "gs://b/c",
        "memory://x",
    ):
        assert paths.log_path("log_dir", path) == path
    assert tfs.TensorBoardLogger(Path("a") / "b").log_dir == str(Path("a", "b"))


# No epochs, few layers ----------------------------------------------------------------


@pytest.mark.parametrize("epochs", [0, -1])
@pytest.mark.parametrize(
    "callback",
    [
        lambda: tfs.OneCycle(0.1),
        lambda: tfs.OneCycle(0.1, total_steps=9),
        lambda: tfs.HyperparameterScheduler(
            learning_rate=tfs.Linear(0.1, 0.0, tfs.epochs(3))
        ),
        lambda: tfs.CyclicalLearningRate(0.1, 0.2, 4),
        lambda: tfs.TensorBoardLogger("logs"),
    ],
)
def test_a_fit_of_no_epochs_does_nothing(
    callback: Any, epochs: int, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    model = compiled()
    weights = model.get_weights()
    history = model.fit(X, Y, epochs=epochs, verbose=0, callbacks=[callback()])
    assert history.history == {}
    assert float(model.optimizer.learning_rate) == 0.25
    assert model.optimizer.momentum == 0.5
    assert int(model.optimizer.iterations) == 0
    assert all(map(np.array_equal, model.get_weights(), weights))
    assert not list(tmp_path.iterdir())


def test_a_range_test_in_a_fit_of_no_epochs_says_so() -> None:
    with pytest.raises(ValueError, match=r"a fit without an epoch \(epochs=0, "):
        compiled().fit(X, Y, epochs=0, verbose=0, callbacks=[tfs.RangeTest()])


@pytest.mark.parametrize(("layers", "rates"), [(1, [1.0]), (2, [0.01, 1.0])])
def test_three_groups_are_a_default_and_no_demand(
    layers: int, rates: list[float]
) -> None:
    model = keras.Sequential(
        [keras.Input((2,)), *(keras.layers.Dense(2) for _ in range(layers))]
    )
    groups = tfs.discriminative_groups(model, 0.01)
    assert [group.multiplier for group in groups] == rates
    assert [layer for group in groups for layer in group.layers] == model.layers
    with pytest.raises(ValueError, match="`n_groups` must be at most"):
        tfs.discriminative_groups(model, 0.01, n_groups=3)


# The page -----------------------------------------------------------------------------


def texts_of(source: str) -> list[str]:
    """The texts in a module, with "…" for what is filled in."""
    texts = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = [getattr(each, "value", None) for each in node.values]
            texts.append("".join(p if isinstance(p, str) else "…" for p in parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return [" ".join(text.split()) for text in texts]


def test_the_messages_on_the_page_are_those_of_the_package() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    table = page.partition("\n## Messages\n")[2]
    rows = [
        row.split(" | ")[0].strip("| ") for row in table.splitlines() if "](" in row
    ]
    assert len(rows) > 15
    sources = [*(ROOT / "tfschedules").rglob("*.py")]
    texts = [t for path in sources for t in texts_of(path.read_text("utf-8"))]
    for message in rows:
        wanted = ".*".join(re.escape(part.strip()) for part in message.split("…"))
        assert any(re.search(wanted, text) for text in texts), message
