"""campaign.toml: every kind of setting is understood, and every slip is named."""

from pathlib import Path

import pytest

from ohmloop.campaign import list_templates, parse_config, read_config, template
from ohmloop.errors import CampaignError
from tests.campaign.small import TEXT

HEAD = 'name = "all kinds"\n'
KINDS = """
[variables.length]
type = "continuous"
unit = "um"
low = 0.5
high = 3
step = 0.5
tolerance = 0.1

[variables.compliance]
type = "continuous"
low = 1e-6
high = 1e-2
scale = "log"

[variables.cycles]
type = "integer"
low = 1
high = 5

[variables.marks]
type = "ordinal"
levels = [50, 5, 200]

[variables.solvent]
type = "categorical"
options = ["DMF", "DMSO", "none"]

[variables.solvent.descriptors]
DMF = { polarity = 6.4 }
DMSO = { polarity = 7.2 }
none = { polarity = 0 }

[variables.drip]
type = "continuous"
low = 3
high = 30
when = { solvent = ["DMF", "DMSO"] }

[variables.fa]
type = "continuous"
low = 0
high = 1
step = 0.1

[variables.cs]
type = "continuous"
low = 0
high = 1
step = 0.1

[variables.humidity]
type = "continuous"
role = "context"
low = 0
high = 80

[[simplex]]
variables = ["fa", "cs"]

[[constraints]]
rule = "length * cycles <= 6"
why = "the film cracks"

[[constraints]]
rule = "drip <= 20 or solvent == 'DMSO'"

[[stages]]
name = "grown"
question = "Is it there?"

[[stages]]
name = "switches"
passes_when = "switched and on_off_ratio >= 2"

[[objectives]]
name = "usability"

[[objectives]]
name = "noise"
goal = "minimise"
figure = "sigma"
scale = "log"

[cost]
formula = "3 + 2 * cycles + (5 if solvent == 'DMF' else 0)"
unit = "EUR"

[time]
formula = "length / 2"
unit = "h"

[budget]
trials = 20
cost = 500

[beliefs.length]
likely = 1

[beliefs.solvent]
likely = { DMF = 2, DMSO = 1, none = 1 }

[suggest]
batch = 3
cover = ["solvent"]
failure_budget = 0.4
"""


def test_every_kind_of_setting_is_understood() -> None:
    config = parse_config(HEAD + KINDS)
    problem = config.problem()
    assert [v.name for v in problem.space.variables if v.context] == ["humidity"]
    assert problem.space["marks"].levels == (5.0, 50.0, 200.0)  # type: ignore[union-attr]
    assert problem.stages == ("grown", "switches")
    assert [o.maximise for o in problem.objectives] == [True, False]
    assert problem.settings.failure_budget == 0.4
    assert (problem.settings.n_total, config.suggest.batch) == (20, 3)


def test_recipes_of_such_a_space_obey_every_rule(tmp_path: Path) -> None:
    from ohmloop.campaign import Campaign

    with Campaign.new(tmp_path, text=HEAD + KINDS) as campaign:
        for trial in campaign.suggest(12, context={"humidity": 41}):
            r = trial.recipe
            assert campaign.outside(r) == []
            assert float(r["length"]) * float(r["cycles"]) <= 6
            assert abs(float(r["fa"]) + float(r["cs"]) - 1) < 1e-9
            assert ("drip" in r) == (r["solvent"] != "none")
            assert float(r.get("drip", 0)) <= 20 or r["solvent"] == "DMSO"
            assert float(r["cycles"]).is_integer()
            assert r["marks"] in (5, 50, 200)
            assert 1e-6 <= float(r["compliance"]) <= 1e-2
            assert r["humidity"] == 41


@pytest.mark.parametrize("name", list_templates())
def test_templates_load_and_know_what_they_want(name: str) -> None:
    config = parse_config(template(name))
    assert [s.name for s in config.stages] == [
        "fabricated",
        "conducts",
        "switches",
        "analog",
        "endures",
        "retains",
    ]
    assert config.objectives[0].name == "usability"
    assert config.budget.trials
    assert config.cost is not None
    assert config.time is not None
    assert all(stage.question for stage in config.stages)


def test_the_nanowire_template_has_the_columns_of_the_published_recipes() -> None:
    from ohmloop.device import VirtualLab

    config = parse_config(template("perovskite-nanowires"))
    assert tuple(config.variables) == VirtualLab().variables


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("high = 1", "hihg = 1", r'"variables.x.hihg" is no setting. Did you mean "high"'),
        ("[budget]", "[budgte]", r'"budgte" is no setting. Did you mean "budget"'),
        ("trials = 12", "trails = 12", r'"budget.trails" is no setting. Did you mean "trials"'),
        (
            'type = "continuous"',
            'type = "real"',
            "variables.x.type: .*'continuous'.*received 'real'",
        ),
        ("low = 0", 'low = "zero"', "variables.x.low: .*received 'zero'"),
        ("low = 0", "low = 2", 'variable "x": low must lie below high'),
        ("low = 0\n", "", '"low" and "high"'),
        ("step = 0.1", "levels = [1, 2]", 'variables.x: "levels" means nothing'),
        ("step = 0.1", 'scale = "log"', 'variable "x": a logarithmic scale needs low > 0'),
        ('["plain", "doped", "mixed"]', "[]", 'variable "kind": needs one or more'),
        ("batch = 2", "batch = 0", "suggest.batch: .*received 0"),
        ('name = "Small"', 'name = ""', "name: .*at least 1 character"),
        ("[variables.x]", "[variables.trial]", '"trial" is no usable name'),
        ("[variables.x]", '[variables."2x"]', '"2x" is no usable name'),
        ('name = "usability"', 'name = "x"', r"\['x'\] are used twice"),
        ("schema_version = 1", "schema_version = 2", "schema_version"),
        ("[budget]", "[budget", "no valid TOML"),
        (
            "[variables.x]",
            "[variables.x]\nwhen = { knd = [1] }",
            'names "knd", which is no variable',
        ),
    ],
)
def test_a_slip_is_named_with_what_was_expected(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(CampaignError, match=f"^campaign.toml: .*{message}"):
        parse_config(TEXT.replace(old, new, 1))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[[constraints]]\nrule = "x + y <= 2"', 'names "y", which is no variable'),
        ('[[constraints]]\nrule = "x + 1"', "compares nothing"),
        ("[[constraints]]\nrule = \"__import__('os')\"", "is not allowed"),
        ('[[constraints]]\nrule = "x <= 0"\n[[constraints]]\nrule = "x <"', "is no formula"),
        ('[cost]\nformula = "2 * z"', 'the cost names "z"'),
        ('[time]\nformula = "2 * z"', r"time.formula names \['z'\]"),
        ('[[simplex]]\nvariables = ["x", "kind"]', '"kind" stands in a simplex'),
        ('[[stages]]\nname = "switches"\npasses_when = "swiched"', 'Did you mean "switched"'),
        (
            '[[stages]]\nname = "switches"\npasses_when = "sigma + 1"',
            "is an amount, not a condition",
        ),
        ('[[objectives]]\nname = "b"\nfigure = "sigm"', 'Did you mean "sigma"'),
        ("[beliefs.x]\nlikely = { a = 1 }", 'the belief about "x" must be a number'),
        ("[beliefs.kind]\nlikely = 3", 'the belief about "kind" must be weights'),
    ],
)
def test_a_part_that_does_not_fit_is_named(more: str, message: str) -> None:
    with pytest.raises(CampaignError, match=message):
        parse_config(f"{TEXT}\n{more}\n")


def test_without_objectives_the_search_is_for_usable_recipes(tmp_path: Path) -> None:
    from ohmloop.campaign import Campaign

    text = TEXT.replace('[[objectives]]\nname = "usability"\n', "")
    with Campaign.new(tmp_path, text=text) as campaign:
        (trial,) = campaign.suggest(1)
        campaign.record(trial.id, passed="all")
        assert [t.id for t, _ in campaign.best()] == [trial.id]


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "campaign.toml"
    with pytest.raises(CampaignError, match="cannot be read"):
        read_config(path)
    path.write_bytes(b"name = \xff")
    with pytest.raises(CampaignError, match=r"is not UTF-8 text \(byte 7\)"):
        read_config(path)
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())  # as Notepad saves it
    assert read_config(path).name == "Small"
