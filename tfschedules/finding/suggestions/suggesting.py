"""`suggest`: a rate, with the reason for it, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tfschedules._support import checks
from tfschedules._support.arguments import checked_names
from tfschedules.finding.suggestions import curves, descents, refusals
from tfschedules.finding.suggestions.curves import Curve
from tfschedules.finding.suggestions.descents import Descent
from tfschedules.finding.suggestions.rules import RULES, Bounds, bounds
from tfschedules.finding.suggestions.words import Words


@dataclass(frozen=True)
class Suggestion:
    """What a range test's curve says.

    Attributes:
        learning_rate: the rate of the rule asked for; None is a refusal.
        reason: one or two sentences: what was seen and, for a refusal, what to try.
        suggestions: the rate of every rule in `RULES`; all None in a refusal.
        bounds: of a cycle, after Smith 2015, section 3.3: `max_lr` is twice the rate of
            the rule "descent", or the rate above it at which the loss is lowest, if
            that is less; `base_lr` is a quarter of `max_lr`. None in a refusal.
    """

    learning_rate: float | None
    reason: str
    suggestions: dict[str, float | None]
    bounds: Bounds | None


@checked_names
def suggest(
    learning_rates: ArrayLike,
    losses: ArrayLike,
    *,
    rule: str = "descent",
    name: str = "loss",
    higher_is_better: bool = False,
    diverged: bool = False,
) -> Suggestion:
    """Suggest a learning rate, or say why none can be read off the curve.

    The default rule takes the middle, in ln(rate), of the stretch of rates at which the
    losses are lower than those before. Noise leaves open which stretch that is, so it
    is the mean over all, from each step a to each step b,

        ln r = sum w ln sqrt(r_a r_b) / sum w,
        w = exp(z^2 / 2) exp(-ln(30 sqrt(r_a r_b) / r_e)^2 / 2),
        z = (mean R[0:a] - mean R[a:b]) / sqrt(1/a + 1/(b - a)),

    with R the ranks of the losses, in deviations, and r_e the last rate before they
    explode, or have lost a quarter of their fall again; where they do neither, the
    second factor of w is 1. Whether they fall by more than chance explains is tested
    with shuffled ranks: plain noise of any distribution passes in less than 2 % of
    cases. Where they do not, but explode, and their noise is more than a tenth of them,
    a rate is given too, and the reason says so. This wants raw batch losses: averaged
    ones wander, and wandering looks like falling.

    Of several sweeps the ranks are averaged, which makes the noise less. A sweep ends
    at its first non-finite loss; the curve ends where half of the sweeps have.

    Args:
        learning_rates: rates, shape (n,), positive and increasing.
        losses: raw batch losses, shape (n,) or (repeats, n), of any sign, NaN and
            infinities allowed: a sweep that stopped early is filled up with NaN. For
            an accuracy, as in Smith's paper, give its negative.
        rule: a key of `RULES`.
        name: what the reason calls them.
        higher_is_better: whether they are the negatives of what has that name.
        diverged: whether training fell apart where they end, if they do not show it: a
            metric of validation data that was not looked at any more.

    Returns:
        A `Suggestion`; its `learning_rate` is None for fewer than five finite losses,
        a flat curve, plain noise, and a loss that diverges at once, or that never
        descends although its noise is little.

    Raises:
        TypeError: if an argument is not numeric, `name` is no text, or one of the
            last two is neither True nor False.
        ValueError: if shapes differ, rates are not positive and increasing, or the
            rule is unknown.

    Example:
        >>> import numpy as np
        >>> import tfschedules as tfs
        >>> rates = np.geomspace(1e-5, 10, 100)
        >>> losses = 2 / (1 + (rates / 1e-2) ** 2) + rates**2
        >>> round(tfs.suggest(rates, losses).learning_rate, 3)
        0.059
        >>> tfs.suggest(rates, [losses, losses]) == tfs.suggest(rates, losses)
        True
        >>> tfs.suggest(rates, np.ones(100)).learning_rate is None
        True

    Reference: Smith 2015, section 3.3; issues 2 and 5 of this project.
    """
    checks.choice("rule", rule, sorted(RULES))
    checks.text("name", name, "what the losses are called")
    checks.flag("higher_is_better", higher_is_better)
    checks.flag("diverged", diverged)
    rates, values = curves.checked(learning_rates, losses)
    sweeps = curves.alive(np.atleast_2d(values))
    stop = sweeps.shape[1]
    words = Words(name, higher_is_better)
    refusal = refusals.too_short(rates, np.atleast_2d(values), stop, words)
    if refusal:
        return _refuse(refusal)
    if refusals.is_flat(sweeps):
        return _refuse(refusals.no_descent(rates, sweeps, words))
    curve = curves.read(rates, sweeps)
    seen = descents.stands_out(curve)
    if not seen and not descents.may_hide(curve):
        return _refuse(refusals.no_descent(rates, sweeps, words))
    found, _ = descents.weigh(curve)
    suggestions = {name: read(curve, found) for name, read in RULES.items()}
    rate = suggestions[rule]
    if rate is None:
        return _refuse(
            f'Rule "{rule}" finds no stretch in which the {name} gets better. Start '
            "the sweep at a lower rate."
        )
    if seen:
        reason = _reason(rule, rate, curve, found, rates, stop, words, diverged)
    else:
        reason = _faint(rule, rate, curve, words)
    return Suggestion(rate, reason, suggestions, bounds(curve, found))


def _reason(
    rule: str,
    rate: float,
    curve: Curve,
    found: Descent,
    rates: np.ndarray,
    stop: int,
    words: Words,
    diverged: bool,
) -> str:
    """What was seen."""
    best = float(curve.smoothed[: found.end].min())
    reason = (
        f'Rule "{rule}" suggests {rate:.2g}: the {words.name} {words.improved} from '
        f"{words.value(curve.plateau)} to {words.value(best)}, and is {words.good} "
        f"from rate {rates[found.begin]:.2g} to {rates[found.end - 1]:.2g}."
    )
    if found.end == len(rates) and not diverged:
        reason += (
            f" It was still {words.good} at the end of the sweep: higher rates may "
            "train faster; raise `max_lr` to see."
        )
    elif stop < len(rates):
        reason += f" It was not finite at rate {rates[stop]:.2g}."
    return reason


def _faint(rule: str, rate: float, curve: Curve, words: Words) -> str:
    """What was not seen, and would be with less noise."""
    last = curve.learning_rates[len(curve.ranks) - 1]
    return (
        f'Rule "{rule}" suggests {rate:.2g}, mostly from where the {words.name} '
        f"{words.worsens} for good, above rate {last:.2g}: its {words.improvement} "
        "below is not beyond chance in this noise. More `repeats`, more `steps` or "
        "larger batches would tell more."
    )


def _refuse(reason: str) -> Suggestion:
    """No rate, and why."""
    return Suggestion(None, reason, dict.fromkeys(RULES), None)
