"""Reasons are sentences that a fabricator reads, with units, and nothing that is not known."""

from ohmloop.campaign import parse_config, recipe_text, sentences
from tests.campaign.small import TEXT

CONFIG = parse_config(TEXT.replace('name = "usability"', 'name = "usability"\nunit = "%"'))
REASONS = {
    "mode": "explore",
    "predictions": {"usability": {"median": 0.21, "low": 0.1, "high": 0.3}},
    "usable": 0.62,
    "stages": {"conducts": 0.7},
    "likeliest_failure": "conducts",
    "nearest": "T004",
    "differences": {"kind": ["plain", "doped"], "x": [0.30000000000000004, 0.5], "gone": [1, None]},
    "importance": {"x": 0.7, "kind": 0.26, "z": 0.04},
    "gain": 0.02,
}


def test_reasons_are_short_sentences_with_units() -> None:
    assert sentences(CONFIG, REASONS) == [
        "It explores: the model is unsure here, and it may be better than the best so far.",
        "Expected usability: 0.21 %, with 90 % between 0.1 and 0.3.",
        "Chance of a usable device: 62 %; if it fails, most likely at conducts.",
        "Nearest trial: T004 (x 0.3 -> 0.5, kind plain -> doped).",
        "What matters so far: x (70 %), kind (26 %).",
    ]


def test_what_is_not_known_is_not_said() -> None:
    nothing = {
        "mode": "design",
        "predictions": {},
        "usable": None,
        "stages": {},
        "likeliest_failure": None,
        "nearest": None,
        "differences": {},
        "importance": {},
        "gain": None,
    }
    assert sentences(CONFIG, nothing) == [
        "It spreads the first trials over the space; the model knows too little yet."
    ]
    assert sentences(CONFIG, {**nothing, "usable": 0.999, "likeliest_failure": "conducts"})[1] == (
        "Chance of a usable device: 100 %."
    )


def test_many_differences_are_counted() -> None:
    many = {f"v{k}": [0.0, 1.0] for k in range(8)}
    text = sentences(CONFIG, {**REASONS, "differences": many})[3]
    assert text.endswith("and 3 more).")


def test_a_recipe_is_one_line_in_the_order_of_the_settings() -> None:
    recipe = {"removed": 3.0, "kind": "plain", "x": 0.1 + 0.2}
    assert recipe_text(CONFIG, recipe) == "x 0.3 um, kind plain, removed 3"
