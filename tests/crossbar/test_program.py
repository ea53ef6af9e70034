"""What chips hold: mapping, levels, noise, faults and repair, drift, wires; one chip never sees another."""

import math

import pytest
import torch
from tests.crossbar.chips import hardware, matrix, streams

from ohmloop.crossbar import Array, Hardware, Programming, Wires, program_matrix, solve
from ohmloop.crossbar._mapping import encode
from ohmloop.device import Physics
from ohmloop.errors import ConversionError

MAPPINGS = ["pair", "offset"]


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("scale", ["layer", "column", "tile"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ideal_cells_hold_the_weights(mapping: str, scale: str, dtype: torch.dtype) -> None:
    weight = matrix(11, 23, dtype=dtype)
    chips = program_matrix(
        weight,
        hardware({"mapping": mapping, "scale": scale, "rows": 8, "columns": 10}),
        streams(1, 2),
    )
    assert chips.weight.shape == (2, 11, 23)
    assert chips.weight.dtype == dtype
    bound = 20 * torch.finfo(dtype).eps * weight.abs().max()
    assert (chips.weight - weight).abs().max() < bound


@pytest.mark.parametrize("slice_bits", [1, 2, 3, 8])
@pytest.mark.parametrize("weight_bits", [2, 5, 8])
def test_slices_add_up_to_the_rounded_weight(weight_bits: int, slice_bits: int) -> None:
    weight = matrix(6, 9)
    array = {"mapping": "sliced", "weight_bits": weight_bits, "slice_bits": slice_bits}
    chips = program_matrix(weight, hardware(array), streams(1))
    top = 2 ** (weight_bits - 1) - 1
    step = weight.abs().max() / top
    wanted = (weight / step).round() * step
    assert len(chips.planes) == -(-(weight_bits - 1) // slice_bits)
    assert torch.allclose(chips.weight[0], wanted, atol=1e-12)


@pytest.mark.parametrize("mapping", [*MAPPINGS, "sliced"])
def test_cells_stay_in_the_window_and_use_all_of_it(mapping: str) -> None:
    physics = Physics(g_min=1e-6, g_max=101e-6)
    planes = encode(matrix(8, 8), physics, Array(mapping=mapping))
    both = torch.cat([planes.plus.flatten(), planes.minus.flatten()])
    assert both.min() >= 1e-6 * (1 - 1e-12)
    assert both.max() <= 101e-6 * (1 + 1e-12)
    assert math.isclose(float((both - 51e-6).abs().max()), 50e-6, rel_tol=1e-9)


def test_a_pair_with_an_open_lower_end_is_exactly_the_published_law() -> None:
    weight = matrix(100, 100)
    chips = program_matrix(weight, Hardware(device="lognormal:0.4", array=Array()), streams(3))
    log = (chips.weight[0] / weight).log()
    n = log.numel()
    assert abs(float(log.mean())) < 4 * 0.4 / math.sqrt(n)
    assert abs(float(log.std()) - 0.4) < 4 * 0.4 / math.sqrt(2 * n)


def test_levels_are_equally_spaced_conductances() -> None:
    chips = program_matrix(matrix(20, 20), hardware(levels=5), streams(1), keep_conductance=True)
    assert chips.conductance is not None
    found = torch.unique((chips.conductance[0] * 1e6).round(decimals=6))
    assert found.tolist() == [1.0, 26.0, 51.0, 76.0, 101.0]


def test_write_noise_has_the_mean_and_variance_of_its_law() -> None:
    # Relative Gaussian noise of both cells: variance (s / k)^2 (G+^2 + G-^2), k = (g_max - g_min) / w_max.
    weight = torch.tensor([[1.0, -0.25, 0.5]], dtype=torch.float64)
    n = 4000
    chips = program_matrix(
        weight, hardware(write={"kind": "relative", "sigma": 0.05}), streams(*range(n))
    )
    high = torch.tensor([101.0, 26.0, 51.0], dtype=torch.float64)
    std = 0.05 * (high**2 + 1).sqrt() / 100
    error = (chips.weight[:, 0].mean(0) - weight[0]).abs()
    assert bool((error < 4 * std / math.sqrt(n)).all())
    assert bool(((chips.weight[:, 0].std(0) / std - 1).abs() < 4 / math.sqrt(2 * n)).all())


@pytest.mark.parametrize(
    "array",
    [
        {},
        {"mapping": "offset"},
        {"mapping": "sliced", "spare_columns": 16, "remap": True},
        {"programming": {"method": "cycle-verify", "max_pulses": 7}},
        {"wires": Wires(row=2.0, column=2.0, source=10.0), "rows": 4, "columns": 6},
    ],
)
def test_a_chip_does_not_depend_on_its_neighbours(array: dict[str, object]) -> None:
    noisy = hardware(
        array,
        write={"sigma": 0.2},
        read={"relative": 0.02},
        faults={"p_low": 0.05, "p_high": 0.02},
        variation={"window": 0.1},
    )
    weight, x = matrix(7, 9), matrix(3, 9, 1)
    together = streams(1, 2, 3)
    many = program_matrix(weight, noisy, together)
    answers = many.matmul(x, together)
    for k, seed in enumerate((1, 2, 3)):
        alone = streams(seed)
        one = program_matrix(weight, noisy, alone)
        assert torch.allclose(one.weight[0], many.weight[k], rtol=1e-9, atol=1e-12)
        assert torch.allclose(one.matmul(x, alone)[0], answers[k], rtol=1e-9, atol=1e-12)


def test_cycle_verify_ends_within_tolerance_or_says_how_many_did_not() -> None:
    weight = matrix(30, 30)
    programming = Programming(method="cycle-verify", tolerance=0.03, max_pulses=100)
    noisy = hardware({"programming": programming}, write={"sigma": 0.2})
    chips = program_matrix(weight, noisy, streams(1, 2), keep_conductance=True)
    planes = encode(weight, noisy.device.cell(), Array())
    assert chips.conductance is not None
    off = torch.stack([chips.conductance[0] - planes.plus, chips.conductance[1] - planes.minus])
    outside = (off.abs() > 0.03 * 1e-4).flatten(2).transpose(0, 1).flatten(1).sum(1)
    assert chips.unconverged is not None
    assert chips.unconverged.tolist() == outside.tolist()
    assert chips.pulses is not None
    assert bool(
        (chips.pulses > 2 * weight.numel() * 2).all()
    )  # two pulses a cycle, two cells a weight
    # One attempt succeeds with probability p; their number is geometric: one alone leaves more cells outside.
    tight = noisy.model_copy(
        update={"array": Array(programming=programming.model_copy(update={"max_pulses": 1}))}
    )
    once = program_matrix(weight, tight, streams(1, 2))
    assert once.unconverged is not None
    assert bool((once.unconverged > chips.unconverged).all())


def test_cycle_verify_aims_at_levels() -> None:
    programming = Programming(method="cycle-verify", tolerance=0.02, max_pulses=100)
    chips = program_matrix(
        matrix(20, 20),
        hardware({"programming": programming}, levels=5, write={"sigma": 0.02}),
        streams(1),
    )
    assert chips.unconverged is not None
    assert chips.unconverged.tolist() == [0]


def test_a_cell_that_was_accepted_is_left_alone() -> None:
    # Exact writing, a reading with deviation = tolerance: accepted with p = erf(1 / sqrt 2), cycles geometric.
    programming = Programming(method="cycle-verify", tolerance=0.02, max_pulses=1000)
    weight = matrix(50, 50)
    chips = program_matrix(
        weight,
        hardware({"programming": programming}, read={"absolute": 0.02 * 1e-4}),
        streams(1, 2),
    )
    p, n = math.erf(math.sqrt(0.5)), 2 * weight.numel()
    assert chips.pulses is not None
    assert chips.unconverged is not None
    assert chips.unconverged.tolist() == [0, 0]
    cycles = chips.pulses.double() / 2
    assert bool(((cycles / n - 1 / p).abs() < 4 * math.sqrt((1 - p) / n) / p).all())


def test_a_verifying_reading_is_one_right_after_the_pulse() -> None:
    # 1/f noise has had no time to build up, although the device is not known before t0 = 20 s.
    programming = Programming(method="cycle-verify", tolerance=0.001)
    flickering = hardware(
        {"programming": programming},
        read={"flicker": {"coefficient": 0.05, "t_read": 1e-7}},
        drift={"kind": "power", "t0": 20.0, "nu": {"offset": 0.05}},
    )
    chips = program_matrix(matrix(6, 6), flickering, streams(1))
    assert chips.pulses is not None
    assert chips.pulses.tolist() == [2 * 2 * 36]


@pytest.mark.parametrize("method", ["statistical", "cycle-verify", "write-verify"])
def test_stuck_cells_pass_no_gradient(method: str) -> None:
    array = {"mapping": "offset", "programming": {"method": method}}
    weight = matrix(12, 12).requires_grad_()
    chips = program_matrix(
        weight,
        hardware(
            array,
            faults={"p_low": 0.3},
            pulses={"kind": "soft", "pulses_up": 50, "pulses_down": 50},
        ),
        streams(1),
        keep_conductance=True,
    )
    (gradient,) = torch.autograd.grad(chips.weight.sum(), weight)
    assert chips.conductance is not None
    # The weight of largest magnitude lies at an end of the window by itself.
    stuck = (chips.conductance[0][0, 0] == 1e-6) & (weight > -weight.abs().max())
    assert 20 < int(stuck.sum()) < 70
    assert bool((gradient[stuck] == 0).all())
    assert int((gradient[~stuck] == 0).sum()) <= 1


def test_an_offset_column_stands_at_a_level() -> None:
    # Sixteen levels have no middle: the eighth is the reference, seven levels on either side are weights.
    weight = matrix(30, 30)
    chips = program_matrix(weight, hardware({"mapping": "offset"}, levels=16), streams(1))
    step = weight.abs().max() / 7
    assert torch.allclose(chips.weight[0], (weight / step).round() * step, atol=1e-9)
    with pytest.raises(ConversionError, match="three levels or more"):
        program_matrix(weight, hardware({"mapping": "offset"}, levels=2), streams(1))


def test_few_outputs_on_wide_offset_tiles_take_no_more_memory_than_they_need() -> None:
    weight = matrix(3, 512)
    wide = hardware({"mapping": "offset", "columns": 65536}, read={"relative": 0.01})
    fresh = streams(*range(100))
    chips = program_matrix(weight, wide, fresh)  # 27 GB if each tile were filled up
    assert chips.matmul(matrix(4, 512, 1), fresh).shape == (100, 4, 3)


def test_write_verify_needs_a_pulse_response() -> None:
    array = {"programming": {"method": "write-verify"}}
    with pytest.raises(Exception, match="pulse"):
        program_matrix(matrix(2, 2), hardware(array, write={"sigma": 0.1}), streams(1))


def test_write_verify_reaches_tolerance_and_counts_pulses() -> None:
    pulses = {"kind": "soft", "pulses_up": 50, "pulses_down": 50}
    array = {"programming": {"method": "write-verify", "tolerance": 0.02}}
    weight = matrix(10, 10)
    pulsed = hardware(array, pulses=pulses)
    chips = program_matrix(weight, pulsed, streams(1, 2))
    assert chips.pulses is not None
    assert chips.unconverged is not None
    assert chips.unconverged.tolist() == [0, 0]
    assert bool((chips.pulses > 0).all())
    # Both cells of a pair are within tolerance of the window that the largest weight fills.
    bound = 2 * 0.02 * weight.abs().max() * (1 + 1e-9)
    assert bool(((chips.weight - weight).abs() <= bound).all())


def test_faults_fall_as_often_as_stated() -> None:
    weight = matrix(100, 100)
    chips = program_matrix(
        weight,
        hardware(faults={"p_low": 0.02, "p_high": 0.01}),
        streams(*range(20)),
        keep_conductance=True,
    )
    assert chips.stuck is not None
    assert chips.conductance is not None
    n = 20 * 2 * weight.numel()
    total = int(chips.stuck.sum())
    assert abs(total - 0.03 * n) < 4 * math.sqrt(n * 0.03 * 0.97)
    high = int((chips.conductance[0] == 101e-6).sum() + (chips.conductance[1] == 101e-6).sum())
    assert (
        abs(high - 0.01 * n) < 4 * math.sqrt(n * 0.01) + 2 * 20
    )  # the largest weight is there too


def test_a_partner_makes_good_what_the_window_allows() -> None:
    weight = matrix(40, 40)
    faults = {"p_low": 0.03, "p_high": 0.03}
    plain = program_matrix(weight, hardware(faults=faults), streams(5))
    fixed = program_matrix(
        weight, hardware({"remap": True}, faults=faults), streams(5), keep_conductance=True
    )
    before, after = (plain.weight - weight).abs(), (fixed.weight - weight).abs()
    assert bool((after <= before + 1e-12).all())
    assert float((after**2).sum()) < 0.5 * float((before**2).sum())
    # One stuck cell leaves an error only where its partner would have to leave the window.
    assert fixed.conductance is not None
    wrong = after[0] > 1e-9
    plus, minus = fixed.conductance[0][0, 0], fixed.conductance[1][0, 0]
    ends = torch.tensor([1e-6, 101e-6], dtype=plus.dtype)
    at_end = torch.isclose(plus[..., None], ends).any(-1) & torch.isclose(
        minus[..., None], ends
    ).any(-1)
    assert bool(at_end[wrong].all())


@pytest.mark.parametrize("mapping", ["pair", "offset", "sliced"])
def test_spare_columns_take_the_worst_columns(mapping: str) -> None:
    weight = matrix(24, 40)
    faults = {"p_low": 0.004, "p_high": 0.004}
    per_output = {"pair": 2, "offset": 1, "sliced": 8}[mapping]
    array = {"mapping": mapping, "columns": 28 * per_output + 1, "rows": 40}
    without = program_matrix(weight, hardware(array, faults=faults), streams(*range(30)))
    with_spare = program_matrix(
        weight,
        hardware({**array, "spare_columns": 4 * per_output}, faults=faults),
        streams(*range(30)),
    )
    before = ((without.weight - weight) ** 2).sum((1, 2))
    after = ((with_spare.weight - weight) ** 2).sum((1, 2))
    assert float(after.mean()) < 0.6 * float(before.mean())


def test_spare_columns_go_where_partners_cannot_help() -> None:
    weight = matrix(24, 40)
    faults = {"p_low": 0.005, "p_high": 0.005}
    array = {"columns": 56, "rows": 40, "remap": True}
    seeds = range(30)
    alone = program_matrix(weight, hardware(array, faults=faults), streams(*seeds))
    spare = {**array, "spare_columns": 8}
    helped = program_matrix(weight, hardware(spare, faults=faults), streams(*seeds))
    before = ((alone.weight - weight) ** 2).sum((1, 2))
    after = ((helped.weight - weight) ** 2).sum((1, 2))
    assert float(after.mean()) < 0.3 * float(before.mean())


def test_stuck_cells_do_not_drift() -> None:
    drift = {"kind": "power", "t0": 1.0, "nu": {"offset": 0.1}}
    old = hardware(faults={"p_high": 0.2}, drift=drift).model_copy(update={"seconds": 1e6})
    chips = program_matrix(matrix(20, 20), old, streams(1), keep_conductance=True)
    assert chips.conductance is not None
    both = torch.cat([g.flatten() for g in chips.conductance])
    assert int((both == 101e-6).sum()) == int(chips.stuck)  # type: ignore[arg-type]  # there are faults
    assert float(both[both != 101e-6].max()) <= 101e-6 * 1e6**-0.1 * (1 + 1e-9)


@pytest.mark.parametrize("mapping", ["pair", "offset"])
@pytest.mark.parametrize("read", [{"relative": 0.03}, {"absolute": 1e-6}])
def test_read_noise_behind_wires_is_that_of_the_network(
    mapping: str, read: dict[str, float]
) -> None:
    # Oracle: each cell's noise times the slope of the solved current in its conductance.
    weight, x = matrix(4, 10), matrix(1, 10, 1)
    wires = Wires(row=20.0, column=20.0, source=100.0, sense=100.0)
    array = {"mapping": mapping, "rows": 10, "columns": 9, "wires": wires}
    noisy = hardware(array, read=read, g_min=1e-9)  # nearly open cells beside conducting ones
    n = 20000
    fresh = streams(1)
    chips = program_matrix(weight, noisy, fresh, keep_conductance=True)
    assert chips.conductance is not None
    plus, minus = chips.conductance[0][0, 0], chips.conductance[1][0, 0]
    if mapping == "pair":
        cells = torch.stack([plus, minus], 1).reshape(8, 10).T.contiguous().requires_grad_()
        current = solve(cells, x, wires).current[0]
        signal = current[::2] - current[1::2]
    else:
        cells = torch.cat([plus, minus]).T.contiguous().requires_grad_()
        current = solve(cells, x, wires).current[0]
        signal = current[:4] - current[4]
    std = noisy.device.cell().read_std(cells.detach())
    slopes = [torch.autograd.grad(s, cells, retain_graph=True)[0] for s in signal]
    wanted = torch.stack([(slope * std).square().sum().sqrt() for slope in slopes])
    wanted = wanted * weight.abs().max() / ((101e-6 - 1e-9) / (2 if mapping == "offset" else 1))
    found = chips.matmul(x.expand(n, 10), fresh)[0].std(0)
    ideal = hardware({**array, "wires": None}, read=read, g_min=1e-9)
    without = (
        program_matrix(weight, ideal, streams(1)).matmul(x.expand(n, 10), streams(1))[0].std(0)
    )
    assert bool(((found / wanted - 1).abs() < 0.05).all()), (found / wanted, without / wanted)
    assert bool((without / wanted > 1.02).any())  # the wires do matter here


@pytest.mark.parametrize("mapping", ["pair", "offset"])
def test_wires_give_what_the_solved_network_gives(mapping: str) -> None:
    weight, x = matrix(5, 12), matrix(4, 12, 1)
    wires = Wires(row=3.0, column=2.0, source=50.0, sense=20.0)
    array = {"mapping": mapping, "rows": 12, "columns": 11, "wires": wires}
    chips = program_matrix(
        weight, hardware(array, write={"sigma": 0.1}), streams(1), keep_conductance=True
    )
    assert chips.conductance is not None
    plus, minus = chips.conductance[0][0, 0], chips.conductance[1][0, 0]
    if mapping == "pair":
        laid_out = torch.stack([plus, minus], 1).reshape(10, 12).T.contiguous()
        current = solve(laid_out, x, wires).current
        wanted = (current[:, ::2] - current[:, 1::2]) * float(weight.abs().max() / 1e-4)
    else:
        current = solve(torch.cat([plus, minus]).T.contiguous(), x, wires).current
        wanted = (current[:, :5] - current[:, 5:]) * float(2 * weight.abs().max() / 1e-4)
    assert torch.allclose(chips.matmul(x)[0], wanted, rtol=1e-9)
    ideal = program_matrix(
        weight, hardware({**array, "wires": None}, write={"sigma": 0.1}), streams(1)
    )
    assert float((chips.weight - ideal.weight).abs().max()) > 0.01


@pytest.mark.parametrize("mapping", ["pair", "offset", "sliced"])
def test_cells_that_are_not_ohmic_are_solved_for_each_input(mapping: str) -> None:
    weight, x = matrix(3, 6), matrix(4, 6, 1)
    wires = Wires(row=30.0, column=30.0)
    array = {"mapping": mapping, "rows": 6, "columns": 12, "wires": wires, "weight_bits": 5}
    chips = program_matrix(weight, hardware(array, v0=0.1), streams(1), keep_conductance=True)
    assert chips.conductance is not None
    plus, minus = (g[0] for g in chips.conductance)  # S x out x in
    full = x.abs().amax(1, keepdim=True)
    per_weight = 1e-4 * 0.1 * math.sinh(2.0) / float(weight.abs().max())
    if mapping == "offset":
        current = solve(
            torch.cat([plus[0], minus[0]]).T.contiguous(), x / full * 0.2, wires, v0=0.1
        )
        wanted = 2 * (current.current[:, :3] - current.current[:, 3:])
    else:
        # One output's cells stand side by side: slice by slice, plus before minus.
        laid_out = torch.stack([plus, minus], 1).permute(2, 0, 1, 3).flatten(0, 2).T.contiguous()
        current = solve(laid_out, x / full * 0.2, wires, v0=0.1)
        pairs = current.current.reshape(4, 3, -1, 2)
        gain = torch.tensor([1.0] if mapping == "pair" else [3 / 15, 12 / 15], dtype=torch.float64)
        wanted = ((pairs[..., 0] - pairs[..., 1]) * gain).sum(-1)
    assert torch.allclose(chips.matmul(x)[0], wanted / per_weight * full, rtol=1e-9)


def test_a_voltage_far_beyond_v0_is_refused() -> None:
    with pytest.raises(ConversionError, match="read_voltage / v0 = 200"):
        program_matrix(matrix(2, 2), hardware({}, v0=0.001), streams(1))


def test_the_same_streams_give_the_same_chip_at_every_time() -> None:
    weight = matrix(8, 8)
    pcm = Hardware(device="pcm-joshi2020", array=Array())
    young = program_matrix(weight, pcm, streams(4), keep_conductance=True)
    old = program_matrix(
        weight, pcm.model_copy(update={"seconds": 1e5}), streams(4), keep_conductance=True
    )
    assert young.conductance is not None
    assert old.conductance is not None
    ratio = old.conductance[0] / young.conductance[0].clamp_min(1e-12)
    live = young.conductance[0] > 1e-6
    # nu is at most .1 + a few of its .045; t0 = 20 s.
    assert bool((ratio[live] <= 1).all())
    assert bool((ratio[live] > (1e5 / 20) ** -0.35).all())


def test_gradients_reach_the_weight_through_noise_levels_and_wires() -> None:
    x = matrix(5, 6, 1)
    for array, physics in (
        ({}, {"write": {"sigma": 0.3}}),
        ({"mapping": "offset"}, {}),
        ({"wires": Wires(row=1.0), "rows": 6, "columns": 8}, {}),
        ({"wires": Wires(row=1.0), "rows": 6, "columns": 8}, {"v0": 5.0}),
    ):
        weight = matrix(4, 6).requires_grad_()
        chips = program_matrix(weight, hardware(array, **physics), streams(1))
        (gradient,) = torch.autograd.grad(chips.matmul(x).sum(), weight)
        # Scale-invariant in the weight: G follows w / max|w|, whose slope is taken as constant.
        assert torch.allclose(
            gradient / x.sum(0), (chips.weight[0] / weight).detach(), rtol=0.2, atol=0.2
        ), array


def test_rounded_slices_pass_the_gradient_straight_through() -> None:
    weight, x = matrix(4, 6).requires_grad_(), matrix(5, 6, 1)
    chips = program_matrix(weight, hardware({"mapping": "sliced"}), streams(1))
    (gradient,) = torch.autograd.grad(chips.matmul(x).sum(), weight)
    assert torch.allclose(gradient, x.sum(0).expand(4, 6))


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (torch.zeros(3), "matrix `out x in`"),
        (torch.zeros(0, 3), "at least one entry"),
        (torch.tensor([[0.0, float("nan")]]), "output 0, input 1 is nan"),
        (torch.zeros(2, 2, dtype=torch.int64), "real numbers"),
    ],
)
def test_what_no_array_can_hold_is_refused(weight: torch.Tensor, match: str) -> None:
    with pytest.raises(ConversionError, match=match):
        program_matrix(weight, hardware(), streams(1))


def test_hardware_without_an_array_says_how_to_give_one() -> None:
    with pytest.raises(ConversionError, match=r"array=Array\("):
        program_matrix(torch.ones(2, 2), Hardware(device="lognormal:0.1"), streams(1))


def test_a_zero_matrix_is_held_as_zero() -> None:
    chips = program_matrix(torch.zeros(3, 3), hardware(), streams(1))
    assert not chips.weight.any()


@pytest.mark.parametrize(
    ("array", "match"),
    [
        ({"columns": 1}, "no room for one output"),
        ({"mapping": "offset", "remap": True}, "no partners"),
        ({"rows": 0}, "rows"),
        ({"mapping": "pears"}, "mapping"),
    ],
)
def test_impossible_arrays_are_refused(array: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Array.model_validate(array)


def test_time_without_an_array_is_refused() -> None:
    with pytest.raises(ValueError, match="knows no time"):
        Hardware(device="lognormal:0.1", seconds=3.0)


def test_the_law_s_options_do_not_go_with_an_array() -> None:
    with pytest.raises(ValueError, match="convention"):
        Hardware(device="lognormal:0.1", array=Array(), convention="mean-1")


def test_fast_wires_are_near_the_exact_ones_where_wires_take_little() -> None:
    weight = matrix(16, 64)
    array = {"rows": 64, "columns": 32, "wires": Wires(row=1.0, column=1.0, source=10.0)}
    exact, fast, ideal = (
        program_matrix(weight, hardware({**array, **change}), streams(1)).weight
        for change in ({}, {"wire_solution": "fast"}, {"wires": None})
    )
    lost = float((ideal - exact).norm() / ideal.norm())
    assert 0.005 < lost < 0.5
    assert float((fast - exact).norm()) < 0.05 * float((ideal - exact).norm())


def test_fast_wires_need_ohmic_cells() -> None:
    array = {"wires": Wires(row=1.0), "wire_solution": "fast"}
    with pytest.raises(ConversionError, match="ohmic"):
        program_matrix(matrix(2, 2), hardware(array, v0=0.1), streams(1))
