from .extremes import (
    PLUGIN_NAME as PLUGIN_NAME,
    extremes_tag as extremes_tag,
    joined_extremes as joined_extremes,
)
from .identity import (
    Found as Found,
    begin_run as begin_run,
    discard as discard,
    find_run as find_run,
)
from .journal import Journal as Journal
from .logger import TensorBoardLogger as TensorBoardLogger
from .runs import (
    absolute_path as absolute_path,
    last_step as last_step,
    let_go as let_go,
    make_log_dir as make_log_dir,
    new_run as new_run,
)
from .sessions import (
    Setting as Setting,
    row_key as row_key,
    schedules_key as schedules_key,
)
from .writer import EventWriter as EventWriter

__all__: list[str]
