"""Cells divided among layers: the sensitivities against closed forms and drawn devices, the division against
every other one."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ohmloop.crossbar import Array, Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn import (
    Deployment,
    _allocate,
    allocate_arrays,
    analogize,
    draw_fleet,
    evaluate_fleet,
    evaluate_measure,
    fleet_forward,
    program,
    summary,
)
from ohmloop.nn._allocate import divided, sensitivities
from ohmloop.nn._batched import FleetRunner
from ohmloop.nn._draw import apply_noise, bytes_per_device, fleet_noise, programmed
from ohmloop.nn._layer import analog_layers_of, state_of
from ohmloop.tasks import RSquared

LAW = Hardware(device="lognormal:0.3")
CHIP = Hardware(device="lognormal:0.1", array=Array())


def net(bias: bool = True) -> nn.Sequential:
    """A small layer that all signals pass, and a large one behind it."""
    return nn.Sequential(nn.Linear(6, 3, bias=bias), nn.Tanh(), nn.Linear(3, 40, bias=bias)).eval()


def deep() -> nn.Sequential:
    """Three narrow weights that all signals pass, before wide layers that average their errors out."""
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise((6, 3, 60, 60, 4)):
        layers += [nn.Linear(wide, narrow), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).eval()


@pytest.fixture
def many_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sensitivities with a standard error of 5 % at most: squares of sums of signs vary by 1.4 times their
    mean."""
    monkeypatch.setattr(_allocate, "PROBES", (800, 800))


@pytest.mark.usefixtures("many_signs")
def test_sensitivity_of_one_layer_is_its_closed_form() -> None:
    """y = W x: the derivatives of all outputs by w_ij are x_j, so that the sum is that of (w_ij x_j)^2."""
    model = analogize(nn.Sequential(nn.Linear(5, 4, bias=False)), LAW).eval()
    x = torch.randn(16, 5)
    w = model[0].weight.detach()
    expected = (w.square() @ x.square().T).sum(0).mean()
    found = sensitivities(model, x, "none")["0.weight"]
    assert found == pytest.approx(float(expected), rel=0.15)
    one = sensitivities(model, x[:1], "none")["0.weight"]
    assert one == pytest.approx(float((w.square() @ x[0].square()).sum()), rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("many_signs")
@pytest.mark.parametrize("kind", ["none", "channel", "layer"])
def test_sensitivity_says_what_drawn_devices_do(kind: str) -> None:
    """Each layer's noise alone changes the outputs by its sensitivity times the variance, to first order."""
    torch.manual_seed(1)
    model, x = analogize(net(), Hardware(device="lognormal:0.02")), torch.randn(16, 6)
    sharp = sensitivities(model, x, kind)  # type: ignore[arg-type]
    own = {n: p.detach() for n, p in model.named_parameters()}
    stacked = draw_fleet(model, range(400), 3)
    for layer in ("0", "2"):
        names = [n for n in own if n.startswith(layer)]
        held = {
            n: stacked[n] if n in names else own[n].expand(400, *own[n].shape).contiguous()
            for n in own
        }
        run = FleetRunner(model, frozenset(own), Deployment(calibration=kind, samples=16))  # type: ignore[arg-type]
        with torch.no_grad():
            change = run(held, x, run.calibrate(held, x)) - model(x)
        measured = float(change.square().sum(-1).mean())
        assert sum(sharp[n] for n in names) * 0.02**2 == pytest.approx(measured, rel=0.2)


def test_a_correction_by_channel_takes_away_what_a_layer_changes_alike() -> None:
    model, x = analogize(net(), LAW), torch.randn(16, 6)
    plain, corrected = (sensitivities(model, x, kind) for kind in ("none", "channel"))
    assert corrected["2.bias"] < 1e-6 * plain["2.bias"]  # an offset is gone as a whole
    assert all(corrected[n] < plain[n] for n in plain)


LAYERS = st.lists(st.tuples(st.floats(0.01, 100), st.integers(1, 30)), min_size=1, max_size=3)


@given(LAYERS, st.floats(1, 4))
@settings(max_examples=60, deadline=None)
def test_no_division_of_the_cells_used_changes_outputs_less(
    layers: list[tuple[float, int]], cells: float
) -> None:
    change = {str(k): c for k, (c, _) in enumerate(layers)}
    sizes = {str(k): n for k, (_, n) in enumerate(layers)}

    def total(counts: dict[str, int]) -> float:
        return sum(change[k] / m for k, m in counts.items())

    def used(counts: dict[str, int]) -> int:
        return sum(sizes[k] * m for k, m in counts.items())

    counts = divided(change, sizes, cells)
    room = round((cells - 1) * sum(sizes.values())) + sum(sizes.values())
    assert used(counts) <= room
    # No array moved from one layer to another that takes no more cells makes the change smaller ...
    for giver, taker in itertools.permutations(counts, 2):
        if counts[giver] > 1 and sizes[taker] <= sizes[giver]:
            moved = counts | {giver: counts[giver] - 1, taker: counts[taker] + 1}
            if used(moved) <= room:
                assert total(moved) >= total(counts) * (1 - 1e-9)
    # ... nor is it below Neyman's, which is the least of all real numbers.
    least = sum(math.sqrt(change[k] * sizes[k]) for k in change) ** 2 / room
    assert total(counts) >= least * (1 - 1e-9)


def test_division_of_many_cells_is_neymans() -> None:
    change, sizes = {"a": 1.0, "b": 4.0, "c": 9.0}, {"a": 100, "b": 25, "c": 4}
    counts = divided(change, sizes, 30)
    ratio = {k: counts[k] / math.sqrt(change[k] / sizes[k]) for k in counts}
    assert max(ratio.values()) < 1.05 * min(ratio.values())
    assert divided(change, sizes, 1) == {"a": 1, "b": 1, "c": 1}
    assert divided({"a": 0.0, "b": 1.0}, {"a": 5, "b": 5}, 3) == {"a": 1, "b": 5}


def outputs_error(model: nn.Module, x: Tensor, deployment: Deployment) -> float:
    own = {n: p.detach() for n, p in model.named_parameters()}
    noise = fleet_noise(own, range(300), 5, deployment)
    held = apply_noise(programmed(own, LAW), noise, LAW, deployment)
    with torch.no_grad():
        return float((fleet_forward(model, held, x) - model(x)).square().mean())


def test_divided_cells_beat_as_many_spread_evenly() -> None:
    torch.manual_seed(2)
    model, x = analogize(deep(), LAW), torch.randn(64, 6)
    asked = Deployment(cells=2, mean_gain=True)
    given_ = allocate_arrays(model, asked, x)
    sizes = {str(k): sum(p.numel() for p in model[k].parameters()) for k in range(0, 7, 2)}
    assert given_.arrays_of("0") > given_.arrays_of("2") > given_.arrays_of("4") == 1
    assert sum(n * given_.arrays_of(k) for k, n in sizes.items()) <= 2 * sum(sizes.values())
    assert outputs_error(model, x, given_) < 0.9 * outputs_error(
        model, x, Deployment(arrays=2, mean_gain=True)
    )


def test_layer_arrays_average_as_many_arrays() -> None:
    """The factor's variance falls as 1/m, layer by layer."""
    model = analogize(net(bias=False), LAW)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    deployment = Deployment.parse("layer_arrays=0=9;*=2")
    own = {n: p.detach() for n, p in model.named_parameters()}
    held = apply_noise(own, fleet_noise(own, range(3000), 1, deployment), LAW, deployment)
    one = math.exp(0.09) * math.expm1(0.09)
    # The variance of 54,000 and of 360,000 draws, of a skewed law: five standard errors are below 6 %.
    assert float(held["0.weight"].var()) == pytest.approx(one / 9, rel=0.06)
    assert float(held["2.weight"].var()) == pytest.approx(one / 2, rel=0.06)
    assert bytes_per_device(model, deployment) == 18 * (8 * 9 + 4) + 120 * (8 * 2 + 4)


def test_a_device_depends_on_its_number_alone() -> None:
    model = analogize(net(), LAW)
    own = {n: p.detach() for n, p in model.named_parameters()}
    deployment = Deployment(layer_arrays=(("0", 3),))
    together, alone = (
        apply_noise(own, fleet_noise(own, which, 4, deployment), LAW, deployment)
        for which in (range(3), [2])
    )
    assert all(torch.equal(together[n][2], alone[n][0]) for n in own)


def test_fleets_divide_cells_by_themselves() -> None:
    torch.manual_seed(3)
    model, x = analogize(deep(), LAW), torch.randn(64, 6)
    y = model(x).detach()
    both = {}
    for text in ("cells=3", "arrays=3", "none"):
        deployment = Deployment.parse(text).model_copy(update={"mean_gain": True})
        both[text] = evaluate_fleet(
            model, (x, y), n_devices=40, metric=RSquared(), deployment=deployment, unlabelled=x
        )
    assert both["cells=3"].deployment == "none:mean_gain=true,cells=3"
    assert both["cells=3"].mean > both["arrays=3"].mean > both["none"].mean
    resolved = allocate_arrays(model, Deployment(cells=3, mean_gain=True), x)
    assert both["cells=3"].layer_arrays == resolved.layer_arrays
    assert both["arrays=3"].layer_arrays == tuple((layer, 3) for layer in ("0", "2", "4", "6"))
    assert both["none"].layer_arrays == ()
    by_hand = evaluate_fleet(model, (x, y), n_devices=40, metric=RSquared(), deployment=resolved)
    assert by_hand.scores.tolist() == both["cells=3"].scores.tolist()
    done = evaluate_measure(
        model,
        lambda m: float(m(x)[0, 0]),
        [LAW],
        name="an output",
        n_devices=3,
        deployment=Deployment(cells=3, mean_gain=True),
        unlabelled=x,
    )[0]
    held = apply_noise(
        {n: p.detach() for n, p in model.named_parameters()},
        fleet_noise({n: p.detach() for n, p in model.named_parameters()}, range(3), 0, resolved),
        LAW,
        resolved,
    )
    assert done.scores.tolist() == pytest.approx(
        fleet_forward(model, held, x)[:, 0, 0].tolist(), rel=1e-4
    )


def test_layers_of_other_devices_share_the_cells_by_their_sigma() -> None:
    torch.manual_seed(4)
    noisy, quiet = Hardware(device="lognormal:0.5"), Hardware(device="lognormal:0.01")
    x = torch.randn(16, 6)
    alike = analogize(deep(), noisy)
    model = analogize(deep(), {"0": quiet, "*": noisy})
    both = [allocate_arrays(m, Deployment(cells=2), x).arrays_of("0") for m in (alike, model)]
    assert both[1] < both[0] / 2  # what no other layer has room for may go there


def test_chips_hold_a_layer_on_its_own_number_of_arrays() -> None:
    model = analogize(net(), CHIP)
    program(model, 1, deployment=Deployment(layer_arrays=(("0", 3),)))
    seeds = {}
    for name, layer in analog_layers_of(model).items():
        plan = state_of(layer).plan
        assert plan is not None
        seeds[name] = [len(s) for s in plan.seeds.values()]
    assert seeds == {"0": [3], "2": [1]}
    with pytest.raises(ConversionError, match="allocate_arrays"):
        program(model, 1, deployment=Deployment(cells=2))


def test_fleets_of_chips_divide_cells_too() -> None:
    torch.manual_seed(5)
    model = analogize(deep(), Hardware(device="lognormal:0.3", array=Array()))
    x = torch.randn(32, 6)
    y = model(x).detach()
    scores = [
        evaluate_fleet(
            model,
            (x, y),
            n_devices=30,
            metric=RSquared(),
            deployment=Deployment.parse(text),
            unlabelled=x,
        ).mean
        for text in ("cells=4", "arrays=4", "none")
    ]
    assert scores[0] > scores[1] > scores[2]


def test_summary_counts_every_averaged_array() -> None:
    """Tiles and energy go with the arrays, the error of products with one over their root."""
    torch.manual_seed(6)
    wide = nn.Sequential(nn.Linear(60, 40), nn.Tanh(), nn.Conv1d(1, 4, 3), nn.Flatten())
    model = analogize(wide[:2].append(nn.Unflatten(1, (1, 40))).extend(wide[2:]), CHIP)
    x = torch.randn(16, 60)
    alone = summary(model, x)
    both = summary(model, x, deployment=Deployment(arrays=9, layer_arrays=(("3", 16),)))
    for one, many, m in zip(alone, both, (9, 16), strict=True):
        assert (one.arrays, many.arrays, many.tiles) == (1, m, m * (one.tiles or 0))
        assert many.energy == pytest.approx(m * (one.energy or 0), rel=1e-9)
        assert one.error is not None
        assert many.error == pytest.approx(one.error / math.sqrt(m), rel=0.25)
    assert "arrays" in str(both)
    assert "arrays" not in str(alone)
    with pytest.raises(ConversionError, match="allocate_arrays"):
        summary(model, deployment=Deployment(cells=2))


def test_one_layer_gets_whole_arrays() -> None:
    model = analogize(nn.Linear(4, 3), LAW).eval()
    found = allocate_arrays(model, Deployment(cells=3.5), torch.randn(8, 4))
    assert found == Deployment(arrays=3)
    assert allocate_arrays(model, Deployment(arrays=2), None) == Deployment(arrays=2)


@pytest.mark.parametrize(
    "text",
    ["channel:cells=2", "none:cells=1.5", "none:layer_arrays=a.b=3;c.*=2", "readout:arrays=4"],
)
def test_texts_name_one_deployment(text: str) -> None:
    deployment = Deployment.parse(text)
    assert str(deployment) == text
    assert Deployment.parse(str(deployment)) == deployment
    assert "times the cells" in deployment.needs or "arrays" in deployment.needs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cells=0.5", "greater than or equal to 1"),
        ("cells=2,arrays=2", "give it alone"),
        ("cells=2,layer_arrays=a=3", "give it alone"),
        ("layer_arrays=stem", "LAYER=NUMBER"),
        ("layer_arrays=stem=0", "greater than or equal to 1"),
        ("layer_arrays=stem=many", "integer"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConversionError, match=words):
        Deployment.parse(text)


def test_errors_say_what_is_missing() -> None:
    model = analogize(net(), LAW)
    x = torch.randn(8, 6)
    with pytest.raises(ConversionError, match="unlabelled"):
        evaluate_fleet(model, (x, torch.zeros(8).long()), deployment=Deployment(cells=2))
    typo = Deployment(layer_arrays=(("1", 2),))
    with pytest.raises(ConversionError, match="'1' matches no analog layer; there are 0, 2"):
        evaluate_fleet(model, (x, torch.zeros(8).long()), deployment=typo)
    chip = analogize(net(), CHIP)
    with pytest.raises(ConversionError, match="'1' matches no analog layer"):
        program(chip, 1, deployment=typo)
    with pytest.raises(ConversionError, match="not finite"):
        allocate_arrays(model, Deployment(cells=2), x * math.inf)
