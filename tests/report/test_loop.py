"""A loop's report: worths with errors, every step, every device, what it came to; nothing invented."""

import hashlib
import html
import json
from pathlib import Path

import pytest
from tests.codesign.small import started
from tests.report.selfcontained import check, table

from ohmloop.campaign import Campaign, recipe_text
from ohmloop.codesign import CodesignLoop, make_waiting
from ohmloop.device import Axis, TaskAccuracy, save_task_accuracy
from ohmloop.errors import CampaignError
from ohmloop.report import write_loop

WORTHS = [
    {"name": "sigma", "phrase": "halving sigma", "before": 0.4, "after": 0.2, "gain": 0.072, "error": 0.004},
    {"name": "levels", "phrase": "10 more monotone levels", "before": 25.0, "after": 35.0, "gain": -0.003,
     "error": 0.002},
]  # fmt: skip


def asked() -> TaskAccuracy:
    """Return a score that falls with sigma."""
    points = tuple((0.1 * k,) for k in range(11))
    return TaskAccuracy(
        task="digits", method="erm", metric="accuracy", n_networks=2, n_devices=4, n_samples=120,
        digital=0.97, axes=(Axis(name="sigma", low=0.05, high=2.0, log=True, neutral=0.0),),
        usage=(0.5, 0.5), points=points, means=tuple(0.95 - 0.08 * k for k in range(11)),
        errors=(0.004,) * 11, spreads=(0.01,) * 11, lengths=(0.5,), amplitude=0.1, noises=(1e-4,) * 11,
    )  # fmt: skip


def step(number: int, trial: str) -> dict[str, object]:
    return {
        "number": number, "n_experiments": 3 * (number - 1), "trial": trial, "recipe": {},
        "sigma": 0.4, "method": "erm", "retrained": number == 1, "score": 0.81 if trial else None,
        "error": 0.02 if trial else None, "worths": ["halving sigma is worth 7"],
        "gain": 0.012 if trial else None, "verdict": "go on", "text": "It pays <still>.",
        "suggestions": [],
    }  # fmt: skip


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> CodesignLoop:
    """A loop with devices of the virtual lab, and the files that its steps leave."""
    made = started(tmp_path_factory.mktemp("loop") / "one")
    with Campaign.open(made.folder) as campaign:
        for volts in (3.0, 5.0, 7.0):
            campaign.add({"sweep_max_v": volts, "pb_electrodeposition_min": 20.0})
    save_task_accuracy(asked(), made.folder / "task-accuracy.json")
    make_waiting(made, seed=1)
    (made.folder / "worths.json").write_text(json.dumps(WORTHS))
    with Campaign.open(made.folder, writable=False) as campaign:
        best = campaign.best()[0][0].id
    lines = [step(1, ""), step(2, best)]
    (made.folder / "steps.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    return made


def shown(folder: Path, out: Path) -> str:
    return html.unescape(check(write_loop(folder, out))).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def page(loop: CodesignLoop, out: Path) -> str:
    return shown(loop.folder, out)


def test_worths_steps_and_devices_are_on_the_page(page: str, out: Path) -> None:
    assert "halving sigma (0.4 to 0.2) is worth 7.20 ± 0.40 points" in page
    assert "10 more monotone levels (25 to 35) is worth -0.30 ± 0.20 points" in page
    worths = table(out / "loop-worths.csv")
    assert [(float(w["gain"]), float(w["standard_error"])) for w in worths] == [
        (0.072, 0.004),
        (-0.003, 0.002),
    ]
    assert "81.0 ± 2.0 %" in page
    assert "It pays <still>." in page
    assert len(table(out / "loop-history.csv")) == 2
    devices = [r for r in table(out / "loop-score-against-sigma.csv") if r["what"] == "device"]
    assert devices
    for row in devices:
        assert row["trial"] in page
        assert f"{float(row['sigma']):.3f}" in page
    assert "holds SIMULATED devices of the virtual lab" in page
    assert "(best trial)" in page


def test_settings_and_hashes_of_every_part_are_named(loop: CodesignLoop, page: str) -> None:
    for name in (
        "codesign.toml",
        "campaign.toml",
        "task-accuracy.json",
        "worths.json",
        "steps.jsonl",
    ):
        assert hashlib.sha256((loop.folder / name).read_bytes()).hexdigest() in page
    for key, value in loop.settings.model_dump(exclude_none=True).items():
        assert f"<td>codesign.{key}</td>" in page
        assert str(value) in page
    assert "campaign.variables.sweep_max_v.high" in page
    assert "Rasmussen" in page


@pytest.mark.slow
def test_no_joint_result_is_said_and_one_that_is_kept_is_shown(
    loop: CodesignLoop, page: str, tmp_path: Path
) -> None:
    assert "ohmloop codesign result one" in page
    with Campaign.open(loop.folder, writable=False) as campaign:
        trial, _ = campaign.best()[0]
        assert recipe_text(campaign.config, trial.recipe)
    kept = {
        "schema_version": 1, "trial": trial.id, "recipe": dict(trial.recipe), "method": "erm",
        "law": {"name": trial.id, "sigma": {"value": 0.4}}, "metric": "accuracy",
        "both": {"score": 0.9, "error": 0.01}, "device_alone": {"score": 0.85, "error": 0.01},
        "network_alone": {"score": 0.5, "error": 0.02}, "neither": {"score": 0.4, "error": 0.02},
        "points": [
            {"trial": "T001", "score": 0.5, "energy": 4e-9, "experiments": 1, "on_front": True},
            {"trial": "T002", "score": 0.9, "energy": None, "experiments": 2, "on_front": False},
        ],
        "n_devices": 20, "n_steps": 1,
    }  # fmt: skip
    file = loop.folder / "joint.json"
    file.write_text(json.dumps(kept))
    try:
        after = shown(loop.folder, tmp_path / "after")
        assert "90.0 ± 1.0 %" in after
        assert "20 simulated devices" in after
        assert "Older than the last step" in after  # of two, it knows one
        halves = table(tmp_path / "after" / "loop-halves.csv")
        assert [float(row["test_score"]) for row in halves] == [0.9, 0.85, 0.5, 0.4]
        front = table(tmp_path / "after" / "loop-front.csv")
        assert [row["on_front"] for row in front] == ["True", "False"]
        file.write_text('{"schema_version": 1}')
        with pytest.raises(CampaignError, match=r"joint\.json is damaged.*ohmloop codesign result"):
            write_loop(loop.folder, tmp_path / "never")
    finally:
        file.unlink()


def test_the_same_loop_gives_the_same_bytes(
    loop: CodesignLoop, page: str, out: Path, tmp_path: Path
) -> None:
    write_loop(loop.folder, tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes()


def test_a_loop_without_a_step_has_a_page(tmp_path: Path) -> None:
    fresh = started(tmp_path / "new")
    page = shown(fresh.folder, tmp_path / "out")
    assert "No step was made yet" in page
    assert "No usable device yet." in page
    with pytest.raises(CampaignError, match="ohmloop codesign new"):
        write_loop(tmp_path, tmp_path / "out")
