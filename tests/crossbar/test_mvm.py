"""What arrays answer: converters, read noise, blocks of rows; closed forms for each."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.crossbar.chips import hardware, matrix, streams

from ohmloop.crossbar import Array, program_matrix
from ohmloop.crossbar._quantise import quantise
from ohmloop.errors import ConversionError


@pytest.mark.parametrize("shape", [(4, 9), (1, 4, 9), (2, 4, 9)])
def test_ideal_arrays_are_the_matrix_product(shape: tuple[int, ...]) -> None:
    weight = matrix(7, 9)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chips = program_matrix(weight, hardware({"rows": 4, "columns": 6}), streams(1, 2))
    assert torch.allclose(chips.matmul(x), (x @ weight.T).expand(2, 4, 7), atol=1e-12)


@given(bits=st.integers(2, 12), full=st.floats(0.1, 10), value=st.floats(-20, 20))
@settings(deadline=None, max_examples=60)
def test_a_converter_is_exact_to_half_a_step_and_saturates(
    bits: int, full: float, value: float
) -> None:
    levels = 2**bits - 1
    step = full / ((levels - 1) / 2)
    out = float(
        quantise(
            torch.tensor(value, dtype=torch.float64),
            torch.tensor(full, dtype=torch.float64),
            levels,
        )
    )
    assert math.isclose(out / step, round(out / step), abs_tol=1e-6)
    if abs(value) <= full:
        assert abs(out - value) <= step / 2 * (1 + 1e-9)
    else:
        assert math.isclose(abs(out), full, rel_tol=1e-9)


def test_a_converter_passes_gradients_inside_its_range_only() -> None:
    x = torch.tensor([0.2, -0.9, 1.5], requires_grad=True)
    (gradient,) = torch.autograd.grad(quantise(x, torch.tensor(1.0), 15).sum(), x)
    assert gradient.tolist() == [1.0, 1.0, 0.0]


@pytest.mark.slow
def test_converters_work_under_function_transforms() -> None:
    full, x = torch.tensor(1.0), torch.tensor([[0.2, -0.9, 1.5], [0.1, 2.0, 0.3]])
    slopes = torch.func.vmap(torch.func.grad(lambda v: quantise(v, full, 15).sum()))(x)
    assert slopes.tolist() == [[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    assert torch.equal(torch.func.vmap(lambda v: quantise(v, full, 15))(x), quantise(x, full, 15))


@pytest.mark.parametrize("mapping", ["pair", "offset", "sliced"])
@pytest.mark.parametrize("scale", ["layer", "column", "tile"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_fine_converters_are_the_matrix_product(mapping: str, scale: str, calibrated: bool) -> None:
    weight, x = matrix(7, 10), 40 * matrix(5, 10, 1)
    weight[2] *= 1e-3  # a column and a tile of another size
    weight[:, 8:] *= 30
    array = {
        "mapping": mapping,
        "scale": scale,
        "rows": 4,
        "columns": 44,
        "weight_bits": 16,
        "dac": {"bits": 24, "range": "calibrated" if calibrated else None},
        "adc": {"bits": 24, "range": None if calibrated else 1.0, "per_column": calibrated},
    }
    chips = program_matrix(weight, hardware(array), streams(1))
    chips = chips.calibrated(x) if calibrated else chips
    exact = x @ weight.T
    bound = 1e-5 if mapping != "sliced" else 1e-3
    assert float((chips.matmul(x)[0] - exact).abs().max()) < bound * float(exact.abs().max())


@given(factor=st.floats(1e-6, 1e6), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_dynamic_scaling_makes_the_answer_follow_the_input_s_size(factor: float, seed: int) -> None:
    chips = program_matrix(
        matrix(4, 9), hardware({"rows": 4, "dac": {"bits": 5}, "adc": {"bits": 5}}), streams(1)
    )
    x = matrix(3, 9, seed)
    ratio = chips.matmul(factor * x) / factor
    off = (ratio - chips.matmul(x)).abs()
    assert float(off.quantile(0.8)) < 1e-9  # a value on the edge of a step may fall to either side


def test_zeros_are_answered_by_zero() -> None:
    array = {"dac": {"range": "calibrated"}, "adc": {"per_column": True, "bits": 24}}
    zero = torch.zeros(3, 5)
    for weight in (torch.zeros(2, 5), matrix(2, 5, dtype=torch.float32)):
        chips = program_matrix(weight, hardware(array), streams(1)).calibrated(zero)
        assert not chips.matmul(zero).any()
        assert bool(chips.matmul(torch.ones(3, 5)).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_read_in_single_precision(dtype: torch.dtype) -> None:
    array = {"dac": {}, "adc": {}, "rows": 4}
    weight, x = matrix(3, 6, dtype=torch.float32).to(dtype), 300 * matrix(4, 6, 1).to(dtype)
    noisy = hardware(array, read={"relative": 0.001})
    fresh = streams(1)
    chips = program_matrix(weight, noisy, fresh)
    chips = chips.calibrated(x, fresh)
    out = chips.matmul(x, streams(2))
    assert out.dtype == dtype
    assert torch.equal(out, chips.matmul(x.float(), streams(2)).to(dtype))


def test_converters_need_inputs_to_be_calibrated_on() -> None:
    chips = program_matrix(matrix(3, 5), hardware({"adc": {}}), streams(1))
    with pytest.raises(ConversionError, match="received none"):
        chips.calibrated(torch.zeros(0, 5, dtype=torch.float64))


def test_inputs_are_rounded_to_the_dac_s_steps_of_each_vector() -> None:
    weight, x = torch.eye(6, dtype=torch.float64), matrix(5, 6, 1)
    chips = program_matrix(weight, hardware({"dac": {"bits": 4}}), streams(1))
    full = x.abs().amax(1, keepdim=True)
    assert torch.allclose(chips.matmul(x)[0], (x / full * 7).round() / 7 * full, atol=1e-12)


def test_a_stated_dac_range_clips() -> None:
    weight = torch.eye(2, dtype=torch.float64)
    chips = program_matrix(weight, hardware({"dac": {"bits": 8, "range": 1.0}}), streams(1))
    out = chips.matmul(torch.tensor([[3.0, -0.5]], dtype=torch.float64))[0, 0]
    assert float(out[0]) == 1.0
    assert abs(float(out[1]) + 0.5) <= 0.5 / 127


def test_each_block_of_rows_is_converted_before_it_is_added() -> None:
    weight, x = matrix(3, 10), matrix(4, 10, 1)
    array = {"rows": 4, "columns": 6, "adc": {"bits": 5, "range": 0.25}, "dac": {"range": 4.0}}
    chips = program_matrix(weight, hardware(array), streams(1))
    driven = (x / 4 * 127).round() / 127
    wanted = torch.zeros(4, 3, dtype=torch.float64)
    for start, rows in ((0, 4), (4, 4), (8, 2)):
        part = driven[:, start : start + rows] @ weight[:, start : start + rows].T
        step = 0.25 * rows * weight.abs().max() / 15
        wanted += (part / step).round().clamp(-15, 15) * step
    assert torch.allclose(chips.matmul(x)[0], wanted * 4, atol=1e-9)


def test_slices_have_converters_of_their_own() -> None:
    weight, x = matrix(3, 8), matrix(4, 8, 1)
    array = {
        "mapping": "sliced",
        "weight_bits": 5,
        "slice_bits": 2,
        "adc": {"bits": 14, "range": 1.0},
        "dac": {"range": 4.0, "bits": 12},
    }
    chips = program_matrix(weight, hardware(array), streams(1))
    step = weight.abs().max() / 15
    rounded = (weight / step).round() * step
    # Two slices of at most 3 + 12 steps of weight; each conversion is exact to half a step of its range.
    bound = (
        0.5 * (8 * 3 * step + 8 * 12 * step) / 8191 * 4 + 8 * weight.abs().max() * 0.5 * 4 / 2047
    )
    assert float((chips.matmul(x)[0] - x @ rounded.T).abs().max()) < float(bound)


@pytest.mark.parametrize("mapping", ["pair", "offset", "sliced"])
@pytest.mark.parametrize("converted", [False, True])
def test_read_noise_has_the_variance_of_its_cells(mapping: str, converted: bool) -> None:
    weight, x = matrix(3, 5), matrix(1, 5, 1)
    array: dict[str, object] = {"mapping": mapping, "rows": 3, "columns": 40}
    if converted:
        array["adc"] = {"bits": 20, "range": 1.0}
    noisy = hardware(array, read={"relative": 0.03})
    quiet = hardware(array)
    fresh = streams(1)
    chips = program_matrix(weight, noisy, fresh, keep_conductance=True)
    reads = chips.matmul(x.expand(20000, 5), fresh)[0]
    assert chips.conductance is not None
    plus, minus = (g[0] for g in chips.conductance)  # S x out x in
    factor = chips.planes[0].full / 1e-4 * (2 if mapping == "offset" else 1)
    factors = torch.stack([p.full / 1e-4 for p in chips.planes])
    if mapping == "offset":
        cells = (plus[0] ** 2 + minus[0, :1] ** 2) * factor**2
    else:
        cells = ((plus**2 + minus**2) * factors**2).sum(0)
    wanted = (0.03**2 * cells * x**2).sum(1).sqrt()
    mean = program_matrix(weight, quiet, streams(1)).matmul(x)[0, 0]
    n = len(reads)
    assert bool(((reads.mean(0) - mean).abs() < 4 * wanted / math.sqrt(n) + 1e-4).all())
    assert bool(((reads.std(0) / wanted - 1).abs() < 4 / math.sqrt(2 * n) + 1e-3).all())
    # Cells of their own are independent; a reference column is shared by the outputs of its tile.
    covariance = float(torch.cov(reads.T)[0, 1])
    if mapping == "offset":
        shared = float((0.03**2 * minus[0, 0] ** 2 * factor[0, 0] ** 2 * x[0] ** 2).sum())
        assert abs(covariance / shared - 1) < 0.15
    else:
        assert abs(covariance) < 4 * float(wanted[0] * wanted[1]) / math.sqrt(n)


def test_two_reads_differ_and_the_same_streams_repeat_them() -> None:
    weight, x = matrix(3, 5), matrix(2, 5, 1)
    noisy = hardware(read={"relative": 0.03})
    one, other = streams(7), streams(7)
    a = program_matrix(weight, noisy, one)
    b = program_matrix(weight, noisy, other)
    first, second = a.matmul(x, one), a.matmul(x, one)
    assert not torch.equal(first, second)
    assert torch.equal(first, b.matmul(x, other))


def test_converter_noise_has_its_stated_size() -> None:
    weight, x = torch.eye(4, dtype=torch.float64), torch.ones(20000, 4, dtype=torch.float64)
    array = {
        "adc": {"bits": 24, "range": 1.0, "noise": 0.01},
        "dac": {"bits": 24, "noise": 0.02, "range": 2.0},
    }
    fresh = streams(3)
    chips = program_matrix(weight, hardware(array), fresh)
    deviation = float(chips.matmul(x, fresh)[0].std())
    # DAC: .02 of full scale 2; ADC: .01 of 4 rows x full scale.
    assert abs(deviation / math.hypot(0.02 * 2, 0.01 * 4 * 2) - 1) < 4 / math.sqrt(2 * 80000)


def test_calibrated_converters_lose_less() -> None:
    weight, x = matrix(20, 100), matrix(200, 100, 1)
    exact = x @ weight.T

    def error(adc: dict[str, object], calibrate: bool) -> float:
        chips = program_matrix(weight, hardware({"rows": 50, "adc": adc}), streams(1))
        chips = chips.calibrated(x) if calibrate else chips
        return float((chips.matmul(x)[0] - exact).pow(2).mean())

    by_rule = error({"bits": 6}, False)
    for_tile = error({"bits": 6}, True)
    for_column = error({"bits": 6, "per_column": True}, True)
    trimmed = error({"bits": 6, "per_column": True, "quantile": 0.5001}, True)
    assert for_column < for_tile < by_rule
    assert trimmed > for_tile  # half of all readings saturate


def test_a_calibrated_dac_holds_all_it_saw() -> None:
    weight, x = torch.eye(4, dtype=torch.float64), matrix(50, 4, 1)
    chips = program_matrix(weight, hardware({"dac": {"range": "calibrated"}}), streams(1))
    with pytest.raises(ConversionError, match="nobody calibrated"):
        chips.matmul(x)
    step = float(x.abs().max()) / 127
    assert float((chips.calibrated(x).matmul(x)[0] - x).abs().max()) <= step / 2 * (1 + 1e-9)


def test_cells_that_are_not_ohmic_bend_amplitudes_but_not_times() -> None:
    weight, x = torch.eye(3, dtype=torch.float64), torch.tensor([[1.0, 0.5, -0.25]]).double()
    bent = program_matrix(weight, hardware({}, v0=0.1), streams(1)).matmul(x)[0, 0]
    wanted = torch.sinh(2 * x[0]) / math.sinh(2.0)
    assert torch.allclose(bent, wanted)
    timed = program_matrix(weight, hardware({"encoding": "pulse-width"}, v0=0.1), streams(1))
    assert torch.allclose(timed.matmul(x)[0, 0], x[0])


def test_shapes_and_streams_that_do_not_fit_are_refused() -> None:
    chips = program_matrix(matrix(3, 5), hardware(read={"relative": 0.1}), streams(1, 2))
    with pytest.raises(ConversionError, match="`P x 5` or `2 x P x 5`"):
        chips.matmul(torch.zeros(4, 6, dtype=torch.float64), streams(1, 2))
    with pytest.raises(ConversionError, match="give streams"):
        chips.matmul(torch.zeros(4, 5, dtype=torch.float64))
    with pytest.raises(ConversionError, match="2 chips need 2 streams"):
        chips.matmul(torch.zeros(4, 5, dtype=torch.float64), streams(1))


def test_every_tensor_moves_with_map() -> None:
    array = {"adc": {"bits": 6}, "dac": {"bits": 6}, "mapping": "offset"}
    chips = program_matrix(
        matrix(3, 5),
        hardware(array, read={"relative": 0.1}, faults={"p_low": 0.1}),
        streams(1),
        keep_conductance=True,
    ).calibrated(matrix(4, 5, 1), streams(1))
    moved = chips.map(lambda t: t.to(torch.float32) if t.is_floating_point() else t)
    out = moved.matmul(matrix(4, 5, 1, torch.float32), streams(1))
    assert out.dtype == torch.float32


def test_an_array_has_as_many_outputs_as_its_columns_hold() -> None:
    assert Array(columns=64).outputs == 32
    assert Array(columns=64, mapping="offset").outputs == 63
    assert Array(columns=64, mapping="sliced", weight_bits=8, slice_bits=2).outputs == 8
    assert Array(columns=64, spare_columns=8).outputs == 28
