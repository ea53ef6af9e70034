"""The training methods, each a small frozen value; their names as users type them.

Sources: `bayesmulti` and `multinomial`: arXiv 2412.02779; `bayesft`: arXiv 2210.01795; `dropout`: Srivastava et
al., JMLR 15, 1929 (2014); `weight-noise`: e.g. Joshi et al., Nat. Commun. 11, 2473 (2020).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ohmloop.errors import TrainError

Rate = Annotated[float, Field(ge=0, lt=1)]


class Method(BaseModel):
    """Base of all methods: a name, and settings that are checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def name(self) -> str:
        """The name that users type."""
        return _NAMES[type(self)]

    def __str__(self) -> str:
        values = self.model_dump(exclude_defaults=True)
        text = ",".join(f"{k}={_text(v)}" for k, v in values.items())
        return f"{self.name}:{text}" if text else self.name


class Erm(Method):
    """Plain training (empirical risk minimisation): nothing is added."""


class Dropout(Method):
    """Dropout after every layer but the last, off at inference.

    Attributes:
        rate: Probability that an activation is zeroed, [0, 1).
    """

    rate: Rate = 0.5


class Multinomial(Method):
    """A mask in {0, 1/2, 1} on the activations after every layer but the last, off at inference.

    Attributes:
        p0: Probability of 0, the same for all layers.
        p1: Probability of 1; None for p_half = p1 = (1 - p0) / 2.
    """

    p0: Rate = 0.3
    p1: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _sum(self) -> Multinomial:
        if self.p1 is not None and self.p0 + self.p1 > 1 + 1e-12:
            raise ValueError(f"p0 + p1 must not exceed 1; received {self.p0:g} + {self.p1:g}")
        return self


class WeightNoise(Method):
    """Noise on the analog weights, drawn afresh at each step.

    Attributes:
        level: Standard deviation of the relative (gaussian) or logarithmic (lognormal) noise;
            None to tune it: one training a level of ``grid``, judged by drift on validation data.
        distribution: "gaussian": w (1 + N(0, level^2)); "lognormal": w exp(N(0, level^2)), median 1;
            "lognormal-mean-1": the same divided by its mean.
        grid: Levels to try when ``level`` is None.
    """

    level: Annotated[float, Field(ge=0, lt=20)] | None = None
    distribution: Literal["gaussian", "lognormal", "lognormal-mean-1"] = "gaussian"
    grid: tuple[Annotated[float, Field(gt=0, lt=20)], ...] = (0.25, 0.5, 0.8, 1.2)


class BayesFT(Method):
    """BayesFT: dropout with one rate a layer, found by Bayesian optimisation.

    The objective is the mean accuracy over drawn devices on validation data.

    Attributes:
        n_initial: Trials of the initial design.
        n_iterations: Trials after it; each is a full training.
        n_draws: Devices drawn for the objective.
        max_rate: Upper bound of the rates.
    """

    n_initial: Annotated[int, Field(ge=1)] = 3
    n_iterations: Annotated[int, Field(ge=0)] = 10
    n_draws: Annotated[int, Field(ge=1)] = 20
    max_rate: Rate = 0.9


class BayesMulti(Method):
    """BayesMulti: multinomial noise with settings for each layer, found by Bayesian optimisation.

    Attributes:
        objective: "clean-train" as in the released code (accuracy on the training data, no drift), or
            "drift-validation": mean accuracy over drawn devices on validation data.
        parametrisation: "one": p0 a layer, p_half = p1 = (1 - p0) / 2; "two": p0 and p1 a layer,
            p_half = max(0, 1 - p0 - p1).
        n_initial: Trials of the initial design.
        n_iterations: Trials after it; each is a full training.
        n_draws: Devices drawn for the objective "drift-validation".
        max_p0: Upper bound of p0.
    """

    objective: Literal["clean-train", "drift-validation"] = "clean-train"
    parametrisation: Literal["one", "two"] = "one"
    n_initial: Annotated[int, Field(ge=1)] = 3
    n_iterations: Annotated[int, Field(ge=0)] = 10
    n_draws: Annotated[int, Field(ge=1)] = 20
    max_p0: Rate = 0.9


_TYPES: dict[str, type[Method]] = {
    "bayesft": BayesFT,
    "bayesmulti": BayesMulti,
    "dropout": Dropout,
    "erm": Erm,
    "multinomial": Multinomial,
    "weight-noise": WeightNoise,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}


def list_methods() -> tuple[str, ...]:
    """Return the names of the methods."""
    return tuple(sorted(_TYPES))


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(f"{v:g}" for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def parse_method(text: str) -> Method:
    """Return the method that a text names: "erm", "weight-noise:level=0.5,distribution=lognormal".

    Raises:
        TrainError: If the name or a setting is wrong; the text says which there are.

    >>> parse_method("dropout:rate=0.3").rate
    0.3
    """
    name, _, rest = text.strip().partition(":")
    kind = _TYPES.get(name)
    if kind is None:
        close = difflib.get_close_matches(name, _TYPES, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise TrainError(f"no method {name!r}.{hint} One of {', '.join(list_methods())}.")
    values: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or key not in kind.model_fields:
            raise TrainError(
                f"{part!r} is no setting of {name}; write key=value with one of "
                f"{', '.join(kind.model_fields) or 'none: it has no settings'}."
            )
        values[key] = value.strip().split("/") if key == "grid" else value.strip()
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TrainError(f"{text!r}: {where}: {first['msg']}.".replace(": :", ":")) from error


class Noise(BaseModel):
    """What is added during one training: the settings that a method, or its search, arrived at.

    Attributes:
        masks: For each noisy layer (p0, p_half): probabilities of 0 and of 1/2; empty for no masks.
        level: Level of the weight noise, 0 for none.
        distribution: Of the weight noise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    masks: tuple[tuple[float, float], ...] = ()
    level: float = 0.0
    distribution: Literal["gaussian", "lognormal", "lognormal-mean-1"] = "gaussian"

    def __str__(self) -> str:
        if self.masks and any(half for _, half in self.masks):
            return "p0 = " + ", ".join(f"{p0:.2f}" for p0, _ in self.masks)
        if self.masks:
            return "rates " + ", ".join(f"{p0:.2f}" for p0, _ in self.masks)
        return f"level {self.level:g}" if self.level else "none"


def dropout_masks(rates: Sequence[float]) -> Noise:
    """Return dropout with one rate a layer."""
    return Noise(masks=tuple((float(rate), 0.0) for rate in rates))


def multinomial_masks(p0: Sequence[float], p1: Sequence[float] | None = None) -> Noise:
    """Return multinomial noise, one setting a layer, in either parametrisation."""
    if p1 is None:
        return Noise(masks=tuple((float(a), (1 - float(a)) / 2) for a in p0))
    return Noise(
        masks=tuple(
            (float(a), max(0.0, 1 - float(a) - float(b))) for a, b in zip(p0, p1, strict=True)
        )
    )
