"""Run one peer over replay problems; meant for that peer's own environment, without ohmloop.

    python worker.py ax|baybe|bofire PROBLEM.json OUT.json

PROBLEM.json comes from `bench/replay.py`: the pool of recipes as plain values (conditional variables
filled with their middle), one outcome a recipe (the mean of its replicates, larger is better), and the
first recipes of each seed. Every tool runs with its documented defaults. BayBE recommends from the
pool itself; for Ax (its default modular BoTorch generator) and BoFire (its single-objective strategy) the
recipe of the pool with the largest value of the tool's own acquisition function is taken, one after
another within a batch.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings

import numpy as np

warnings.filterwarnings("ignore")


def greedy(problem, tried, q, value):
    """Choose ``q`` recipes of the pool, each the best by the tool's own acquisition given those before."""
    chosen = []
    for _ in range(q):
        left = [k for k in range(len(problem["points"])) if k not in tried and k not in chosen]
        chosen.append(left[int(np.argmax(np.asarray(value(left, chosen)).ravel()))])
    return chosen


def ask_ax(problem, tried, q, seed):
    from ax.adapter.registry import Generators
    from ax.api.client import Client
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig
    from ax.core.observation import ObservationFeatures

    client = Client(random_seed=seed * 1000 + len(tried))
    parameters = []
    for v in problem["variables"]:
        if v["type"] == "categorical":
            parameters.append(
                ChoiceParameterConfig(
                    name=v["name"], values=v["options"], parameter_type="str", is_ordered=False
                )
            )
        else:
            parameters.append(
                RangeParameterConfig(
                    name=v["name"],
                    bounds=(v["low"], v["high"]),
                    parameter_type="float",
                    scaling="log" if v.get("log") else "linear",
                )
            )
    client.configure_experiment(parameters=parameters)
    client.configure_optimization(objective="y")
    for k in tried:
        index = client.attach_trial(parameters=problem["points"][k])
        client.complete_trial(trial_index=index, raw_data={"y": problem["outcome"][k]})
    experiment = client._experiment
    adapter = Generators.BOTORCH_MODULAR(experiment=experiment, data=experiment.lookup_data())

    def value(pool, chosen):
        waiting = [features(problem, k) for k in chosen]
        return adapter.evaluate_acquisition_function(
            observation_features=[features(problem, k) for k in pool],
            pending_observations={"y": waiting} if waiting else None,
        )

    def features(problem, k):
        return ObservationFeatures(parameters=dict(problem["points"][k]))

    return greedy(problem, tried, q, value)


def ask_baybe(problem, tried, q, seed):
    import pandas as pd
    from baybe import Campaign
    from baybe.parameters import (
        CategoricalParameter,
        CustomDiscreteParameter,
        NumericalDiscreteParameter,
    )
    from baybe.searchspace import SearchSpace
    from baybe.targets import NumericalTarget
    from baybe.utils.random import set_random_seed

    set_random_seed(seed * 1000 + len(tried))
    names = [v["name"] for v in problem["variables"]]
    frame = pd.DataFrame(problem["points"], columns=names)
    parameters = []
    for v in problem["variables"]:
        if v["type"] != "categorical":
            values = sorted(set(frame[v["name"]].astype(float)))
            if len(values) < 2:
                frame = frame.drop(columns=v["name"])
                continue
            frame[v["name"]] = frame[v["name"]].astype(float)
            parameters.append(NumericalDiscreteParameter(v["name"], values))
        elif frame[v["name"]].nunique() < 2:
            frame = frame.drop(columns=v["name"])
        elif v.get("descriptors"):
            table = pd.DataFrame(v["descriptors"], index=v["options"])
            table = table.loc[:, table.std() > 1e-12]
            parameters.append(CustomDiscreteParameter(v["name"], table))
        else:
            parameters.append(CategoricalParameter(v["name"], sorted(set(frame[v["name"]]))))
    names = list(frame.columns)
    space = SearchSpace.from_dataframe(frame.drop_duplicates(), parameters=parameters)
    target = NumericalTarget("y")
    campaign = Campaign(space, target.to_objective(), allow_recommending_already_measured=False)
    measured = frame.iloc[tried].copy()
    measured["y"] = [problem["outcome"][k] for k in tried]
    campaign.add_measurements(measured)
    got = campaign.recommend(batch_size=q)
    left = [k for k in range(len(problem["points"])) if k not in tried]
    chosen = []
    for _, row in got.iterrows():
        match = [
            k for k in left if k not in chosen and all(frame.iloc[k][n] == row[n] for n in names)
        ]
        chosen.append(match[0] if match else next(k for k in left if k not in chosen))
    return chosen


def ask_bofire(problem, tried, q, seed):
    import bofire.strategies.api as strategies
    import pandas as pd
    from bofire.data_models.domain.api import Domain, Inputs, Outputs
    from bofire.data_models.features.api import (
        CategoricalInput,
        ContinuousInput,
        ContinuousOutput,
    )
    from bofire.data_models.objectives.api import MaximizeObjective
    from bofire.data_models.strategies.api import SoboStrategy

    inputs = []
    for v in problem["variables"]:
        if v["type"] == "categorical":
            inputs.append(CategoricalInput(key=v["name"], categories=v["options"]))
        else:
            inputs.append(ContinuousInput(key=v["name"], bounds=(v["low"], v["high"])))
    domain = Domain(
        inputs=Inputs(features=inputs),
        outputs=Outputs(features=[ContinuousOutput(key="y", objective=MaximizeObjective(w=1.0))]),
    )
    strategy = strategies.map(SoboStrategy(domain=domain, seed=seed * 1000 + len(tried)))
    frame = pd.DataFrame([problem["points"][k] for k in tried])
    frame["y"] = [problem["outcome"][k] for k in tried]
    frame["valid_y"] = 1
    strategy.tell(frame)
    pool_frame = pd.DataFrame(problem["points"])

    def value(pool, chosen):
        strategy.reset_candidates()
        if chosen:
            strategy.set_candidates(pool_frame.iloc[chosen])
        return strategy.calc_acquisition(pool_frame.iloc[pool])

    return greedy(problem, tried, q, value)


ASK = {"ax": ask_ax, "baybe": ask_baybe, "bofire": ask_bofire}


def run(problem, tool, seed):
    order = list(problem["first"][seed])
    top = None if problem["top"] is None else np.array(problem["top"])
    limit = min(problem["experiments"], len(problem["points"]))
    began, errors = time.process_time(), 0
    while len(order) < limit and not (top is not None and top[order].any()):
        q = min(problem["batch"], limit - len(order))
        try:
            order += ASK[tool](problem, order, q, seed)
        except (
            Exception
        ) as error:  # a peer that fails on some data is counted, and goes on at random
            errors += 1
            print(
                f"{tool} seed {seed} at {len(order)}: {error!r}"[:300], file=sys.stderr, flush=True
            )
            left = sorted(set(range(len(problem["points"]))) - set(order))
            rng = np.random.default_rng([seed, len(order), 9])
            order += [int(k) for k in rng.permutation(left)[:q]]
    if top is not None and top[order].any():
        order = order[: int(top[order].argmax()) + 1]
    return {
        "method": tool,
        "seed": seed,
        "order": [int(k) for k in order],
        "seconds": time.process_time() - began,
        "errors": errors,
    }


def main():
    import torch

    torch.set_num_threads(1)
    tool, source, target = sys.argv[1:4]
    with open(source, encoding="utf-8") as file:
        problem = json.load(file)
    runs = []
    if os.path.exists(target):  # a stopped study goes on
        with open(target, encoding="utf-8") as file:
            runs = json.load(file)
    for seed in range(len(runs), len(problem["first"])):
        runs.append(run(problem, tool, seed))
        last = runs[-1]
        print(
            tool, problem["name"], seed, len(last["order"]), f"{last['seconds']:.1f} s", flush=True
        )
        with open(target + ".part", "w", encoding="utf-8") as file:
            json.dump(runs, file)
        os.replace(target + ".part", target)


if __name__ == "__main__":
    main()
