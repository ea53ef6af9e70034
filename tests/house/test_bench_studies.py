"""The settings of bench/robustness.py name what there is: hours of a GPU should not end at a misspelt word."""

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ohmloop.device import list_devices
from ohmloop.nn import Deployment
from ohmloop.nn._deploy import MAX_READOUT
from ohmloop.tasks import describe_tasks
from ohmloop.tasks._task import _ENTRIES
from ohmloop.train import Steady, compare, parse_method

BENCH = Path(__file__).resolve().parents[2] / "bench"
SETTINGS = ("quick", "parts", "few", "full")
LANGUAGE = ("lm", "vl-caption", "vl-chat", "vl-latex")
"""Tasks whose outputs are a vocabulary: a readout of 8,000 takes minutes a device, of 49,152 no memory has."""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("_robustness_studies")


@pytest.fixture(params=SETTINGS)
def studies(module: ModuleType, request: pytest.FixtureRequest) -> list[Any]:
    """The studies of a setting."""
    return list(getattr(module, request.param)(None).values())


def test_every_method_is_one_and_given_epochs_are_some(studies: list[Any]) -> None:
    for study in studies:
        assert study.methods, study.name
        for method in study.methods:
            text, epochs = (method, study.epochs) if isinstance(method, str) else method
            parsed = parse_method(text)
            assert parse_method(str(parsed)) == parsed
            assert epochs is None or epochs >= 1
        assert len(set(study.methods)) == len(study.methods), study.name


def test_every_deployment_is_one_and_stands_once(studies: list[Any]) -> None:
    for study in studies:
        parsed = [Deployment.parse(text) for text in study.deployments]
        assert parsed[0] == Deployment(), f"{study.name}: devices without any help come first"
        assert len(set(parsed)) == len(parsed), study.name


def test_every_network_is_one_of_its_task(studies: list[Any]) -> None:
    models = {summary.name: summary.models for summary in describe_tasks()}
    for study in studies:
        assert study.models
        assert set(study.models) <= set(models[study.task]), study.name


def test_a_network_that_comes_trained_is_a_row_only_where_it_does(studies: list[Any]) -> None:
    for study in studies:
        if "as-it-comes" in study.methods:
            assert set(study.models) <= set(_ENTRIES[study.task].pretrained), study.name


def test_no_readout_is_asked_of_a_vocabulary(studies: list[Any]) -> None:
    for study in studies:
        if any(Deployment.parse(d).calibration == "readout" for d in study.deployments):
            assert study.task not in LANGUAGE
            assert 1 <= _ENTRIES[study.task].n_classes <= MAX_READOUT, study.name


def test_devices_are_those_of_the_median_nanowire_among_others(
    studies: list[Any], module: ModuleType
) -> None:
    measured = [device.sigma.value for device in list_devices()]
    assert float(np.median(measured)) == pytest.approx(module.MEDIAN, abs=5e-4)
    for study in studies:
        assert module.MEDIAN in study.sigmas, study.name
        assert list(study.sigmas) == sorted(set(study.sigmas)), study.name
        assert min(*study.sigmas, *study.objective, study.seeds, study.n_devices) > 0
        assert study.limit is None or study.limit >= 10


def test_further_arguments_are_those_of_a_comparison(studies: list[Any]) -> None:
    known = set(inspect.signature(compare).parameters)
    given = {"methods", "hardwares", "deployments", "objective", "seeds", "n_devices", "epochs"}
    given |= {"task", "model", "limit", "test_limit", "folder", "executor", "device", "run_dir"}
    assert given <= known
    for study in studies:
        assert set(study.settings) <= known - given, study.name


def test_our_method_and_plain_training_are_in_every_table(studies: list[Any]) -> None:
    for study in studies:
        texts = [m if isinstance(m, str) else m[0] for m in study.methods]
        assert {"erm", "as-it-comes"} & set(texts), study.name
        assert any(isinstance(parse_method(text), Steady) for text in texts), study.name


@pytest.mark.parametrize("data", [None, Path("/some/where")])
def test_names_are_unique_and_folders_lie_in_the_one_given(
    module: ModuleType, data: Path | None
) -> None:
    kept = [study for setting in SETTINGS for study in getattr(module, setting)(data).values()]
    names = [study.name for study in kept]
    assert sorted(names) == sorted(set(names))
    assert len(kept) > 25
    for study in kept:
        if data is None:
            assert study.folder is None
        elif study.folder is not None:
            assert Path(study.folder).is_relative_to(data)
    if data is not None:
        # What no package brings must be named; for everything else the cache is looked in.
        by_hand = {s.name for s in describe_tasks() if s.data.startswith("--data")}
        assert {s.task for s in kept if s.folder is not None} == by_hand & {s.task for s in kept}


def test_two_studies_of_one_name_are_refused(module: ModuleType) -> None:
    study = module.Study("digits", "digits", ("mlp",), ("erm",), ("none",))
    assert module.by_name([study]) == {"digits": study}
    with pytest.raises(ValueError, match="two studies are called digits"):
        module.by_name([study, study])
