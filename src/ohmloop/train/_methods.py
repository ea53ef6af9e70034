"""The training methods, each a small frozen value; their names as users type them.

Sources: `bayesmulti`, `multinomial`: arXiv 2412.02779. `bayesft`: arXiv 2210.01795. `dropout`: Srivastava et
al., JMLR 15, 1929 (2014). `weight-noise`: Joshi et al., Nat. Commun. 11, 2473 (2020). `right-censored`: Yan et
al., ICCAD 2023. `variance-aware`: Wang et al., arXiv 2503.16183. `hardware-aware`: Rasch et al., Nat. Commun.
14, 5282 (2023). `distillation`: Hinton et al., arXiv 1503.02531; on analog hardware Zhou et al., arXiv
2001.04974. `sam`: Foret et al., ICLR 2021. `asam`: Kwon et al., ICML 2021. `awp`: Wu et al., NeurIPS 2020.
`negative-feedback`: Qin et al., IEEE TCAD 2025, arXiv 2305.14561. `tile-dropout`: dropout of what one array
holds. `steady`: this project, docs/steady.md.
"""

from __future__ import annotations

import difflib
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ohmloop.errors import TrainError
from ohmloop.train._noise import Level, Noise, dropout_masks, multinomial_masks

Rate = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Method(BaseModel):
    """Base of all methods: a name, and settings that are checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deployment: ClassVar[str] = "none"
    """What its search assumes each device gets beside its weights."""
    has_teacher: ClassVar[bool] = False
    """Whether it starts from, and may imitate, a plainly trained network."""

    @property
    def name(self) -> str:
        """The name that users type."""
        return _NAMES[type(self)]

    def noise(self, depth: int) -> Noise | None:
        """Return what is added in training a network of ``depth`` noisy layers; None if a search decides."""
        return None

    def noise_on_arrays(self, depth: int) -> Noise | None:
        """Return what is added where the hardware has an array: the same, for a method of noise on weights.

        Its trainings do not see the array; searches judge them on chips of it. A method that trains through
        arrays says otherwise.
        """
        return self.noise(depth)

    def __str__(self) -> str:
        values = self.model_dump(exclude_defaults=True)
        text = ",".join(f"{k}={_text(v)}" for k, v in values.items())
        return f"{self.name}:{text}" if text else self.name


class AsItComes(Method):
    """No training at all: the network as the task gives it, pretrained or fresh."""


class Erm(Method):
    """Plain training (empirical risk minimisation): nothing is added."""

    def noise(self, depth: int) -> Noise:
        """Return no noise."""
        return Noise()


class Dropout(Method):
    """Dropout after every layer but the last, off at inference.

    Attributes:
        rate: Probability that an activation is zeroed, [0, 1).
    """

    rate: Rate = 0.5

    def noise(self, depth: int) -> Noise:
        """Return the same rate for every layer."""
        return dropout_masks([self.rate] * depth)


class Multinomial(Method):
    """A mask in {0, 1/2, 1} on the activations after every layer but the last, off at inference.

    Attributes:
        p0: Probability of 0, the same for all layers.
        p1: Probability of 1; None for p_half = p1 = (1 - p0) / 2.
    """

    p0: Rate = 0.3
    p1: Share | None = None

    @model_validator(mode="after")
    def _sum(self) -> Multinomial:
        if self.p1 is not None and self.p0 + self.p1 > 1 + 1e-12:
            raise ValueError(f"p0 + p1 must not exceed 1; received {self.p0:g} + {self.p1:g}")
        return self

    def noise(self, depth: int) -> Noise:
        """Return the same probabilities for every layer."""
        p1 = None if self.p1 is None else [self.p1] * depth
        return multinomial_masks([self.p0] * depth, p1)


class WeightNoise(Method):
    """Noise on the analog weights, drawn afresh at each step.

    Attributes:
        level: Standard deviation of the relative (gaussian) or logarithmic (lognormal) noise;
            None to tune it: one training a level of ``grid``, judged by drift on validation data.
        distribution: "gaussian": w (1 + N(0, level^2)); "lognormal": w exp(N(0, level^2)), median 1;
            "lognormal-mean-1": the same divided by its mean.
        grid: Levels to try when ``level`` is None.
        ramp: Share of the epochs over which the level grows from 0: levels above that of deployment
            need it.
        clip: Weights are cut to so many deviations of their tensor after each step; 0 for not.
    """

    level: Level | None = None
    distribution: Literal["gaussian", "lognormal", "lognormal-mean-1"] = "gaussian"
    grid: tuple[Annotated[float, Field(gt=0, lt=20)], ...] = (0.25, 0.5, 0.8, 1.2)
    ramp: Share = 0.0
    clip: Annotated[float, Field(ge=0)] = 0.0

    def at(self, level: float) -> Noise:
        """Return the noise at one level."""
        return Noise(level=level, distribution=self.distribution, ramp=self.ramp, clip=self.clip)

    def noise(self, depth: int) -> Noise | None:
        """Return the noise at ``level``, None if that is to be tuned."""
        return None if self.level is None else self.at(self.level)


class RightCensored(Method):
    """Gaussian weight noise whose upper tail is cut off at a quantile.

    Attributes:
        level: Standard deviation before censoring, relative.
        censored: Share of the distribution that is set to its lower end's value.
    """

    level: Level = 0.8
    censored: Annotated[float, Field(gt=0, lt=1)] = 0.3

    def noise(self, depth: int) -> Noise:
        """Return the censored noise."""
        return Noise(level=self.level, distribution="right-censored", censored=self.censored)


class VarianceAware(Method):
    """Gaussian weight noise whose level varies from step to step, as the noise of hardware does.

    Attributes:
        level: Mean level, relative.
        spread: Standard deviation of the level over its mean.
    """

    level: Level = 0.8
    spread: Annotated[float, Field(ge=0)] = 0.5

    def noise(self, depth: int) -> Noise:
        """Return noise of varying level."""
        return Noise(level=self.level, spread=self.spread)


class HardwareAware(Method):
    """Training with what the hardware does, and weight clipping.

    For the law on weights: gaussian weight noise, and quantisers with static ranges at inputs and outputs. They
    act in training; the law that networks are scored under has none.

    For hardware with an array: through the array itself. Each step programs a fresh chip (levels, write noise,
    faults, drift up to the hardware's time) and reads it (read noise, wires, the array's own converters), with
    gradients through all of it and straight through rounding. Ranges that the array leaves to calibration
    are set from training inputs at the start of each epoch and every `ohmloop.train._loop.REFRESH` steps.

    Attributes:
        level: Of the gaussian noise, relative. None: 0.8; on an array nothing on top of the chips' own errors.
        clip: Deviations that weights are cut to.
        bits: Of the quantisers. None: 8; not for an array, which has converters of its own.
    """

    level: Level | None = None
    clip: Annotated[float, Field(gt=0)] = 2.5
    bits: Annotated[int, Field(ge=2, le=16)] | None = None

    def noise(self, depth: int) -> Noise:
        """Return noise, clipping and quantisers."""
        level = 0.8 if self.level is None else self.level
        return Noise(level=level, clip=self.clip, bits=8 if self.bits is None else self.bits)

    def noise_on_arrays(self, depth: int) -> Noise:
        """Return chips and clipping.

        Raises:
            TrainError: If ``bits`` is set.
        """
        if self.bits is not None:
            raise TrainError(
                f"hardware-aware: bits={self.bits} are those of quantisers under the law on weights; an array "
                f"trains with its own converters. Leave bits out, and write --array dac={self.bits},"
                f"adc={self.bits} (Array(dac=DAC(bits={self.bits}), adc=ADC(bits={self.bits})))."
            )
        return Noise(level=self.level or 0.0, clip=self.clip, on_chips=True)


class Distillation(Method):
    """Weight noise, and the outputs of a plainly trained network of the same kind as a second target.

    Attributes:
        level: Of the gaussian noise, relative.
        weight: Share of the teacher's term in the loss.
    """

    has_teacher: ClassVar[bool] = True

    level: Level = 0.8
    weight: Share = 0.7

    def noise(self, depth: int) -> Noise:
        """Return noise and the teacher's weight."""
        return Noise(level=self.level, distill=self.weight)


class Sam(Method):
    """Sharpness-aware minimisation over the analog weights.

    Attributes:
        radius: Length of the move uphill.
        level: Of gaussian weight noise on top, relative.
    """

    radius: Annotated[float, Field(gt=0)] = 0.1
    level: Level = 0.0

    def noise(self, depth: int) -> Noise:
        """Return the second pass."""
        return Noise(level=self.level, sharpness="sam", radius=self.radius)


class Asam(Sam):
    """Adaptive sharpness-aware minimisation: the move is scaled by the weights.

    Attributes:
        radius: Length of the scaled move.
        level: Of gaussian weight noise on top, relative.
    """

    radius: Annotated[float, Field(gt=0)] = 1.0

    def noise(self, depth: int) -> Noise:
        """Return the second pass."""
        return Noise(level=self.level, sharpness="asam", radius=self.radius)


class Awp(Sam):
    """Adversarial weight perturbation: each tensor moves uphill by a share of its own norm.

    Attributes:
        radius: That share.
        level: Of gaussian weight noise on top, relative.
    """

    radius: Annotated[float, Field(gt=0)] = 0.02

    def noise(self, depth: int) -> Noise:
        """Return the second pass."""
        return Noise(level=self.level, sharpness="awp", radius=self.radius)


class NegativeFeedback(Method):
    """Oriented variational forward: further passes at higher noise join the loss with falling weights.

    Pass k has (1 + k / 2) times the level and weight 1 / 2^k; weights are divided by their sum. The other
    form of the source, snapshots of intermediate layers, needs exits that the networks here do not have.

    Attributes:
        level: Of the first pass's gaussian noise, relative.
        passes: Further passes.
    """

    level: Level = 0.5
    passes: Annotated[int, Field(ge=1, le=8)] = 2

    def noise(self, depth: int) -> Noise:
        """Return noise and the further passes."""
        return Noise(level=self.level, feedback=self.passes)


class TileDropout(Method):
    """Whole tiles of weights are left out at random in each step, as if their array had failed.

    Attributes:
        rate: Probability that a tile is left out.
        tile: Rows and columns of a tile.
        level: Of gaussian weight noise on top, relative.
    """

    rate: Rate = 0.1
    tile: Annotated[int, Field(ge=1)] = 16
    level: Level = 0.0

    def noise(self, depth: int) -> Noise:
        """Return the tiles' rate."""
        return Noise(level=self.level, tile_drop=self.rate, tile=self.tile)


class BayesFT(Method):
    """BayesFT: dropout with one rate a layer, found by Bayesian optimisation.

    The objective is the mean accuracy over drawn devices on validation data.

    Attributes:
        n_initial: Trials of the initial design.
        n_iterations: Trials after it; each is a full training.
        n_draws: Devices drawn for the objective.
        max_rate: Upper bound of the rates.
        in_flight: Trials after the design that run side by side: each is proposed without the results of
            so many less one before it. The result depends on it, not on who runs them.
    """

    n_initial: Annotated[int, Field(ge=1)] = 3
    n_iterations: Annotated[int, Field(ge=0)] = 10
    n_draws: Annotated[int, Field(ge=1)] = 20
    max_rate: Rate = 0.9
    in_flight: Annotated[int, Field(ge=1)] = 1


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
        in_flight: As for BayesFT.
    """

    objective: Literal["clean-train", "drift-validation"] = "clean-train"
    parametrisation: Literal["one", "two"] = "one"
    n_initial: Annotated[int, Field(ge=1)] = 3
    n_iterations: Annotated[int, Field(ge=0)] = 10
    n_draws: Annotated[int, Field(ge=1)] = 20
    max_p0: Rate = 0.9
    in_flight: Annotated[int, Field(ge=1)] = 1


class Steady(Method):
    """Ours: noise that grows while the network is trained long, and a readout set on each device.

    docs/steady.md explains it and takes it apart. The whole costs four plain trainings. With ``search`` the
    noise is looked for within the same budget: trials are forks of one start, and the winner is never started
    again.

    Attributes:
        search: Whether strength and the next six settings, those that are None, are searched for, plain
            training among the candidates.
        strength: Level of the noise over the device's own (the root mean square of all its sigmas if it is
            trained for several), 0 for plain training. None: 0.8.
        slope: Logarithm of the ratio of the last layer's level to the first's.
        first: Further factor of the first layer's level.
        last: Further factor of the last layer's level.
        mixture: Probability that a step's noise is log-normal, else gaussian.
        clip: Deviations that weights are cut to; 0 for not.
        distill: Share of a teacher's term in the loss.
        teacher: Whether forks start from a plainly trained network and imitate it; None for that only where the
            task's network comes pretrained, so that the teacher costs nothing.
        match: Whether training corrects analog outputs by channel, as calibration does on a device: two
            passes a step. Batch norm that comes with statistics is frozen meanwhile; a fresh one does by itself
            what is to be done. None: where batch norm comes with statistics.
        length: Epochs of the network that is kept, over those of one plain training. None: what a budget of
            four plain trainings leaves after a teacher, passes of ``match`` and the other trials of a search
            (2.5 of them, where nothing is taught and a tenth of a training is at least one epoch).
        ramp: Share of the epochs over which the level grows from 0: the task is learned first, the noise later.
            None: 0.5, in a search 0.
        clean_floor: Loss of digital validation score that a noise may have against the best one of its round.
        tie: Lead of plain training's objective over the best noise's up to which the noise is kept: devices
            that get no correction are better off with it, and it gains more from a longer training. At most a
            tenth of the objective, where that is a score and not an error.
        n_trials: Trials of the search's first round, as far as half of the budget pays for all but the
            winner. None: six, as far as three eighths of it do.
        n_draws: Devices drawn for the objective.
    """

    deployment: ClassVar[str] = "readout"

    search: bool = False
    strength: Annotated[float, Field(ge=0, lt=20)] | None = None
    slope: float | None = None
    first: Annotated[float, Field(ge=0)] | None = None
    last: Annotated[float, Field(ge=0)] | None = None
    mixture: Share | None = None
    clip: Annotated[float, Field(ge=0)] | None = None
    distill: Share | None = None
    teacher: bool | None = None
    match: bool | None = None
    length: Annotated[float, Field(gt=0)] | None = None
    ramp: Share | None = None
    clean_floor: Annotated[float, Field(ge=0)] = 0.03
    tie: Annotated[float, Field(ge=0)] = 0.03
    n_trials: Annotated[int, Field(ge=4)] | None = None
    n_draws: Annotated[int, Field(ge=1)] = 10

    @model_validator(mode="after")
    def _of_a_search(self) -> Steady:
        if self.search and self.strength is not None:
            raise ValueError("search=true looks for the strength; leave one of them out")
        extra = self.model_fields_set & {"clean_floor", "tie", "n_trials", "n_draws"}
        if extra and not self.search:
            raise ValueError(f"only a search has {', '.join(sorted(extra))}; add search=true")
        return self


_TYPES: dict[str, type[Method]] = {
    "as-it-comes": AsItComes,
    "asam": Asam,
    "awp": Awp,
    "bayesft": BayesFT,
    "bayesmulti": BayesMulti,
    "distillation": Distillation,
    "dropout": Dropout,
    "erm": Erm,
    "hardware-aware": HardwareAware,
    "multinomial": Multinomial,
    "negative-feedback": NegativeFeedback,
    "right-censored": RightCensored,
    "sam": Sam,
    "steady": Steady,
    "tile-dropout": TileDropout,
    "variance-aware": VarianceAware,
    "weight-noise": WeightNoise,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}


def list_methods() -> tuple[str, ...]:
    """Return the names of the methods."""
    return tuple(sorted(_TYPES))


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(f"{v:g}" for v in value)
    if isinstance(value, bool):
        return str(value).lower()
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
