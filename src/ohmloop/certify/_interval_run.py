"""A network followed with bounds: its own forward runs, and every torch function in it is taken over.

No tracing and no copy of the network: whatever ``forward`` calls, in whatever order, reaches `Run` with its
arguments (a torch function mode). Functions that touch neither an interval nor an analog parameter
run as they are; one that does, and has no rule, is refused with the layer's name. So nothing is
bounded by guesswork, and no analog parameter is taken for a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode, get_default_nowrap_functions

from ohmloop.certify._interval import Factor, Interval, Owner, Rounding, lower_bound
from ohmloop.errors import CertifyError

Rule = Callable[..., Any]
REFINE = 2**23
"""Units of a layer times the largest activation before it, up to which forms for each unit pay."""
MEMORY = 192 * 2**20
"""Bytes that the forms of one refinement may take at once."""
_HARMLESS = get_default_nowrap_functions() | {
    torch.Tensor.size,
    torch.Tensor.dim,
    torch.Tensor.numel,
    torch.Tensor.is_floating_point,
    torch.Tensor.is_contiguous,
    *(
        getattr(torch.Tensor, name).__get__
        for name in ("shape", "dtype", "device", "ndim", "requires_grad")
    ),
}
"""Functions that tell a tensor's form, not its values."""


class Run(TorchFunctionMode, Owner):
    """One pass of a batch through a network, with bounds.

    Args:
        factors: For each analog tensor, by the identity of the tensor that the network will see.
        rounding: Of the network's dtype.
        refine: Whether bounds before curves are sharpened by linear forms.
        rules: Name of a torch function -> how bounds pass through it.
        analog: Names of functions whose rules know what to do with analog parameters.
    """

    def __init__(
        self,
        factors: Mapping[int, Factor],
        rounding: Rounding,
        *,
        refine: bool,
        rules: Mapping[str, Rule],
        analog: frozenset[str],
    ) -> None:
        super().__init__()
        self.factors = factors
        self.rounding = rounding
        self._refines = refine
        self._rules = rules
        self._analog = analog
        self._count = 0
        self.largest = 1
        self._layers: list[str] = []

    def next_number(self) -> int:
        """Return the number of the next node."""
        self._count += 1
        return self._count

    def own(self, x: Interval) -> Interval:
        """Take ``x`` over, so that its methods come here."""
        x.owner = self
        self.largest = max(self.largest, x.low[0].numel())
        return x

    def leaf(self, low: Tensor, high: Tensor, *, is_tight: bool) -> Interval:
        """Return a node without parents."""
        return self.own(Interval(low, high, self.next_number(), is_tight=is_tight))

    def factor(self, parameter: object) -> Factor | None:
        """Return what an analog tensor may be multiplied by; None for a digital one."""
        return self.factors.get(id(parameter))

    @property
    def where(self) -> str:
        """The layer that is being computed, for messages."""
        return self._layers[-1] if self._layers else "the network itself"

    def refuse(self, what: str) -> CertifyError:
        """Return the error that says what cannot be bounded, and where."""
        return CertifyError(
            f"no sound bound is known for {what} in {self.where}. The deterministic box covers linear "
            "and convolutional layers, batch, layer and group norm, pooling, the usual activations, "
            "residual sums and plain attention. For other networks use the yield of random devices."
        )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Compute one torch function: by its rule where bounds are involved, else as it is."""
        kwargs = kwargs or {}
        touched = self._touched(args) | self._touched(tuple(kwargs.values()))
        if not touched or (func in _HARMLESS and "interval" not in touched):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if "analog" in touched and ("interval" not in touched or name not in self._analog):
            raise self.refuse(f"{name}() of an analog parameter")
        return self.call(name, args, kwargs)

    def call(self, name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Compute the operation that torch calls ``name`` by its rule."""
        rule = self._rules.get(name.strip("_") if name.startswith("__") else name)
        if rule is None:
            raise self.refuse(f"{name}()")
        if "analog" in self._touched(args) and name not in self._analog:
            raise self.refuse(f"{name}() of an analog parameter")
        # Methods of an interval come here with the mode still on; rules work on plain tensors.
        with torch._C.DisableTorchFunction():
            return rule(self, *args, **kwargs)

    def _touched(self, values: tuple[Any, ...]) -> set[str]:
        found = set()
        for value in values:
            if isinstance(value, Interval):
                if value.is_overwritten:
                    raise self.refuse("a value that an in-place function has overwritten")
                found.add("interval")
            elif isinstance(value, Tensor) and id(value) in self.factors:
                found.add("analog")
            elif isinstance(value, list | tuple):
                found |= self._touched(tuple(value))
        return found

    def refine(self, x: Interval) -> Interval:
        """Sharpen the bounds of ``x`` by linear forms of all that came before, where that can help."""
        units = x.low[0].numel()
        if not self._refines or x.is_tight or x.pull is None or units * self.largest > REFINE:
            return x
        low, high = x.low.flatten(1), x.high.flatten(1)
        open_units = ((low < 0) & (high > 0)).any(0).nonzero().flatten()
        room = MEMORY // (8 * 6 * len(x) * max(self.largest, units))
        for some in torch.split(open_units, max(1, room)) if len(open_units) else ():
            form = torch.zeros(len(some), 1, units, dtype=x.dtype, device=x.device)
            form[torch.arange(len(some)), 0, some] = 1
            form = form.expand(-1, len(x), -1).reshape(len(some), *x.shape)
            low[:, some] = torch.maximum(low[:, some], lower_bound(x, form).T)
            high[:, some] = torch.minimum(high[:, some], -lower_bound(x, -form).T)
        x.low, x.high = low.reshape(x.shape), high.reshape(x.shape)
        return x

    def forward(self, model: nn.Module, weights: dict[str, Tensor], inputs: Tensor) -> Interval:
        """Return bounds of ``model`` with ``weights`` put in, for inputs ``B x ...``."""
        x = inputs.double()
        with self._following(model), torch.no_grad(), self:
            try:
                out = functional_call(model, weights, (self.leaf(x, x, is_tight=True),))
            except CertifyError:
                raise
            except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
                raise CertifyError(
                    f"the network cannot be followed with bounds beyond {self.where}: {error}"
                ) from error
        if not isinstance(out, Interval):
            raise CertifyError(
                f"the network must return one tensor of class scores; it returned {type(out).__name__}."
            )
        return out

    @contextmanager
    def _following(self, model: nn.Module) -> Iterator[None]:
        """Keep the name of the layer at work, for messages."""
        handles = []
        for name, module in model.named_modules():
            label = f"layer {name!r} ({type(module).__name__})" if name else type(module).__name__
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, args, label=label: self._layers.append(label)
                )
            )
            handles.append(module.register_forward_hook(lambda m, args, out: self._leave()))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _leave(self) -> None:
        self._layers.pop()
