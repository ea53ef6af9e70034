"""One training on several processes: each computes on its part of every batch, and all take the same step.

Each process holds the network and goes through the loop of `ohmloop.train._loop` with the same generators: the
same batches, drawn weights and chips. What is drawn for inputs (augmentation, masks, read noise) is drawn for
the whole batch, of which a process keeps its part; batch norm's statistics, converters' ranges and the loss are
those of the whole batch. So the steps are those of one process, up to the order in which numbers are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ohmloop.errors import TrainError
from ohmloop.nn import takes_batch_statistics
from ohmloop.tasks import Accuracy, Metric, Perplexity, RSquared
from ohmloop.tasks._metric import IGNORED
from ohmloop.train._loop import Chips, Lesson, Recipe, Training
from ohmloop.train._noise import Converters, Noise, frozen_norms, noisy_layers
from ohmloop.train._peers import Peers, Piece, whole_batch_norm


class Sharded(Training):
    """The state of one training in one of its processes."""

    def __init__(
        self,
        peers: Peers,
        model: nn.Module,
        lesson: Lesson,
        noise: Noise,
        recipe: Recipe,
        chips: Chips | None = None,
    ) -> None:
        super().__init__(model, lesson, noise, recipe, chips)
        self.peers = peers
        self.converters = Converters(noise.bits, peers.largest)
        self.learnable = [p for p in model.parameters() if p.requires_grad]
        self.piece = peers.piece(0)
        self.targets = torch.empty(0)
        self.shares: tuple[float, float] | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process scores, and writes."""
        return self.peers.index == 0

    def epoch(self, epoch: int) -> float:
        """Go once through the data; return the mean loss over the inputs of all processes."""
        loss = super().epoch(epoch)
        self.peers.check_same(self.learnable, self.random)
        return loss

    def validate(self) -> float:
        """Return the score that is watched; not a number but in the first process."""
        return super().validate() if self.is_first else float("nan")

    def save(self, checkpoint: Path) -> None:
        """Write the state, in the first process; all have the same."""
        if self.is_first:
            super().save(checkpoint)

    def _take(self, part: Tensor) -> tuple[Tensor, Tensor]:
        self.piece = self.peers.piece(len(part))
        rows, metric = self.piece.rows, self.lesson.metric
        y = self.lesson.train.y[part]
        self.shares = shares(metric, y, rows)
        if self.shares is None:
            self.targets = y.to(self.place)
        if self.lesson.augment is None:
            return super()._take(part[rows])
        inputs, targets = super()._take(part)
        return inputs[rows], targets[rows]

    def _total(self, losses: Tensor) -> Tensor:
        return self.peers.total(losses)

    def _backward(self, loss: Tensor) -> None:
        super()._backward(loss)
        self.peers.sum_gradients(self.learnable)

    def _out(self, x: Tensor, weights: dict[str, Tensor] | None) -> Tensor:
        if self.piece.is_whole:
            return super()._out(x, weights)
        drawing: AbstractContextManager[Any] = nullcontext()
        if self.noise.masks or self.noise.on_chips:
            axis = 1 if self.noise.on_chips else 0  # Chips draw for `chips x rows x ...`.
            drawing = _Whole(self.random, self.piece, axis)
        with drawing, whole_batch_norm(self.model, self.peers):
            return super()._out(x, weights)

    def _measure(self, out: Tensor, y: Tensor, taught: Tensor | None) -> Tensor:
        """Return this process's term of the loss; the terms add up to the loss of the batch."""
        n, sizes = self.peers.n, self.piece.sizes
        if self.piece.is_whole:
            return super()._measure(out, y, taught) / n
        if self.shares is None:
            outs = self.peers.joined(out, sizes)
            tops = None if taught is None else self.peers.joined(taught, sizes)
            loss = super()._measure(outs, self.targets, tops)
            # All of them have the whole value, each the gradient of its own outputs.
            return loss - loss.detach() * (1 - 1 / n)
        counted, inputs = self.shares
        metric, share = self.lesson.metric, self.noise.distill
        # Without a target that counts, the mean over them would be no number.
        loss = metric.loss(out, y) * counted if counted else out.sum() * 0
        if taught is None:
            return loss
        return (1 - share) * loss + share * inputs * metric.distance(out, taught)


_MEANS = (Accuracy.loss, Perplexity.loss, RSquared.loss)
_MEAN_DISTANCES = (Accuracy.distance, Perplexity.distance, RSquared.distance)


def shares(metric: Metric, y: Tensor, rows: slice) -> tuple[float, float] | None:
    """Return the shares of a part in the loss of a batch, and in the distance to a teacher.

    Losses here are means over targets that count, distances means over inputs. Of a metric that has its own,
    nothing is known: None.

    Args:
        metric: Of the task.
        y: Targets of the batch, on the CPU.
        rows: The part.
    """
    kind = type(metric)
    if kind.loss not in _MEANS or kind.distance not in _MEAN_DISTANCES:
        return None
    inputs = len(y[rows]) / max(1, len(y))
    if kind.loss is RSquared.loss:
        return inputs, inputs
    counts = y != IGNORED
    total = int(counts.sum())
    return (int(counts[rows].sum()) / total if total else 1.0), inputs


class _Whole(TorchFunctionMode):
    """While active, numbers from a generator are drawn for a whole batch; a process gets its own rows."""

    def __init__(self, generator: torch.Generator, piece: Piece, axis: int) -> None:
        super().__init__()
        self.generator, self.piece, self.axis = generator, piece, axis

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func not in (torch.rand, torch.randn) or given.get("generator") is not self.generator:
            return func(*args, **given)
        shape, rows, axis = list(args[0]), self.piece.rows, self.axis
        own = shape[axis]
        each, rest = divmod(own, rows.stop - rows.start)
        if rest:
            raise TrainError(
                f"random numbers of shape {tuple(shape)} are drawn for {rows.stop - rows.start} inputs: how "
                "many depends on the inputs, so that several processes would not draw the same. Train in one "
                "process: leave out --processes (processes=1)."
            )
        shape[axis] = each * self.piece.n_inputs
        return func(shape, **given).narrow(axis, each * rows.start, own)


def check_shardable(model: nn.Module, lesson: Lesson, noise: Noise) -> None:
    """Raise TrainError, by name, for what would not come to the same on several processes."""
    matched = bool(frozen_norms(model, noise)) or not takes_batch_statistics(model)
    if noise.match and noise.level and matched:
        raise TrainError(
            "match=true corrects outputs by statistics of the whole batch, of which each of several processes "
            "has a part. Give match=false, or leave out --processes (processes=1)."
        )
    for name, module in model.named_modules():
        rate = module.p if isinstance(module, nn.modules.dropout._DropoutNd) else 0.0
        if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            rate = module.dropout
        if rate:
            raise TrainError(
                f"{name or 'the network'} drops out {rate:g} of its activations by torch's global generator, "
                "which several processes do not share. Set its rate to 0 and use the method "
                f"dropout:rate={rate:g}, or leave out --processes (processes=1)."
            )
    if noise.masks:
        _check_layout(model, lesson.train.x)


def _check_layout(model: nn.Module, x: Tensor) -> None:
    """Raise TrainError where a layer that masks follow does not have the inputs along its first axis."""
    place = next(model.parameters()).device
    names = {id(module): name for name, module in model.named_modules()}
    seen: list[list[tuple[str, int]]] = []

    def note(module: nn.Module, inputs: Any, out: Tensor) -> None:
        seen[-1].append((names[id(module)], len(out)))

    modes = [(module, module.training) for module in model.modules()]
    handles = [layer.register_forward_hook(note) for layer in noisy_layers(model)]
    try:
        model.eval()
        with torch.no_grad():
            for n in (1, 2):
                seen.append([])
                model(x[:n].to(place))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
    for (name, one), (_, two) in zip(*seen, strict=False):
        if two != 2 * one:
            raise TrainError(
                f"the outputs of {name} have {one} rows for one input and {two} for two: masks on them cannot "
                "be divided among processes. Take another method than dropout, multinomial, bayesft and "
                "bayesmulti, or leave out --processes (processes=1)."
            )
