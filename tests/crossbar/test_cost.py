"""Energy, latency and area: hand counts, dimensions, monotone rules, published chips, overrides."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ohmloop.crossbar import (
    ADC,
    DAC,
    Array,
    Cost,
    Costs,
    Hardware,
    LayerUse,
    Programming,
    Streams,
    count_arrays,
    count_layer,
    digital_baseline,
    measure_layer,
    program_matrix,
)
from ohmloop.device import DeviceModel, Physics, load_device
from ohmloop.errors import ConversionError

ROOT = Path(__file__).resolve().parents[2]
CONVERTERS = {"dac": DAC(bits=8), "adc": ADC(bits=8)}


def near(value: Any, rel: float = 1e-9) -> Any:
    """`pytest.approx` without its absolute tolerance of 1e-12, which would swallow picojoules."""
    return pytest.approx(value, rel=rel, abs=0)


def device(**physics: Any) -> DeviceModel:
    """A device with stated reads, so that hand counts need no assumed constant."""
    cell = {"g_min": 1e-6, "g_max": 21e-6, "read_voltage": 0.2, "read_time": 1e-7, **physics}
    return load_device("lognormal:0.3").model_copy(update={"physics": Physics(**cell)})


def hardware(array: Array | None = None, **physics: Any) -> Hardware:
    chosen = array or Array(rows=16, columns=32, **CONVERTERS)
    return Hardware(device=device(**physics), array=chosen)


def layer(n_out: int = 10, n_in: int = 10, **fields: Any) -> LayerUse:
    activity = {"mean_conductance": 5e-6, "drive": 0.25} if "array_power" not in fields else {}
    return LayerUse(name="fc", n_out=n_out, n_in=n_in, **{**activity, **fields})


# Hand counts


def test_ten_by_ten_on_one_tile_is_what_a_hand_counts() -> None:
    costs = Costs()
    counts = count_arrays(layer(), hardware().array)
    assert (counts.tiles, counts.cells, counts.placed_cells) == (1, 200, 512)
    assert (counts.dac_conversions, counts.adc_conversions, counts.additions) == (10, 10, 0)
    assert (counts.read_columns, counts.adcs, counts.turns) == (20, 2, 8)
    cost = count_layer(layer(), hardware())
    # 200 cells of 5 uS, a quarter of (0.2 V)^2, 100 ns
    assert cost.energy_parts["array"] == near(200 * 5e-6 * 0.25 * 0.04 * 1e-7)
    # 34 fJ x 256 steps and a sample of 0.98 fJ, for each of ten outputs
    assert cost.energy_parts["adc"] == near(10 * (34e-15 * 256 + 10e-6 / 1024 * 1e-7))
    assert cost.energy_parts["columns"] == near(20 * 10e-6 * 1e-7)
    assert cost.energy_parts["digital"] == near(10 * 3.1e-12)
    assert cost.energy_parts["memory"] == near(20 * 8 * 10e-12 / 64)
    wires = 10 * 32 * costs.cell_capacitance * 0.04 * 0.25  # ten rows as long as the tile is wide
    assert cost.energy_parts["drivers"] == near(cost.energy_parts["array"] + wires)
    assert cost.latency == near(1e-9 + 1e-7 + 8 / 1.2e9 + 1e-9)
    assert cost.operations == 200
    assert cost.notes == (
        'programming is not counted: write with method="write-verify" to count pulses.',
    )


def test_inputs_and_outputs_are_not_confused_and_driver_losses_follow_their_efficiency() -> None:
    costs = Costs(driver_efficiency=0.25, cell_capacitance=0)
    cost = count_layer(layer(3, 7), hardware(), costs)
    assert cost.energy_parts["dac"] == near(7 * costs.dac_energy(8))
    assert cost.energy_parts["adc"] == near(3 * (costs.adc_energy(8) + costs.sample_hold))
    assert cost.energy_parts["columns"] == near(6 * 10e-6 * 1e-7)
    assert cost.energy_parts["drivers"] == near(3 * cost.energy_parts["array"])
    # a tile of 16 x 32 has 16 differential outputs, which two ADCs of 8 turns convert
    assert cost.area_parts["adc"] == near(2 * 1.5e-9)
    assert cost.area_parts["cells"] == near(512 * costs.cell_area)
    assert cost.area_parts["dac"] == near(16 * 2**7 * costs.dac_area)
    assert cost.area_parts["memory"] == near(10 * 8 * costs.sram_area)


def test_sixty_four_inputs_in_tiles_of_thirty_two_rows_add_their_halves() -> None:
    array = Array(rows=32, columns=64, **CONVERTERS)
    counts = count_arrays(layer(64, 64), array)
    assert (counts.row_tiles, counts.column_tiles, counts.tiles) == (2, 2, 4)
    assert counts.adc_conversions == 2 * 64  # two halves of each output
    assert counts.dac_conversions == 2 * 64  # each input drives two tiles side by side
    assert counts.additions == 64
    assert counts.utilisation == 1


def test_an_offset_column_costs_half_the_cells_and_a_reference_for_each_tile() -> None:
    counts = count_arrays(layer(20, 10), Array(mapping="offset", rows=16, columns=11, **CONVERTERS))
    assert counts.column_tiles == 2
    assert counts.cells == 10 * (20 + 2)
    assert counts.adc_conversions == 20


def test_slices_are_converted_one_by_one_and_put_together() -> None:
    sliced = Array(mapping="sliced", weight_bits=8, slice_bits=2, rows=5, columns=80, **CONVERTERS)
    counts = count_arrays(layer(10, 10, bias=True), sliced)
    assert sliced.slices == 4
    assert counts.cells == 10 * 10 * 4 * 2
    assert counts.adc_conversions == 10 * 4 * 2
    # eight partial results an output are seven additions, and the bias is one
    assert counts.shift_additions + counts.additions == 10 * (7 + 1)


def test_products_and_groups_multiply_events_and_groups_take_arrays_of_their_own() -> None:
    one = count_arrays(layer(), hardware().array)
    many = count_arrays(layer(products=7, groups=3), hardware().array)
    assert many.adc_conversions == 21 * one.adc_conversions
    assert many.dac_conversions == 21 * one.dac_conversions
    assert (many.tiles, many.adcs, many.cells) == (3 * one.tiles, 3 * one.adcs, 3 * one.cells)
    a, b = count_layer(layer(), hardware()), count_layer(layer(products=7, groups=3), hardware())
    assert b.latency == near(7 * a.latency)
    assert b.operations == 21 * a.operations
    assert b.energy_parts["array"] == near(21 * a.energy_parts["array"])


def test_every_energy_is_for_one_product_times_the_products() -> None:
    # up to 8 KB, a larger buffer costs no more for a bit
    one, seven = (count_layer(layer(products=p), hardware()) for p in (1, 7))
    for part, joules in one.energy_parts.items():
        assert seven.energy_parts[part] == near(7 * joules), part
    for part, seconds in one.latency_parts.items():
        assert seven.latency_parts[part] == near(7 * seconds), part


def test_partial_results_finish_in_a_tree_and_the_bias_takes_a_turn() -> None:
    array = Array(rows=3, columns=32, **CONVERTERS)  # four blocks of rows: two levels
    cost = count_layer(layer(bias=True), hardware(array))
    assert cost.latency_parts["digital"] == near((2 + 1 + 1) * 1e-9)


def test_a_scale_for_each_tile_is_applied_to_each_partial_result() -> None:
    array = Array(rows=5, columns=32, scale="tile", **CONVERTERS)
    assert count_arrays(layer(), array).rescalings == 2 * 10


def test_pulse_width_inputs_pay_a_counter_instead_of_a_capacitor_array() -> None:
    pulsed = hardware(Array(rows=16, columns=32, encoding="pulse-width", **CONVERTERS))
    cost, costs = count_layer(layer(), pulsed), Costs()
    assert cost.energy_parts["dac"] == near(10 * (costs.dac_driver + 128 * costs.counter_step))
    # its rows swing to full scale whatever the input is
    wires = 10 * 32 * costs.cell_capacitance * 0.04
    assert cost.energy_parts["drivers"] == near(cost.energy_parts["array"] + wires)


# Ohm's law on what was programmed and driven


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_measured_power_is_ohms_law_on_every_cell(dtype: torch.dtype) -> None:
    array = Array(rows=4, columns=8, dac=DAC(range=1.0), adc=ADC(bits=8))
    weight = torch.randn(5, 6, dtype=dtype, generator=torch.Generator().manual_seed(1))
    streams = Streams([torch.Generator().manual_seed(i) for i in range(3)])
    chips = program_matrix(weight, hardware(array), streams, keep_conductance=True)
    x = torch.tensor([[1.0, -1.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]], dtype=dtype)
    use = measure_layer("fc", chips, x, inferences=2)
    assert chips.conductance is not None
    watts = 0.0
    for cells in chips.conductance:  # N x S x out x in, both cells of each pair
        for chip in cells:
            watts += float((chip * (0.2 * x[:, None, None, :]) ** 2).sum()) / 2 / 3
    assert use.array_power == near(watts, rel=1e-5)
    assert use.drive == near(4 / 12)
    assert (use.products, use.n_out, use.n_in) == (1, 5, 6)
    total = sum(float(cells.sum()) for cells in chips.conductance)
    assert use.mean_conductance == near(total / 3 / 60, rel=1e-5)
    assert count_layer(use, hardware(array)).energy_parts["array"] == near(watts * 1e-7, rel=1e-5)


def test_cells_that_are_not_ohmic_take_v_times_their_own_current() -> None:
    array = Array(rows=8, columns=8, dac=DAC(range=1.0), programming=Programming(method="ideal"))
    bent = hardware(array, v0=0.1)
    chips = program_matrix(torch.eye(2), bent, Streams([torch.Generator()]))
    use = measure_layer("fc", chips, torch.tensor([[1.0, 0.0]]))
    row = 21e-6 + 3 * 1e-6  # one cell at g_max, three at g_min
    assert use.array_power == near(0.2 * row * 0.1 * math.sinh(2), rel=1e-5)


def test_inputs_told_by_time_take_full_power_for_their_share_of_the_window() -> None:
    ideal = Programming(method="ideal")
    array = Array(rows=8, columns=8, dac=DAC(range=1.0), encoding="pulse-width", programming=ideal)
    chips = program_matrix(torch.eye(2), hardware(array), Streams([torch.Generator()]))
    use = measure_layer("fc", chips, torch.tensor([[127 / 254, 0.0]]))
    half = 64 / 127  # the nearest step of the timer
    assert use.array_power == near(half * 24e-6 * 0.04, rel=1e-5)


def test_no_activity_takes_no_energy_in_the_array() -> None:
    chips = program_matrix(torch.eye(3), hardware(), Streams([torch.Generator()]))
    cost = count_layer(measure_layer("fc", chips, torch.zeros(4, 3)), hardware())
    assert cost.energy_parts["array"] == 0
    assert cost.energy_parts["drivers"] == 0
    assert cost.energy_parts["adc"] > 0


def test_without_activity_the_count_says_what_is_missing() -> None:
    with pytest.raises(ConversionError, match="nothing says how strongly"):
        count_layer(LayerUse(name="fc", n_out=1, n_in=1), hardware())


def test_a_law_on_weights_has_no_array_to_count() -> None:
    with pytest.raises(ConversionError, match=r"has no array to count.*array=Array"):
        count_layer(layer(), Hardware(device="lognormal:0.3"))


def test_measuring_needs_inputs_of_the_layers_width() -> None:
    chips = program_matrix(torch.eye(3), hardware(), Streams([torch.Generator()]))
    with pytest.raises(ConversionError, match="`P x 3`"):
        measure_layer("fc", chips, torch.zeros(4, 2))
    with pytest.raises(ConversionError, match="for 0 inferences"):
        measure_layer("fc", chips, torch.zeros(4, 3), inferences=0)


def test_what_a_count_assumes_is_noted() -> None:
    bare = Hardware(device="lognormal:0.3", array=Array(rows=16, columns=32))
    notes = " ".join(count_layer(layer(), bare).notes)
    for text in ("no DAC", "no ADC", "no read voltage", "no read time"):
        assert text in notes


# Programming


def test_programming_is_pulses_and_the_conversions_that_verify_them() -> None:
    counted = hardware(pulse_energy=2e-12)
    cost, costs = count_layer(layer(pulses=100.0), counted), Costs()
    verify = costs.adc_energy(8) + costs.sample_hold + costs.dac_energy(8)
    assert cost.programming == near(100 * (2e-12 + verify))
    known = count_layer(layer(pulses=100.0, programming_energy=1e-9), counted)
    assert known.programming == near(1e-9 + 100 * verify)


def test_programming_without_a_pulse_energy_is_unknown_not_free() -> None:
    cost = count_layer(layer(pulses=100.0), hardware())
    assert cost.programming is None
    assert "no energy of a pulse" in " ".join(cost.notes)
    assert math.isnan(cost.break_even(digital_baseline(layer())))
    assert "unknown" in cost.table()


def test_a_pulse_without_stated_energy_is_v_squared_g_width_where_voltages_are_known() -> None:
    pulsed = hardware(set_voltage=1.0, reset_voltage=-2.0, pulse_width=1e-6)
    cost, costs = count_layer(layer(pulses=100.0), pulsed), Costs()
    verify = costs.adc_energy(8) + costs.sample_hold + costs.dac_energy(8)
    assert cost.programming == near(100 * (2.5 * 5e-6 * 1e-6 + verify))
    assert "V^2 G width" in " ".join(cost.notes)


def test_break_even_is_programming_over_what_an_inference_saves() -> None:
    analog = Cost("a", {"array": 1e-12}, {}, {}, operations=2, programming=9e-12)
    digital = Cost("d", {"weights": 4e-12}, {}, {}, operations=2, programming=0.0)
    assert analog.break_even(digital) == near(3)
    assert digital.break_even(analog) == math.inf


# Sums


def test_layers_add_and_are_kept() -> None:
    a, b = count_layer(layer(), hardware()), count_layer(layer(64, 64, bias=True), hardware())
    c = count_layer(layer(3, 5, products=9), hardware())
    total = sum([a, b, c])
    assert isinstance(total, Cost)
    for quantity in ("energy", "latency", "area", "operations"):
        parts = [getattr(x, quantity) for x in (a, b, c)]
        assert getattr(total, quantity) == near(sum(parts))
    assert total.layers == (a, b, c)
    assert (a + (b + c)).layers == total.layers
    assert total.table().count("\n") >= 4
    assert total.table().splitlines()[4].startswith("total")


def test_layers_of_a_digital_chip_share_its_multipliers() -> None:
    one = digital_baseline(layer())
    both = one + one
    assert both.area_parts["units"] == one.area_parts["units"]
    assert both.area_parts["weights"] == 2 * one.area_parts["weights"]


def test_a_cost_is_json_in_si_units() -> None:
    total = count_layer(layer(), hardware()) + count_layer(layer(products=0), hardware())
    read = json.loads(json.dumps(total.to_dict(), allow_nan=False))
    assert read["energy_J"] == total.energy
    assert read["layers"][0]["energy_parts_J"]["adc"] > 0
    assert read["layers"][1]["energy_per_operation_J"] is None


# Dimensions: a change of units must change results as their dimension says


SCALE = {"J": 1.7, "s": 0.6, "m2": 2.3, "V": 1.9}
SCALE["W"] = SCALE["J"] / SCALE["s"]
SCALE["F"] = SCALE["J"] / SCALE["V"] ** 2
SCALE[""] = 1.0
SIEMENS = SCALE["W"] / SCALE["V"] ** 2


@pytest.mark.parametrize("encoding", ["amplitude", "pulse-width"])
def test_energy_latency_and_area_have_the_dimensions_of_their_units(encoding: Any) -> None:
    plain = Costs()
    scaled = Costs(**{c.name: c.value * SCALE[c.unit] for c in plain.constants() if c.unit})
    array = Array(mapping="sliced", rows=7, columns=40, encoding=encoding, **CONVERTERS)
    stated = {"g_min": 1e-6, "g_max": 2e-5, "read_voltage": None, "read_time": None}
    at = hardware(array, **stated)
    use = layer(20, 30, bias=True, products=3, pulses=10.0, programming_energy=1e-12)
    other = use.model_copy(
        update={
            "mean_conductance": 5e-6 * SIEMENS,
            "programming_energy": 1e-12 * SCALE["J"],
        }
    )
    pairs = [(count_layer(use, at, plain), count_layer(other, at, scaled))]
    for precision in ("int8", "fp16", "fp32"):
        pairs.append(
            (
                digital_baseline(use, plain, precision=precision),
                digital_baseline(other, scaled, precision=precision),
            )
        )
    for one, two in pairs:
        for part, joules in one.energy_parts.items():
            assert two.energy_parts[part] == near(joules * SCALE["J"]), part
        for part, seconds in one.latency_parts.items():
            assert two.latency_parts[part] == near(seconds * SCALE["s"]), part
        for part, area in one.area_parts.items():
            assert two.area_parts[part] == near(area * SCALE["m2"]), part
        assert two.programming == near(one.programming * SCALE["J"])


# Rules that hold for every layer


def effective_bits(bits: int, noise: float) -> float:
    return math.log2(Costs().adc_energy(bits, noise) / Costs().adc_fom)


SIZES = st.integers(1, 300)


@given(n_out=SIZES, n_in=SIZES, bits=st.integers(2, 15))
def test_a_finer_converter_costs_more(n_out: int, n_in: int, bits: int) -> None:
    def parts(adc_bits: int) -> Cost:
        array = Array(rows=64, columns=64, dac=DAC(), adc=ADC(bits=adc_bits))
        return count_layer(layer(n_out, n_in), hardware(array))

    coarse, fine = parts(bits), parts(bits + 1)
    assert fine.energy_parts["adc"] > coarse.energy_parts["adc"]
    assert fine.latency_parts["convert"] > coarse.latency_parts["convert"]
    assert fine.area_parts["adc"] > coarse.area_parts["adc"]


@given(n_out=SIZES, n_in=SIZES, rows=st.integers(1, 256), more=st.integers(1, 256))
def test_longer_columns_need_no_more_conversions(
    n_out: int, n_in: int, rows: int, more: int
) -> None:
    short = count_arrays(layer(n_out, n_in), Array(rows=rows, columns=64))
    long = count_arrays(layer(n_out, n_in), Array(rows=rows + more, columns=64))
    assert long.adc_conversions <= short.adc_conversions
    assert long.additions <= short.additions
    assert long.cells == short.cells


@given(
    n_out=SIZES,
    n_in=SIZES,
    rows=st.integers(1, 70),
    columns=st.integers(16, 70),
    mapping=st.sampled_from(["pair", "offset", "sliced"]),
)
def test_cells_fit_their_tiles_and_partial_results_are_all_added(
    n_out: int, n_in: int, rows: int, columns: int, mapping: Any
) -> None:
    counts = count_arrays(layer(n_out, n_in), Array(mapping=mapping, rows=rows, columns=columns))
    assert 0 < counts.cells <= counts.placed_cells
    assert counts.additions + counts.shift_additions == counts.adc_conversions - n_out
    assert counts.turns * counts.adcs >= counts.adc_conversions


@given(bits=st.integers(2, 16), noise=st.floats(0, 1))
def test_noise_never_adds_effective_bits(bits: int, noise: float) -> None:
    assert 1 - 1e-9 <= effective_bits(bits, noise) <= bits + 1e-9


def test_effective_bits_of_a_noisy_quantiser_follow_its_measured_error() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(400_000, generator=generator, dtype=torch.float64) * 2 - 1
    bits, noise = 8, 0.01
    step = 2 / (ADC(bits=bits).levels - 1)
    read = (
        (x + noise * torch.randn(x.shape, generator=generator, dtype=x.dtype)) / step
    ).round() * step
    # The error's deviation has a relative standard error of 1 / sqrt(2 n) = 0.0011; six of them in bits.
    measured = bits - 0.5 * math.log2(float((read - x).square().mean()) / (step**2 / 12))
    assert abs(measured - effective_bits(bits, noise)) < 0.01


# Constants


def test_every_constant_has_a_unit_and_a_source() -> None:
    names = [c.name for c in Costs().constants()]
    assert names == [name for name in Costs.model_fields if name != "sources"]
    for constant in Costs().constants():
        assert constant.unit in SCALE, constant
        assert len(constant.source) > 15, constant
        # Either somebody published it, or the reason for assuming it is given.
        assert "assumed: " in constant.source or re.search(r"\b20\d\d\b", constant.source), constant


def test_an_override_takes_its_source_along() -> None:
    changed = Costs(adc_fom=12e-15, sources={"adc_fom": "Harpe et al. 2011"})
    assert changed.source("adc_fom") == "Harpe et al. 2011"
    half = count_layer(layer(), hardware(), Costs(adc_fom=17e-15)).energy_parts["adc"]
    sample = 10 * Costs().sample_hold
    full = count_layer(layer(), hardware()).energy_parts["adc"]
    assert half - sample == near((full - sample) / 2)


def test_an_override_without_a_source_does_not_keep_the_old_one() -> None:
    changed = Costs().with_(adc_fom=12e-15, sources={"adc_fom": "Harpe et al. 2011"})
    again = changed.with_(adc_fom=1e-15)
    assert "without a source" in again.source("adc_fom")
    assert again.source("supply") == Costs().source("supply")
    assert Costs(**changed.model_dump()) == changed


def test_misspelt_constants_are_answered_with_the_right_name() -> None:
    with pytest.raises(ValueError, match='Did you mean "adc_fom"'):
        Costs(adc_fomm=1e-15)  # type: ignore[call-arg]  # the mistake under test
    with pytest.raises(ConversionError, match='Did you mean "read_time"'):
        Costs().with_(readtime=1e-9)
    with pytest.raises(ConversionError, match='Did you mean "dram"'):
        Costs().source("drum")
    with pytest.raises(ValueError, match='Did you mean "supply"'):
        Costs(sources={"suply": "a data sheet"})


def test_a_value_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="driver_efficiency"):
        Costs(driver_efficiency=1.5)
    with pytest.raises(ValueError, match="adc_fom"):
        Costs(adc_fom=math.nan)


def test_a_toml_file_overrides_in_units_and_with_sources(tmp_path: Path) -> None:
    page = tmp_path / "costs.toml"
    page.write_text(
        'adc_fom = { value = "12 fJ", source = "Harpe et al. 2011" }\n'
        'read_time = "1 us"\nadc_area = 5.5e-8\n',
        encoding="utf-8",
    )
    costs = Costs.from_toml(page)
    assert (costs.adc_fom, costs.read_time, costs.adc_area) == (12e-15, 1e-6, 5.5e-8)
    assert costs.source("adc_fom") == "Harpe et al. 2011"
    page.write_text("adc_form = 1e-15\n", encoding="utf-8")
    with pytest.raises(ConversionError, match=r'costs\.toml.*Did you mean "adc_fom"'):
        Costs.from_toml(page)
    page.write_text('supply = "low"\n', encoding="utf-8")
    with pytest.raises(ConversionError, match=r"costs\.toml: .*low"):
        Costs.from_toml(page)
    page.write_text("supply = -1\n", encoding="utf-8")
    with pytest.raises(ConversionError, match=r"costs\.toml: supply: .*greater than 0"):
        Costs.from_toml(page)
    page.write_text('adc_fom = { val = "12 fJ" }\n', encoding="utf-8")
    with pytest.raises(ConversionError, match="table of value and source"):
        Costs.from_toml(page)
    with pytest.raises(ConversionError, match="cannot be read"):
        Costs.from_toml(tmp_path / "none.toml")


# Published figures


def test_the_adc_is_the_published_one_at_its_own_effective_bits() -> None:
    # Kull et al. 2013: 3.1 mW at 1.2 GS/s and 39.3 dB.
    enob = (39.3 - 1.76) / 6.02
    assert Costs().adc_energy(enob) == near(3.1e-3 / 1.2e9, rel=0.02)


def test_walden_holds_for_a_second_published_adc() -> None:
    # Harpe et al. 2011: 26.3 uW at 10.24 MS/s with 7.77 effective bits, 12 fJ a step.
    assert Costs(adc_fom=12e-15).adc_energy(7.77) == near(26.3e-6 / 10.24e6, rel=0.03)


def test_a_measured_pcm_core_lies_within_a_factor_of_two() -> None:
    """HERMES (Khaddam-Aljameh et al. 2022): 10.5 TOPS/W measured, 256 x 256 PCM weights, 14 nm.

    Its cells differ, so conductance and drive are stated here, not fitted: 5 uS, 0.2 V, a third of full scale
    squared, one ADC for each column, 8-bit inputs told by time at 1 GHz (128 ns).
    """
    array = Array(rows=256, columns=512, encoding="pulse-width", **CONVERTERS)
    core = hardware(array, read_time=128e-9)
    cost = count_layer(
        layer(256, 256, mean_conductance=5e-6, drive=1 / 3), core, Costs(outputs_per_adc=1)
    )
    assert 10.5 / 2 < cost.tops_per_watt < 10.5 * 2


# The digital chip beside it


def test_the_baseline_is_horowitz_by_hand() -> None:
    cost = digital_baseline(layer(64, 64))
    assert cost.energy_parts["arithmetic"] == near(4096 * 0.3e-12)
    assert cost.energy_parts["weights"] == near(4096 * 8 * 10e-12 / 64)  # 4 KB, read once
    assert cost.energy_parts["digital"] == near(64 * 3.1e-12)
    assert cost.latency == near(16e-9)
    fp16 = digital_baseline(layer(64, 64), precision="fp16").energy_parts["arithmetic"]
    fp32 = digital_baseline(layer(64, 64), precision="fp32").energy_parts["arithmetic"]
    assert (fp16, fp32) == near((4096 * 1.5e-12, 4096 * 4.6e-12))


@pytest.mark.parametrize(
    ("precision", "joules"), [("int8", 1e-13), ("fp16", 4e-13), ("fp32", 9e-13)]
)
def test_a_bias_is_one_addition_for_each_output(precision: Any, joules: float) -> None:
    without, with_bias = (
        digital_baseline(layer(5, 9, bias=bias, products=2), precision=precision)
        for bias in (False, True)
    )
    assert with_bias.energy_parts["digital"] - without.energy_parts["digital"] == near(10 * joules)
    assert with_bias.energy_parts["arithmetic"] == without.energy_parts["arithmetic"]


def test_weights_are_fetched_once_or_as_often_as_registers_force() -> None:
    use = layer(64, 64, products=100)
    once = digital_baseline(use).energy_parts["weights"]
    assert once == digital_baseline(layer(64, 64)).energy_parts["weights"]
    each = digital_baseline(use, Costs(digital_reuse=1)).energy_parts["weights"]
    assert each == near(100 * once)
    assert digital_baseline(layer(products=0)).energy == 0


def test_weights_outside_the_chip_cost_more_and_take_no_area() -> None:
    chip, outside = digital_baseline(layer()), digital_baseline(layer(), weights="dram")
    assert outside.energy_parts["weights"] > 100 * chip.energy_parts["weights"]
    assert outside.area_parts["weights"] == 0


@given(st.floats(1, 1e9), st.floats(1, 100))
def test_larger_memories_cost_no_less(bits: float, factor: float) -> None:
    assert Costs().memory_energy(bits * factor) >= Costs().memory_energy(bits) * (1 - 1e-12)


def test_memory_passes_through_the_published_points() -> None:
    for kilobytes, picojoules in ((8, 10), (32, 20), (1024, 100)):
        per_bit = Costs().memory_energy(kilobytes * 8192)
        assert per_bit * 64 == near(picojoules * 1e-12)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConversionError, match="received 'int4'"):
        digital_baseline(layer(), precision="int4")  # type: ignore[arg-type]  # the mistake under test


# The page


@pytest.mark.slow
def test_the_page_shows_the_constants_and_figures_of_the_code() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "energy_table.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
