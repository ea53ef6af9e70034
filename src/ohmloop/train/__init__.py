"""Training under noise: every method under one interface, and the search for its settings."""

from ohmloop.train._compare import Comparison, compare
from ohmloop.train._fit import Run, RunResult, Trial, fit, load_run
from ohmloop.train._folder import environment
from ohmloop.train._loop import Recipe, train_once
from ohmloop.train._methods import (
    BayesFT,
    BayesMulti,
    Dropout,
    Erm,
    Method,
    Multinomial,
    Noise,
    WeightNoise,
    list_methods,
    parse_method,
)

__all__ = [
    "BayesFT",
    "BayesMulti",
    "Comparison",
    "Dropout",
    "Erm",
    "Method",
    "Multinomial",
    "Noise",
    "Recipe",
    "Run",
    "RunResult",
    "Trial",
    "WeightNoise",
    "compare",
    "environment",
    "fit",
    "list_methods",
    "load_run",
    "parse_method",
    "train_once",
]
