"""What large work needs: from fitted costs on a CPU, and from counted work over stated rates on a GPU."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from _scaling_fit import predicted

HOUR = 3600.0
NORMAL_OPS = 50
"""Operations of one normal number: ten rounds of Philox 4x32 for four of them, and Box-Muller; about."""
DRAW_BYTES = {"bf16": 36, "float32": 36}
"""Memory traffic of one weight of one device in `ohmloop.nn.draw_fleet`'s arithmetic, counted in its source:
the number written (4), times sigma (8), exp (8), times the weight (10 or 12), and kept (4 + 2, or 4)."""
STEP_BYTES = 92
"""The same for one weight in a training step in float32: the draw (40), passes forward and backward (12),
the product's gradient (12), fused Adam (28)."""


FORMULAS = f"""\
Formulas for D devices of P weights on n inputs, F the FLOP/s of matrix units, V those without, B the bandwidth,
e the share that is reached:

* drawing: max({NORMAL_OPS + 3} D P / V, {DRAW_BYTES["bf16"]} D P / B) / e seconds. A normal number takes about
  {NORMAL_OPS} operations, the factor three more; passes over memory are counted in `draw_fleet`, in float32.
* running: max(2 D n P / F, 2 D P (n / b) / B) / e seconds in batches of b inputs, weights in bfloat16.
* memory: 12 P bytes with weights in bfloat16: the model, noise and factors in float32, the drawn weights.
* training: max((6 b + {NORMAL_OPS + 20}) P / V, {STEP_BYTES} P / B) / e seconds a step of b inputs, in float32.
"""


class Rates(NamedTuple):
    """What a chip does at most, and what share of it is assumed to be reached.

    The defaults are those of one NVIDIA H200 SXM, from its data sheet ("NVIDIA H200 Tensor Core GPU", 2024):
    989 TFLOP/s dense bfloat16 (the sheet's 1,979 count sparsity), 67 TFLOP/s float32, 4.8 TB/s, 141 GB.

    Attributes:
        name: Of the chip.
        flops: bfloat16 matrix FLOP/s, dense.
        vector_flops: float32 FLOP/s without matrix units.
        bandwidth: Bytes/s of its memory.
        memory: Bytes.
        efficiency: Share of each that is reached. Assumed, not measured.
    """

    name: str = "NVIDIA H200 SXM"
    flops: float = 989e12
    vector_flops: float = 67e12
    bandwidth: float = 4.8e12
    memory: float = 141e9
    efficiency: float = 0.4


class Work(NamedTuple):
    """Counted work of one phase.

    Attributes:
        name: Of the phase.
        matrix: FLOPs on matrix units.
        vector: Other operations, random numbers included.
        bytes: Of memory traffic.
    """

    name: str
    matrix: float
    vector: float
    bytes: float

    def seconds(self, rates: Rates) -> tuple[float, str]:
        """Return the seconds, and what bounds them."""
        each = {
            "matrix FLOP/s": self.matrix / rates.flops,
            "float32 FLOP/s": self.vector / rates.vector_flops,
            "memory bandwidth": self.bytes / rates.bandwidth,
        }
        bound = max(each, key=lambda key: each[key])
        return each[bound] / rates.efficiency, bound


class Fleet(NamedTuple):
    """A fleet of a language model: weights in bfloat16, each device scored on a text."""

    weights: float = 7e9
    devices: float = 1e4
    tokens: float = 2.0**18
    batch: float = 2.0**14

    def work(self) -> list[Work]:
        """Return what is drawn and what is computed."""
        drawn = self.devices * self.weights
        return [
            Work("drawing devices", 0.0, drawn * (NORMAL_OPS + 3), drawn * DRAW_BYTES["bf16"]),
            Work(
                "running them",
                2 * drawn * self.tokens,
                0.0,
                2 * drawn * max(1.0, self.tokens / self.batch),
            ),
        ]

    def memory(self) -> float:
        """Return bytes of the model and of one device: float32 noise and factors, bfloat16 weights."""
        return self.weights * (2 + 4 + 4 + 2)


class Search(NamedTuple):
    """A search over trainings of a dense network in float32, each scored on a fleet."""

    trials: int = 1000
    weights: float = 1e7
    inputs: float = 50_000
    epochs: float = 20
    batch: float = 64
    devices: float = 100
    test: float = 2000
    variables: int = 8

    @property
    def steps(self) -> float:
        """Steps of one training."""
        return self.epochs * self.inputs / self.batch

    def work(self) -> list[Work]:
        """Return what trainings and fleets compute; products in float32 use no matrix units by default."""
        trained = self.trials * self.steps * self.weights
        drawn = self.trials * self.devices * self.weights
        return [
            Work(
                "training", 0.0, trained * (6 * self.batch + NORMAL_OPS + 20), trained * STEP_BYTES
            ),
            Work(
                "fleets",
                0.0,
                drawn * (2 * self.test + NORMAL_OPS + 3),
                drawn * (DRAW_BYTES["float32"] + 4),
            ),
        ]

    def memory(self) -> float:
        """Return bytes of weights, gradients, moments, drawn weights, and one device of a fleet."""
        return self.weights * (4 * 4 + 3 * 4 + 12)


class Campaign(NamedTuple):
    """A campaign that chooses each of its trials from a list of recipes."""

    recipes: int = 100_000
    trials: int = 200
    variables: int = 10


Fits = Mapping[str, Mapping[str, Any]]
"""Case -> its record: "seconds" and "bytes" hold "coefficients" by term."""


def _seconds(fits: Fits, case: str, **point: float) -> float:
    return predicted(fits[case]["seconds"]["coefficients"], point)


def _bytes(fits: Fits, case: str, **point: float) -> float:
    return predicted(fits[case]["bytes"]["coefficients"], point)


def campaign_here(fits: Fits, campaign: Campaign) -> dict[str, float]:
    """Return core-hours of all suggestions, and the memory of the last."""
    at = [{"n": float(n), "M": float(campaign.recipes)} for n in range(campaign.trials)]
    total = sum(_seconds(fits, "suggest-list", **point) for point in at)
    total += sum(_seconds(fits, "append", E=2.0 * k) for k in range(campaign.trials))
    return {
        "core_hours": total / HOUR,
        "last_seconds": _seconds(fits, "suggest-list", **at[-1]),
        "bytes": _bytes(fits, "suggest-list", **at[-1]),
    }


def fleet_here(fits: Fits, fleet: Fleet) -> dict[str, float]:
    """Return core-hours of the fleet in float32 on this machine, and the memory of one device."""
    one = _seconds(fits, "fleet", D=1.0, P=fleet.weights, n=fleet.tokens, A=0.0)
    return {
        "core_hours": fleet.devices * one / HOUR,
        "bytes": 4 * fleet.weights + _bytes(fits, "device", P=fleet.weights),
        "beyond": fleet.weights / fits["fleet"]["largest"]["P"],
    }


def search_here(fits: Fits, search: Search) -> dict[str, float]:
    """Return core-hours of trainings, fleets, suggestions and the executor."""
    # A network of two hidden layers with that many weights has about twice its root in activations.
    fleet = {"D": search.devices, "P": search.weights, "n": search.test}
    parts = {
        "trainings": search.trials
        * search.steps
        * _seconds(fits, "step-noise", P=search.weights)
        * search.batch
        / 64,
        "fleets": search.trials * _seconds(fits, "fleet", **fleet, A=2 * search.weights**0.5),
        "suggestions": sum(
            _seconds(fits, "suggest", n=float(n), v=float(search.variables))
            for n in range(search.trials)
        ),
        "executor": _seconds(fits, "run-local", k=float(search.trials)),
    }
    out = {name: seconds / HOUR for name, seconds in parts.items()}
    return {
        **out,
        "core_hours": sum(out.values()),
        "bytes": search.memory(),
        "beyond": search.weights / fits["step-noise"]["largest"]["P"],
    }


def on_gpu(work: list[Work], rates: Rates) -> dict[str, Any]:
    """Return GPU-hours by phase, what bounds each, and their sum."""
    phases = {}
    for phase in work:
        seconds, bound = phase.seconds(rates)
        phases[phase.name] = {
            "gpu_hours": seconds / HOUR,
            "bound": bound,
            "matrix_flop": phase.matrix,
            "vector_flop": phase.vector,
            "bytes": phase.bytes,
        }
    return {"phases": phases, "gpu_hours": sum(p["gpu_hours"] for p in phases.values())}


def plan(fits: Fits, rates: Rates) -> dict[str, Any]:
    """Return what the three large pieces of work need."""
    campaign, fleet, search = Campaign(), Fleet(), Search()
    return {
        "rates": rates._asdict(),
        "campaign": {"of": campaign._asdict(), "here": campaign_here(fits, campaign)},
        "fleet": {
            "of": fleet._asdict(),
            "here": fleet_here(fits, fleet),
            "gpu": on_gpu(fleet.work(), rates),
            "gpu_bytes": fleet.memory(),
        },
        "search": {
            "of": search._asdict(),
            "here": search_here(fits, search),
            "gpu": on_gpu(search.work(), rates),
            "gpu_bytes": search.memory(),
        },
    }
