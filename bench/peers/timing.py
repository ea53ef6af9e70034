"""CPU seconds that one peer takes to suggest a batch of 4; meant for that peer's own environment.

    python timing.py ax|baybe|bofire|optuna PROBLEM.json OUT.json

PROBLEM.json comes from `bench/suggest.py`: variables, and trials with a recipe, whether it works, and two
outcomes.
"""

from __future__ import annotations

import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")


def ask_ax(variables, trials, seed):
    from ax.adapter.registry import Generators
    from ax.api.client import Client
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    client = Client(random_seed=seed)
    parameters = []
    for v in variables:
        if v["type"] == "categorical":
            config = ChoiceParameterConfig(
                name=v["name"], values=v["options"], parameter_type="str", is_ordered=False
            )
        elif v["type"] == "levels":
            config = ChoiceParameterConfig(
                name=v["name"], values=v["levels"], parameter_type="float", is_ordered=True
            )
        else:
            config = RangeParameterConfig(
                name=v["name"],
                bounds=(v["low"], v["high"]),
                parameter_type="int" if v["type"] == "integer" else "float",
                scaling="log" if v["log"] else "linear",
            )
        parameters.append(config)
    client.configure_experiment(parameters=parameters)
    client.configure_optimization(
        objective="usability, -energy", outcome_constraints=["works >= 0.5"]
    )
    whole = {v["name"] for v in variables if v["type"] == "integer"}
    for t in trials:
        point = {k: int(x) if k in whole else x for k, x in t["point"].items()}
        index = client.attach_trial(parameters=point)
        # Ax wants every metric of a completed trial: a failed device keeps its outcomes here.
        raw = {"works": float(t["works"]), "usability": t["usability"], "energy": t["energy"]}
        client.complete_trial(trial_index=index, raw_data=raw)
    experiment = client._experiment
    began = time.process_time()
    adapter = Generators.BOTORCH_MODULAR(experiment=experiment, data=experiment.lookup_data())
    assert len(adapter.gen(n=4).arms) == 4
    return time.process_time() - began


def ask_baybe(variables, trials, seed):
    import pandas as pd
    from baybe import Campaign
    from baybe.objectives import ParetoObjective
    from baybe.parameters import (
        CategoricalParameter,
        NumericalContinuousParameter,
        NumericalDiscreteParameter,
    )
    from baybe.searchspace import SearchSpace
    from baybe.targets import NumericalTarget

    parameters = []
    for v in variables:
        if v["type"] == "categorical":
            parameters.append(CategoricalParameter(v["name"], v["options"]))
        elif v["type"] == "levels":
            parameters.append(NumericalDiscreteParameter(v["name"], v["levels"]))
        elif v["type"] == "integer":
            values = list(range(int(v["low"]), int(v["high"]) + 1))
            parameters.append(NumericalDiscreteParameter(v["name"], values))
        else:
            parameters.append(NumericalContinuousParameter(v["name"], (v["low"], v["high"])))
    targets = [NumericalTarget("usability"), NumericalTarget("energy", minimize=True)]
    campaign = Campaign(SearchSpace.from_product(parameters), ParetoObjective(targets))
    rows = [
        {**t["point"], "usability": t["usability"], "energy": t["energy"]}
        for t in trials
        if t["works"]  # it cannot learn from failures
    ]
    campaign.add_measurements(pd.DataFrame(rows))
    began = time.process_time()
    assert len(campaign.recommend(batch_size=4)) == 4
    return time.process_time() - began


def ask_bofire(variables, trials, seed):
    import bofire.strategies.api as strategies
    import pandas as pd
    from bofire.data_models.domain.api import Domain, Inputs, Outputs
    from bofire.data_models.features.api import (
        CategoricalInput,
        ContinuousInput,
        ContinuousOutput,
        DiscreteInput,
    )
    from bofire.data_models.objectives.api import (
        MaximizeObjective,
        MaximizeSigmoidObjective,
        MinimizeObjective,
    )
    from bofire.data_models.strategies.api import MoboStrategy

    inputs = []
    for v in variables:
        if v["type"] == "categorical":
            inputs.append(CategoricalInput(key=v["name"], categories=v["options"]))
        elif v["type"] == "levels":
            inputs.append(DiscreteInput(key=v["name"], values=v["levels"]))
        elif v["type"] == "integer":
            values = [float(k) for k in range(int(v["low"]), int(v["high"]) + 1)]
            inputs.append(DiscreteInput(key=v["name"], values=values))
        else:
            inputs.append(ContinuousInput(key=v["name"], bounds=(v["low"], v["high"])))
    outputs = [
        ContinuousOutput(key="usability", objective=MaximizeObjective(w=1.0)),
        ContinuousOutput(key="energy", objective=MinimizeObjective(w=1.0)),
        ContinuousOutput(
            key="works", objective=MaximizeSigmoidObjective(w=1.0, tp=0.5, steepness=10.0)
        ),
    ]
    domain = Domain(inputs=Inputs(features=inputs), outputs=Outputs(features=outputs))
    strategy = strategies.map(MoboStrategy(domain=domain, seed=seed))
    rows = []
    for t in trials:
        works = int(t["works"])
        row = {**t["point"], "works": float(works), "valid_works": 1}
        for name in ("usability", "energy"):
            row[name] = t[name] if works else float("nan")
            row[f"valid_{name}"] = works
        rows.append(row)
    began = time.process_time()
    strategy.tell(pd.DataFrame(rows))
    assert len(strategy.ask(4)) == 4
    return time.process_time() - began


def ask_optuna(variables, trials, seed):
    import optuna
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {}
    for v in variables:
        if v["type"] in ("categorical", "levels"):
            options = v["options"] if v["type"] == "categorical" else v["levels"]
            distributions[v["name"]] = CategoricalDistribution(options)
        elif v["type"] == "integer":
            distributions[v["name"]] = IntDistribution(int(v["low"]), int(v["high"]))
        else:
            distributions[v["name"]] = FloatDistribution(v["low"], v["high"], log=v["log"])
    # Its tree-structured Parzen estimator: its default but for two objectives, where that is evolutionary.
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for t in trials:
        values = [t["usability"], t["energy"]] if t["works"] else None
        kinds = optuna.trial.TrialState
        point = {
            k: int(x) if isinstance(distributions[k], IntDistribution) else x
            for k, x in t["point"].items()
        }
        study.add_trial(
            optuna.trial.create_trial(
                state=kinds.COMPLETE if t["works"] else kinds.FAIL,
                params=point,
                distributions=distributions,
                values=values,
            )
        )
    began = time.process_time()
    for _ in range(4):
        study.ask(distributions)
    return time.process_time() - began


ASK = {"ax": ask_ax, "baybe": ask_baybe, "bofire": ask_bofire, "optuna": ask_optuna}


def main():
    import torch

    torch.set_num_threads(1)
    tool, source, target = sys.argv[1:4]
    with open(source, encoding="utf-8") as file:
        problem = json.load(file)
    out = []
    ask = ASK[tool]
    try:
        ask(problem["variables"], problem["runs"][0]["trials"][:20], 0)  # imports, not counted
        for run in problem["runs"]:
            seconds = ask(problem["variables"], run["trials"], run["seed"])
            out.append({"n": run["n"], "seed": run["seed"], "seconds": seconds})
            print(tool, run["n"], f"{seconds:.1f} s", flush=True)
            with open(target, "w", encoding="utf-8") as file:
                json.dump(out, file)
    except Exception as error:  # what it managed counts; the rest is written as failed
        print(f"{tool}: {error!r}"[:500], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
