"""Forty-four small training tasks for `suggestion.py`.

Rules may be tuned on those of `tuned` and `more`; no rule was tuned on `unseen`.
"""

from benchmarks.problems.more import more_problems
from benchmarks.problems.tuned import Problem, problems
from benchmarks.problems.unseen import unseen_problems

__all__ = ["Problem", "more_problems", "problems", "unseen_problems"]
