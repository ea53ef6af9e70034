"""S2: a device drawn from the law, or the next real chip. Counts and ranks, nothing else.

Statement D of the documentation: one input at a time, all inputs at once, and the accuracy of a fleet.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ohmloop.certify._bounds import check_alpha, clopper_pearson, reached_by, tail_mean
from ohmloop.certify._record import NO_MAJORITY, Certificate, percent, rounded
from ohmloop.certify._votes import CLASS_RULES, ClassRule, Votes
from ohmloop.errors import CertifyError

KEEPS = (0.5, 0.9, 0.95, 0.99)
"""Shares of devices that tables are made for."""


class YieldCertificate(Certificate):
    """How likely a device gives each input its class, all inputs simultaneously.

    Attributes:
        classes: The class that each input's statement is about.
        lower: Lower bound of the probability of that class, by input.
        keeps: Shares of devices.
        covered: How many inputs have a bound of at least each of them.
        joint: Lower bound of the probability that one device is right on all inputs.
    """

    kind: Literal["yield"] = "yield"
    classes: tuple[int, ...]
    lower: tuple[float, ...]
    keeps: tuple[float, ...] = KEEPS
    covered: tuple[int, ...]
    joint: float


class QuantileCertificate(Certificate):
    """A score that a share of all devices reaches.

    Attributes:
        share: Of the devices.
        bound: The score; accuracies lie in [0, 1].
        score: What it is.
        sample_median: Median of the sample, for comparison; no bound.
    """

    kind: Literal["quantile"] = "quantile"
    share: float
    bound: float
    score: str
    sample_median: float


class TailCertificate(Certificate):
    """Mean score of the worst devices (conditional value at risk).

    Attributes:
        tail: Share of the worst devices.
        bound: Lower bound of their mean score.
        score: What it is.
        sample_value: The same mean in the sample, for comparison; no bound.
    """

    kind: Literal["tail"] = "tail"
    tail: float
    bound: float
    score: str
    sample_value: float


def yield_certificate(
    votes: Votes, *, alpha: float = 0.05, rule: ClassRule = "digital"
) -> YieldCertificate:
    """Return for each input how likely a device gives it the class of the rule.

    The draws are shared by all inputs. So each of n inputs, and all of them at once, take alpha / (n + 1)
    (Bonferroni): the whole claim holds with confidence 1 - alpha, and no independence between inputs is used.

    Args:
        votes: From `poll` or `read_votes`.
        alpha: Chance that any of the statements is false, at most.
        rule: What counts as right.
    """
    check_alpha(alpha)
    right = votes.right(rule)
    n, inputs = right.shape
    # For a single input "all at once" is the same statement.
    each = alpha / (inputs + (inputs > 1))
    lower = clopper_pearson(right.sum(0), n, each)
    joint = float(clopper_pearson(int(right.all(1).sum()), n, each))
    covered = tuple(int((lower > k if k == 0.5 else lower >= k).sum()) for k in KEEPS)
    return YieldCertificate(
        **origin(votes, rule),
        statement="S2",
        theorem="exact binomial bound (Clopper & Pearson 1934) for each input",
        alpha=alpha,
        multiplicity=(
            f"alpha / {inputs + 1} for each of {inputs} inputs and for all at once"
            if inputs > 1
            else "one statement"
        ),
        abstentions=inputs - covered[0],
        claim=_yield_words(votes, rule, alpha, covered, joint),
        limits=limits(votes),
        classes=tuple(int(c) for c in votes.target(rule)),
        lower=tuple(float(v) for v in lower),
        covered=covered,
        joint=joint,
    )


def _yield_words(
    votes: Votes, rule: ClassRule, alpha: float, covered: tuple[int, ...], joint: float
) -> str:
    if covered[0] == 0:
        return NO_MAJORITY
    n, what = votes.n_inputs, what_counts(rule)
    parts = [
        f"at least {percent(k)} for {c:,}"
        for k, c in zip(KEEPS[1:], covered[1:], strict=True)
        if c > 0
    ]
    text = (
        f"With {percent(1 - alpha)} confidence: for {covered[0]:,} of {n:,} inputs, more than half of all "
        f"{chips(votes)} give {what}"
    )
    text += f" ({', '.join(parts)}). " if parts else ". "
    if joint > 0.5:
        return text + f"At least {percent(joint)} of them do so on all {n:,} inputs at once."
    return text + "Nothing is claimed about all inputs at once."


def quantile_certificate(
    votes: Votes, *, share: float = 0.95, alpha: float = 0.05, rule: ClassRule = "label"
) -> QuantileCertificate:
    """Return an accuracy that at least ``share`` of all devices reach, by an order statistic.

    Raises:
        CertifyError: If there are too few devices; the text says how many it takes.
    """
    return score_certificate(
        votes.scores(rule),
        share=share,
        alpha=alpha,
        score=score_name(rule),
        noun=chips(votes),
        limits=limits(votes),
        **origin(votes, rule),
    )


def score_certificate(
    scores: ArrayLike,
    *,
    share: float = 0.95,
    alpha: float = 0.05,
    score: str = "score",
    is_higher_better: bool = True,
    noun: str = "devices",
    **header: Any,
) -> QuantileCertificate:
    """Return a score that at least ``share`` of all devices reach: any score, virtual devices or real chips.

    Args:
        scores: ``N``, one a device; the devices are an independent sample of those that the claim is about.
        share: Of all devices.
        alpha: Chance that the claim is false, at most.
        score: Name of the score.
        is_higher_better: False for an error: then the bound is one that the share stays at or below.
        noun: What one of them is called.
        header: Further fields of the record (``law_words``, ``weights``, ``seed``, ...).

    >>> score_certificate([0.9] * 59, score="accuracy").claim
    'With 95 % confidence: 95 of 100 devices classify at least 90 % of the inputs right.'
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise CertifyError(f"expected one finite score a device; received shape {values.shape}.")
    sign = 1.0 if is_higher_better else -1.0
    bound = sign * reached_by(sign * values, share, alpha)
    reach = reached(score, bound, is_higher_better)
    return QuantileCertificate(
        **{"limits": (_SAMPLE,), "n_draws": len(values), **header},
        statement="S2",
        theorem="order statistic (Wilks 1941)",
        alpha=alpha,
        claim=f"With {percent(1 - alpha)} confidence: {of_100(share)} of 100 {noun} {reach}.",
        share=share,
        bound=bound,
        score=score,
        sample_median=float(np.median(values)),
    )


def tail_certificate(
    votes: Votes, *, tail: float = 0.05, alpha: float = 0.05, rule: ClassRule = "label"
) -> TailCertificate:
    """Return a lower bound of the mean accuracy of the worst ``tail`` of all devices."""
    scores = np.sort(votes.scores(rule))
    bound = tail_mean(scores, tail, alpha)
    worst = max(1, round(tail * len(scores)))
    return TailCertificate(
        **origin(votes, rule),
        statement="S2",
        theorem="conditional value at risk below exact bounds on order statistics (Anderson 1969)",
        alpha=alpha,
        limits=limits(votes),
        claim=(
            f"With {percent(1 - alpha)} confidence: the worst {100 * tail:g} % of all {chips(votes)}, on "
            f"average, {reached(score_name(rule), bound)}."
            if bound > 0
            else f"No claim: {votes.n_devices:,} devices say nothing about the worst {100 * tail:g} %."
        ),
        tail=tail,
        bound=bound,
        score=score_name(rule),
        sample_value=float(scores[:worst].mean()),
    )


def origin(votes: Votes, rule: ClassRule) -> dict[str, Any]:
    """Return the fields of a record that say what was certified, and from which draws."""
    return {
        "law": votes.law,
        "law_words": votes.law_words,
        "weights": votes.weights,
        "data": votes.data,
        "n_inputs": votes.n_inputs,
        "n_draws": votes.n_devices,
        "seed": votes.seed,
        "class_rule": f"{rule}: {CLASS_RULES[rule]}",
        "deployment": votes.deployment,
        "layer_arrays": dict(votes.layer_arrays),
    }


def what_counts(rule: ClassRule) -> str:
    """Return the class of a rule in words."""
    return "the class of the digital network" if rule == "digital" else "the right class"


def score_name(rule: ClassRule) -> str:
    """Return what the share of right inputs is called under a rule."""
    return "accuracy" if rule == "label" else "agreement"


def reached(score: str, bound: float, is_higher_better: bool = True) -> str:
    """Return in words that devices reach a score."""
    if score == "accuracy":
        return f"classify at least {percent(bound)} of the inputs right"
    if score == "agreement":
        return f"agree with the digital network on at least {percent(bound)} of the inputs"
    article = "an" if score[:1] in "aeiou" else "a"
    shown = rounded(bound, up=not is_higher_better)
    return f"reach {article} {score} of at {'least' if is_higher_better else 'most'} {shown}"


def of_100(share: float) -> str:
    """Return how many of 100 devices a share is, rounded down."""
    return percent(share, 6).removesuffix(" %")


_SAMPLE = "The devices are an independent sample of those that the claim is about."


def chips(votes: Votes) -> str:
    """Return what the devices are called."""
    return "chips" if votes.is_measured else "devices drawn from the law"


def limits(votes: Votes) -> tuple[str, ...]:
    """Return what a statement about these devices assumes and leaves out."""
    if votes.is_measured:
        return (_SAMPLE, "It holds for these inputs, not for others of their kind.")
    return (
        "The devices are simulated: it holds for real chips as far as they follow the law.",
        _calibration(votes),
        "It holds for these inputs, not for others of their kind.",
    )


def _calibration(votes: Votes) -> str:
    law = votes.law
    if law is None:
        return (
            "The hardware's figures are taken as exact. Where reads are noisy, each device read each input "
            "once, and shares are over devices and reads."
        )
    if law.calibrated == "predictive":
        return (
            "Sigma is part of what is drawn: a device whose sigma follows the calibration's uncertainty. For a "
            "batch of chips with one unlucky sigma the share may be smaller."
        )
    if law.interval is not None:
        return (
            f"Sigma is taken as exactly {law.sigma:.4g}; its calibration's 95 % interval, "
            f"{law.interval[0]:.3g} to {law.interval[1]:.3g}, is not covered."
        )
    return f"Sigma is taken as exactly {law.sigma:.4g}."
