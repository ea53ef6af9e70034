"""Training on several processes: the steps of one, whatever the method, and nothing that hangs."""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ohmloop.crossbar import ADC, DAC, Array, Hardware
from ohmloop.device import DeviceModel, Estimate, Physics, ReadNoise, WriteNoise
from ohmloop.errors import ExecutorError, TrainError
from ohmloop.nn import analogize
from ohmloop.progress import ProgressEvent, silent
from ohmloop.tasks import Accuracy, Metric, Perplexity, RSquared, Split, task
from ohmloop.train import Chips, Lesson, Noise, Recipe, fit, parse_method, train_once
from ohmloop.train._peers import Peers, whole_batch_norm
from ohmloop.train._sharded import check_shardable, shares
from ohmloop.train._team import Team, check_processes

pytest.importorskip("accelerate")

TOLERANCE = 1e-12
"""Of weights and statistics after 14 steps in float64, relative to the largest number of their tensor; rounding
comes to 2e-14. Another draw, or statistics of half a batch, would show at 1e-3."""
RECIPE = Recipe(
    epochs=2, batch_size=9, lr=1e-2, seed=3
)  # seven steps; the last one has a single input

ACCURACY = Accuracy()


class Halves(Accuracy):
    """A loss that is no mean over inputs: its terms are divided by the number of positives."""

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out, y, reduction="sum") / (1 + (y > 0).sum())


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation that looks at the whole batch."""
    return x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype) * x.std()


def lesson(metric: Metric = ACCURACY, *, augment: bool = False) -> Lesson:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(55, 1, 8, 8, generator=generator, dtype=torch.float64)
    y = (x.mean((1, 2, 3)) > 0).long() + (x[:, 0, 0, 0] > 0).long()
    return Lesson(Split(x, y), Split(x[:20], y[:20]), metric, None, shifted if augment else None)


def network(*, norm: bool = True) -> nn.Module:
    torch.manual_seed(1)
    layers = [
        nn.Conv2d(1, 4, 3, padding=1, bias=not norm),
        *([nn.BatchNorm2d(4)] if norm else []),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 8, bias=not norm),
        *([nn.BatchNorm1d(8)] if norm else []),
        nn.ReLU(),
        nn.Linear(8, 3),
    ]
    return nn.Sequential(*layers).double()


def chips_of(**converters: object) -> Hardware:
    physics = Physics(
        g_min=1e-6, g_max=1e-4, write=WriteNoise(sigma=0.1), read=ReadNoise(relative=0.05)
    )
    device = DeviceModel(
        name="simulated", sigma=Estimate(value=0.1), physics=physics, description="simulated"
    )
    return Hardware(device=device, array=Array(rows=32, columns=32, **converters))


@pytest.fixture(scope="module")
def pair() -> Iterator[Team]:
    with Team(2, "cpu") as team:
        yield team


def furthest(a: nn.Module, b: nn.Module) -> float:
    """Return the largest difference between two networks, relative to the largest number of each tensor."""
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    return max(
        float((x - theirs[key]).abs().max() / x.abs().max().clamp_min(1e-3))
        for key, x in ours.items()
        if x.is_floating_point()
    )


def compared(
    team: Team,
    make: Callable[[], nn.Module],
    given: Lesson,
    noise: Noise,
    chips: Chips | None = None,
    recipe: Recipe = RECIPE,
) -> float:
    """Train in this process and in the team; check the histories, return the difference of the networks."""
    alone, together = make(), make()
    ours = train_once(alone, given, noise, recipe, chips=chips)
    events: list[ProgressEvent] = []
    theirs = team.train(
        together,
        given,
        noise,
        recipe,
        chips=chips,
        until=None,
        folder=None,
        label="train",
        progress=events.append,
    )
    assert [e.done for e in events] == list(range(1, recipe.epochs + 1))
    assert [e["loss"] for e in theirs] == pytest.approx([e["loss"] for e in ours], rel=1e-6)
    assert [e["validation_score"] for e in theirs] == [e["validation_score"] for e in ours]
    return furthest(alone, together)


def law() -> nn.Module:
    return analogize(network(), Hardware.model_validate({"device": "lognormal:0.5"}))


METHODS = (
    "erm",
    "dropout",
    "multinomial:p0=0.2",
    "weight-noise:level=0.4,ramp=0.5,clip=2",
    "variance-aware:level=0.3",
    "hardware-aware:level=0.2",
    "sam:radius=0.05",
    "asam:radius=0.5,level=0.1",
    "awp",
    "negative-feedback:level=0.2",
    "tile-dropout:tile=4",
)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_take_the_steps_of_one(method: str, pair: Team) -> None:
    noise = parse_method(method).noise(2)
    assert noise is not None
    assert compared(pair, law, lesson(augment=True), noise) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("metric", [ACCURACY, Halves()])
def test_distillation_is_shared_whatever_the_metric(metric: Metric, pair: Team) -> None:
    given = lesson(metric)._replace(teacher=network().eval())
    assert compared(pair, law, given, Noise(level=0.3, distill=0.7)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    "hardware",
    [
        chips_of(),
        chips_of(dac=DAC(bits=6, range="calibrated"), adc=ADC(bits=6)),
        chips_of(dac=DAC(bits=6), adc=ADC(bits=6, noise=0.01)),
    ],
    ids=["reads", "calibrated", "converter-noise"],
)
def test_training_through_arrays_reads_the_same_noise(hardware: Hardware, pair: Team) -> None:
    given = lesson()
    chips = Chips((hardware, hardware), given.train.x[:16])

    def make() -> nn.Module:
        return analogize(network(), hardware)

    assert compared(pair, make, given, Noise(clip=2.5, on_chips=True), chips) < TOLERANCE


@pytest.mark.slow
def test_a_batch_of_fewer_inputs_than_processes_is_everybodys(pair: Team) -> None:
    given = lesson()
    small = given._replace(train=Split(given.train.x[:1], given.train.y[:1]))

    def bare() -> nn.Module:
        plain = Hardware.model_validate({"device": "lognormal:0.5"})
        return analogize(network(norm=False), plain)

    assert compared(pair, bare, small, Noise(level=0.3)) < TOLERANCE


def losses(
    team: Team | None, given: Lesson, make: Callable[[], nn.Module], lr: float
) -> list[float]:
    recipe = RECIPE._replace(lr=lr)
    if team is None:
        history = train_once(make(), given, Noise(level=0.3), recipe)
    else:
        history = team.train(
            make(),
            given,
            Noise(level=0.3),
            recipe,
            chips=None,
            until=None,
            folder=None,
            label="train",
            progress=silent,
        )
    return [entry["loss"] for entry in history]


@pytest.mark.slow
def test_autocast_reaches_the_processes(pair: Team) -> None:
    given = lesson()
    x = given.train.x.float()
    single = given._replace(train=Split(x, given.train.y), validation=Split(x, given.train.y))

    def make() -> nn.Module:
        return law().float()

    exact = losses(None, single, make, 1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        alone, together = (losses(t, single, make, 1e-2) for t in (None, pair))
    assert together != pytest.approx(exact, rel=1e-5)
    assert together == pytest.approx(alone, rel=2e-2)  # bfloat16 has eight bits


@pytest.mark.slow
def test_a_training_that_diverges_leaves_the_processes_to_the_next(pair: Team) -> None:
    with pytest.raises(TrainError, match="the loss is"):
        losses(pair, lesson(), law, 1e200)
    assert losses(pair, lesson(), law, 1e-2) == pytest.approx(losses(None, lesson(), law, 1e-2))


MARK = "OHMLOOP_TEST_MARK"


def killed_once(x: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation that ends the second process after an epoch, once."""
    mark = Path(os.environ[MARK])
    if os.environ.get("RANK") == "1" and (mark / "checkpoint.pt").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def fails_in_one(x: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation with a fault that one process alone meets."""
    if os.environ.get("RANK") == "1":
        raise ValueError("no such file in this process")
    return x


SMALL = {"epochs": 3, "limit": 150, "model": "mlp"}


def digits(augment: Callable[[Tensor, torch.Generator], Tensor]) -> object:
    found = task("digits")
    return dataclasses.replace(found, entry=dataclasses.replace(found.entry, augment=augment))


@pytest.mark.slow
def test_a_lost_process_is_an_error_and_the_run_goes_on_in_another_number_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setenv(MARK, str(folder))
    started = set(multiprocessing.active_children())
    setting = {"run_dir": folder, **SMALL}
    with pytest.raises(ExecutorError, match=r"process 2: ended by SIGKILL.*goes on from its last"):
        fit(digits(killed_once), "weight-noise:level=0.3", processes=2, **setting)
    assert set(multiprocessing.active_children()) == started
    resumed = fit(digits(killed_once), "weight-noise:level=0.3", **setting)
    whole = fit(task("digits"), "weight-noise:level=0.3", **SMALL)
    assert [e["loss"] for e in resumed.history] == pytest.approx(
        [e["loss"] for e in whole.history], rel=1e-4
    )
    assert {p.name for p in folder.iterdir()} == {
        *("config.json", "environment.json", "history.jsonl", "result.json"),
        *("weights.pt", "checkpoint.pt"),
    }


@pytest.mark.slow
def test_an_exception_in_one_process_ends_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file in this process"):
        fit(digits(fails_in_one), "erm", processes=2, **SMALL)


@pytest.mark.slow
def test_trials_of_a_worker_have_processes_of_their_own() -> None:
    search = {"method": "bayesft:n_initial=2,n_iterations=0,n_draws=2", "processes": 2, **SMALL}
    runs = [fit(task("digits"), executor=e, **search) for e in ("in-process", "local:1")]
    ours, theirs = ([t.objective for t in run.trials] for run in runs)
    assert ours == theirs
    assert furthest(runs[0].model, runs[1].model) == 0


@pytest.mark.slow
def test_the_command_trains_on_several_processes(tmp_path: Path) -> None:
    command = "from ohmloop.cli import main; main()"
    line = [sys.executable, "-c", command, "train", "--task", "iris", "--epochs", "2"]
    line += ["--method", "erm", "--processes", "2", "-o", str(tmp_path / "run"), "--json"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    done = subprocess.run(
        line, capture_output=True, text=True, check=True, timeout=240, env=environment
    )
    assert json.loads(done.stdout)["method"] == "erm"
    assert len((tmp_path / "run" / "history.jsonl").read_text().splitlines()) == 2
    assert not list(scratch.glob("ohmloop-*"))


def test_what_cannot_be_divided_is_refused_by_name() -> None:
    given = lesson()
    matched = Noise(level=0.3, match=True)
    bare = analogize(network(norm=False), Hardware.model_validate({"device": "lognormal:0.5"}))
    with pytest.raises(TrainError, match="match=true"):
        check_shardable(bare, given, matched)
    check_shardable(law(), given, matched)  # Batch norm leaves nothing to match.
    came = law()
    norm = next(m for m in came.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d))
    norm.running_mean.fill_(0.5)  # type: ignore[union-attr]
    with pytest.raises(TrainError, match="match=false"):
        check_shardable(came, given, Noise(level=0.3, match=True, frozen_norm=True))
    dropping = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 3)).double()
    with pytest.raises(TrainError, match=r"1 drops out 0.2 .* method dropout:rate=0.2"):
        check_shardable(dropping, given, Noise())
    turned = nn.Sequential(nn.Flatten(), Turned(), nn.Linear(8, 3)).double()
    with pytest.raises(TrainError, match=r"outputs of 1\.inner have 8 rows for one input and 8"):
        check_shardable(turned, given, Noise(masks=((0.5, 0.0),)))
    check_shardable(turned, given, Noise(level=0.3))


class Turned(nn.Module):
    """A layer that runs over time first: its inputs lie along the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        steps: Tensor = self.inner(x.reshape(len(x), 8, 8).transpose(0, 1))
        return steps.sum(0)


@pytest.mark.parametrize("kind", [{}, {"affine": False}, {"momentum": None}], ids=str)
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5, 5)])
def test_batch_norm_over_processes_is_torchs_where_there_is_one(
    kind: dict[str, object], shape: tuple[int, ...]
) -> None:
    norm = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    torch.manual_seed(2)
    x, slope = (3 * torch.randn(shape, dtype=torch.float64) + 7 for _ in range(2))
    plain, shared = (norm(3, **kind).double() for _ in range(2))
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outs = [plain(inputs[0])]
    with whole_batch_norm(shared, Peers(0, 1, torch.device("cpu"))):
        outs.append(shared(inputs[1]))
    for out in outs:
        out.backward(slope)
    pairs = [outs, [i.grad for i in inputs]]
    pairs += [list(p) for p in zip(plain.buffers(), shared.buffers(), strict=True)]
    both = zip(plain.parameters(), shared.parameters(), strict=True)
    pairs += [[p.grad for p in two] for two in both]
    for ours, theirs in pairs:
        torch.testing.assert_close(theirs, ours, rtol=1e-9, atol=1e-11)


def test_accelerate_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    check_processes(1, "cpu")
    with pytest.raises(TrainError, match=r'pip install "ohmloop\[multi-gpu\]"'):
        fit(task("iris"), "erm", processes=2)


def test_wrong_numbers_and_places_are_refused() -> None:
    with pytest.raises(TrainError, match="at least 1; received 0"):
        fit(task("iris"), "erm", processes=0)
    with pytest.raises(TrainError, match="'cuda:1'"):
        check_processes(2, "cuda:1")
    if torch.cuda.device_count() < 64:
        with pytest.raises(TrainError, match=r"64 processes need a GPU each.*gpus=64"):
            Team(64, "cuda").train(
                law(),
                lesson(),
                Noise(),
                RECIPE,
                chips=None,
                until=None,
                folder=None,
                label="train",
                progress=silent,
            )


def test_parts_of_a_batch_are_even_and_their_shares_add_up() -> None:
    pieces = [Peers(k, 3, torch.device("cpu")).piece(8) for k in range(3)]
    assert [p.rows for p in pieces] == [slice(0, 2), slice(2, 5), slice(5, 8)]
    assert all(p.sizes == (2, 3, 3) and not p.is_whole for p in pieces)
    y = torch.tensor([[1, -100], [2, 3], [-100, -100], [4, -100]])
    assert shares(Perplexity(), y, slice(0, 2)) == (0.75, 0.5)
    assert shares(Perplexity(), y, slice(2, 3)) == (0.0, 0.25)
    assert shares(RSquared(), y.float(), slice(0, 1)) == (0.25, 0.25)
    assert shares(Halves(), y[:, 0], slice(0, 2)) is None
