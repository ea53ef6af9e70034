"""The loop: device law, network, worth, suggestions; interrupted, resumed, stopped, and what it came to."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ohmloop.codesign._loop as loop_module
from ohmloop import bo
from ohmloop.campaign import Advice, Campaign, template
from ohmloop.codesign import (
    CodesignLoop,
    LoopSettings,
    joint,
    make_waiting,
    pareto_front,
    run_in_virtual_lab,
)
from ohmloop.codesign._loop import stop_rule, with_task_accuracy
from ohmloop.errors import CampaignError

from .small import SETTINGS, started


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[CodesignLoop, list[Any]]:
    loop = started(tmp_path_factory.mktemp("loop") / "one")
    return loop, run_in_virtual_lab(loop, 9, seed=1)


@pytest.mark.slow
def test_every_round_judges_suggests_and_is_noted(ran: tuple[CodesignLoop, list[Any]]) -> None:
    loop, steps = ran
    assert [s.n_experiments for s in steps] == [0, 3, 6, 9]
    assert steps[0].trial == ""
    assert steps[0].score is None
    assert steps[-1].trial
    assert 0 <= steps[-1].score <= 1
    assert steps[-1].error > 0
    assert any("halving sigma" in text for text in steps[-1].worths)
    assert [s["number"] for s in loop.steps] == [1, 2, 3, 4]
    assert CodesignLoop.open(loop.folder) == loop


@pytest.mark.slow
def test_every_value_in_the_campaign_is_what_the_networks_in_use_would_score(
    ran: tuple[CodesignLoop, list[Any]],
) -> None:
    from ohmloop.campaign import law_of
    from ohmloop.device import load_task_accuracy

    loop, _ = ran
    asked = load_task_accuracy(loop.folder / "task-accuracy.json")
    seen = 0
    with Campaign.open(loop.folder, writable=False) as campaign:
        for trial in campaign.trials.values():
            for record in trial.records:
                law = law_of(record.figures, "x") if record.is_usable else None
                if law is not None:
                    seen += 1
                    value = record.values["task_accuracy"]
                    assert value == pytest.approx(asked.of(law).mean, abs=1e-9)
    assert seen >= 2


@pytest.mark.slow
def test_a_step_with_nothing_new_reuses_the_networks_and_suggests_nothing_more(
    ran: tuple[CodesignLoop, list[Any]],
) -> None:
    loop, steps = ran
    again = loop.step()
    assert not again.retrained
    assert again.suggestions == steps[-1].suggestions
    assert again.trial == steps[-1].trial
    assert again.score == steps[-1].score
    assert len(loop.networks()) == SETTINGS.networks


@pytest.mark.slow
def test_joint_result_compares_the_pair_with_each_half(
    ran: tuple[CodesignLoop, list[Any]],
) -> None:
    loop, _ = ran
    found = joint(loop, n_devices=5)
    assert found.trial
    assert found.recipe
    assert found.front
    assert {p.trial for p in found.front} <= {p.trial for p in found.points}
    assert [p.experiments for p in found.points] == sorted(p.experiments for p in found.points)
    best = max(p.score for p in found.points)
    assert any(p.score == best for p in found.front)
    assert found.points[0].on_front  # nothing was there before it
    for scored in (found.both, found.device_alone, found.network_alone, found.neither):
        assert 0 < scored.score <= 1
        assert scored.error > 0
    assert all(p.energy is None or p.energy > 0 for p in found.points)


@pytest.mark.slow
def test_interrupted_after_training_it_goes_on_without_training_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = started(tmp_path / "loop")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "reassess", killed)
        with pytest.raises(KeyboardInterrupt):
            loop.step()
    assert loop.steps == []
    made = loop.step()
    assert (made.number, made.retrained) == (1, False)
    (loop.folder / "steps.jsonl").write_text(json.dumps({"number": 1}) + '\n{"numb')
    assert [s["number"] for s in loop.steps] == [1]


def test_a_gain_below_the_least_one_stops_and_the_campaigns_own_verdict_stands() -> None:
    worth = bo.Worth(
        objective="task_accuracy", best=0.5, gain=0.04, low=0.0, high=0.1, chance=0.5, relative=0.2
    )
    go_on = Advice("go on", "Worth it.", (worth,))
    assert stop_rule(go_on, 4, 0.009) == (0.01, "go on", "Worth it.")
    gain, verdict, text = stop_rule(go_on, 4, 0.02)
    assert (gain, verdict) == (0.01, "stop")
    assert text == "Worth it. That is 0.01 an experiment, below 0.02."
    assert stop_rule(Advice("stop", "Used up.", (worth,)), 4, 0.0)[1:] == ("stop", "Used up.")
    assert stop_rule(Advice("go on", "Too few."), 4, 1.0) == (None, "go on", "Too few.")


@pytest.mark.slow
def test_virtual_lab_needs_no_second_call_for_what_is_made(tmp_path: Path) -> None:
    loop = started(tmp_path / "loop")
    assert make_waiting(loop) == 0
    loop.step(q=2)
    assert make_waiting(loop, seed=3) == 2
    assert make_waiting(loop, seed=3) == 0


def test_new_refuses_a_second_loop_and_another_objective(tmp_path: Path) -> None:
    loop = started(tmp_path / "loop")
    with pytest.raises(CampaignError, match="holds a loop already"):
        CodesignLoop.new(loop.folder)
    with pytest.raises(CampaignError, match="no network yet"):
        loop.networks()
    Campaign.new(tmp_path / "other", template="perovskite-nanowires").close()
    with pytest.raises(CampaignError, match="here to maximise; this campaign has usability"):
        CodesignLoop.new(tmp_path / "other")


def test_settings_round_trip_and_name_what_is_wrong(tmp_path: Path) -> None:
    loop = CodesignLoop.new(tmp_path / "loop", LoopSettings(networks=3, epochs=7))
    assert CodesignLoop.open(loop.folder).settings == loop.settings
    path = loop.folder / "codesign.toml"
    path.write_text("epoch = 3\n")
    with pytest.raises(
        CampaignError, match=r"codesign.toml: epoch: .* Settings: schema_version, task"
    ):
        CodesignLoop.open(loop.folder)
    path.write_text("epochs = \n")
    with pytest.raises(CampaignError, match="no valid TOML"):
        CodesignLoop.open(loop.folder)
    with pytest.raises(CampaignError, match="ohmloop codesign new"):
        CodesignLoop.open(tmp_path / "nothing")


def test_the_objective_of_a_template_is_replaced_and_all_else_kept() -> None:
    old = template("perovskite-nanowires")
    new = with_task_accuracy(old)
    assert new.count("[[objectives]]") == 1
    assert 'name = "task_accuracy"' in new
    assert 'name = "usability"' not in new
    for part in ("[variables.material]", "[[constraints]]", "[cost]", "[suggest]"):
        assert new.count(part) == old.count(part)


def test_pareto_front_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4, (40, 3)).astype(float)
    on = pareto_front(values)
    for k, row in enumerate(values):
        beaten = any(all(other >= row) and any(other > row) for other in values)
        assert on[k] == (not beaten)
