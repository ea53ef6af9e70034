"""Faults: some groups of cells may do anything. Statement E, and the published theorem beside it."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ohmloop.certify._bounds import check_alpha, clopper_pearson
from ohmloop.certify._record import NO_MAJORITY, Certificate, percent
from ohmloop.certify._votes import ClassRule, Votes
from ohmloop.certify._yield import limits, origin, what_counts
from ohmloop.errors import CertifyError


class FaultCertificate(Certificate):
    """How many groups of cells may change in any way.

    Attributes:
        group: "tile", "column", "layer".
        probability: That a group is left out on purpose, independently.
        classes: The class that each input's statement is about.
        lower: Lower bound of its probability without faults, by input, at alpha / n_inputs each.
        faults: By input, the number of groups that may change while more than half of the draws give the class;
            None where nothing is claimed even without faults.
        covered: Inputs that survive 0, 1, 2, ... faulty groups.
    """

    kind: Literal["faults"] = "faults"
    group: str
    probability: float
    classes: tuple[int, ...]
    lower: tuple[float, ...]
    faults: tuple[int | None, ...]
    covered: tuple[int, ...]

    def kept(self, n_faults: int) -> NDArray[np.float64]:
        """Return for each input the least probability of its class after any change of so many groups."""
        gone = 1 - self.probability**n_faults
        return np.maximum(np.asarray(self.lower) - gone, 0.0)


def fault_certificate(
    votes: Votes, *, alpha: float = 0.05, rule: ClassRule = "digital"
) -> FaultCertificate:
    """Return how many groups may change in any way, for devices that leave groups out at random.

    With probability q^r all r changed groups are left out, and the change is not seen: the class keeps at least
    ``p - (1 - q^r)``, whatever the change (as in randomised ablation: Levine & Feizi, AAAI 2020).

    Args:
        votes: From `poll` under a law with an `Ablation`.
        alpha: Chance that any of the statements is false, at most.
        rule: What counts as right.

    Raises:
        CertifyError: If the law leaves nothing out.
    """
    check_alpha(alpha)
    law = votes.law
    if law is None or law.ablation is None:
        raise CertifyError(
            "a statement about faults needs a law that leaves groups out at random, which hides them. Give "
            'one: Law.of(hardware, ablation=Ablation(group="tile", probability=0.6)), and train with tile '
            "dropout of that rate."
        )
    right, q = votes.right(rule), law.ablation.probability
    lower = clopper_pearson(right.sum(0), votes.n_devices, alpha / votes.n_inputs)
    faults = tuple(_most(float(v), q) for v in lower)
    known = [f for f in faults if f is not None]
    top = max(known, default=-1)
    covered = tuple(sum(f >= r for f in known) for r in range(top + 1))
    # Groups are left out array by array: one that fails on all arrays of a layer is as many faults.
    several = votes.cells is not None and bool((votes.cells.copies > 1).any())
    group = f"{law.ablation.group} of one array" if several else law.ablation.group
    return FaultCertificate(
        **origin(votes, rule),
        statement="S3",
        theorem="statement E: random ablation of groups (as in Levine & Feizi 2020)",
        alpha=alpha,
        multiplicity=f"alpha / {votes.n_inputs} for each of {votes.n_inputs} inputs",
        abstentions=len(faults) - len(known),
        claim=_fault_words(votes, rule, alpha, group, q, covered),
        limits=(
            f"It is about hardware that leaves each {group} out on purpose with probability {q:g}, anew in "
            "each draw.",
            *(
                (f"A {law.ablation.group} that fails on m arrays at once counts m times.",)
                if several
                else ()
            ),
            *limits(votes),
        ),
        group=law.ablation.group,
        probability=q,
        classes=tuple(int(c) for c in votes.target(rule)),
        lower=tuple(float(v) for v in lower),
        faults=faults,
        covered=covered,
    )


def _most(p: float, q: float) -> int | None:
    """Return the largest r with ``p - (1 - q^r) > 1/2``."""
    if p <= 0.5:
        return None
    r = 0
    while p - (1 - q ** (r + 1)) > 0.5:
        r += 1
    return r


def _fault_words(
    votes: Votes, rule: ClassRule, alpha: float, group: str, q: float, covered: tuple[int, ...]
) -> str:
    if not covered:
        return NO_MAJORITY
    if len(covered) == 1:
        return (
            f"No claim: no {group} may fail for any input. Where each is left out with probability {q:g}, a "
            f"class needs more than {percent(1.5 - q)} of the draws to survive one fault."
        )
    r = len(covered) - 1
    return (
        f"With {percent(1 - alpha)} confidence: for {covered[1]:,} of {votes.n_inputs:,} inputs more than half "
        f"of the draws give {what_counts(rule)} whatever any one {group} does"
        + (f"; for {covered[r]:,}, whatever any {r} of them do." if r > 1 else ".")
    )


class PublishedCertificate(Certificate):
    """The theorem of the BayesMulti paper, with its numbers.

    Attributes:
        f: Probability of the class under the noise, taken as known.
        p1: Probability with which the noise hides a changed parameter.
        p2: Probability of the noise's value that the theorem excludes for all other parameters.
        n_parameters: Parameters of the network, the theorem's Theta.
        bound: Right side of the theorem's inequality.
        changes: Parameters that may change arbitrarily; 0 where the theorem is empty.
    """

    kind: Literal["published"] = "published"
    f: float
    p1: float
    p2: float
    n_parameters: int
    bound: float
    changes: int


def published_theorem(f: float, p1: float, p2: float, n_parameters: int) -> PublishedCertificate:
    """Return what the theorem of arXiv 2412.02779 claims, with its numbers.

    ``r <= [ln(1.5 - f) - Theta ln(1 - p2)] / [ln p1 - ln(1 - p2)]``: r parameters may change arbitrarily while
    all others are multiplied by exactly 1 or 1/2.

    Args:
        f: Probability of the class under the multinomial noise, in (1/2, 1].
        p1: In (0, 1); with p2, ``p1 < 1 - p2``.
        p2: In [0, 1).
        n_parameters: Theta.

    >>> published_theorem(0.99, 0.5, 0.01, 17610).changes
    0
    >>> published_theorem(1.0, 0.9, 0.0, 17610).changes
    6
    """
    if not (0.5 < f <= 1 and 0 < p1 < 1 - p2 <= 1 and n_parameters >= 1):
        raise CertifyError(
            f"the theorem needs 1/2 < f <= 1, 0 < p1 < 1 - p2 <= 1 and a network; received f={f:g}, p1={p1:g}, "
            f"p2={p2:g}, {n_parameters} parameters."
        )
    rest = math.log1p(-p2)
    bound = (math.log(1.5 - f) - n_parameters * rest) / (math.log(p1) - rest)
    changes = min(max(0, math.floor(bound)), n_parameters)
    numbers = (
        f"f = {f:.3g}, p1 = {p1:.3g}, p2 = {p2:.3g}, {n_parameters:,} parameters: r <= {bound:.4g}"
    )
    claim = (
        f"No claim: with {numbers}, no parameter may change."
        if changes == 0
        else f"With {numbers}: {changes:,} of {n_parameters:,} parameters may change arbitrarily while all "
        "others are multiplied by exactly 1 or 1/2."
    )
    return PublishedCertificate(
        statement="S3",
        theorem="theorem of arXiv 2412.02779, as published",
        claim=claim,
        limits=(
            "It does not cover log-normal drift, nor any noise that moves every weight: all other parameters "
            "must be multiplied by exactly 1 or 1/2.",
            "It is about the network averaged over multinomial noise on its parameters, not about one chip.",
            "f is taken as known; no sampling error is counted.",
        ),
        class_rule="the class whose probability f is",
        f=f,
        p1=p1,
        p2=p2,
        n_parameters=n_parameters,
        bound=bound,
        changes=changes,
    )
