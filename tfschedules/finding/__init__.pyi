from .comparison import RangeTestComparison as RangeTestComparison
from .divergence import diverged as diverged
from .event_record import (
    PLUGIN_NAME as PLUGIN_NAME,
    TAG as TAG,
    from_tensor as from_tensor,
    thinned as thinned,
)
from .find import (
    compare_range_tests as compare_range_tests,
    find_learning_rate as find_learning_rate,
)
from .functional import sweep as sweep
from .loop_sweep import Sweep as Sweep
from .range_test import RangeTest as RangeTest
from .reports import (
    log_range_test as log_range_test,
    new_range_test_run as new_range_test_run,
)
from .result import RangeTestResult as RangeTestResult
from .sources import check_targets as check_targets
from .suggestions import Suggestion as Suggestion, suggest as suggest
from .sweeps import check_known as check_known

__all__: list[str]
