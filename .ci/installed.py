"""Check the installed package from outside the checkout: its files, tab and models."""

import sys
from importlib.metadata import distribution, entry_points
from pathlib import Path

from tensorboard.backend import application
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client

import tfschedules as tfs

installed = Path(tfs.__file__)
if not installed.is_relative_to(sys.prefix):
    sys.exit(f"This is not the installed package: {installed}")

package = distribution("tfschedules")
missing = [str(file) for file in package.files if not file.locate().exists()]
if missing or package.version != tfs.__version__:
    sys.exit(f"Missing: {missing}; versions {package.version}, {tfs.__version__}")

# TensorBoard finds the tab by its entry point, and the browser gets its files.
(point,) = entry_points(group="tensorboard_plugins", name="schedules")
plugin = point.load()().load(TBContext())
client = Client(application.TensorBoardWSGI([plugin], ""))
files = [route for route in plugin.get_plugin_apps() if route.startswith("/static/")]
for route in files:
    if client.get(f"/data/plugin/schedules{route}").status_code != 200:
        sys.exit(f"TensorBoard does not serve {route}.")

# What the core asks for is enough, with a backend, for the networks and their groups.
from tfschedules.models.resnet import resnet  # noqa: E402

groups = tfs.discriminative_groups(resnet(8), low=0.1, boundaries=["stage_2", "head"])
print(
    f"tfschedules {tfs.__version__}: {len(package.files)} files, {len(files)} of them "
    f"served by TensorBoard; a ResNet-8 in {len(groups)} groups."
)
