"""Bayesian optimisation: numbers in, numbers out. Knows no material, no network, no file."""

from ohmloop.bo._advice import Worth, best_recipe, pareto, predict, rank_correlation, worth
from ohmloop.bo._expression import Expression
from ohmloop.bo._problem import Belief, Objective, Observation, Problem, Settings
from ohmloop.bo._reasons import Prediction, Suggestion
from ohmloop.bo._space import Simplex, Space
from ohmloop.bo._suggest import suggest
from ohmloop.bo._variables import Categorical, Integer, Ordinal, Point, Real, Value, When

__all__ = [
    "Belief",
    "Categorical",
    "Expression",
    "Integer",
    "Objective",
    "Observation",
    "Ordinal",
    "Point",
    "Prediction",
    "Problem",
    "Real",
    "Settings",
    "Simplex",
    "Space",
    "Suggestion",
    "Value",
    "When",
    "Worth",
    "best_recipe",
    "pareto",
    "predict",
    "rank_correlation",
    "suggest",
    "worth",
]
