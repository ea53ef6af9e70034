"""The settings of bench/robustness.py: which methods, on which task, on how much of it.

`quick` is for two cores, under an hour; `parts` as well: other networks and budgets beside the tables of
`quick`. `full` is for a GPU, whole data sets and deep networks; `few` cuts what a GPU should run whole down for
two cores.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

MEDIAN = 0.587
Method = str | tuple[str, int]


@dataclass(frozen=True)
class Study:
    """One table.

    Attributes:
        name: Of the table, its cache and its results.
        task: What is learned.
        models: Networks; "batch-norm" is left out for those without any.
        methods: Rows; a pair gives one other epochs than `epochs`.
        deployments: What devices get beside their weights; as many rows of each method.
        sigmas: Of the devices in the test.
        objective: Of the devices that searches and noise levels are for.
        epochs: Of one training; None for the task's own.
        limit: Development samples; None for all.
        test_limit: Test samples; None for all.
        seeds: Training seeds, 0 and up.
        n_devices: Of each sigma and seed in the test.
        nanowires: Devices of each of the 43 measured nanowires; 0 leaves them out.
        folder: Data that no package brings.
        settings: Further arguments of `ohmloop.train.compare`.
    """

    name: str
    task: str
    models: tuple[str, ...]
    methods: tuple[Method, ...]
    deployments: tuple[str, ...]
    sigmas: tuple[float, ...] = (0.2, 0.4, MEDIAN, 0.8, 1.0, 1.2, 1.5)
    objective: tuple[float, ...] = (MEDIAN,)
    epochs: int | None = None
    limit: int | None = None
    test_limit: int | None = None
    seeds: int = 3
    n_devices: int = 30
    nanowires: int = 0
    folder: str | None = None
    settings: dict[str, object] = field(default_factory=dict)


def by_name(studies: Iterable[Study]) -> dict[str, Study]:
    """Return studies by their names, of which none may be lost."""
    found: dict[str, Study] = {}
    for study in studies:
        if study.name in found:
            raise ValueError(
                f"two studies are called {study.name}; results would be one's or the other's"
            )
        found[study.name] = study
    return found


DEPLOYED = ("none", "channel", "readout")
NORMED = (*DEPLOYED, "batch-norm")
MORE_CELLS = ("readout:cells=1.25", "readout:cells=2")
SEARCHED = "steady:search=true"
FIELD: tuple[Method, ...] = (
    "erm",
    "dropout:rate=0.5",
    "bayesft",
    "bayesmulti",
    "bayesmulti:objective=drift-validation",
    "weight-noise",
    ("weight-noise:level=1.2", 240),
    "weight-noise:level=1,ramp=0.3,clip=2.5",
    "weight-noise:level=0.8,distribution=lognormal",
    "weight-noise:level=0.8,distribution=lognormal-mean-1",
    "right-censored",
    "variance-aware",
    "hardware-aware",
    "distillation",
    "sam",
    "asam",
    "awp",
    "negative-feedback",
    "tile-dropout",
    "steady",
    SEARCHED,
)
PARTS: tuple[Method, ...] = (
    ("erm", 240),
    "steady:search=true,tie=0",
    "steady:strength=1.25,length=2.8,ramp=0",
    "steady:strength=1.25,length=1,ramp=0",
    "steady:strength=1.25,mixture=1,length=2.8,ramp=0",
    "steady:strength=1.25,teacher=true,length=1.8,ramp=0",
    "steady:strength=1.25,match=true,length=1.4,ramp=0",
    "steady:strength=1.25,clip=2.5,length=2.8,ramp=0",
)
SHORT: tuple[Method, ...] = (
    "erm",
    "dropout:rate=0.3",
    "bayesmulti:n_iterations=3,max_p0=0.6",
    "weight-noise:level=0.8",
    "steady",
    SEARCHED,
)
DIGITS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)


def quick(data: Path | None) -> dict[str, Study]:
    """Return the setting for two cores, under an hour in all."""
    tasks = None if data is None else str(data)

    def at(name: str) -> str | None:
        return None if tasks is None else str(Path(tasks) / name)

    studies = (
        Study(
            "digits",
            "digits",
            ("mlp",),
            (*FIELD, *PARTS),
            ("none", "none:mean_gain=true", "layer", "channel", "readout"),
            sigmas=(*DIGITS[:2], MEDIAN, *DIGITS[2:]),
            objective=DIGITS,
            epochs=60,
            nanowires=5,
        ),
        Study(
            "fashion-mnist",
            "fashion-mnist",
            ("lenet",),
            (*SHORT, ("erm", 20)),
            DEPLOYED,
            sigmas=(0.2, 0.4, MEDIAN, 0.8, 1.2),
            epochs=5,
            limit=8_000,
            test_limit=400,
            nanowires=2,
            settings={"lr": 1e-3},
        ),
        Study(
            "gtsrb",
            "gtsrb",
            ("cnn-bn",),
            ("erm", "bayesmulti:n_iterations=1,max_p0=0.6", "steady", SEARCHED, ("erm", 24)),
            ("none", "readout", "batch-norm"),
            sigmas=(0.2, 0.4, MEDIAN, 0.8),
            epochs=6,
            limit=1_500,
            test_limit=150,
            folder=at("gtsrb32"),
        ),
        Study(
            "birds965-small",
            "birds965-small",
            ("mobilenet-v2",),
            (
                "as-it-comes",
                "weight-noise:level=0.1",
                "steady:strength=1,distill=0.9,length=1,ramp=0",
            ),
            NORMED,
            sigmas=(0.05, 0.1, 0.2, MEDIAN),
            objective=(0.2,),
            test_limit=100,
            epochs=8,
            seeds=1,
            n_devices=5,
            folder=tasks,
        ),
        Study(
            "anuran",
            "anuran",
            ("mlp",),
            (*SHORT[:2], "bayesmulti", *SHORT[3:], ("erm", 80)),
            (*DEPLOYED, *MORE_CELLS),
            sigmas=(0.2, 0.4, MEDIAN, 0.8, 1.2),
            epochs=20,
            nanowires=5,
            folder=at("anuran"),
        ),
        Study(
            "vl-retrieval",
            "vl-retrieval",
            ("lite0-minilm",),
            ("as-it-comes", "steady:strength=1,distill=0.9,length=1,ramp=0"),
            NORMED,
            sigmas=(0.05, 0.1, 0.2, MEDIAN),
            objective=(0.2,),
            limit=500,
            test_limit=80,
            epochs=4,
            seeds=1,
            n_devices=3,
        ),
    )
    return by_name(studies)


def parts(data: Path | None) -> dict[str, Study]:
    """Return what stands beside the tables of `quick`, for two cores: other networks, other budgets."""
    tables = quick(data)
    studies = (
        Study(
            "digits-bn",
            "digits",
            ("mlp-bn",),
            (
                "erm",
                "bayesmulti",
                "weight-noise",
                ("weight-noise:level=1.2", 240),
                "steady",
                SEARCHED,
            ),
            NORMED,
            sigmas=(*DIGITS[:2], MEDIAN, *DIGITS[2:]),
            objective=DIGITS,
            epochs=60,
        ),
        Study(
            "digits-bn-affine",  # As published: batch norm's own gains and offsets drift too.
            "digits",
            ("mlp-bn",),
            ("erm", "bayesmulti", "steady:strength=1.25,length=2.8,ramp=0", "steady", SEARCHED),
            ("none", "readout", *MORE_CELLS, "batch-norm"),
            sigmas=(*DIGITS[:2], MEDIAN, *DIGITS[2:]),
            objective=DIGITS,
            epochs=60,
            n_devices=10,
            settings={"where": "all"},
        ),
        replace(
            tables["fashion-mnist"],
            name="fashion-mnist-bn",
            models=("lenet-bn",),
            deployments=NORMED,
        ),
        replace(
            tables["anuran"],
            name="anuran-bn",
            models=("mlp-bn",),
            deployments=(*DEPLOYED, *MORE_CELLS, "batch-norm"),
        ),
        Study(
            "fashion-mnist-budget",  # What is left of the lead when all spend the same.
            "fashion-mnist",
            ("lenet",),
            (
                "erm",
                ("erm", 20),
                ("weight-noise:level=0.8", 20),
                "steady",
                SEARCHED,
                "steady:search=true,tie=0",
            ),
            ("none", "readout"),
            sigmas=(MEDIAN, 1.2),
            epochs=5,
            limit=8_000,
            test_limit=400,
            settings={"lr": 1e-3},
        ),
        replace(  # Plain noise, and what each part of steady brings to a pretrained pair.
            tables["vl-retrieval"],
            name="vl-retrieval-field",
            methods=(
                "as-it-comes",
                "erm",
                "bayesmulti:n_iterations=1,max_p0=0.6",
                "weight-noise:level=0.2",
                "steady:strength=1,distill=0.9,length=1,ramp=0",
                "steady:strength=1,distill=0.9,match=false,length=1,ramp=0",
                "steady:strength=0,distill=0.9,length=1,ramp=0",  # what is learned from the data, without noise
            ),
            deployments=(*DEPLOYED, MORE_CELLS[1]),
        ),
    )
    return by_name(studies)


PRETRAINED: tuple[Method, ...] = (
    "as-it-comes",
    "weight-noise:level=0.1",
    "steady:strength=1,distill=0.9,length=1,ramp=0",
)
TRAINED: tuple[Method, ...] = ("erm", "bayesmulti:n_iterations=1,max_p0=0.6", "steady", SEARCHED)
LOW = (0.05, 0.1, 0.2, MEDIAN)


def few(data: Path | None) -> dict[str, Study]:
    """Return what a GPU should run whole, cut down for two cores: one seed, few devices, few samples."""

    def at(name: str) -> str | None:
        return None if data is None else str(data / name)

    def study(task: str, model: str, methods: tuple[Method, ...], **settings: object) -> Study:
        kept = {"deployments": DEPLOYED, "sigmas": (0.2, 0.4, MEDIAN), "seeds": 1, "n_devices": 5}
        return Study(f"{task}-few", task, (model,), methods, **{**kept, **settings})  # type: ignore[arg-type]

    pretrained = {"sigmas": LOW, "objective": (0.1,), "n_devices": 3}
    studies = (
        study(
            "donkey",
            "donkey-cnn",
            (*TRAINED, ("erm", 48)),
            epochs=12,
            seeds=2,
            n_devices=10,
            folder=at("donkey"),
        ),
        study(
            "cifar10",
            "resnet8",
            (*TRAINED, ("erm", 32)),
            epochs=8,
            limit=2_000,
            test_limit=300,
        ),
        study(
            "birds525",
            "efficientnet-lite0",
            ("erm", "weight-noise:level=0.1", "steady:strength=1,length=1,ramp=0"),
            epochs=4,
            test_limit=150,
            folder=at("birds525"),
            **pretrained,
        ),
        study(
            "lm",
            "smollm2-135m",
            PRETRAINED,
            deployments=("none", "channel"),
            epochs=1,
            limit=80,
            test_limit=12,
            **pretrained,
        ),
        study(
            "vl-latex",
            "pix2tex",
            PRETRAINED,
            deployments=("none", "channel"),  # a readout of 8,000 outputs takes minutes a device
            epochs=1,
            limit=150,
            test_limit=40,
            **pretrained,
        ),
        study(
            "vl-chat",
            "lite0-smollm2",
            (
                "erm",
                "weight-noise:level=0.1",
                "steady:strength=1,length=1,ramp=0",
                "steady:strength=0,length=1,ramp=0",  # frozen batch norm without noise
            ),
            epochs=3,
            limit=400,
            test_limit=60,
            **{**pretrained, "deployments": ("none", "channel")},
        ),
        study(
            "kitti-scenes",
            "pillars-small",
            (
                "erm",
                "bayesmulti:n_iterations=1,max_p0=0.6",
                "weight-noise:level=0.3",
                "steady:strength=1,length=1,ramp=0",
                "steady",
                SEARCHED,
                ("erm", 120),
            ),
            epochs=30,
            limit=200,
            test_limit=40,
            n_devices=3,
        ),
    )
    return by_name(studies)


def field_for(epochs: int) -> tuple[Method, ...]:
    """Return the field with its long trainings at four times these epochs, plain training among them."""
    single = tuple(m for m in FIELD if not isinstance(m, tuple))
    return (*single, ("weight-noise:level=1.2", 4 * epochs), ("erm", 4 * epochs))


PRETRAINED_FIELD: tuple[Method, ...] = (
    "as-it-comes",
    "erm",
    "bayesmulti",
    "weight-noise:level=0.1",
    "right-censored",
    "variance-aware",
    "hardware-aware",
    "distillation",
    "sam",
    "awp",
    "steady:strength=1,distill=0.9,length=1,ramp=0",
    "steady:search=true,distill=0.9",
)
GRID = (0.05, 0.1, 0.2, 0.3, 0.4, MEDIAN, 0.8, 1.0, 1.2, 1.5)


def full(data: Path | None) -> dict[str, Study]:
    """Return the setting for a GPU: whole data sets, deep networks, all methods. Names end in "-full"."""

    def at(name: str) -> str | None:
        return None if data is None else str(data / name)

    def study(task: str, models: tuple[str, ...], epochs: int, **settings: object) -> Study:
        kept = {
            "methods": field_for(epochs),
            "deployments": NORMED,
            "sigmas": GRID,
            "epochs": epochs,
            "nanowires": 5,
        }
        return Study(f"{task}-full", task, models, **{**kept, **settings})  # type: ignore[arg-type]

    folder = None if data is None else str(data)
    pretrained = {"methods": PRETRAINED_FIELD, "objective": (0.2,)}
    no_readout = {**pretrained, "deployments": ("none", "channel")}  # outputs are too many for one
    studies = (
        study("digits", ("mlp", "mlp-bn"), 60, objective=DIGITS),
        study("mnist", ("lenet", "lenet-bn"), 20),
        study("fashion-mnist", ("lenet", "lenet-bn", "alexnet", "alexnet-bn"), 20),
        study("cifar10", ("alexnet", "alexnet-bn", "vgg11-bn", "resnet18", "vit"), 60),
        study("gtsrb", ("cnn", "cnn-bn", "resnet18"), 30, folder=at("gtsrb32")),
        study("donkey", ("donkey-cnn", "donkey-cnn-bn"), 60, folder=at("donkey")),
        study("kitti-scenes", ("pillars-small",), 20),
        study("birds965", ("mobilenet-v2",), 20, folder=folder, **pretrained),
        study("birds525", ("efficientnet-lite0",), 20, folder=at("birds525")),
        study("anuran", ("mlp", "mlp-bn"), 60, folder=at("anuran")),
        study("vl-retrieval", ("lite0-minilm",), 10, **pretrained),
        study("lm", ("smollm2-135m",), 2, **no_readout),
        study("vl-latex", ("pix2tex",), 5, **no_readout),
        study("vl-chat", ("lite0-smollm2",), 5, deployments=("none", "channel")),
    )
    return by_name(studies)
