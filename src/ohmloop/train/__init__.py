"""Training under noise: every method under one interface, and the search for its settings."""

from ohmloop.train._compare import Comparison, compare
from ohmloop.train._evaluate import evaluate_run
from ohmloop.train._fit import Run, RunResult, fit, load_run
from ohmloop.train._folder import environment
from ohmloop.train._loop import Lesson, Recipe, train_once
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
    "AsItComes",
    "Asam",
    "Awp",
    "BayesFT",
    "BayesMulti",
    "Comparison",
    "Distillation",
    "Dropout",
    "Erm",
    "HardwareAware",
    "Lesson",
    "Method",
    "Multinomial",
    "NegativeFeedback",
    "Noise",
    "Recipe",
    "RightCensored",
    "Run",
    "RunResult",
    "Sam",
    "Steady",
    "TileDropout",
    "Trial",
    "VarianceAware",
    "WeightNoise",
    "compare",
    "environment",
    "evaluate_run",
    "fit",
    "list_methods",
    "load_run",
    "parse_method",
    "rank_correlation",
    "train_once",
    "unlabelled_inputs",
]
