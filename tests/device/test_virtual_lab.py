"""The virtual lab: simulated and marked as such, true to what it was fitted to, with failures."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from ohmloop.campaign import Campaign, make_in_virtual_lab, parse_config, template
from ohmloop.campaign._ingest import judge
from ohmloop.data import Sweep, figures_of_merit, read
from ohmloop.device import VirtualDevice, VirtualLab, list_devices, write_workbook
from ohmloop.errors import CampaignError, DeviceError

GOOD = {"material": "MAPbI3", "cvd_temperature_c": 180.0, "compliance_a": 0.002}


def recipe_of(number: int) -> dict[str, Any]:
    return {k: v for k, v in list_devices()[number].recipe.items() if v is not None}


def figures(device: VirtualDevice) -> dict[str, Any]:
    n = device.current.shape[1]
    voltage = np.broadcast_to(device.voltage[:, None], device.current.shape)
    sweep = Sweep(voltage, device.current, tuple(map(str, range(n))), "v", "virtual", "0" * 64)
    return figures_of_merit(sweep, n_bootstrap=0).to_dict()


@pytest.fixture(scope="module")
def many() -> list[tuple[VirtualDevice, dict[str, Any]]]:
    """Six devices of each published recipe that got as far as a sweep, with their figures."""
    lab = VirtualLab(seed=3)
    made = [lab.make(recipe_of(k), i) for k in range(43) for i in range(6)]
    return [(device, figures(device)) for device in made if len(device.voltage)]


def test_the_same_seed_recipe_and_number_give_the_same_device() -> None:
    a, b = (VirtualLab(seed=1).make(GOOD, 2) for _ in range(2))
    assert a.failed_at == b.failed_at
    assert np.array_equal(a.voltage, b.voltage)
    assert np.array_equal(a.current, b.current)
    for other in (
        VirtualLab(seed=2).make(GOOD, 2),
        VirtualLab(seed=1).make(GOOD, 3),
        VirtualLab(seed=1).make({**GOOD, "cvd_time_h": 2.0}, 2),
    ):
        assert other.sigma != a.sigma


def test_the_order_of_a_recipe_and_what_is_left_out_do_not_matter() -> None:
    lab = VirtualLab()
    turned = dict(reversed(GOOD.items()))
    assert lab.make(GOOD).sigma == lab.make(turned).sigma
    common = {**GOOD, "contact": "carbon"}  # the most frequent one
    assert lab.make(GOOD).sigma == lab.make(common).sigma


@pytest.mark.slow
def test_sigma_that_was_drawn_is_found_again_in_the_sweep(
    many: list[tuple[VirtualDevice, dict[str, Any]]],
) -> None:
    ratio = np.array(
        [f["sigma"] / d.sigma for d, f in many if d.failed_at is None and f["sigma"] is not None]
    )
    assert len(ratio) > 150
    assert abs(np.median(ratio) - 1) < 0.03
    assert np.mean(np.abs(ratio - 1) < 0.15) > 0.8


def test_figures_of_many_devices_follow_the_law_of_their_recipe() -> None:
    """Medians over 25 devices a recipe: sigma within 25 %, monotonicity within 0.06 of the law."""
    lab = VirtualLab(seed=5)
    for number in (0, 8, 20, 33):
        recipe = recipe_of(number)
        law = lab.expected(recipe)
        found = [
            figures(d) for d in (lab.make(recipe, i) for i in range(25)) if d.failed_at is None
        ]
        # The median of a log-normal is the exponential of the mean of its logarithm.
        assert np.median([f["monotonicity"] for f in found]) == pytest.approx(
            law["monotonicity"], abs=0.06
        )
        spread = 0.88 / np.sqrt(len(found)) * 1.25  # of the median of ln sigma
        drift = abs(np.log(np.median([f["sigma"] for f in found]) / law["sigma"]))
        assert drift < 3 * spread


def test_expected_figures_rank_like_the_measured_ones() -> None:
    lab, real = VirtualLab(), list_devices()
    law = [lab.expected(device.recipe) for device in real]
    for name, measured in (
        ("sigma", [d.sigma.value for d in real]),
        ("monotonicity", [d.figures["monotonicity"] for d in real]),
        ("usability", [d.figures["usability"] for d in real]),
    ):
        assert spearmanr([x[name] for x in law], measured).statistic > 0.5, name


def test_every_published_recipe_works_more_often_than_not() -> None:
    lab = VirtualLab()
    works = [lab.expected(device.recipe)["works"] for device in list_devices()]
    assert min(works) > 0.5
    assert np.median(works) > 0.85


def test_most_recipes_of_the_template_fail_and_at_every_stage_some() -> None:
    space = parse_config(template("perovskite-nanowires")).problem().space
    points = space.to_points(space.sample(400, np.random.default_rng(0)))
    lab = VirtualLab(seed=0)
    failed = Counter(lab.make(point).failed_at for point in points)
    assert 0.5 < 1 - failed[None] / 400 < 0.8
    assert failed["fabricated"] > 150
    assert failed["conducts"] > 8
    assert failed["switches"] > 4
    assert set(failed) == {None, "fabricated", "conducts", "switches"}


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        ({"cvd_temperature_c": 400.0}, "fabricated"),
        ({"aao_length_um": 3.0, "aao_diameter_nm": 5.0}, "fabricated"),
        ({"aao_length_um": 0.5, "pb_electrodeposition_min": 30.0}, "conducts"),
        ({"aao_length_um": 3.0, "pb_electrodeposition_min": 5.0}, "conducts"),
        ({"sweep_max_v": 0.6}, "switches"),
        ({"compliance_a": 0.9}, "switches"),
    ],
)
def test_rules_of_thumb_decide_where_devices_fail(change: dict[str, float], stage: str) -> None:
    lab = VirtualLab(seed=1)
    failed = Counter(lab.make({**GOOD, **change}, k).failed_at for k in range(40))
    assert failed[stage] > 20
    assert Counter(lab.make(GOOD, k).failed_at for k in range(40))[None] > 28


def test_the_template_judges_failed_devices_at_the_stage_where_they_failed(
    many: list[tuple[VirtualDevice, dict[str, Any]]],
) -> None:
    config = parse_config(template("perovskite-nanowires"))
    lab = VirtualLab(seed=2)
    bad = [
        *(
            lab.make({**GOOD, "aao_length_um": 0.5, "pb_electrodeposition_min": 30.0}, k)
            for k in range(20)
        ),
        *(lab.make({**GOOD, "sweep_max_v": 0.6}, k) for k in range(20)),
        *(lab.make({**GOOD, "compliance_a": 1e-5, "sweep_max_v": 0.6}, k) for k in range(20)),
    ]
    pairs = [(d, figures(d)) for d in bad if len(d.voltage)] + many
    verdicts = Counter()
    for device, found in pairs:
        stages, values = judge(config, found)
        failed_at = next((name for name, ok in stages.items() if not ok), None)
        assert bool(values) == (failed_at is None)
        verdicts[device.failed_at, failed_at] += 1
    n_failed = sum(n for (drawn, _), n in verdicts.items() if drawn)
    right = sum(n for (drawn, said), n in verdicts.items() if drawn and drawn == said)
    assert n_failed > 60
    assert right >= 0.97 * n_failed
    # A working device may still miss what the template asks for, as 4 of the 43 measured ones do.
    works = sum(n for (drawn, _), n in verdicts.items() if drawn is None)
    assert verdicts[None, None] > 0.8 * works


def test_a_workbook_is_marked_and_read_like_a_labs(tmp_path: Path) -> None:
    device = next(d for d in (VirtualLab().make(GOOD, k) for k in range(9)) if d.failed_at is None)
    path = write_workbook(device, tmp_path / "T001_dev1.xlsx", about="trial T001")
    sweep = read(path)
    assert sweep.format == "perovskite-workbook"
    assert np.allclose(sweep.current, device.current, rtol=1e-5)
    assert any("SIMULATED" in note.text for note in sweep.notes)
    from openpyxl import load_workbook

    book = load_workbook(path)
    assert book.sheetnames == ["Sheet1", "SIMULATED"]
    assert "no measurement" in str(book["SIMULATED"]["A1"].value)
    with pytest.raises(DeviceError, match="cannot be written"):
        write_workbook(device, tmp_path / "nowhere" / "a.xlsx")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({}, "the recipe is empty; it makes halide-perovskite nanowires from material"),
        ({"spin_rpm": 3000.0}, '"spin_rpm" is none of its variables'),
        ({"cvd_temprature_c": 3.0}, 'Did you mean "cvd_temperature_c"'),
        ({"cvd_time_h": "long"}, 'cvd_time_h needs a number; received "long"'),
    ],
)
def test_a_recipe_that_it_cannot_make_is_named(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        VirtualLab().make(recipe)


@pytest.mark.slow
def test_a_campaign_is_made_as_marked_files_and_a_sheet_of_failures(tmp_path: Path) -> None:
    with Campaign.new(tmp_path / "lab", template="perovskite-nanowires") as campaign:
        with pytest.raises(CampaignError, match="no trial is open"):
            make_in_virtual_lab(campaign, tmp_path / "measured")
        campaign.suggest(4)
        made = make_in_virtual_lab(campaign, tmp_path / "measured", n_devices=2)
        again = make_in_virtual_lab(campaign, tmp_path / "again", n_devices=2)
        assert made == again
        assert len(made) == 8
        names = {m["file"] for m in made if m["file"]}
        assert {path.name for path in (tmp_path / "measured").iterdir()} == names
        assert all("simulated" in m["device"] for m in made)
        lost = [m["device"] for m in made if not m["file"]]
        assert lost
        got = campaign.import_(tmp_path / "measured-failures.csv")
        assert got.recorded == len(lost)
        campaign.ingest([tmp_path / "measured"])
        assert sum(len(t.records) for t in campaign.trials.values()) == 8
        (tmp_path / "file").write_text("")
        campaign.suggest(1)
        with pytest.raises(CampaignError, match="cannot be written"):
            make_in_virtual_lab(campaign, tmp_path / "file" / "measured")


@pytest.mark.slow
def test_variables_that_the_virtual_lab_does_not_know_have_no_effect(tmp_path: Path) -> None:
    text = template("perovskite-nanowires")
    more = '\n[variables.operator]\ntype = "categorical"\noptions = ["ada", "grace"]\n'
    made = []
    for name, toml in (("a", text), ("b", text + more)):
        with Campaign.new(tmp_path / name, text=toml) as campaign:
            extra = {"operator": "ada"} if "operator" in campaign.config.variables else {}
            campaign.add({**recipe_of(0), "pmma": "no", **extra})
            made.append(make_in_virtual_lab(campaign, tmp_path / f"m{name}", n_devices=3))
    assert made[0] == made[1]
    with Campaign.new(tmp_path / "films", template="spin-coated-films") as campaign:
        campaign.suggest(1, context={"humidity": 40.0})
        with pytest.raises(CampaignError, match="knows none of the variables"):
            make_in_virtual_lab(campaign, tmp_path / "m")
