"""What the values of a curve are called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """For a loss; or for a metric whose negatives are read, as higher is better.

    Example:
        >>> words = Words("accuracy", higher_is_better=True)
        >>> f"{words.name} {words.improved} to {words.value(-0.9)}"
        'accuracy rose to 0.9'
    """

    name: str = "loss"
    higher_is_better: bool = False

    def value(self, read: float, digits: int = 3) -> str:
        """The value itself, of one that was read."""
        return f"{-read if self.higher_is_better else read:.{digits}g}"

    @property
    def improves(self) -> str:
        """In the present."""
        return "rises" if self.higher_is_better else "descends"

    @property
    def improved(self) -> str:
        """In the past."""
        return "rose" if self.higher_is_better else "fell"

    @property
    def improvement(self) -> str:
        """As a noun."""
        return "rise" if self.higher_is_better else "fall"

    @property
    def worsens(self) -> str:
        """The contrary of `improves`."""
        return "falls" if self.higher_is_better else "rises"

    @property
    def good(self) -> str:
        """As it is where training goes well."""
        return "high" if self.higher_is_better else "low"
