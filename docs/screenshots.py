"""The pictures of docs/tensorboard.md: a real training, a real TensorBoard, a browser.

    python docs/screenshots.py [--log-dir DIR]

It needs the `test` extra and Debian's `chromium` and `chromium-driver` (or another
Chrome with its driver), takes about a minute, and writes
docs/images/tensorboard_*.png. With `--log-dir` it trains nothing and takes the runs
that are there.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

IMAGES = Path(__file__).with_name("images")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000"]


def train(log_dir: Path) -> None:
    """Two range tests and four fits on scikit-learn's digits, recorded."""
    import keras
    from sklearn.datasets import load_digits

    import tfschedules as tfs

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def network() -> keras.Model:
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(64, "relu") for _ in range(2)]
        model = keras.Sequential(
            [keras.Input((64,)), *layers, keras.layers.Dense(10, name="head")]
        )
        model.compile(keras.optimizers.SGD(momentum=0.9), loss)
        return model

    for name, batch_size, repeats in (("batch_32", 32, 1), ("batch_128", 128, 5)):
        result = tfs.find_learning_rate(
            network(),
            x,
            y,
            batch_size=batch_size,
            repeats=repeats,
            min_lr=1e-5,
            log_dir=log_dir / name,
        )
    rate, steps = result.suggestion, 10 * -(-len(x) // 32)
    for name, callback in {
        "one_cycle": tfs.OneCycle(2 * rate),
        "cyclical": tfs.CyclicalLearningRate(rate / 4, rate, steps // 6),
        "warm_restarts": tfs.WarmRestarts(rate, first_cycle=steps // 3),
    }.items():
        logger = tfs.TensorBoardLogger(log_dir / name)
        network().fit(x, y, epochs=10, verbose=0, callbacks=[callback, logger])
    model = network()
    groups = tfs.discriminative_groups(model, low=0.1)
    model.compile(tfs.LayerwiseOptimizer(model.optimizer, groups), loss)
    callbacks = [tfs.OneCycle(2 * rate), tfs.TensorBoardLogger(log_dir / "by_layer")]
    model.fit(x, y, epochs=10, verbose=0, callbacks=callbacks)


@contextlib.contextmanager
def server(log_dir: Path) -> Iterator[str]:
    """The address of a TensorBoard on the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ["--logdir", str(log_dir), "--host", "127.0.0.1", "--port", str(port)]
    started = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *where],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        started.kill()
        started.wait()


@contextlib.contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A browser without a window."""
    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


def main() -> None:
    """Train, look, and keep what is seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log-dir", type=Path, help="runs that are there already")
    chosen = parser.parse_args().log_dir
    with contextlib.ExitStack() as stack:
        log_dir = chosen
        if log_dir is None:
            log_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            train(log_dir)
        address = stack.enter_context(server(log_dir))
        driver = stack.enter_context(browser())
        look(driver, address)


def look(driver: webdriver.Chrome, address: str) -> None:
    """One picture of each view, and one of the first in the dark."""
    wait = WebDriverWait(driver, 60, ignored_exceptions=[Exception])
    wait.until(lambda _: driver.get(f"{address}#schedules") or True)
    frame = 'iframe[src*="name=schedules"]'
    wait.until(lambda _: driver.find_element(By.CSS_SELECTOR, frame))
    driver.switch_to.frame(driver.find_element(By.CSS_SELECTOR, frame))

    def show(view: str) -> None:
        wait.until(lambda _: driver.find_element(By.ID, f"tab-{view}")).click()
        drawn = f'.page[data-drawn="{view}"] [aria-busy="false"]'
        wait.until(lambda _: driver.find_element(By.CSS_SELECTOR, drawn))

    def save(name: str) -> None:
        driver.save_screenshot(IMAGES / f"tensorboard_{name}.png")

    # TensorBoard reads the folder while the page is there already.
    reload = "return window.schedules.reload().then(() => window.schedules.runs.count)"
    shown = 'return document.querySelectorAll(".run").length'
    wait.until(lambda _: driver.execute_script(reload) and driver.execute_script(shown))
    filter_box = driver.find_element(By.CSS_SELECTOR, "input[type=search]")
    slide = (
        "const box = document.querySelector('input[type=range]');"
        "box.value = 0.9; box.dispatchEvent(new Event('input'));"
    )
    places = {
        "range_tests": (200, 30),
        "training": (-100, 30),
        "comparison": None,
        "versus": (260, -160),
    }
    for view, place in places.items():
        show(view)
        if place is None:
            save(view)
            continue
        if view == "versus":
            filter_box.send_keys("one|restarts")
            driver.execute_script(slide)
        plot = driver.find_element(By.CSS_SELECTOR, "#view .u-over")
        ActionChains(driver).move_to_element_with_offset(plot, *place).perform()
        save(view)
    filter_box.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    driver.switch_to.default_content()
    driver.execute_script("document.body.classList.add('dark-mode')")
    driver.switch_to.frame(driver.find_element(By.CSS_SELECTOR, frame))
    show("range_tests")
    save("dark")


if __name__ == "__main__":
    main()
