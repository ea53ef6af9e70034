"""Training under noise: every method under one interface, and the search for its settings.

What a run's folder says of it is read without torch; everything else loads with its first use.
"""

import importlib
from typing import TYPE_CHECKING

from ohmloop.train._citations import method_citation
from ohmloop.train._comparison import (
    ComparisonRecord,
    ComparisonRow,
    comparison_record,
    read_comparison_record,
    write_comparison_record,
)
from ohmloop.train._record import (
    ArrayUse,
    Evaluation,
    KeptCertificate,
    LayerUse,
    RunRecord,
    read_evaluations,
    read_kept_certificates,
    read_run,
)

if TYPE_CHECKING:
    from ohmloop.train._compare import Comparison, compare
    from ohmloop.train._evaluate import evaluate_folder, evaluate_run
    from ohmloop.train._fit import Run, RunResult, fit, load_run
    from ohmloop.train._folder import environment
    from ohmloop.train._loop import Chips, Lesson, Recipe, train_once
    from ohmloop.train._methods import (
        Asam,
        AsItComes,
        Awp,
        BayesFT,
        BayesMulti,
        Distillation,
        Dropout,
        Erm,
        HardwareAware,
        Method,
        Multinomial,
        NegativeFeedback,
        RightCensored,
        Sam,
        Steady,
        TileDropout,
        VarianceAware,
        WeightNoise,
        list_methods,
        parse_method,
    )
    from ohmloop.train._noise import Noise
    from ohmloop.train._setting import Trial, unlabelled_inputs
    from ohmloop.train._steady import rank_correlation

__all__ = [
    "ArrayUse",
    "AsItComes",
    "Asam",
    "Awp",
    "BayesFT",
    "BayesMulti",
    "Chips",
    "Comparison",
    "ComparisonRecord",
    "ComparisonRow",
    "Distillation",
    "Dropout",
    "Erm",
    "Evaluation",
    "HardwareAware",
    "KeptCertificate",
    "LayerUse",
    "Lesson",
    "Method",
    "Multinomial",
    "NegativeFeedback",
    "Noise",
    "Recipe",
    "RightCensored",
    "Run",
    "RunRecord",
    "RunResult",
    "Sam",
    "Steady",
    "TileDropout",
    "Trial",
    "VarianceAware",
    "WeightNoise",
    "compare",
    "comparison_record",
    "environment",
    "evaluate_folder",
    "evaluate_run",
    "fit",
    "list_methods",
    "load_run",
    "method_citation",
    "parse_method",
    "rank_correlation",
    "read_comparison_record",
    "read_evaluations",
    "read_kept_certificates",
    "read_run",
    "train_once",
    "unlabelled_inputs",
    "write_comparison_record",
]

_MODULES = (
    "_methods",
    "_noise",
    "_loop",
    "_folder",
    "_setting",
    "_steady",
    "_fit",
    "_evaluate",
    "_compare",
)


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in _MODULES:
            found = vars(importlib.import_module(f"ohmloop.train.{module}")).get(name)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module 'ohmloop.train' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
