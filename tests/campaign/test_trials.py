"""Events add up to trials: pure, whatever the order of undoing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmloop.campaign._trials import State, extended, fold
from ohmloop.errors import CampaignError
from ohmloop.store import Event


def log(*entries: tuple[str, dict[str, Any]]) -> list[Event]:
    return [
        Event(k, f"2026-05-{k:02d}T10:00:00+00:00", "ada", kind, data)
        for k, (kind, data) in enumerate(entries, start=1)
    ]


def suggested(*names: str) -> tuple[str, dict[str, Any]]:
    entries = [{"id": name, "recipe": {"x": 0.5}, "reasons": {}} for name in names]
    return "suggested", {"trials": entries}


def recorded(trial: str, **data: Any) -> tuple[str, dict[str, Any]]:
    return "recorded", {"trial": trial, **data}


def undone(event: int) -> tuple[str, dict[str, Any]]:
    return "undone", {"event": event}


def test_nothing_adds_up_to_nothing() -> None:
    assert fold([]) == State()


def test_trials_stand_in_the_order_of_their_numbers() -> None:
    state = fold(log(suggested("T999", "T1000"), suggested("T002")))
    assert list(state.trials) == ["T002", "T999", "T1000"]


@pytest.mark.parametrize("name", ["7", "t7", "T007", " T07 "])
def test_a_trial_is_found_however_its_number_is_written(name: str) -> None:
    assert fold(log(suggested("T007"))).trial(name).id == "T007"


@pytest.mark.parametrize("name", ["", "T", "8", "seven", "0"])
def test_an_unknown_trial_names_the_latest(name: str) -> None:
    with pytest.raises(CampaignError, match="the latest are: T007"):
        fold(log(suggested("T007"))).trial(name)


def test_numbers_count_on_after_an_undo() -> None:
    assert fold(log(suggested("T001", "T002"), undone(1))).next_ids(2) == ["T003", "T004"]


def test_what_hangs_on_an_undone_suggestion_is_ignored() -> None:
    state = fold(log(suggested("T001"), ("accepted", {"trial": "T001"}), undone(1)))
    assert state.trials == {}
    state = fold(log(suggested("T001"), ("accepted", {"trial": "T001"}), undone(1), undone(3)))
    assert state.trials["T001"].status == "accepted"


def test_two_undos_of_one_event_are_one() -> None:
    events = log(suggested("T001"), undone(1), undone(1))
    assert fold(events).trials == {}


@given(st.lists(st.integers(1, 12), max_size=12))
def test_undoing_in_any_order_never_breaks_the_fold(targets: list[int]) -> None:
    start = log(
        suggested("T001", "T002"),
        ("accepted", {"trial": "T001"}),
        ("edited", {"trial": "T002", "recipe": {"x": 0.7}}),
        recorded("T001", stages={"fabricated": True}, device="a", values={"y": 1.0}),
        recorded("T001", stages={"fabricated": False}, device="a"),
        ("withdrawn", {"trials": ["T002"]}),
        ("pinned", {"variable": "x", "value": 1.0}),
        ("unpinned", {"variable": "x"}),
    )
    undos = [
        Event(9 + k, "", "ada", "undone", {"event": target})
        for k, target in enumerate(targets)
        if target < 9 + k
    ]
    state = fold([*start, *undos])
    for trial in state.trials.values():
        assert trial.status in ("suggested", "accepted", "withdrawn", "done")
        assert len(trial.records) <= 1
    assert state.undone <= set(range(1, 22))


def test_a_device_is_known_by_its_furthest_stage() -> None:
    state = fold(
        log(
            suggested("T001"),
            recorded("T001", device="a", stages={"made": True, "works": False}),
            recorded("T001", device="b", stages={"made": False}),
            recorded("T001", device="c"),
        )
    )
    trial = state.trials["T001"]
    assert trial.failed_at == "works"
    assert [r.is_usable for r in trial.records] == [False, False, False]
    assert trial.next_device() == "4"
    assert trial.next_device(["4", "5"]) == "6"


def test_a_file_counts_until_its_record_is_undone() -> None:
    events = log(suggested("T001"), recorded("T001", file="abc", device="a"))
    assert fold(events).has_file("T001", "abc")
    assert not fold(events).has_file("T002", "abc")
    assert not fold([*events, Event(3, "", "ada", "undone", {"event": 2})]).has_file("T001", "abc")


NAME = st.sampled_from(["T001", "T002", "T003", "T1000"])
ENTRY = st.one_of(
    st.builds(suggested, NAME),
    st.builds(recorded, NAME, device=st.sampled_from(["", "1"]), note=st.sampled_from(["", "x"])),
    st.builds(undone, st.integers(1, 14)),
    st.tuples(st.sampled_from(["accepted", "rejected"]), st.fixed_dictionaries({"trial": NAME})),
    st.just(("added", {"trial": "T050", "recipe": {"x": 1.0}, "origin": "own"})),
    st.just(("withdrawn", {"trials": ["T001", "T002"]})),
    st.just(("pinned", {"variable": "x", "value": 0.1})),
    st.just(("unpinned", {"variable": "x"})),
    st.just(("configured", {"text": "anew"})),
    st.just(("earlier", {"name": "old", "rows": []})),
    st.just(("file-recipe", {"name": "keithley", "recipe": {}})),
)


@given(st.lists(ENTRY, max_size=14), st.integers(0, 14))
def test_events_added_to_a_state_are_events_folded_with_the_others(
    entries: list[tuple[str, dict[str, Any]]], k: int
) -> None:
    events = log(*entries)
    whole, grown = fold(events), extended(fold(events[:k]), events[k:])
    assert grown == whole
    assert list(grown.trials) == list(whole.trials)
