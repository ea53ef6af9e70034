"""What the processes of one training say to each other, through Hugging Face Accelerate.

Everything is explicit: gradients are summed after the backward pass, not by hooks of a wrapped model, for the
forward pass goes through drawn weights (`torch.func.functional_call`) and would pass any wrapper by.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ohmloop.errors import TrainError

if TYPE_CHECKING:
    from ohmloop.run._group import Seat

PATIENCE = timedelta(minutes=30)
"""How long a process waits for another one before it gives up: longer than the first one takes to score and to
write a checkpoint. A process that dies is noticed at once, without it."""
BUCKET = 2**24
"""Numbers that are summed over the processes at once: 64 MiB in float32, large enough for the bandwidth between
GPUs and small beside the activations."""


class Piece(NamedTuple):
    """The inputs of a step that a process computes on.

    Attributes:
        rows: Of the batch.
        n_inputs: Of the whole batch.
        sizes: Inputs of each process.
        is_whole: Whether every process computes on all, there being fewer inputs than processes.
    """

    rows: slice
    n_inputs: int
    sizes: tuple[int, ...]
    is_whole: bool


class Peers:
    """This process among those of one training.

    Attributes:
        index: Its number, from 0.
        n: Processes in all.
        place: Where it computes.
    """

    def __init__(self, index: int, n: int, place: torch.device) -> None:
        self.index, self.n, self.place = index, n, place

    def piece(self, n_inputs: int) -> Piece:
        """Return this process's part of a batch."""
        if n_inputs < self.n:
            return Piece(slice(0, n_inputs), n_inputs, (n_inputs,) * self.n, True)
        bounds = [k * n_inputs // self.n for k in range(self.n + 1)]
        sizes = tuple(b - a for a, b in pairwise(bounds))
        return Piece(slice(bounds[self.index], bounds[self.index + 1]), n_inputs, sizes, False)

    def total(self, x: Tensor) -> Tensor:
        """Return the sum over the processes, without gradients."""
        from accelerate.utils import reduce

        return cast(Tensor, reduce(x, "sum"))

    def largest(self, x: Tensor) -> Tensor:
        """Return the largest number that any process holds."""
        return self.gathered(x.amax().reshape(1)).amax()

    def gathered(self, x: Tensor) -> Tensor:
        """Return the rows of all processes, one after the other; each gives the same number."""
        from accelerate.utils import gather

        return cast(Tensor, gather(x.contiguous()))

    def joined(self, x: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return the rows of all processes, ``sizes`` of each; gradients flow to this one's own."""
        widest = max(sizes)
        padded = x.new_zeros(widest, *x.shape[1:])
        padded[: len(x)] = x.detach()
        parts = torch.split(self.gathered(padded), widest)
        return torch.cat(
            [x if k == self.index else parts[k][:n] for k, n in enumerate(sizes)],
        )

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients over the processes, in place.

        Half-precision ones are summed in float32. A parameter that this process did not use gets the others'
        gradient, or none if nobody used it.
        """
        for bucket in _buckets(parameters):
            kind = torch.float64 if bucket[0].dtype == torch.float64 else torch.float32
            here = torch.ones(len(bucket), dtype=kind, device=bucket[0].device)
            parts = []
            for k, p in enumerate(bucket):
                if p.grad is None:
                    here[k] = 0
                grad = torch.zeros_like(p) if p.grad is None else p.grad
                parts.append(grad.reshape(-1).to(kind))
            flat = self.total(torch.cat([*parts, here]))
            *summed, users = torch.split(flat, [*(p.numel() for p in bucket), len(bucket)])
            for k, (p, grad) in enumerate(zip(bucket, summed, strict=True)):
                if p.grad is not None:
                    p.grad.copy_(grad.view_as(p))
                elif users[k] > 0:
                    p.grad = grad.view_as(p).to(p.dtype, copy=True)

    def check_same(self, parameters: Sequence[nn.Parameter], random: torch.Generator) -> None:
        """Raise TrainError unless all processes hold the same weights and draw the same numbers next."""
        sums = torch.stack([p.detach().double().sum() for p in parameters]).sum().nan_to_num(0)
        state = zlib.crc32(random.get_state().cpu().numpy().tobytes())
        own = torch.cat([sums.reshape(1).view(torch.int64), sums.new_tensor([state]).long()])
        if (self.gathered(own.unsqueeze(0)) != own).any():
            raise TrainError(
                f"the {self.n} processes of this training no longer hold the same network: something draws "
                "other random numbers in each of them, as a layer does that sees a number of rows that depends "
                "on its inputs. Train in one process: leave out --processes (processes=1)."
            )


_met: list[Peers] = []


def meet(seat: Seat, device: str) -> Peers:
    """Join the other processes; the first call waits for all of them, later ones return the same."""
    if _met:
        return _met[0]
    from accelerate import PartialState

    os.environ |= {
        "RANK": str(seat.number),
        "LOCAL_RANK": str(seat.number),
        "WORLD_SIZE": str(seat.n),
        "LOCAL_WORLD_SIZE": str(seat.n),
    }
    # All are on this machine, whose name need not be known to any server.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    is_cpu = device == "cpu"
    state = PartialState(
        cpu=is_cpu,
        backend="gloo" if is_cpu else "nccl",
        init_method=f"file://{seat.scratch / 'meeting'}",
        rank=seat.number,
        world_size=seat.n,
        timeout=PATIENCE,
    )
    place = torch.device("cpu") if is_cpu else state.device  # "cpu:0" is none for torch.load
    _met.append(Peers(state.process_index, state.num_processes, place))
    return _met[0]


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Yield parameters of one type that are summed together, in order."""
    for kind in dict.fromkeys(p.dtype for p in parameters):
        bucket: list[nn.Parameter] = []
        for p in parameters:
            if p.dtype != kind:
                continue
            if bucket and sum(q.numel() for q in bucket) + p.numel() > BUCKET:
                yield bucket
                bucket = []
            bucket.append(p)
        if bucket:
            yield bucket


class _Normalised(torch.autograd.Function):
    """Batch norm of a part of a batch by the mean and variance of all parts.

    Backward as in Ioffe and Szegedy, arXiv 1502.03167, section 3, sums running over all parts.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        moments: tuple[Tensor, Tensor, Tensor],
        eps: float,
        peers: Peers,
    ) -> Tensor:
        n, mean, variance = moments
        ctx.save_for_backward(x, weight, n, mean, variance)
        ctx.eps, ctx.peers = eps, peers
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, n, mean, variance = ctx.saved_tensors
        slope = grads[0].contiguous()
        scale = (variance + ctx.eps).rsqrt()
        mask = [False, True, True]
        _, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            slope, x, weight, mean, variance, mean, scale, False, ctx.eps, mask
        )
        over = ctx.peers.total(torch.stack([by_weight, by_bias])) / n
        # scale weight (slope - mean slope - normalised x times mean of slope times normalised x)
        shape = [1, -1, *[1] * (x.ndim - 2)]
        first = scale if weight is None else scale * weight
        second = -first * scale * over[0]
        third = -first * over[1] - second * mean
        by_x = torch.addcmul(third.view(shape), slope, first.view(shape))
        by_x.addcmul_(x, second.view(shape))
        own = (None, None) if weight is None else (by_weight, by_bias)
        return by_x, *own, None, None, None


@contextmanager
def whole_batch_norm(model: nn.Module, peers: Peers) -> Iterator[None]:
    """While active, batch norm in training takes its statistics over the inputs of all processes."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        vars(norm)["forward"] = partial(_normalised, norm, peers)
    try:
        yield
    finally:
        for norm in norms:
            del vars(norm)["forward"]


def _normalised(norm: _BatchNorm, peers: Peers, x: Tensor) -> Tensor:
    if not norm.training:
        return type(norm).forward(norm, x)
    wide = x.float() if x.dtype.itemsize < 4 else x
    n, mean, variance = moments = _moments(wide.detach(), peers)
    if norm.running_mean is not None and norm.running_var is not None:
        _remember(norm, mean, variance * (n / (n - 1)))
    out = _Normalised.apply(wide, norm.weight, norm.bias, moments, norm.eps, peers)  # type: ignore[no-untyped-call]  # torch's
    return cast(Tensor, out).to(x.dtype)


def _moments(x: Tensor, peers: Peers) -> tuple[Tensor, Tensor, Tensor]:
    """Return how many numbers of a channel all processes hold, and their mean and variance by channel."""
    variance, mean = torch.var_mean(x, [k for k in range(x.ndim) if k != 1], correction=0)
    own = torch.stack([torch.full_like(mean, x.numel() // x.shape[1]), mean, variance])
    each, means, variances = peers.gathered(own.nan_to_num(0).unsqueeze(0)).unbind(1)
    n = each.sum(0)
    mean = (each * means).sum(0) / n
    return n, mean, (each * (variances + (means - mean).square())).sum(0) / n


def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Take the statistics of a batch into the running ones, as `torch.nn.BatchNorm2d` does."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if factor is None:
            factor = 1.0 / float(norm.num_batches_tracked)
    factor = 0.0 if factor is None else factor
    with torch.no_grad():
        norm.running_mean.mul_(1 - factor).add_(mean.to(norm.running_mean.dtype), alpha=factor)
        norm.running_var.mul_(1 - factor).add_(variance.to(norm.running_var.dtype), alpha=factor)
