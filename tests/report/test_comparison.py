"""A comparison's report: paired over seeds, honest about their number, the same bytes every time."""

import html
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tests.report.selfcontained import check, table

from ohmloop.crossbar import Hardware
from ohmloop.device import load_device
from ohmloop.errors import TrainError
from ohmloop.report import write_comparison
from ohmloop.train import (
    ComparisonRecord,
    ComparisonRow,
    read_comparison_record,
    write_comparison_record,
)

DEVICES = ("lognormal:0.2", "nanowire-30", "lognormal:0.9")


def record(n_seeds: int = 3, *, metric: str = "accuracy", higher: bool = True) -> ComparisonRecord:
    rng = np.random.default_rng(4)
    common = 0.02 * rng.random((3, n_seeds, 5))

    def row(method: str, lost: float, deployment: str = "none") -> ComparisonRow:
        scores = 0.9 - lost + common - 0.001 * rng.random((3, n_seeds, 5))
        return ComparisonRow(
            method=method,
            deployment=deployment,
            needs="nothing" if deployment == "none" else "64 unlabelled inputs on each device",
            cost=1.0,
            clean=tuple(0.95 + 0.001 * np.arange(n_seeds)),
            scores=scores.tolist(),
            settings=tuple(f"level {0.1 * k:.1f}" for k in range(n_seeds)),
        )

    return ComparisonRecord(
        task="digits",
        description="8 x 8 <b>images</b>",
        citation="Somebody 1998",
        model="mlp",
        metric=metric,
        is_higher_better=higher,
        hardware=tuple(
            Hardware(device=load_device(name)).model_dump(mode="json") for name in DEVICES
        ),
        seeds=tuple(range(n_seeds)),
        n_devices=5,
        evaluation_seed=10_007,
        epochs=3,
        batch_size=64,
        lr=0.003,
        rows=(row("erm", 0.2), row("dropout:rate=0.2", 0.15), row("erm", 0.1, "readout")),
        versions={"python": "3.x", "torch": "y"},
    )


def shown(made: ComparisonRecord, folder: Path) -> str:
    file = write_comparison_record(made, folder / "c.json")
    page = check(write_comparison(file, folder / "out"))
    assert "<b>images" not in page
    return html.unescape(page).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def page(out: Path) -> str:
    return shown(record(), out)


def test_differences_are_paired_over_seeds_with_an_interval(page: str, out: Path) -> None:
    made = record()
    rows = table(out / "out" / "comparison-differences.csv")
    assert len(rows) == 2 * (1 + 3)
    overall = next(
        r for r in rows if r["method"].startswith("dropout") and r["device_model"] == "all devices"
    )
    by_seed = [
        np.mean(np.array(made.rows[1].scores)[:, s]) - np.mean(np.array(made.rows[0].scores)[:, s])
        for s in range(3)
    ]
    assert [float(overall[f"seed_{s}"]) for s in range(3)] == pytest.approx(by_seed)
    interval = stats.ttest_1samp(by_seed, 0.0).confidence_interval(0.95)
    half = (interval.high - interval.low) / 2
    assert float(overall["half_width_95"]) == pytest.approx(half)
    assert float(overall["mean"]) == pytest.approx(np.mean(by_seed))
    assert f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f} points" in page
    assert "3 of 3" in page
    assert "not corrected for the number of methods" in page


def test_the_page_names_methods_deployments_settings_and_sources(page: str, out: Path) -> None:
    assert "dropout:rate=0.2 / none" in page
    assert "erm / readout" in page
    assert "64 unlabelled inputs on each device" in page
    assert "level 0.0 | level 0.1 | level 0.2" in page
    assert "Srivastava" in page
    assert "Data digits: Somebody 1998." in page
    assert "Device nanowire-30: " in page
    assert "10007, 10008, 10009" in page
    scores = table(out / "out" / "comparison-accuracy.csv")
    assert len(scores) == 3 * 3 * 3 * 5


def test_one_seed_claims_no_spread_between_trainings(tmp_path: Path) -> None:
    page = shown(record(1), tmp_path)
    assert "one seed shows no spread" in page
    assert "one seed: none" in page
    assert "too few to say how much of this is luck" in page


def test_a_lower_score_that_is_better_counts_as_better(tmp_path: Path) -> None:
    page = shown(record(metric="perplexity", higher=False), tmp_path)
    assert "erm / none does best" in page
    assert "0 of 3" in page


def test_the_same_file_gives_the_same_bytes(page: str, out: Path, tmp_path: Path) -> None:
    assert read_comparison_record(out / "c.json") == record()
    write_comparison(out / "c.json", tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (out / "out" / path.name).read_bytes()


def test_a_file_that_is_no_comparison_is_said(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"kind": "comparison"}')
    with pytest.raises(TrainError, match="holds no comparison: task: Field required"):
        write_comparison(tmp_path / "c.json", tmp_path)
    made = record().model_dump(mode="json")
    made["seeds"] = [0, 1]
    with pytest.raises(ValueError, match="not 3 hardwares x 2 seeds x 5 devices"):
        ComparisonRecord.model_validate(made)
