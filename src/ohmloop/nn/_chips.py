"""Fleets of chips with arrays: many at once where the network allows it, in bounded memory.

The chips ride along in the batch dimension, one after the other; analog layers know their N matrices, digital
layers see a larger batch. It is checked once per model, on a few inputs and two chips, against one chip at
a time, which is the way where the network looks at its batch (experts, batch-wide statistics).

Chip i draws all its random numbers, of programming and of reading, from a generator of its own, seeded by
(seed, i): results do not depend on chunks. Noise that is fresh at each read follows the order of inputs, so the
number of inputs of one pass is fixed (`READ_BATCH`) and never follows from the memory budget.

Layers of the same model that follow the law on weights are drawn beside the arrays, as a fleet of the law draws
them: with the numbers that they would have alone, as programming has. Reads alone then have a stream of
their own, apart from that of the drawn weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ohmloop.crossbar import Hardware, Streams
from ohmloop.nn._adapt import adapted, train_adapters
from ohmloop.nn._batched import (
    Calibrated,
    corrected_rows,
    layers_of_law,
    pick,
    put_in,
)
from ohmloop.nn._convert import law_parameters, need
from ohmloop.nn._deploy import (
    Corrector,
    Recorder,
    Statistics,
    corrected,
    put_back,
    readout,
    sites,
)
from ohmloop.nn._deployment import Calibration, Deployment
from ohmloop.nn._draw import apply_noise, bytes_per_device, device_seed, fleet_noise, programmed
from ohmloop.nn._layer import Chip, analog_layers_of, observed, state_of
from ohmloop.nn._program import erase, install
from ohmloop.nn._rows import Rows, stacked_rows

READ_BATCH = 128
"""Inputs of one pass through chips, unless a batch size is given."""
_CHECK_INPUTS = 3
_CHECK_CHIPS = 2


@contextmanager
def kept_chip(model: nn.Module) -> Iterator[None]:
    """Give ``model`` back the chip that it is, if any, whatever is programmed in between."""
    states = [state_of(layer) for layer in analog_layers_of(model).values()]
    before = [(s.chip, s.plan, s.held) for s in states]
    try:
        yield
    finally:
        for state, (chip, plan, held) in zip(states, before, strict=True):
            state.erase()
            state.chip, state.plan, state.held = chip, plan, held


@contextmanager
def nominal(model: nn.Module) -> Iterator[None]:
    """While active, ``model`` computes with its nominal weights."""
    states = [state_of(layer) for layer in analog_layers_of(model).values()]
    before = [s.chip for s in states]
    try:
        for state in states:
            state.chip = None
        yield
    finally:
        for state, chip in zip(states, before, strict=True):
            state.chip = chip


Law = Mapping[str, Hardware]
"""The hardware of each parameter that follows the law on weights; empty where all layers are on arrays."""


class ChipRunner:
    """Runs batches through chips of one model.

    Args:
        model: On hardware with an array, all its layers or some, in eval mode.
        deployment: What each chip gets beside its weights.
        samples: Unlabelled inputs ``k x ...`` that each chip is shown, or None.
    """

    def __init__(self, model: nn.Module, deployment: Deployment, samples: Tensor | None) -> None:
        self.model, self.deployment, self.samples = model, deployment, samples
        self._names = frozenset(need(model).names)
        self._reads_out = deployment.calibration == "readout"
        self._kind: Calibration = "channel" if self._reads_out else deployment.calibration
        self._sites = sites(model, self._kind, self._names) if self._kind != "none" else {}
        self._of_law = {n: p.detach() for n, p in law_parameters(model).items()}
        # Drawn weights in layers of other types are put in place chip by chip.
        self._law_layers = layers_of_law(model, frozenset(self._of_law)) if self._of_law else {}
        self._drawn: dict[str, Tensor] = {}
        self._chip: Chip | None = None
        self._repeats = False
        self._calibrated: Calibrated | None = None
        self._statistics: Statistics | None = None
        self._target: Tensor | None = None
        if samples is not None:
            self._see_nominal(samples)

    def _see_nominal(self, samples: Tensor) -> None:
        if self._kind not in ("none", "batch-norm"):
            recorder = Recorder()
            # As analog layers call each other: the library goes around the out_proj of attention.
            layers = analog_layers_of(self.model)
            with (
                observed(layers, lambda *seen: None),
                corrected(self.model, self._sites, recorder),
            ):
                self.model(samples)
            self._statistics = recorder.statistics
        with nominal(self.model):
            if self._reads_out:
                self._target = self.model(samples)

    def program(
        self,
        hardware: Hardware | None,
        devices: Sequence[int],
        seed: int,
        law: Law | None = None,
    ) -> None:
        """Become the chips of these numbers, and set what the deployment sets on them.

        Args:
            hardware: Instead of the arrays' own.
            devices: Their numbers.
            seed: Of the fleet.
            law: Of the layers that are drawn; their own by default.
        """
        place = next(self.model.parameters()).device
        streams = Streams(
            [torch.Generator(device=place).manual_seed(device_seed(seed, d)) for d in devices]
        )
        self._calibrated = None
        install(self.model, streams, hardware=hardware, deployment=self.deployment)
        state = state_of(next(iter(analog_layers_of(self.model).values())))
        self._chip = state.chip
        if self._of_law:
            noise = fleet_noise(self._of_law, devices, seed, self.deployment)
            of = law or need(self.model).parameters
            base = programmed(self._of_law, of)
            self._drawn = apply_noise(base, noise, of, self.deployment)
            # They drew the seeds of the arrays, from where the drawn weights begin; reads come next.
            drawn = [
                torch.randint(2**62, (), generator=own, device=place) for own in streams.generators
            ]
            # Read together: each reading waits for a GPU.
            for own, number in zip(streams.generators, torch.stack(drawn).tolist(), strict=True):
                own.manual_seed(number)
        if self.samples is not None:
            self._calibrated = self._calibrate(self.samples)

    def fits_together(self, hardware: Hardware | None, x: Tensor, law: Law | None = None) -> bool:
        """Whether several chips in one batch give what each gives alone; the model is left without a chip."""
        if self.deployment.adapter_rank or self._law_layers is None:
            return False
        few = x[:_CHECK_INPUTS]
        runner = ChipRunner(self.model, self.deployment.averaging, None)
        alone = []
        for k in range(_CHECK_CHIPS):
            runner.program(hardware, [k], 0, law)
            alone.append(runner(few)[0])
        expected = torch.stack(alone)
        try:
            # First with inputs that chips share, which saves work until the first analog layer; then with
            # inputs repeated for each chip, as a residual around that layer needs it.
            for self._repeats in (False, True):
                runner.program(hardware, range(_CHECK_CHIPS), 0, law)
                if runner._agrees(few, expected, self._sites, repeats=self._repeats):
                    return True
            return False
        finally:
            erase(self.model)
            self._chip = None

    def _agrees(
        self, few: Tensor, expected: Tensor, places: dict[str, nn.Module], *, repeats: bool
    ) -> bool:
        self._repeats = repeats
        try:
            got = self._together(few, lambda name, module, out: out, places)
        except (RuntimeError, IndexError, TypeError, ValueError, AssertionError):
            # The model looks at its batch in a way that a longer one breaks.
            return False
        if got.shape != expected.shape:
            return False
        # A value on the edge of a converter's step may fall to the other side by rounding.
        error = (got - expected).abs()
        scale = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
        close = error <= 1e3 * torch.finfo(expected.dtype).eps * scale
        return bool(close.double().mean() > 0.9)

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``N x B x ...`` of inputs ``B x ...``."""
        calibrated = self._calibrated
        out = self._forward(x, calibrated)
        if calibrated is None or calibrated.readout is None:
            return out
        matrix, centre, mean = calibrated.readout
        return ((out.flatten(1, -2) - centre) @ matrix + mean).reshape(out.shape)

    def _forward(self, x: Tensor, calibrated: Calibrated | None) -> Tensor:
        assert self._chip is not None
        if self._chip.n == 1:
            with ExitStack() as stack:
                self._enter(stack, calibrated)
                alone = pick(self._drawn, 0)
                out: Tensor = functional_call(self.model, alone, (x,)) if alone else self.model(x)
            return out.unsqueeze(0)
        corrector = None if calibrated is None else calibrated.together
        if corrector is not None:
            corrector.start()
        return self._together(x, corrector, self._sites if corrector is not None else {})

    def _together(
        self,
        x: Tensor,
        change: Callable[[str, nn.Module, Tensor], Tensor] | None,
        places: dict[str, nn.Module],
    ) -> Tensor:
        chip = self._chip
        assert chip is not None
        rows = Rows(chip.n, len(x), device_major=True)
        chip.batch = 0 if self._repeats else len(x)
        given = x.repeat(chip.n, *[1] * (x.ndim - 1)) if self._repeats else x
        patched: list[tuple[nn.Module, object]] = []
        try:
            for name, module in (self._law_layers or {}).items():
                patched.append((module, module.__dict__.get("forward")))
                module.__dict__["forward"] = stacked_rows(name, module, self._drawn, rows)
            for name, module in places.items() if change is not None else ():
                assert change is not None
                patched.append((module, module.__dict__.get("forward")))
                module.__dict__["forward"] = corrected_rows(name, module, rows, change)
            out: Tensor = self.model(given)
        finally:
            chip.batch = None
            for module, before in reversed(patched):
                put_back(module, before)
        if len(out) == len(x) and chip.n > 1:  # no analog layer on the way
            return out.unsqueeze(0).expand(chip.n, *out.shape)
        return rows.split(out)

    def _enter(self, stack: ExitStack, calibrated: Calibrated | None) -> None:
        """Correct one chip while ``stack`` lasts."""
        if calibrated is None:
            return
        corrector, adapters = calibrated.each[0]
        if corrector is not None:
            corrector.start()
            stack.enter_context(corrected(self.model, self._sites, corrector))
        if adapters is not None:
            stack.enter_context(adapted(self.model, adapters))

    def _calibrate(self, samples: Tensor) -> Calibrated:
        assert self._chip is not None
        corrector = Corrector(self._kind, self._statistics) if self._sites else None
        if self._chip.n > 1:
            found = Calibrated(corrector, [], None)
        else:
            found = Calibrated(None, [(corrector, None)], None)
        if corrector is not None:
            self._forward(samples, found)
            corrector.measuring = False
        if self.deployment.adapter_rank:
            found = self._adapt(samples, found)
        if self._target is not None:
            out = self._forward(samples, found)
            found = found._replace(readout=readout(out, self._target))
        return found

    def _adapt(self, samples: Tensor, found: Calibrated) -> Calibrated:
        corrector = found.each[0][0]
        chip = self._chip

        def on_chip(x: Tensor, trained: object) -> Tensor:
            states = [state_of(layer) for layer in analog_layers_of(self.model).values()]
            for state in states:
                state.chip = chip
            try:
                return self._forward(x, Calibrated(None, [(corrector, trained)], None))[0]  # type: ignore[list-item]  # adapters
            finally:
                for state in states:
                    state.chip = None

        with nominal(self.model):
            adapters = train_adapters(
                self.model,
                self._names,
                samples,
                on_chip,
                rank=self.deployment.adapter_rank,
                steps=self.deployment.adapter_steps,
            )
        return Calibrated(None, [(corrector, adapters)], None)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While active, the model itself is the chip, with all its corrections."""
        calibrated = self._calibrated
        with ExitStack() as stack:
            stack.enter_context(put_in(self.model, pick(self._drawn, 0)))
            self._enter(stack, calibrated)
            if calibrated is not None:
                corrector = calibrated.each[0][0]
                if corrector is not None:
                    handle = self.model.register_forward_pre_hook(lambda m, x: corrector.start())
                    stack.callback(handle.remove)
            if calibrated is not None and calibrated.readout is not None:
                matrix, centre, mean = calibrated.readout
                after = self.model.register_forward_hook(
                    lambda m, x, out: (out - centre[0]) @ matrix[0] + mean
                )
                stack.callback(after.remove)
            yield


def bytes_per_chip(model: nn.Module, deployment: Deployment) -> int:
    """Return the memory that one programmed chip takes, and the peak while its largest matrix is written."""
    total = largest = 0
    for name, layer in analog_layers_of(model).items():
        state = state_of(layer)
        array = state.hardware.array
        assert array is not None
        is_noisy = not state.hardware.device.cell().read.is_zero
        for matrix in state.form.matrices(layer) if state.is_analog else ():
            n = matrix.stack(layer).numel() * array.slices
            total += 4 * n * (1 + is_noisy) * deployment.arrays_of(name)
            largest = max(largest, 40 * n)
    return total + largest + bytes_per_device(model, deployment)
