"""``ohmloop train --task T`` for every task: data is read, the network made, trained, scored and kept."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.cli.typed import ohmloop

from ohmloop.errors import TaskError
from ohmloop.tasks import list_tasks
from ohmloop.tasks._fetch import find_folder
from ohmloop.tasks._task import _DATA, _ENTRIES

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tasks"


@dataclass(frozen=True)
class Case:
    """How a task is tried.

    Attributes:
        task: Its name.
        limit: Development samples.
        method: What is done with its network; pretrained ones are kept as they come.
        model: A network other than the task's own.
        folder: Of its data under ../shared/data/tasks, None for the cache.
        needs: Further data in the cache: other tasks' and pretrained weights.
        packages: Of the extra "language", which its networks are read with.
        is_long: Whether it takes longer than some seconds.
    """

    task: str
    limit: int = 60
    method: str = "erm"
    model: str | None = None
    folder: str | None = None
    needs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    is_long: bool = False


LANGUAGE = ("transformers", "tokenizers", "gguf")
PACKAGED = (
    Case("digits", 100),
    Case("iris"),
    Case("letters", 20),
    Case("penguins"),
)
CASES = (
    Case("anuran", folder="anuran"),
    Case("cifar10"),
    Case("donkey", folder="donkey"),
    Case("fashion-mnist"),
    Case("gtsrb", 200, folder="gtsrb32"),
    Case("highway", 200),
    Case("metadrive", 200, model="tanh-mlp"),
    Case("mnist"),
    Case("vl-latex", 20, "as-it-comes", packages=("tokenizers",), is_long=True),
    Case("lm", 10, "as-it-comes", needs=("smollm2",), packages=LANGUAGE, is_long=True),
    Case(
        "vl-retrieval",
        20,
        "as-it-comes",
        model="lite0-minilm-64",
        needs=("efficientnet-lite0", "minilm", "imagenet-names"),
        is_long=True,
    ),
    Case(
        "vl-chat",
        10,
        "as-it-comes",
        needs=("efficientnet-lite0", "smollm2", "imagenet-names"),
        packages=LANGUAGE,
        is_long=True,
    ),
    Case(
        "vl-caption",
        10,
        "as-it-comes",
        needs=("efficientnet-lite0", "smollm2", "imagenet-names"),
        packages=LANGUAGE,
        is_long=True,
    ),
    Case(
        "vl-retrieval-birds",
        20,
        "as-it-comes",
        model="lite0-minilm-64",
        folder="birds525",
        needs=("efficientnet-lite0", "minilm", "imagenet-names"),
        is_long=True,
    ),
    Case("birds965-small", 20, "as-it-comes", folder=".", is_long=True),
    Case(
        "birds525",
        20,
        "as-it-comes",
        folder="birds525",
        needs=("efficientnet-lite0",),
        is_long=True,
    ),
    Case("kitti-scenes", 12, is_long=True),
)
LEFT = {
    "birds965": "birds965-small with larger pictures",
    "images": "tried below, on pictures of the test's own",
    "kitti": "needs a registration; kitti-scenes has its format",
    "vl-folder": "tests/tasks/test_language_folder.py makes the model that it needs",
}


def train(case: Case, out: Path, data: Path | None = None) -> None:
    """Run the command and check what it says and leaves."""
    args: list[object] = ["train", "--task", case.task, "--method", case.method, "--epochs", 1]
    args += ["--limit", case.limit, "-o", out, "--json"]
    args += ["--model", case.model] if case.model else []
    args += ["--data", data] if data is not None else []
    run = ohmloop(*args)
    assert run.code == 0, run.err
    assert f"Next: `ohmloop evaluate {out}" in run.err
    assert run.json == json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert run.json["method"] == case.method
    assert math.isfinite(run.json["validation_score"])
    assert run.json["data_seen"] == ["train", "validation"]
    assert run.json["cost"] == (case.method == "erm")
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert (config["task"], config["limit"], config["epochs"]) == (case.task, case.limit, 1)
    lines = (out / "history.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == (case.method == "erm")
    assert all(math.isfinite(loss) for loss in losses)
    assert (out / "weights.pt").stat().st_size > 0


def marked(case: Case) -> object:
    marks = [pytest.mark.slow, *([pytest.mark.long] if case.is_long else [])]
    return pytest.param(case, id=case.task, marks=marks)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.task) for case in PACKAGED])
def test_a_task_that_comes_with_the_package_is_trained(case: Case, tmp_path: Path) -> None:
    train(case, tmp_path / "run")


@pytest.mark.parametrize("case", [marked(case) for case in CASES])
def test_a_task_whose_data_is_here_is_trained(case: Case, tmp_path: Path) -> None:
    folder = None if case.folder is None else SHARED / case.folder
    own = _ENTRIES[case.task].data
    try:
        if own is not None:
            find_folder(own, _DATA, folder)
        for name in case.needs:
            find_folder(name, _DATA, None)
    except TaskError as error:
        pytest.skip(str(error))
    for package in case.packages:
        pytest.importorskip(
            package, reason=f'{package} is missing: pip install "ohmloop[language]"'
        )
    train(case, tmp_path / "run", folder)


@pytest.mark.slow
def test_pictures_in_folders_are_trained(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k, kind in enumerate(("dark", "light")):
        (tmp_path / "own" / kind).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 100, (20, 24, 3)) + 150 * k
            picture = Image.fromarray(pixels.astype(np.uint8))
            picture.save(tmp_path / "own" / kind / f"{number}.png")
    train(Case("images", 20), tmp_path / "run", tmp_path / "own")


def test_every_task_is_tried_or_there_is_a_reason() -> None:
    tried = {case.task for case in (*PACKAGED, *CASES)}
    assert tried | set(LEFT) == set(list_tasks())
    assert not tried & set(LEFT)
