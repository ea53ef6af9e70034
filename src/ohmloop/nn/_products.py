"""Linear layers, Hugging Face's Conv1D, and modules that multiply with parameters in code of their own.

The last kind (experts of a mixture with three-dimensional parameters, routers, a user's module) keeps its own
forward: while it runs, each of its analog parameters is a stand-in that computes products on the chip.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.errors import ConversionError
from ohmloop.nn._held import Matrix
from ohmloop.nn._layer import AnalogLayer, LayerState


def _bias_of(module: nn.Module) -> Tensor | None:
    bias = cast(Any, module).bias
    return None if bias is None else bias.unsqueeze(0)


class LinearForm:
    """nn.Linear and classes that inherit its forward."""

    reason = "one matrix product"

    def matrices(self, module: nn.Module) -> tuple[Matrix, ...]:
        """Return the weight."""
        return (Matrix("weight", "weight", lambda m: cast(Any, m).weight.unsqueeze(0), _bias_of),)

    def forward(self, module: nn.Module, state: LayerState, x: Tensor) -> Tensor:
        """Return ``... x out`` of ``... x in``."""
        linear = cast(nn.Linear, module)
        return state.product(module, "weight", x, weight=lambda: linear.weight, bias=linear.bias)


class TransposedLinearForm:
    """Conv1D of Hugging Face transformers: a linear layer whose weight is kept ``in x out``."""

    reason = "one matrix product"

    def matrices(self, module: nn.Module) -> tuple[Matrix, ...]:
        """Return the weight, ``out x in``."""
        return (Matrix("weight", "weight", lambda m: cast(Any, m).weight.T.unsqueeze(0), _bias_of),)

    def forward(self, module: nn.Module, state: LayerState, x: Tensor) -> Tensor:
        """Return ``... x out`` of ``... x in``."""
        layer = cast(Any, module)
        return state.product(module, "weight", x, weight=lambda: layer.weight.T, bias=layer.bias)


_LOCK = threading.RLock()


class ProductsForm:
    """A module that multiplies with its own two- or three-dimensional parameters in its own forward."""

    reason = "products with its own parameters; all else in it stays digital"

    def matrices(self, module: nn.Module) -> tuple[Matrix, ...]:
        """Return each parameter of two or three dimensions, as ``G x out x in``."""
        return tuple(Matrix(name, name, _stack(name)) for name in _weights(module))

    def forward(self, module: nn.Module, state: LayerState, *args: Any, **kwargs: Any) -> Any:
        """Run the module's own forward with stand-ins for its parameters."""
        digital = cast(AnalogLayer, module)._digital
        # Fused kernels of a library take the bare parameters; its plain forward multiplies one by one.
        run: Callable[..., Any] = digital.forward
        if is_experts(module):
            run = getattr(run, "__wrapped__", run)
        if state.chip is not None and state.chip.n > 1:
            raise ConversionError(
                f"{state.name} sends its inputs where they belong: one chip at a time."
            )
        with _LOCK:  # stand-ins are the module's, not the pass's: one pass at a time
            for name in _weights(module):
                state.get(module, name)  # while parameters are still parameters
            with _stand_ins(module, state):
                return run(module, *args, **kwargs)


def _weights(module: nn.Module) -> list[str]:
    """Return the parameters that are matrices: those of three dimensions where there are any, else of two."""
    own = dict(module.named_parameters(recurse=False))
    deep = [name for name, p in own.items() if p.ndim == 3]
    return deep or [name for name, p in own.items() if p.ndim == 2]


def has_products(module: nn.Module) -> bool:
    """Whether a module has parameters that could be matrices."""
    return bool(_weights(module))


def is_experts(module: nn.Module) -> bool:
    """Whether a module is the experts of a mixture, with their weights in three-dimensional parameters."""
    own = list(module.parameters(recurse=False))
    return type(module).__name__.endswith("Experts") and any(p.ndim == 3 for p in own)


def _is_transposed(module: nn.Module) -> bool:
    return bool(getattr(module, "is_transposed", False))


def _stack(name: str) -> Callable[[nn.Module], Tensor]:
    def stack(module: nn.Module) -> Tensor:
        weight = cast(Tensor, getattr(module, name))
        deep = weight if weight.ndim == 3 else weight.unsqueeze(0)
        return deep.transpose(1, 2) if _is_transposed(module) else deep

    return stack


@contextmanager
def _stand_ins(module: nn.Module, state: LayerState) -> Iterator[None]:
    names = _weights(module)
    try:
        for name in names:
            parameter = cast(Tensor, getattr(module, name))
            module.__dict__[name] = _StandIn(module, state, name, parameter, None)
        yield
    finally:
        for name in names:
            module.__dict__.pop(name, None)


class _StandIn:
    """A parameter that multiplies on the chip; anything else that is done with it is an error."""

    def __init__(
        self,
        module: nn.Module,
        state: LayerState,
        name: str,
        parameter: Tensor,
        group: int | None,
    ) -> None:
        self.module, self.state, self.name, self.group = module, state, name, group
        self.parameter = parameter
        self.shape, self.dtype, self.device = parameter.shape, parameter.dtype, parameter.device
        self.ndim = parameter.ndim

    def size(self, dim: int | None = None) -> Any:
        """Return the shape, or one size."""
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: Any) -> _StandIn:
        chosen = (
            int(index)
            if isinstance(index, int) or (torch.is_tensor(index) and index.numel() == 1)
            else None
        )
        if chosen is None or self.ndim != 3:
            raise self.refused(f"indexing by {type(index).__name__}")
        return _StandIn(self.module, self.state, self.name, self.parameter[chosen], chosen)

    def product(self, x: Tensor, *, transposed: bool) -> Tensor:
        """Return ``x`` times the matrix (``transposed``: ``x @ parameter``, else ``x @ parameter.T``)."""
        if self.ndim != 2:
            if x.ndim != 3 or len(x) != len(self):
                raise self.refused(f"a product with inputs of shape {tuple(x.shape)}")
            return torch.stack(
                [self[k].product(one, transposed=transposed) for k, one in enumerate(x)]
            )
        if transposed != _is_transposed(self.module):
            raise self.refused("a product in the other direction than its arrays were laid out for")
        weight = self.parameter
        return self.state.product(
            self.module,
            self.name,
            x,
            weight=lambda: weight.T if transposed else weight,
            group=self.group or 0,
        )

    def __rmatmul__(self, x: Tensor) -> Tensor:
        return self.product(x, transposed=True)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        own = next(a for a in (*args, *kwargs.values()) if isinstance(a, cls))
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        x, bias = given.get("input"), given.get("bias")
        if func is F.linear and isinstance(x, Tensor) and given.get("weight") is own:
            out = own.product(x, transposed=False)
            return out if bias is None else out + bias
        second = args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("mat2"))
        if func in _MATMULS and isinstance(x, Tensor) and second is own:
            return own.product(x, transposed=True)
        raise own.refused(f"{getattr(func, '__name__', func)}()")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self.refused(name)

    def refused(self, what: str) -> ConversionError:
        """Return the error of a use that has no analog form."""
        return ConversionError(
            f"{self.state.name}.{self.name} is on an array, which only multiplies; the module's forward "
            f"({type(self.module).__name__}) asks for {what}. Leave the layer digital: where=..."
        )


_MATMULS = (
    torch.matmul,
    torch.bmm,
    torch.mm,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.bmm,
    Tensor.mm,
)
