"""Training for arrays: through them, or judged on them; folders and commands know the array."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from ohmloop.certify import certify_folder
from ohmloop.cli._app import app
from ohmloop.crossbar import ADC, DAC, Array, Hardware, Programming, Wires
from ohmloop.errors import CertifyError, TrainError
from ohmloop.nn import analogize, calibrate_converters, evaluate_fleets, has_arrays
from ohmloop.progress import ProgressEvent
from ohmloop.report import write_run
from ohmloop.tasks import Split, task
from ohmloop.train import (
    Chips,
    Lesson,
    Noise,
    Recipe,
    evaluate_folder,
    evaluate_run,
    fit,
    load_run,
    parse_method,
    train_once,
    unlabelled_inputs,
)

ARRAY = Array(rows=32, columns=32, dac=DAC(bits=6), adc=ADC(bits=6))
HARDWARE = Hardware(device="nanowire-36", array=ARRAY)
SMALL = {"epochs": 3, "limit": 200}


def command(*args: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*map(str, args)])
    said = re.sub("[│╭╮╰╯─]", " ", f"{result.stderr} {result.exception}")
    return result.exit_code, result.stdout, " ".join(said.split())


def same(a: nn.Module, b: nn.Module) -> bool:
    states = a.state_dict(), b.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_methods_of_noise_on_weights_train_as_for_the_law_and_are_validated_on_chips() -> None:
    digits = task("digits")
    law = fit(digits, "weight-noise:level=0.4", hardware=Hardware(device="nanowire-36"), **SMALL)
    on_array = fit(digits, "weight-noise:level=0.4", hardware=HARDWARE, **SMALL)
    assert has_arrays(on_array.model)
    # The array holds matrices, the law biases as well: their noise is all that differs.
    plain = [
        fit(digits, "erm", hardware=h, **SMALL) for h in (HARDWARE, Hardware(device="nanowire-36"))
    ]
    assert same(plain[0].model, plain[1].model)
    assert law.chip_score is None
    assert 0 < on_array.chip_score < on_array.validation_score


@pytest.mark.slow
def test_training_through_an_array_learns_repeats_and_leaves_no_chip() -> None:
    digits = task("digits")
    a, b = (fit(digits, "hardware-aware", hardware=HARDWARE, epochs=8, limit=400) for _ in range(2))
    assert a.noise == Noise(clip=2.5, on_chips=True)
    assert a.cost == 1
    assert a.chip_score > 0.5
    assert same(a.model, b.model)
    x = digits.development(0, 400)[1].x
    assert torch.equal(a.model(x), a.model(x))  # nominal: no read of a chip


def test_without_error_training_through_an_array_is_digital_training() -> None:
    digits = task("digits")
    ideal = Hardware(device="lognormal:0", array=Array(rows=32, columns=32))
    through = fit(digits, "hardware-aware:clip=1000", hardware=ideal, **SMALL)
    digital = fit(digits, "erm", hardware=ideal, **SMALL)
    for p, q in zip(through.model.parameters(), digital.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)


def test_each_step_is_on_another_chip() -> None:
    model = nn.Linear(64, 10)
    analogize(model, HARDWARE)
    seen = []
    model.register_forward_hook(lambda m, x, out: seen.append(out.detach()) if m.training else None)
    x, y = torch.randn(8, 64), torch.randint(10, (8,))
    chips = Chips((HARDWARE,), x)
    twice = Split(torch.cat([x] * 2), torch.cat([y] * 2))
    train_once(
        model,
        Lesson(twice, Split(x, y)),
        Noise(on_chips=True),
        Recipe(1, 16, 1e-9, 0),
        chips=chips,
    )
    train_once(
        model,
        Lesson(twice, Split(x, y)),
        Noise(on_chips=True),
        Recipe(1, 8, 1e-9, 1),
        chips=chips,
    )
    assert len({float(out.sum()) for out in seen}) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "hardware",
    [
        HARDWARE,
        Hardware(
            device="pcm-joshi2020",
            array=ARRAY.model_copy(update={"dac": DAC(bits=6, range="calibrated")}),
            seconds=3600.0,
        ),
    ],
    ids=["nanowire", "pcm, calibrated"],
)
@pytest.mark.parametrize("after", [1, 2])
def test_interrupted_training_through_an_array_resumes_to_the_same_bits(
    hardware: Hardware, after: int, tmp_path: Path
) -> None:
    digits = task("digits")
    setting = {**SMALL, "model": "mlp-bn"}
    whole = fit(digits, "hardware-aware", hardware=hardware, run_dir=tmp_path / "a", **setting)
    count = 0

    def interrupt(event: ProgressEvent) -> None:
        nonlocal count
        count += 1
        if count == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(
            digits,
            "hardware-aware",
            hardware=hardware,
            run_dir=tmp_path / "b",
            progress=interrupt,
            **setting,
        )
    resumed = fit(digits, "hardware-aware", hardware=hardware, run_dir=tmp_path / "b", **setting)
    assert same(whole.model, resumed.model)
    assert whole.history == resumed.history
    assert whole.chip_score == resumed.chip_score
    for name in ("config.json", "result.json", "history.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["weight-noise:grid=0.3/0.6", "steady:search=true,n_trials=4"])
def test_searches_are_judged_on_chips_of_the_array(method: str) -> None:
    digits = task("digits")
    coarse = Hardware(device="nanowire-36", array=ARRAY.model_copy(update={"adc": ADC(bits=2)}))
    fine, bad = (
        fit(digits, method, hardware=h, epochs=6, limit=300, seed=1) for h in (HARDWARE, coarse)
    )
    assert len(fine.trials) == len(bad.trials)
    assert max(t.objective for t in bad.trials) < max(t.objective for t in fine.trials)


def test_steady_scales_its_noise_by_the_error_of_the_array() -> None:
    iris = task("iris")

    def level(programming: Programming) -> float:
        hardware = Hardware(device="nanowire-36", array=Array(programming=programming))
        run = fit(iris, "steady:strength=1,teacher=false,length=1", hardware=hardware, epochs=1)
        return run.noise.level

    verify = Programming(method="cycle-verify", tolerance=0.1, max_pulses=20)
    once, verified = level(Programming()), level(verify)
    assert 0.3 < once < 1.2  # the cells' sigma is 0.475, a log-normal's relative error 0.58
    assert verified < once / 3


@pytest.mark.slow
def test_a_run_on_arrays_is_read_back_scored_certified_and_reported(tmp_path: Path) -> None:
    digits, folder = task("digits"), tmp_path / "run"
    made = fit(digits, "hardware-aware", hardware=HARDWARE, run_dir=folder, **SMALL)
    run = load_run(folder)
    assert same(made.model, run.model)
    test = digits.test(0, 200)
    part = Split(test.x[:100], test.y[:100])
    scores = [
        evaluate_fleets(m, part, [HARDWARE], n_devices=3, seed=5)[0].scores.tolist()
        for m in (made.model, run.model, run.on(HARDWARE))
    ]
    assert scores[0] == scores[1] == scores[2]
    law = Hardware(device="lognormal:0.3")
    kept = evaluate_folder(folder, n_devices=3, test_limit=50)
    assert [e.on_array for e in kept] == [True]
    both = evaluate_run(run, [law, HARDWARE], n_devices=3, test_limit=50)
    assert both[1].scores.tolist() == list(kept[0].scores)
    assert has_arrays(run.model)
    certificates = certify_folder(folder, statements=["yield"], n_devices=60, test_limit=30)
    assert {c.kind for c in certificates} == {"yield", "quantile", "tail"}
    assert "in arrays of" in certificates[0].law_words
    of_law = certify_folder(folder, law, statements=["yield"], n_devices=60, test_limit=30)
    assert "sigma 0.3" in of_law[0].law_words
    page = write_run(folder, tmp_path / "page").read_text(encoding="utf-8")
    assert "nanowire-36" in page


def test_commands_train_for_an_array(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    text = "rows=16,columns=16,adc=6"
    code, out, err = command(
        *("train", "--task", "iris", "--method", "hardware-aware", "--device", "nanowire-30"),
        *("--array", text, "--epochs", 2, "-o", folder),
    )
    assert code == 0, err
    assert "a fresh chip each step" in out
    assert "on chips of the array, simulated" in out
    assert load_run(folder).config["hardware"][0]["array"]["rows"] == 16
    code, out, err = command("evaluate", folder, "--devices", 3)
    assert code == 0, err
    assert "on what it was trained for: nanowire-30" in err
    code, out, err = command("certify", folder, "--n-devices", 60)
    assert code == 0, err
    assert "Left out, as for the law on weights alone: percentile, drift" in err
    code, _, err = command("train", "--task", "iris", "--array", "row=16", "-o", tmp_path / "b")
    assert code == 1
    assert 'Did you mean "rows"' in err
    with pytest.raises(CertifyError, match="law on weights"):
        certify_folder(folder, statements=["drift"], n_devices=60)


def test_what_one_training_cannot_run_through_is_said() -> None:
    iris = task("iris")
    law = Hardware(device="nanowire-30")
    with pytest.raises(TrainError, match="Give every Hardware an array, or none"):
        fit(iris, "erm", hardware=[HARDWARE, law], epochs=1)
    other = Hardware(device="nanowire-36", array=Array(rows=16, columns=16))
    with pytest.raises(TrainError, match="arrays of one kind"):
        fit(iris, "hardware-aware", hardware=[HARDWARE, other], epochs=1)
    with pytest.raises(TrainError, match="dac=4,adc=4"):
        fit(iris, "hardware-aware:bits=4", hardware=HARDWARE, epochs=1)
    x, y = torch.randn(8, 4), torch.randint(3, (8,))
    with pytest.raises(TrainError, match="needs a model on arrays"):
        train_once(
            analogize(nn.Linear(4, 3), law),
            Lesson(Split(x, y), Split(x, y)),
            Noise(on_chips=True),
            Recipe(1, 8, 1e-3, 0),
        )
    assert str(parse_method("hardware-aware:level=0.3")) == "hardware-aware:level=0.3"


def test_devices_of_one_array_train_together() -> None:
    both = [HARDWARE, Hardware(device="nanowire-30", array=ARRAY)]
    run = fit(task("digits"), "hardware-aware:level=0.2", hardware=both, **SMALL)
    alone = fit(task("digits"), "hardware-aware:level=0.2", hardware=HARDWARE, **SMALL)
    assert not same(run.model, alone.model)
    assert run.chip_score > 0.1


@pytest.mark.slow
def test_wires_and_bent_cells_train_through_the_fast_solution() -> None:
    array = Array(rows=16, columns=16, wires=Wires(row=1.0, column=1.0), wire_solution="fast")
    hardware = Hardware(device="nanowire-30", array=array)
    run = fit(task("iris"), "hardware-aware", hardware=hardware, epochs=3)
    assert run.history[-1]["loss"] < run.history[0]["loss"]


def test_ranges_are_those_of_the_weights_that_are_kept() -> None:
    digits = task("digits")
    run = fit(digits, "hardware-aware", hardware=HARDWARE, **SMALL)
    test = digits.test(0, 200)
    before = evaluate_fleets(run.model, test, [HARDWARE], n_devices=3)[0].scores.tolist()
    train = digits.development(0, 200)[0]
    calibrate_converters(run.model, unlabelled_inputs(train, 0)[:64])
    assert evaluate_fleets(run.model, test, [HARDWARE], n_devices=3)[0].scores.tolist() == before
