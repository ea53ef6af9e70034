"""Steering: both layouts of a tub are read, time is not torn, damage is said."""

import io
import json
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohmloop.errors import TaskError
from ohmloop.tasks import task
from ohmloop.tasks._driving import _donkey

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tasks" / "donkey"
N = 210
CUT_ROWS = 40


def angle(k: int) -> float:
    return round(float(np.sin(k / 15)), 6)


@cache
def picture(k: int) -> bytes:
    """Top third white, below it one grey that tells the number."""
    pixels = np.full((120, 160, 3), 255, np.uint8)
    pixels[CUT_ROWS:] = k
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", compress_level=1)
    return file.getvalue()


def new_tub(tub: Path, deleted: tuple[int, ...] = (), piloted: tuple[int, ...] = ()) -> Path:
    (tub / "images").mkdir(parents=True)
    rows = []
    for k in range(N):
        (tub / "images" / f"{k}_cam.png").write_bytes(picture(k))
        mode = "pilot" if k in piloted else "user"
        rows.append(
            {
                "_index": k,
                "cam/image_array": f"{k}_cam.png",
                "user/angle": angle(k),
                "user/mode": mode,
            }
        )
    for name, part in (("catalog_0.catalog", rows[:100]), ("catalog_1.catalog", rows[100:])):
        (tub / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    about = {
        "paths": ["catalog_0.catalog", "catalog_1.catalog"],
        "deleted_indexes": list(deleted),
    }
    head = (["cam/image_array"], ["image_array"], {}, {"created_at": 1.0}, about)
    (tub / "manifest.json").write_text("".join(json.dumps(line) + "\n" for line in head))
    (tub / "._catalog_0.catalog").write_bytes(b"\x00\x05\x16\x07")
    return tub


def old_tub(tub: Path) -> Path:
    tub.mkdir(parents=True)
    (tub / "meta.json").write_text("{}")
    for k in range(N):
        (tub / f"{k}_cam.png").write_bytes(picture(k))
        row = {"cam/image_array": f"{k}_cam.png", "user/angle": angle(k), "user/throttle": 0.5}
        (tub / f"record_{k}.json").write_text(json.dumps(row))
    return tub


@pytest.mark.parametrize("layout", ["new", "new-inside", "old", "archive"])
def test_every_layout_gives_the_frames_in_the_order_of_time(layout: str, tmp_path: Path) -> None:
    place = tmp_path / "data"
    if layout == "old":
        old_tub(place)
    elif layout == "new":
        new_tub(place)
    else:
        new_tub(place / "tub")
    if layout == "archive":
        (tmp_path / "packed").mkdir()
        with tarfile.open(tmp_path / "packed" / "tub.tar.gz", "w:gz") as archive:
            archive.add(place / "tub", "tub")
        place = tmp_path / "packed"
    t = task("donkey", place)
    source = t.entry.load(t.folder)
    first = N - N // 5
    assert source.test.x.shape == (N // 5, 3, 60, 80)
    numbers = source.test.x[:, 0, 5, 5]
    assert numbers.tolist() == list(range(first, N))
    # Nothing of the upper third is left: every pixel has the frame's own grey.
    assert (source.test.x == numbers[:, None, None, None]).all()
    np.testing.assert_allclose(source.test.y[:, 0], [angle(k) for k in range(first, N)], atol=1e-6)
    before = source.development.x[:, 0, 5, 5]
    assert before.max() == first - _donkey.GAP - 1


def test_validation_is_whole_blocks_of_time(tmp_path: Path) -> None:
    t = task("donkey", new_tub(tmp_path / "tub").parent, standardise=False)
    train, validation = t.development(0)
    blocks = [
        set((part.x[:, 0, 5, 5] // _donkey.BLOCK).int().tolist()) for part in (train, validation)
    ]
    assert blocks[0]
    assert blocks[1]
    assert not blocks[0] & blocks[1]


def test_deleted_frames_and_those_a_pilot_drove_are_left_out(tmp_path: Path) -> None:
    x, y = _donkey._frames(new_tub(tmp_path / "tub", deleted=(3,), piloted=(4, 5)))
    assert len(y) == N - 3
    assert not {3, 4, 5} & set(x[:, 0, 5, 5].tolist())


def test_a_folder_that_is_no_tub_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("{}")
    t = task("donkey", tmp_path)
    with pytest.raises(TaskError, match=r"neither manifest\.json nor record_0\.json"):
        t.development(0)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    tub = new_tub(tmp_path / "tub")
    (tub / "images" / "17_cam.png").unlink()
    with pytest.raises(TaskError, match=r"17_cam\.png"):
        task("donkey", tub).development(0)


def test_a_catalog_that_is_not_there_is_named(tmp_path: Path) -> None:
    tub = new_tub(tmp_path / "tub")
    (tub / "catalog_1.catalog").unlink()
    with pytest.raises(TaskError, match=r"names catalog_1\.catalog, which is not there"):
        task("donkey", tub).development(0)


def test_a_damaged_record_is_said(tmp_path: Path) -> None:
    tub = old_tub(tmp_path / "tub")
    (tub / "record_7.json").write_text('{"cam/image_array": "7_cam.png"}')
    with pytest.raises(TaskError, match=r"frame 7 has no cam/image_array and user/angle"):
        task("donkey", tub).development(0)


def test_a_short_recording_is_refused(tmp_path: Path) -> None:
    tub = new_tub(tmp_path / "tub", deleted=tuple(range(50)))
    with pytest.raises(TaskError, match=r"160 frames"):
        task("donkey", tub).development(0)


def test_a_cut_archive_is_said(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "tub.tar.gz", "w:gz") as archive:
        archive.add(new_tub(tmp_path / "tub"), "tub")
    whole = (tmp_path / "tub.tar.gz").read_bytes()
    (tmp_path / "tub.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TaskError, match=r"cannot be unpacked"):
        task("donkey", tmp_path).development(0)


@pytest.mark.parametrize("name", ["donkey-cnn", "donkey-cnn-bn"])
def test_networks_give_one_angle_and_the_seed_decides_the_weights(name: str) -> None:
    first, again, other = (_donkey._build(name, seed, None) for seed in (1, 1, 2))
    assert first(torch.zeros(2, 3, 60, 80)).shape == (2, 1)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    has_norm = any(isinstance(m, torch.nn.BatchNorm2d) for m in first.modules())
    assert has_norm == name.endswith("-bn")


def test_augmented_images_are_moved_and_lit_copies() -> None:
    """A ramp to the right moved by d is the ramp plus a constant; light multiplies and adds."""
    ramp = torch.arange(80.0).expand(6, 3, 60, 80)
    moved = _donkey._augment(ramp, torch.Generator().manual_seed(0))
    inner = moved[..., 8:-8]
    slope = inner.diff(dim=-1)
    gain = slope[:, :1, :1, :1]
    torch.testing.assert_close(slope, gain.expand_as(slope), atol=1e-4, rtol=1e-4)
    assert (gain > 0.79).all()
    assert (gain < 1.21).all()
    assert gain.std() > 0.01
    shift = ((inner[:, 0, 0, 0] - 8 * gain.flatten()) / gain.flatten()).abs()
    assert (shift < _donkey.SHIFT + 1.5).all()
    again = _donkey._augment(ramp, torch.Generator().manual_seed(0))
    assert torch.equal(moved, again)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="donkeycar's tub is not beside the checkout")
def test_a_network_learns_to_steer_from_the_public_tub() -> None:
    t = task("donkey", SHARED)
    (train, _), test = t.development(0), t.test(0)
    assert len(test.y) == 200
    model = t.model("donkey-cnn-bn", seed=0)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(8):
        for i in torch.randperm(len(train.y), generator=generator).split(32):
            loss = t.metric.loss(model(t.augment(train.x[i], generator)), train.y[i])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        totals = t.metric.totals(model(test.x)[None], test.y)
    # .80 after the 40 epochs of the task; a fifth of them is enough to be far from chance.
    assert t.metric.value(totals.numpy())[0] > 0.55
