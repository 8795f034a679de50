"""The parts of `.ci/run` as nox sessions: `nox -l` lists them, `nox -s lint` runs one.

Environments are kept between runs (`nox -R` does not even look at their packages);
`.ci/run` makes its own from empty.
"""

import shutil
from pathlib import Path

import nox

nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "layers", "docs", "tests"]

ESTIMATOR = [
    "tests/estimator",
    "tests/schedules/test_schedules.py",
    "tfschedules/estimator",
]
TORCH = [
    "tests/drive/test_torch.py",
    "tests/drive/test_loops.py",
    "tests/drive/test_nested_fits.py",
    "tests/drive/test_traces.py",
    "tests/drive/test_insides.py",
    "tests/programs/test_own_loops.py",
]
NOTEBOOKS = sorted(str(path) for path in Path("notebooks").glob("*.ipynb"))


def install(session: nox.Session, extras: str, pins: str = "tensorflow") -> None:
    """Install the package with `extras` at the versions that `.ci/run` uses."""
    session.install(
        f"--constraint=.ci/constraints-{pins}.txt", "--editable", f".[{extras}]"
    )


def execute(session: nox.Session, *notebooks: str) -> None:
    """Execute notebooks; the results are left in a temporary folder."""
    to = ["--to=notebook", f"--output-dir={session.create_tmp()}"]
    session.run("jupyter", "nbconvert", "--execute", *to, *notebooks)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules and format, and notebooks without outputs."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    if NOTEBOOKS:
        session.run("nbstripout", "--verify", *NOTEBOOKS)


@nox.session
def types(session: nox.Session) -> None:
    """The type checker."""
    install(session, "lint")
    session.run("mypy", *session.posargs)


@nox.session
def layers(session: nox.Session) -> None:
    """Which module may import which."""
    install(session, "lint")
    session.run("lint-imports", "--no-logo", "--no-cache")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site; `nox -s docs -- serve` shows it while it is written."""
    install(session, "docs")
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]))


@nox.session
def tests(session: nox.Session) -> None:
    """The tests, on TensorFlow."""
    install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """The tests, and what they do not reach."""
    install(session, "test")
    session.install("coverage")
    session.run("coverage", "run", "-m", "pytest", "-n", "0", *session.posargs)
    session.run("coverage", "report")


@nox.session
def jax(session: nox.Session) -> None:
    """The tests on JAX, without TensorFlow."""
    install(session, "jax,test-tools", pins="jax")
    session.run(
        "pytest",
        *("-m", "not tensorflow and not any_backend and not slow"),
        "--doctest-ignore-import-errors",
        *session.posargs,
        env={"KERAS_BACKEND": "jax"},
    )


@nox.session
def torch(session: nox.Session) -> None:
    """The tests of the torch backend."""
    install(session, "torch,test-tools", pins="torch")
    session.run(
        "pytest",
        *("-m", "not tensorflow and not slow"),
        *(session.posargs or TORCH),
        env={"KERAS_BACKEND": "torch"},
    )


@nox.session
def recipes(session: nox.Session) -> None:
    """KerasTuner, Weights & Biases and MLflow, as docs/recipes.md uses them."""
    install(session, "demo,recipes", pins="recipes")
    session.install(
        "--constraint=.ci/constraints-recipes.txt", "pytest", "pytest-xdist"
    )
    session.run(
        "pytest",
        *("-n", "0"),
        *(session.posargs or ["tests/programs/test_libraries.py"]),
        env={"TFSCHEDULES_NEEDS_RECIPES": "1"},
    )


@nox.session
def estimator(session: nox.Session) -> None:
    """Real Estimators, on TensorFlow 2.15 with Keras 3 over it."""
    session.install("--no-deps", "--requirement=.ci/constraints-estimator.txt")
    session.install("--no-deps", "--no-build-isolation", "--editable", ".")
    session.run(
        *("pytest", "-m", ""),
        *(session.posargs or ESTIMATOR),
        env={"TFSCHEDULES_NEEDS_ESTIMATOR": "1", "TF_USE_LEGACY_KERAS": "1"},
    )
    session.install(
        "--constraint=.ci/constraints-tensorflow.txt", "ipykernel", "nbconvert"
    )
    execute(session, "notebooks/6_from_estimator_to_keras.ipynb")


@nox.session
def demo(session: nox.Session) -> None:
    """The demo; its event files are left in a temporary folder."""
    install(session, "demo")
    logs = Path(session.create_tmp(), "logs")
    session.run("tfschedules", "demo", "--log-dir", str(logs), *session.posargs)


@nox.session
def installed(session: nox.Session) -> None:
    """Build the wheel and the sdist, and install first the one, then the other."""
    pins = "--constraint=.ci/constraints-tensorflow.txt"
    session.install(pins, "build", "twine")
    folder = Path(session.create_tmp(), "dist").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", f"--outdir={folder}")
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    session.install(pins, f"{wheel}[demo]")
    for made in (wheel, sdist):  # the environment may have that of a run before
        session.install("--force-reinstall", "--no-deps", str(made))
        session.run("python", ".ci/installed.py")


@nox.session
def notebooks(session: nox.Session) -> None:
    """Execute the notebooks; the results are left in a temporary folder."""
    install(session, "demo,notebooks")
    execute(session, *(session.posargs or NOTEBOOKS))
