"""What `bench/robustness.py` says of its rows, for scores and for errors."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def robustness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    import _robustness_tables as found

    return found


def row(method: str, deployment: str, mean: list[float], *, higher: bool) -> dict[str, Any]:
    return {
        "model": "net",
        "method": method,
        "deployment": deployment,
        "metric": "accuracy" if higher else "perplexity",
        "is_higher_better": higher,
        "cost": 1.0,
        "clean": [0.9 if higher else 10.0],
        "mean": mean,
        "std": [0.0, 0.0],
        "mean_by_seed": [[m] for m in mean],
        "needs": "nothing",
        "settings": ["level 1", "none"],
        "rank_correlations": [{"6 to 12 epochs": [rho, 3]} for rho in (0.5, -1.0)],
    }


@pytest.fixture(params=[True, False], ids=["accuracy", "perplexity"])
def higher(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def rows(higher: bool) -> list[dict[str, Any]]:
    """Plain training, BayesMulti, and ours, with its search and without, the best: at sigma .587 and 1.2."""
    means = (
        ([0.5, 0.2], [0.7, 0.4], [0.82, 0.75], [0.85, 0.8])
        if higher
        else ([90.0, 500.0], [50.0, 250.0], [12.0, 34.0], [11.0, 20.0])
    )
    names = (
        ("erm", "none"),
        ("bayesmulti", "none"),
        ("steady:search=true", "readout"),
        ("steady", "readout"),
    )
    found = [row(*name, mean, higher=higher) for name, mean in zip(names, means, strict=True)]
    found[-1]["cost"] = 4.0
    return found


def test_sentences_call_the_better_score_better(robustness: ModuleType, higher: bool) -> None:
    study = robustness.Study("x", "x", ("net",), (), (), sigmas=(0.587, 1.2))
    said = robustness.claims(rows(higher), "net", 0, study)
    words = "plain training no, bayesmulti no, corrected steady yes, corrected steady:search=true "
    assert words + ("yes" if higher else "no") in said
    ratio = "ratio 0.25" if higher else "ratio 0.03"  # .05 / .2; 1 / 40
    assert ratio in said
    largest = (
        "corrected steady to plain training, where it keeps half of its clean score: 4.0"
        if higher
        else "plain training to corrected steady, where it keeps its score within twice its clean one: 25.0"
    )
    assert f"Largest ratio of {largest} at sigma 1.2" in said
    # Ruined networks have a ratio too, said apart for scores; of perplexities it means nothing.
    assert ("Largest ratio of bayesmulti to plain training: 2.0 at sigma 1.2" in said) == higher
    assert "steady:search=true chose, seed by seed: level 1; plain training." in said
    assert "6 to 12 epochs +0.5 (3 settings); 6 to 12 epochs -1.0 (3 settings)" in said
    assert ("lower is better" in robustness.table(study, result(higher))) != higher


def result(higher: bool) -> dict[str, Any]:
    return {"rows": rows(higher), "sigmas": [0.587, 1.2], "seconds": 1.0}


def test_loss_ratio_is_below_one_where_ours_loses_less(
    robustness: ModuleType, higher: bool
) -> None:
    lines = robustness.summary_lines("x", "net", rows(higher), result(higher))
    assert [line[1] for line in lines] == ["0.587", "1.2"]
    # (.9 - .8) / (.9 - .4), searched (.9 - .75) / .5; (20 - 10) / (250 - 10), searched 24 / 240
    assert lines[1][-2] == ("0.20 / 0.30" if higher else "0.04 / 0.10")
    searched = "yes" if higher else "no"
    assert [line[-1] for line in lines] == [f"no / yes / {searched}", "no / no / no"]
    assert [line[-3] for line in lines] == ["4.0", "4.0"]


def test_long_plain_training_and_corrected_bayesmulti_have_columns(
    robustness: ModuleType, higher: bool
) -> None:
    more = [
        row("erm", "readout", [7.0, 8.0], higher=higher),
        row("erm (40 epochs)", "readout", [5.0, 6.0], higher=higher),
        row("bayesmulti", "readout", [3.0, 4.0], higher=higher),
    ]
    lines = robustness.summary_lines("x", "net", [*rows(higher), *more], result(higher))
    assert [cell.split()[0] for cell in lines[0][6:9]] == ["7.000", "5.000", "3.000"]


def test_worst_tenth_is_the_highest_of_an_error(robustness: ModuleType, higher: bool) -> None:
    scores = np.arange(40.0).reshape(2, 1, 20)
    found = robustness.worst_tenth(scores, higher)
    assert found.tolist() == ([0.5, 20.5] if higher else [18.5, 38.5])
