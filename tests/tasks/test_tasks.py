"""Tasks: the test set never moves, nothing leaks, damaged data is said."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from ohmloop.errors import TaskError
from ohmloop.tasks import (
    _driving,
    _images,
    _language,
    describe_tasks,
    fetch,
    list_data,
    list_tasks,
    read_idx,
    task,
)
from ohmloop.tasks._fetch import DataSet, fetch_data
from ohmloop.tasks._split import pick
from ohmloop.tasks._task import _DATA

SIZES = {"digits": 1797, "iris": 150, "penguins": 342}
EMBEDDED = tuple(SIZES)


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, n in (("train", 200), ("t10k", 50)):
        images = rng.integers(0, 256, (n, 28, 28))
        labels = np.arange(n) % 10
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return tmp_path


@pytest.mark.parametrize("name", EMBEDDED)
def test_test_set_is_the_same_for_every_seed_and_disjoint(name: str) -> None:
    t = task(name, standardise=False)
    first, second = t.test(0), t.test(1)
    assert torch.equal(first.x, second.x)
    rows = {}
    for seed in (0, 1):
        train, validation = t.development(seed)
        assert (
            len(train.y) + len(validation.y) + len(first.y)
            == {"digits": 1797, "iris": 150, "penguins": 342}[name]
        )
        rows[seed] = {tuple(r) for r in validation.x.flatten(1).tolist()}
        held = {tuple(r) for r in first.x.flatten(1).tolist()}
        # Equal measurements of different flowers exist; equal images do not.
        if name == "digits":
            assert not held & {tuple(r) for r in train.x.flatten(1).tolist()}
            assert not held & rows[seed]
        assert set(train.y.tolist()) == set(range(t.n_classes))
    assert rows[0] != rows[1]


def test_scaling_uses_training_statistics_only() -> None:
    train, validation = task("iris").development(0)
    assert train.x.mean(0).abs().max() < 1e-5
    assert (train.x.std(0, unbiased=False) - 1).abs().max() < 1e-5
    assert validation.x.mean(0).abs().max() > 1e-3


def test_limit_is_stratified() -> None:
    train, validation = task("digits").development(0, limit=200)
    assert 190 <= len(train.y) + len(validation.y) <= 210
    assert np.bincount(train.y.numpy(), minlength=10).min() >= 14


def test_idx_folder_is_read(folder: Path) -> None:
    t = task("mnist", folder)
    train, validation = t.development(0)
    assert train.x.shape == (160, 1, 28, 28)
    assert len(validation.y) == 40
    assert t.test(0).y.tolist() == [k % 10 for k in range(50)]
    assert t.model()(train.x[:2]).shape == (2, 10)


def test_missing_data_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OHMLOOP_DATA", str(tmp_path))
    with pytest.raises(TaskError, match="ohmloop fetch mnist"):
        task("mnist")
    with pytest.raises(TaskError, match="one of"):
        task("cifar11")
    with pytest.raises(TaskError, match="to fetch"):
        fetch("digits")


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"x" + b[1:], lambda b: b + b"0", lambda b: b[:3]]
)
def test_damaged_idx_is_said(damage, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(damage(idx(np.zeros((3, 28, 28)))))
    with pytest.raises(TaskError, match=r"no IDX file|truncated"):
        read_idx(path)


def test_models_depend_on_their_seed_and_leave_the_global_state() -> None:
    t = task("digits")
    before = torch.get_rng_state()
    a, b, c = (t.model(seed=s) for s in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a[1].weight, b[1].weight)
    assert not torch.equal(a[1].weight, c[1].weight)
    with pytest.raises(TaskError, match="lenet"):
        t.model("lenet")
    assert set(EMBEDDED) < set(list_tasks())


def test_groups_of_several_classes_are_not_torn() -> None:
    # Thirty routes of twenty decisions each, and every class occurs in every route.
    groups = np.repeat(np.arange(30), 20)
    y = np.random.default_rng(0).integers(0, 5, 600)
    held = pick(y, groups, 0.2, np.random.default_rng(1))
    rest = np.setdiff1d(np.arange(600), held)
    assert not set(groups[held]) & set(groups[rest])
    assert 0.1 < len(held) / 600 < 0.3
    assert len(np.unique(held)) == len(held)


def test_groups_of_one_class_are_stratified() -> None:
    groups = np.repeat(np.arange(21), 4)
    y = np.where(groups == 20, 2, groups % 2)
    held = pick(y, groups, 0.2, np.random.default_rng(0))
    # Two of the ten groups of each class; the class that has one group stays on the other side.
    assert [len(set(groups[held][y[held] == label])) for label in range(3)] == [2, 2, 0]


def test_fetching_leaves_what_a_user_laid_beside(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("OHMLOOP_DATA", str(tmp_path))
    (tmp_path / "it" / "own").mkdir(parents=True)
    (tmp_path / "it" / "own" / "data_batch_1").write_text("mine")
    (tmp_path / "it" / "made").mkdir()
    (tmp_path / "it" / "made" / "old.txt").write_text("old")

    def setup(folder: Path) -> None:
        (folder / "made").mkdir()
        (folder / "made" / "new.txt").write_text("new")

    known = {"it": DataSet((), (), "by hand", setup=setup, made=("made/new.txt",))}
    fetch_data("it", known)
    assert (tmp_path / "it" / "own" / "data_batch_1").read_text() == "mine"
    assert [path.name for path in (tmp_path / "it" / "made").iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_tables_name_the_way_to_data_that_can_be_fetched() -> None:
    ways = {summary.name: summary.data for summary in describe_tasks()}
    for name in ("mnist", "highway", "metadrive"):
        assert ways[name] == f"ohmloop fetch {name}"
        assert name in list_data()
    assert ways["gtsrb"].startswith("--data FOLDER")


@pytest.mark.parametrize("name", sorted({**_driving.DATA, **_images.DATA, **_language.DATA}))
def test_every_way_by_hand_says_where_to_lay_the_files(name: str) -> None:
    text = _DATA[name].by_hand
    assert "--data FOLDER" in text or f"the folder {name} under $OHMLOOP_DATA" in text


def test_documented_tasks_are_those_there_are() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "tasks.md"
    rows = [line for line in page.read_text("utf-8").splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in row.split("|")[1].replace("`", "").split()]
    assert sorted(named) == list(list_tasks())


def test_letters_are_flipped_once_to_learn_and_twice_to_test() -> None:
    t = task("letters")
    (train, validation), test = t.development(0), t.test(0)
    known = torch.cat([train.x, validation.x]).reshape(-1, 9)
    labels = torch.cat([train.y, validation.y])
    assert known.shape == (30, 9)
    assert test.x.shape == (108, 1, 3, 3)
    assert set(known.flatten().tolist()) == {-1.0, 1.0}
    distance = (test.x.reshape(-1, 1, 9) != known).sum(-1)
    # The letters are six pixels apart: two flips stay nearer to their own letter than to any other.
    for label in range(3):
        own = distance[test.y == label][:, labels == label].min(1).values
        other = distance[test.y == label][:, labels != label].min(1).values
        assert bool((own < other).all())
    assert int(distance.min()) == 1
