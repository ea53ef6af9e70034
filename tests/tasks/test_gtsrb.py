"""Traffic signs: both layouts give the same data, frames of one track stay together, nothing is mirrored."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohmloop.errors import TaskError
from ohmloop.tasks import task

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tasks" / "gtsrb32"
needs_signs = pytest.mark.skipif(
    not SHARED.is_dir(), reason="needs ../shared/data/tasks/gtsrb32 beside the checkout"
)
N_TRACKS, N_FRAMES = 4, 3
HEAD = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"


def sign(label: int, track: int, scale: int) -> Image.Image:
    """Paint red over (label + 1) / 4 of the width and green over (track + 1) / 4, at any light."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, : 8 * (label + 1), 0] = pixels[:, : 8 * (track + 1), 1] = 60 + 20 * scale
    return Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1))


def decode(x: torch.Tensor) -> tuple[list[int], list[int]]:
    """Return the classes and tracks that images were painted with."""
    red, green = ((x[:, channel, 16] > 128).sum(-1) // 8 - 1 for channel in (0, 1))
    return red.tolist(), green.tolist()


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Three classes in the layout of the archives."""
    root = tmp_path / "GTSRB"
    for label in range(3):
        place = root / "Final_Training" / "Images" / f"{label:05d}"
        place.mkdir(parents=True)
        lines = [HEAD]
        for track in range(N_TRACKS):
            for frame in range(N_FRAMES):
                name = f"{track:05d}_{frame:05d}.ppm"
                sign(label, track, frame + 1).save(place / name)
                lines.append(f"{name};32;32;5;5;25;25;{label}")
        (place / f"GT-{label:05d}.csv").write_text("\n".join(lines) + "\n")
    images = root / "Final_Test" / "Images"
    images.mkdir(parents=True)
    lines = [HEAD]
    for k in range(6):
        sign(k % 3, 0, 2).save(images / f"{k:05d}.ppm")
        lines.append(f"{k:05d}.ppm;64;64;5;5;35;35;{k % 3}")
    (root / "GT-final_test.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_solution_beside_the_archives_folder_is_found(official: Path) -> None:
    # Its archive has no folder GTSRB, the others have: unpacked in one place it lies beside.
    (official / "GTSRB" / "GT-final_test.csv").rename(official / "GT-final_test.csv")
    assert task("gtsrb", official).test(0).y.tolist() == [0, 1, 2, 0, 1, 2]


def test_official_archives_are_read_and_resized(official: Path) -> None:
    t = task("gtsrb", official, standardise=False)
    train, validation = t.development(0)
    assert train.x.shape[1:] == (3, 32, 32)
    assert len(train.y) + len(validation.y) == 3 * N_TRACKS * N_FRAMES
    assert decode(train.x)[0] == train.y.tolist()
    test = t.test(0)
    assert test.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert decode(test.x)[0] == test.y.tolist()


def test_every_image_has_the_same_light(official: Path) -> None:
    x = task("gtsrb", official).entry.load(official).development.x.astype(float)
    assert np.abs(x.mean((1, 2, 3)) - 128).max() < 1
    assert (x.std((1, 2, 3)) < 41).all()
    assert (x.std((1, 2, 3)) > 36).all()


@pytest.mark.parametrize("place", ["Final_Test", "Final_Test/Images"])
def test_solution_of_the_test_may_lie_deeper(official: Path, place: str) -> None:
    root = official / "GTSRB"
    (root / "GT-final_test.csv").rename(root / place / "GT-final_test.csv")
    assert len(task("gtsrb", root).test(0).y) == 6


def test_tracks_are_never_torn_apart(official: Path) -> None:
    t = task("gtsrb", official, standardise=False)
    held = set()
    for seed in range(4):
        tracks = []
        for part in t.development(seed):
            seen = list(zip(*decode(part.x), strict=True))
            assert all(seen.count(track) == N_FRAMES for track in seen)
            tracks.append(set(seen))
        assert not tracks[0] & tracks[1]
        held.add(frozenset(tracks[1]))
    assert len(held) > 1


def test_packed_layout_gives_the_same_task(official: Path, tmp_path: Path) -> None:
    place = tmp_path / "packed"
    place.mkdir()
    kinds = [(a, b, f) for a in range(3) for b in range(N_TRACKS) for f in range(N_FRAMES)]
    np.savez(
        place / "train.npz",
        images=np.stack([np.asarray(sign(a, b, f + 1).resize((32, 32))) for a, b, f in kinds]),
        labels=np.array([a for a, _, _ in kinds]),
        tracks=np.array([100 * a + b for a, b, _ in kinds], np.int32),
    )
    np.savez(
        place / "test.npz",
        images=np.stack([np.asarray(sign(k % 3, 0, 1)) for k in range(6)]),
        labels=np.arange(6) % 3,
    )
    both = (task("gtsrb", folder, standardise=False) for folder in (official, place))
    for a, b in zip(*(t.development(3) for t in both), strict=True):
        assert torch.equal(a.y, b.y)
        assert decode(a.x) == decode(b.x)
        assert decode(a.x)[0] == a.y.tolist()


def test_damage_is_said(official: Path, tmp_path: Path) -> None:
    place = official / "GTSRB" / "Final_Training" / "Images" / "00001"
    image, table = place / "00000_00000.ppm", place / "GT-00001.csv"
    kept = image.read_bytes()
    image.write_bytes(kept[:200])
    with pytest.raises(TaskError, match=r"00000_00000[.]ppm cannot be read"):
        task("gtsrb", official).development(0)
    image.write_bytes(kept)
    text = table.read_text()
    table.write_text(text.replace("ClassId", "Class"))
    with pytest.raises(TaskError, match="columns Filename and ClassId"):
        task("gtsrb", official).development(0)
    table.write_text(text.replace("5;5;25;25;1", "5;5;25;25;43"))
    with pytest.raises(TaskError, match="0 to 42"):
        task("gtsrb", official).development(0)
    table.write_text(text.replace("00000_00000", "first"))
    with pytest.raises(TaskError, match="TRACK_FRAME"):
        task("gtsrb", official).development(0)
    with pytest.raises(TaskError, match="Bochum"):
        task("gtsrb", tmp_path / "nowhere")
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "test.npz").write_bytes(b"PK")
    np.savez(packed / "train.npz", images=np.zeros((2, 32, 32), np.uint8), labels=np.zeros(2))
    with pytest.raises(TaskError, match="images, labels, tracks"):
        task("gtsrb", packed).development(0)


def test_augmentation_never_mirrors_and_keeps_the_batch_as_it_is() -> None:
    t = task("gtsrb", SHARED) if SHARED.is_dir() else None
    if t is None:
        pytest.skip("needs ../shared/data/tasks/gtsrb32 beside the checkout")
    ramp = torch.linspace(-1, 1, 32).expand(64, 3, 32, 32).clone()
    before = ramp.clone()
    out = t.augment(ramp, torch.Generator().manual_seed(0))
    assert torch.equal(ramp, before)
    assert (out.diff(dim=-1).mean((1, 2, 3)) > 0).all()
    assert len(out.flatten(1).unique(dim=0)) > 60


@pytest.mark.slow
@needs_signs
def test_real_signs_have_every_class_on_each_side_and_whole_tracks() -> None:
    t = task("gtsrb", SHARED)
    data = t.entry.load(SHARED).development
    assert data.x.shape == (9149, 3, 32, 32)
    assert data.x.dtype == np.uint8
    assert data.groups is not None
    assert len(np.unique(data.groups)) == 1307
    train, validation = t.development(0)
    assert set(train.y.tolist()) == set(validation.y.tolist()) == set(range(43))
    assert 0.15 < len(validation.y) / len(data.y) < 0.25
    assert t.test(0).x.shape == (4000, 3, 32, 32)
    assert abs(float(train.x.mean())) < 1e-3


@pytest.mark.slow
@pytest.mark.long
@needs_signs
def test_cnn_learns_real_signs_in_two_epochs() -> None:
    t = task("gtsrb", SHARED)
    train, _ = t.development(0)
    model, generator = t.model("cnn-bn"), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(2):
        for index in torch.randperm(len(train.y), generator=generator).split(64):
            x = t.augment(train.x[index], generator)
            loss = t.metric.loss(model(x), train.y[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    test = t.test(0)
    with torch.no_grad():
        hits = torch.cat([model.eval()(x).argmax(1) for x in test.x.split(500)]) == test.y
    # Chance is 2 %, the largest class 6 %.
    assert hits.double().mean() > 0.7
