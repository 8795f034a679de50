"""From the curve of a learning-rate range test to a learning rate. Plain NumPy.

- `curves`: what is made of raw losses: checked, cut, smoothed, ranked.
- `descents`: where they have fallen, and whether by more than chance lets them.
- `rules`: rates, and the bounds of a cycle, read off that.
- `refusals`: what to say, and what to try, where nothing can be read.
- `words`: what the values are called there.
- `suggesting`: `suggest`, which asks them in this order.

Smith, "Cyclical Learning Rates for Training Neural Networks" (2015), section 3.3, has
the range test and the bounds of a cycle. Exponential moving averages are left out:
their lag moves the curve by half a decade of rates. How far training with each rule's
rate gets is measured in `benchmarks/suggestion.py`.
"""

from tfschedules.finding.suggestions.curves import smooth
from tfschedules.finding.suggestions.rules import RULES, Bounds
from tfschedules.finding.suggestions.suggesting import Suggestion, suggest

__all__ = ["RULES", "Bounds", "Suggestion", "smooth", "suggest"]
