"""`tfschedules plot`: every schedule, its options, its pictures and its messages."""

import importlib
import inspect
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib.figure
import pytest

import tfschedules as tfs
from tfschedules.__main__ import main
from tfschedules._support import axes
from tfschedules.commands import plot as plot_command

# The arguments that each schedule needs; a new one needs a line here.
NEEDED = {
    "constant": "--value 0.1",
    "cosine": "--start 0.1 --end 0 --steps 100",
    "cyclical": "--base-lr 0.1 --max-lr 0.6 --step-size 20 --mode triangular2",
    "exponential": "--start 1e-3 --end 1 --steps 1e2",
    "flat_cosine": "--max-lr 0.1 --total-steps 100 --pct-flat 0.5",
    "inverse_sqrt": "--peak 0.1 --warmup-steps 10",
    "linear": "--start -1 --end 0.1 --steps 100.5",
    "noise": "--amount 0.5 --steps 10 --seed 1",
    "one_cycle": "--max-lr 0.1 --total-steps 1000 --three-phase --anneal linear",
    "per_cycle": "--factor 0.5 --steps 10 --growth 2",
    "piecewise": "--boundaries 30 60 --values 0.1 0.01 0.001",
    "polynomial": "--start 0.1 --end 0 --steps 100 --power 2",
    "polynomial_restarts": "--max-lr 0.1 --steps 30 --power 2",
    "square_root": "--start 0.1 --end 0 --steps 100",
    "warm_restarts": "--max-lr 0.1 --first-cycle 10 --cycle-mult 1.5",
    "warmup_stable_decay": "--max-lr 0.1 --warmup-steps 9 --stable-steps 40 "
    "--decay-steps 20 --decay 1-sqrt",
}
CYCLE = "one_cycle --max-lr 0.1 --total-steps 1000"
LINE = "linear --start 0 --end 1 --steps 10"


def plot(command):
    return main(["plot", *command.split()])


def refused(command, capsys):
    """Run a command that must be refused; return its message, less the usage."""
    with pytest.raises(SystemExit, match=r"^2$"):
        plot(command)
    message = capsys.readouterr().err.split("error: ", 1)[1]
    assert message.count("\n") == 1
    return message


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures = []
    save = matplotlib.figure.Figure.savefig

    def savefig(self, *args, **kwargs):
        figures.append(self)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    return figures


def png_size(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:])


def test_every_public_schedule_is_offered_or_left_out_for_a_reason():
    schedules = importlib.import_module("tfschedules.schedules")
    public = {name for name in tfs.__all__ if hasattr(schedules, name)}
    assert set(plot_command.names().values()) == public - plot_command.NOT_OFFERED
    assert plot_command.NOT_OFFERED <= public
    assert set(plot_command.names()) == set(NEEDED)
    for name in plot_command.NOT_OFFERED - {"Schedule", "epochs", "fit_share"}:
        kinds = str(inspect.signature(getattr(tfs, name)))
        assert re.search("Schedule|Callable", kinds), f"{name} could be offered"


@pytest.mark.parametrize("name", NEEDED)
def test_every_schedule_is_drawn(name, folder, capsys):
    assert plot(f"{name} {NEEDED[name]}") == 0
    assert capsys.readouterr().out == f"{name}.png\n"
    width, height = png_size(folder / f"{name}.png")
    assert width == axes.SIZE[0] * axes.DPI
    assert height >= int(axes.SIZE[1] * axes.DPI)
    class_name = plot_command.names()[name]
    assert plot(f"{class_name} {NEEDED[name]} -o by_class.svg") == 0
    root = ElementTree.fromstring((folder / "by_class.svg").read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_the_command_of_the_issue(folder, drawn):
    command = "plot one_cycle --max-lr 0.1 --total-steps 1000 -o curve.png"
    assert main(command.split()) == 0
    width, height = png_size(folder / "curve.png")
    assert height > width * 0.9  # two panels
    rate, momentum = drawn[0].axes
    assert (rate.get_ylabel(), momentum.get_ylabel()) == ("learning rate", "momentum")
    schedules = tfs.one_cycle(0.1, 1000)
    for ax, schedule in zip((rate, momentum), schedules.values(), strict=True):
        (line,) = ax.lines
        assert line.get_xdata().tolist() == list(range(1000))
        assert line.get_ydata().tolist() == schedule.values(1000).tolist()
    assert momentum.get_ylim()[0] > 0.8
    assert drawn[0].get_suptitle() == "one_cycle(max_lr=0.1, total_steps=1000)"


def test_a_pdf_and_an_upper_case_suffix(folder):
    assert plot(f"{LINE} -o line.pdf") == 0
    assert (folder / "line.pdf").read_bytes().startswith(b"%PDF")
    assert plot(f"{LINE} --output=LINE.PNG") == 0
    assert png_size(folder / "LINE.PNG")


@pytest.mark.parametrize(
    ("command", "last"),
    [
        (LINE, 10),
        ("linear --start 0 --end 1 --steps 10.5", 11),
        (f"{LINE} --range 4", 3),
        (f"{LINE} --range 2epochs --steps-per-epoch 50", 99),
        (f"{CYCLE} --steps 300", 299),
        ("constant --value 1", 99),
        ("cyclical --base-lr 0 --max-lr 1 --step-size 10", 79),
        ("warm_restarts --max-lr 1 --first-cycle 10 --cycle-mult 2", 149),
        ("per_cycle --factor 0.5 --steps 10", 39),
        ("inverse_sqrt --peak 1 --warmup-steps 10", 99),
        ("piecewise --boundaries 10 20 --values 3 2 1", 29),
        ("linear --start 0 --end 1 --steps 1e9", 10**9),
    ],
)
def test_the_range_that_is_drawn(command, last, drawn):
    assert plot(command) == 0
    steps = drawn[0].axes[0].lines[0].get_xdata()
    assert (steps[0], steps[-1]) == (0, last)
    assert len(steps) <= 20_000


def test_lengths_in_epochs(drawn):
    plot("warm_restarts --max-lr 1 --first-cycle 2.5epochs --steps-per-epoch 100")
    plot("warm_restarts --max-lr 1 --first-cycle 250")
    in_epochs, in_steps = (figure.axes[0].lines[0] for figure in drawn)
    assert in_epochs.get_ydata().tolist() == in_steps.get_ydata().tolist()
    plot("piecewise --boundaries 30 1epoch --values 3 2 1 --steps-per-epoch 40")
    values = drawn[2].axes[0].lines[0].get_ydata()
    assert values[[29, 30, 39, 40]].tolist() == [3, 2, 2, 1]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "the following arguments are required: SCHEDULE"),
        (f"{CYCLE} --anneal sine", "--anneal must be one of 'cosine', 'linear'"),
        ("one_cycle --max-lr -1 --total-steps 9", "--max-lr must be > 0"),
        ("one_cycle --max-lr nan --total-steps 9", "--max-lr must be finite"),
        ("one_cycle --max-lr x --total-steps 9", "--max-lr: must be a number, not 'x'"),
        ("one_cycle --max-lr 1 --total-steps 9.5", "--total-steps must be a whole"),
        ("one_cycle --max-lr 1", "required: --total-steps"),
        (f"{CYCLE} --max 2", "unrecognized option: --max. Did you mean --max-lr"),
        (CYCLE.replace("--max-lr", "--maxlr"), "--maxlr. Did you mean --max-lr"),
        (f"{CYCLE} --logdir x", "unrecognized option: --logdir. There are: --help, "),
        ("onecycle --max-lr 1", "'onecycle' .* Did you mean one_cycle"),
        (f"{LINE} --output=gs://b/x.png", "--output must be the path of a file of "),
        (f"{CYCLE} --pct-start 0.6 --three-phase", "--pct-start must be <= 0.5"),
        (f"{CYCLE} --range 0", "--range must be >= 1"),
        (f"{CYCLE} --range 1e30", "--range must be <= "),
        ("linear --start 0 --end 1 --steps 1e30", "--range must be <= "),
        ("linear --start 0 --end 1 --steps 0", "--steps must be > 0.*2.5epochs"),
        ("linear --start 0 --end 1 --steps 2.5 epochs", "unrecognized .*: epochs"),
        ("linear --start 0 --end 1 --steps lots", "--steps: must be .* not 'lots'"),
        ("linear --start 0 --end 1 --steps 0epochs", "--steps: must be .*'0epochs'"),
        ("linear --start 0 --end 1 --steps 2epochs", "--steps: .*--steps-per-epoch"),
        (
            "linear --start 0 --end 1 --steps 2epochs --steps-per-epoch 0",
            "--steps-per-epoch must be > 0",
        ),
        ("piecewise --boundaries 9 5 --values 3 2 1", "--boundaries must increase"),
        ("piecewise --boundaries 9 --values 3", "--values must have one entry more"),
        (f"{LINE} -o line.bmp", r"--output: must end in \.png, \.svg, \.pdf, not line"),
        (f"{LINE} -o line", r"--output: must end in"),
        (f"{LINE} --scale-fn abs", "unrecognized option: --scale-fn. There"),
    ],
)
def test_what_is_refused(command, message, capsys, folder):
    assert re.search(message, refused(command, capsys))
    assert not list(folder.iterdir())


def test_an_unknown_schedule_lists_the_names(capsys):
    for unknown in ("dance", "warmup", "Schedule"):
        message = refused(unknown, capsys)
        assert all(name in message for name in NEEDED)


def test_a_place_that_cannot_be_written(capsys, folder):
    (folder / "a_folder.png").mkdir()
    for output, reason in [
        ("nowhere/line.png", "No such file"),
        ("a_folder.png", "Is a directory"),
    ]:
        assert plot(f"{LINE} -o {output}") == 1
        error = capsys.readouterr().err
        assert error.startswith(f"The picture cannot be written to {output}: {reason}")
        assert error.count("\n") == 1


def test_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    assert plot(LINE) == 1
    error = capsys.readouterr().err
    assert "matplotlib, which is not installed: pip install matplotlib\n" in error


@pytest.mark.parametrize("name", NEEDED)
def test_help_has_every_argument_and_its_text(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit, match=r"^0$"):
        plot(f"{name} --help")
    printed = capsys.readouterr().out
    function = getattr(tfs, plot_command.names()[name])
    summary = function.__doc__.split("\n")[0].strip()
    assert summary.replace("`", "") in printed
    for argument in inspect.signature(function).parameters.values():
        if argument.name in {"scale_fn", "scale_mode"}:
            assert f"--{argument.name}".replace("_", "-") not in printed
            continue
        flag = "--" + argument.name.replace("_", "-")
        # A long name has its text on the next line.
        (row,) = re.findall(rf"^  {flag}[ ,].*(?:\n {{20}}.*)?$", printed, re.MULTILINE)
        text = re.search(rf"^ +{argument.name}: (.{{5,}})", function.__doc__, re.M)
        assert text[1].replace("`", "")[:9] in row
        if argument.default is not argument.empty:
            assert f"default: {argument.default}" in row
    assert "-o FILE" in printed
    assert "--steps-per-epoch N" in printed


def test_help_lists_the_schedules_and_imports_no_keras():
    code = (
        "import sys, tfschedules.__main__ as command\n"
        "for arguments in (['plot', '--help'], ['plot', 'dance'], ['--help']):\n"
        "    try:\n        command.main(arguments)\n"
        "    except SystemExit as end:\n        print('status', end.code)\n"
        "assert not {'keras', 'tensorflow', 'jax', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall("status (.)", done.stdout) == ["0", "2", "0"]
    assert all(name in done.stdout for name in NEEDED)
    assert "a picture of one schedule" in done.stdout
