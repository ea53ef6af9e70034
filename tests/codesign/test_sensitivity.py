"""What device properties are worth: against direct simulation, in the right direction, with honest errors."""

from pathlib import Path

import numpy as np
import pytest

from ohmloop.codesign import sensitivity
from ohmloop.codesign._axes import AXES, axes_of, design, hardware_at
from ohmloop.codesign._changes import changes_of, widened
from ohmloop.codesign._sensitivity import mean_and_error
from ohmloop.crossbar import ADC, Array, Hardware
from ohmloop.device import load_device, table_distortion
from ohmloop.errors import TrainError
from ohmloop.nn import evaluate_fleets
from ohmloop.train import Run

from .small import trained

USAGE = np.ones(512) / 512


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return trained(tmp_path_factory.mktemp("runs"))


def law(name: str) -> Hardware:
    return Hardware(device=load_device(name))


@pytest.mark.slow
def test_surrogate_predicts_laws_that_it_did_not_see(runs: list[Run]) -> None:
    found = sensitivity(runs, law("lognormal:0.5"), n_points=32, n_devices=16)
    names = ("lognormal:0.15", "lognormal:0.6", "lognormal:1.1", "nanowire-28", "nanowire-30")
    direct = []
    for run in runs:
        _, validation = run.task.development(run.config["seed"])
        fleets = evaluate_fleets(run.model, validation, [law(n) for n in names], n_devices=30)
        direct.append([f.mean for f in fleets])
    asked = [found.surrogate.of(load_device(n), with_interval=False) for n in names]
    for name, known, a in zip(names, np.mean(direct, 0), asked, strict=True):
        assert a.mean == pytest.approx(known, abs=0.03 + 2 * a.error), name
    assert found.left_out < 0.12
    curve = [found.surrogate.at({"sigma": s}).mean for s in (0.05, 0.3, 0.7, 1.2, 2.0)]
    assert curve == sorted(curve, reverse=True)


@pytest.mark.slow
def test_halving_sigma_is_worth_what_simulation_says(runs: list[Run]) -> None:
    found = sensitivity(runs, law("lognormal:0.8"), n_points=6, n_devices=20)
    (worth,) = found.worths
    assert (worth.name, worth.before, worth.after) == ("sigma", 0.8, 0.4)
    scores = []
    for run in runs:
        _, validation = run.task.development(run.config["seed"])
        low, high = evaluate_fleets(
            run.model,
            validation,
            [law("lognormal:0.4"), law("lognormal:0.8")],
            n_devices=60,
            seed=5,
        )
        scores.append(low.mean - high.mean)
    # Other devices: four standard errors of either.
    assert worth.gain == pytest.approx(np.mean(scores), abs=4 * max(worth.error, 0.01))
    assert worth.gain > 0.1
    assert "halving sigma (0.8 to 0.4) is worth" in found.sentences()[0]
    assert "points" in found.sentences()[0]
    assert found.to_dict()["worths"][0]["text"] == found.sentences()[0]


@pytest.mark.slow
def test_the_same_call_gives_the_same_numbers(runs: list[Run]) -> None:
    one, two = (sensitivity(runs, n_points=8, n_devices=3, limit=60) for _ in range(2))
    assert one == two
    assert one.surrogate.n_samples == 60
    assert one.surrogate.metric == "accuracy"


def test_no_test_data_is_opened(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    from ohmloop.tasks import Task

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("test data opened")

    monkeypatch.setattr(Task, "test", refuse)
    sensitivity(runs, n_points=6, n_devices=2, limit=40)


@pytest.mark.slow
def test_arrays_have_properties_of_their_own(runs: list[Run]) -> None:
    hardware = Hardware(
        device=load_device("pcm-joshi2020"), array=Array(adc=ADC(bits=5)), seconds=1e3
    )
    found = sensitivity(
        runs, hardware, properties=["sigma", "adc_bits"], n_points=12, n_devices=3, limit=100
    )
    assert found.surrogate.names == ("sigma", "adc_bits")
    named = {w.name for w in found.worths}
    assert {"adc_bits", "seconds"} <= named
    low, high = (found.surrogate.at({"sigma": s, "adc_bits": 8.0}).mean for s in (0.05, 2.0))
    assert low > high + 0.2


def test_networks_must_be_of_one_kind(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="at least one trained network"):
        sensitivity([])
    other = runs[1]._replace(config=runs[1].config | {"method": "dropout:rate=0.3"})
    with pytest.raises(TrainError, match=r"method is 'erm' in one and 'dropout:rate=0.3'"):
        sensitivity([runs[0], other])
    with pytest.raises(TrainError, match="2 properties need at least 6 points and two devices"):
        sensitivity(runs, n_points=5)


def test_only_properties_that_the_hardware_has_can_be_varied() -> None:
    with pytest.raises(TrainError, match='"levels" cannot be varied on this hardware'):
        axes_of(law("lognormal:0.5"), ["levels"])
    with pytest.raises(TrainError, match="at least one property"):
        axes_of(law("lognormal:0.5"), [])
    drifting = Hardware(device=load_device("pcm-joshi2020"), array=Array())
    assert [a.name for a in axes_of(drifting)] == [
        "sigma",
        "levels",
        "window",
        "read_noise",
        "faults",
        "seconds",
    ]


def test_design_fills_the_ranges_and_its_tables_have_their_distortion() -> None:
    base = law("lognormal:0.5")
    axes = axes_of(base)
    plan = design(base, axes, USAGE, n_points=40, seed=1)
    assert plan.points.shape == (40, 2)
    for column in plan.points.T:
        assert column.min() < 0.1
        assert column.max() > 0.9
    for point, hardwares in zip(plan.points, plan.hardwares, strict=True):
        (sigma,) = {h.device.sigma.value for h in hardwares}
        assert sigma == pytest.approx(AXES["sigma"].from_unit(point[0]))
        bent = [table_distortion(h.device.rho, USAGE) for h in hardwares]
        assert np.mean(bent) == pytest.approx(AXES["distortion"].from_unit(point[1]), abs=1e-9)


def test_hardware_at_changes_the_named_properties_alone() -> None:
    base = Hardware(device=load_device("pcm-joshi2020"), array=Array(adc=ADC(bits=8)))
    changed = hardware_at(
        base,
        {
            "sigma": 0.3,
            "levels": 15.6,
            "window": 10.0,
            "read_noise": 0.05,
            "faults": 0.02,
            "seconds": 100.0,
            "adc_bits": 6.0,
        },
        None,
    )
    cell = changed.device.cell()
    assert (cell.write.kind, cell.write.sigma, cell.levels) == ("lognormal", 0.3, 16)
    assert cell.g_min == pytest.approx(cell.g_max / 10)
    assert cell.faults.p_low == cell.faults.p_high == 0.01
    assert (cell.read.relative, changed.seconds) == (0.05, 100.0)
    assert changed.array is not None
    assert changed.array.adc is not None
    assert changed.array.adc.bits == 6
    assert cell.drift == base.device.cell().drift
    assert hardware_at(base, {}, None).device.cell() == base.device.cell()


def test_improvements_of_a_law_halve_sigma_and_widen_the_table() -> None:
    changes = {c.phrase: c.hardware for c in changes_of(law("nanowire-28"))}
    assert list(changes) == [
        "halving sigma",
        "10 more monotone levels",
        "a monotone ramp throughout",
    ]
    before = load_device("nanowire-28").rho
    after = changes["10 more monotone levels"].device.rho
    assert before is not None
    assert after is not None
    assert sum(x >= 1 for x in after) == sum(x >= 1 for x in before) + 10
    assert all(b >= a for a, b in zip(before, after, strict=True))
    assert [c.name for c in changes_of(law("nanowire-30"))] == ["sigma"]


def test_a_table_widens_upwards_first_and_never_beyond_its_ends() -> None:
    assert widened((0.1, 1.0, 0.2, 0.3), 1) == (0.1, 1.0, 1.0, 0.3)
    assert widened((0.1, 0.2, 1.0, 0.3), 2) == (0.1, 1.0, 1.0, 1.0)
    assert widened((0.5, 1.0), 10) == (1.0, 1.0)


def test_error_of_crossed_networks_and_devices_covers_its_own_spread() -> None:
    rng = np.random.default_rng(0)
    errors, means = [], []
    for _ in range(400):
        scores = (
            rng.normal(0, 0.02, (3, 1))
            + rng.normal(0, 0.05, (1, 20))
            + rng.normal(0, 0.01, (3, 20))
        )
        mean, error = mean_and_error(scores)
        means.append(mean)
        errors.append(error)
    true = np.sqrt(0.02**2 / 3 + 0.05**2 / 20 + 0.01**2 / 60)
    # 400 repetitions: the spread of means is known to 3.5 %; the mean square error is unbiased from above.
    assert np.std(means) == pytest.approx(true, rel=0.15)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(true, rel=0.1)
    alone = mean_and_error(np.array([[0.5, 0.7]]))
    assert alone == (pytest.approx(0.6), pytest.approx(0.1))
