"""One model on both kinds of hardware: layers on the law on weights beside layers on arrays."""

import pytest
import torch
from torch import nn

from ohmloop.crossbar import ADC, DAC, Array, Hardware
from ohmloop.errors import ConversionError
from ohmloop.nn import (
    Deployment,
    analog_parameters,
    analogize,
    calibrate_converters,
    digitize,
    draw,
    evaluate_fleet,
    evaluate_fleets,
    evaluate_measure,
    has_arrays,
    program,
    score,
    summary,
)
from ohmloop.tasks import Metric, Split
from ohmloop.tasks._metric import RSquared

LAW = Hardware(device="lognormal:0.4")
ARRAY = Array(rows=16, columns=16, dac=DAC(bits=8), adc=ADC(bits=8))
ON_ARRAY = Hardware(device="nanowire-36", array=ARRAY)
READS = Hardware(device="pcm-joshi2020", array=ARRAY)
EXACT_LAW = Hardware(device="lognormal:0")
EXACT_ARRAY = Hardware(device="lognormal:0", array=Array())
METRIC: Metric = RSquared()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 24),
        nn.ReLU(),
        nn.Linear(24, 3),
    ).eval()


@pytest.fixture(scope="module")
def split() -> Split:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 1, 8, 8, generator=generator)
    return Split(x, torch.randn(40, 3, generator=generator))


def mixed(law: Hardware, array: Hardware) -> nn.Module:
    """Return convolutions by law and a head on arrays."""
    return analogize(network(), {"0": law, "5": array, "7": array})


def scores(model: nn.Module, split: Split, **settings: object) -> list[float]:
    fleet = evaluate_fleet(model, split, n_devices=6, seed=3, metric=METRIC, **settings)
    return fleet.scores.tolist()


def test_each_layer_gets_its_own_kind_and_the_model_goes_back(split: Split) -> None:
    model = mixed(LAW, ON_ARRAY)
    assert has_arrays(model)
    assert list(analog_parameters(model)) == ["0.weight", "0.bias", "5.weight", "7.weight"]
    rows = {row.name: row for row in summary(model, example=split.x[:4])}
    kinds = {name: (row.analog, row.tiles) for name, row in rows.items()}
    assert kinds == {"0": (True, None), "1": (False, None), "5": (True, 12), "7": (True, 2)}
    back = digitize(model)
    assert {type(m) for m in back} <= {type(m) for m in network()}
    assert torch.equal(back(split.x), network()(split.x))


def test_without_noise_both_kinds_are_the_digital_network(split: Split) -> None:
    model = mixed(EXACT_LAW, EXACT_ARRAY)
    digital = score(network(), split, METRIC)
    assert scores(model, split) == pytest.approx([digital] * 6, abs=1e-5)


@pytest.mark.parametrize("text", ["none", "none:arrays=2,mean_gain=true"])
def test_drawn_layers_are_those_of_the_law_alone_for_the_same_seed(text: str, split: Split) -> None:
    settings = {"deployment": Deployment.parse(text)}
    law = analogize(network(), LAW, where=["0"])
    assert scores(mixed(LAW, EXACT_ARRAY), split, **settings) == pytest.approx(
        scores(law, split, **settings), abs=1e-4
    )


@pytest.mark.parametrize("text", ["none", "channel", "readout", "none:arrays=2,mean_gain=true"])
def test_programmed_layers_are_those_of_arrays_alone_for_the_same_seed(
    text: str, split: Split
) -> None:
    settings = {"deployment": Deployment.parse(text), "unlabelled": torch.cat([split.x] * 2)}
    array = analogize(network(), ON_ARRAY, where=["5", "7"])
    both = mixed(EXACT_LAW, ON_ARRAY)
    for model in (array, both):
        calibrate_converters(model, split.x)
    assert scores(both, split, **settings) == pytest.approx(
        scores(array, split, **settings), abs=1e-4
    )


@pytest.mark.parametrize("array", [ON_ARRAY, READS], ids=["written", "noisy reads"])
@pytest.mark.parametrize(
    "text",
    ["none", "channel", "readout", "none:adapter_rank=1,adapter_steps=2,samples=8"],
)
def test_scores_do_not_depend_on_chunks(text: str, array: Hardware, split: Split) -> None:
    model = calibrate_converters(mixed(LAW, array), split.x)
    settings = {"deployment": Deployment.parse(text), "unlabelled": torch.cat([split.x] * 2)}
    whole = scores(model, split, **settings)
    assert len(set(whole)) == 6
    alone = scores(model, split, memory_budget=1, **settings)
    assert alone == pytest.approx(whole, abs=1e-4)


def test_chips_of_both_kinds_go_through_the_model_together(split: Split) -> None:
    model, seen = mixed(LAW, ON_ARRAY), []
    model[5].register_forward_hook(lambda module, x, out: seen.append(len(out)))
    scores(model, split)
    assert max(seen) == 6 * len(split.x)


def test_reads_have_a_stream_apart_from_the_drawn_weights(split: Split) -> None:
    both = calibrate_converters(mixed(EXACT_LAW, READS), split.x)
    array = calibrate_converters(analogize(network(), READS, where=["5", "7"]), split.x)
    a, b = scores(both, split), scores(array, split)
    assert a != b
    assert a == pytest.approx(b, abs=0.1)  # the same arrays, read again


def test_a_measure_sees_the_devices_that_a_fleet_scores(split: Split) -> None:
    model = mixed(LAW, ON_ARRAY)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    hardware = {"0.weight": LAW, "0.bias": LAW, "5.weight": ON_ARRAY, "7.weight": ON_ARRAY}
    (measured,) = evaluate_measure(
        model, lambda m: score(m, split, METRIC), [hardware], name="R2", n_devices=6, seed=3
    )
    assert measured.scores.tolist() == pytest.approx(scores(model, split), abs=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_fleets_take_other_laws_for_the_layers_on_the_law(split: Split) -> None:
    model = mixed(LAW, ON_ARRAY)
    own = {"0.weight": LAW, "0.bias": LAW, "5.weight": ON_ARRAY, "7.weight": ON_ARRAY}
    other = own | {"0.weight": EXACT_LAW, "0.bias": EXACT_LAW}
    a, b = evaluate_fleets(model, split, [own, other], n_devices=6, seed=3, metric=METRIC)
    assert a.scores.tolist() == scores(model, split)
    assert b.scores.tolist() == pytest.approx(scores(mixed(EXACT_LAW, ON_ARRAY), split), abs=1e-6)
    assert a.device == "lognormal:0.4 + nanowire-36"


def test_layers_that_are_drawn_one_by_one_work_too(split: Split) -> None:
    model = network()
    model[1].weight.data.uniform_(0.5, 1.5)
    analogize(model, {"1": LAW, "7": ON_ARRAY}, where=lambda name, module: name in ("1", "7"))
    assert list(analog_parameters(model)) == ["1.weight", "1.bias", "7.weight"]
    found = scores(model, split)
    assert len(set(found)) == 6
    assert scores(model, split, memory_budget=1) == pytest.approx(found, abs=1e-5)


def test_what_both_kinds_cannot_do_is_said(split: Split) -> None:
    model = mixed(LAW, ON_ARRAY)
    with pytest.raises(ConversionError, match=r"0\.weight follows the law on weights"):
        program(model, 1)
    with pytest.raises(ConversionError, match=r"5\.weight is on an array"):
        draw(model, torch.Generator())
    for hardware in (LAW, ON_ARRAY):
        with pytest.raises(ConversionError, match="Leave the hardware out"):
            evaluate_fleet(model, split, hardware=hardware)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(ConversionError, match="Give both layers the same hardware"):
        analogize(tied, {"0": LAW, "1": ON_ARRAY})
    assert not has_arrays(tied)
