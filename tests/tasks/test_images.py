"""CIFAR-10 in every layout, folders of images, augmentation: same data, clear errors, seeded chance."""

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohmloop.errors import TaskError
from ohmloop.tasks import task
from ohmloop.tasks._fetch import cache_folder
from ohmloop.tasks._images._augment import crop_and_flip, shift_and_relight
from ohmloop.tasks._images._cifar import CLASSES

N = 20
BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
REAL = cache_folder("cifar10")


@pytest.fixture
def pixels() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {n: rng.integers(0, 256, (N, 3, 32, 32), np.uint8) for n in (*BATCHES, "test_batch")}


def labels(name: str) -> list[int]:
    return [(k + len(name)) % 10 for k in range(N)]


def write_strips(folder: Path, pixels: dict[str, np.ndarray]) -> None:
    for name, x in pixels.items():
        rows = x.transpose(0, 2, 3, 1).reshape(N, 1024, 3)
        Image.fromarray(rows).save(folder / f"{name}.png")
    (folder / "train_lables.json").write_text(json.dumps([y for n in BATCHES for y in labels(n)]))
    (folder / "test_lables.json").write_text(json.dumps(labels("test_batch")))


def python2_pickle(x: np.ndarray, y: list[int]) -> bytes:
    """Write what Python 2 wrote: opcodes of protocol 2, by the names that numpy had then."""
    data = x.reshape(len(x), -1).tobytes()
    shape = b"M" + struct.pack("<H", len(x)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    return b"".join(
        [
            b"\x80\x02}(U\x06labels](",
            *(b"K" + bytes([label]) for label in y),
            b"eU\x04datacnumpy.core.multiarray\n_reconstruct\n",
            b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R",
            b"(K\x01" + shape,
            b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R",
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89T" + struct.pack("<I", len(data)) + data + b"tbu.",
        ]
    )


def write_pickles(folder: Path, pixels: dict[str, np.ndarray]) -> None:
    place = folder / "cifar-10-batches-py"
    place.mkdir()
    for name, x in pixels.items():
        (place / name).write_bytes(python2_pickle(x, labels(name)))


def write_new_pickles(folder: Path, pixels: dict[str, np.ndarray]) -> None:
    for name, x in pixels.items():
        content = {b"data": x.reshape(N, -1), b"labels": labels(name), b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(content, protocol=4))


def write_records(folder: Path, pixels: dict[str, np.ndarray]) -> None:
    place = folder / "cifar-10-batches-bin"
    place.mkdir()
    for name, x in pixels.items():
        rows = np.column_stack([np.array(labels(name), np.uint8), x.reshape(N, -1)])
        (place / f"{name}.bin").write_bytes(rows.tobytes())


LAYOUTS = [write_strips, write_pickles, write_new_pickles, write_records]


@pytest.mark.parametrize("write", LAYOUTS)
def test_cifar_is_the_same_in_every_layout(write, tmp_path: Path, pixels) -> None:
    write(tmp_path, pixels)
    t = task("cifar10", tmp_path, standardise=False)
    source = t.entry.load(t.folder)
    assert np.array_equal(source.development.x, np.concatenate([pixels[n] for n in BATCHES]))
    assert source.development.x.dtype == np.uint8
    assert source.development.y.tolist() == [y for n in BATCHES for y in labels(n)]
    assert np.array_equal(source.test.x, pixels["test_batch"])
    train, validation = t.development(0)
    assert train.x.dtype == torch.float32
    assert len(train.y) + len(validation.y) == 5 * N
    assert t.test(0).y.tolist() == labels("test_batch")
    assert t.model()(train.x[:2]).shape == (2, len(CLASSES))


class Evil:
    def __reduce__(self):
        return print, ("this should never run",)


def test_pickle_that_asks_for_code_is_refused(tmp_path: Path, pixels, capsys) -> None:
    write_new_pickles(tmp_path, pixels)
    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({"data": Evil(), "labels": []}))
    with pytest.raises(TaskError, match=r"data_batch_3.*builtins\.print"):
        task("cifar10", tmp_path).development(0)
    assert not capsys.readouterr().out


class Forged:
    """An array of objects whose addresses the file gives: reading through them ends the process."""

    def __reduce__(self):
        return np.ndarray, ((1,), np.dtype(object), b"A" * 8)


def test_pickle_with_forged_addresses_is_refused(tmp_path: Path, pixels) -> None:
    write_new_pickles(tmp_path, pixels)
    x = np.zeros((2, 3072), np.uint8)
    for content in (
        {"data": x, "labels": [Forged(), Forged()]},
        {"data": Forged(), "labels": []},
        {"data": x.astype(np.float32), "labels": [0, 1]},
    ):
        (tmp_path / "data_batch_3").write_bytes(pickle.dumps(content, protocol=4))
        with pytest.raises(TaskError, match=r"data_batch_3|do not belong"):
            task("cifar10", tmp_path).development(0)


@pytest.mark.parametrize("cut", [0, 1, 100, 5000])
@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_strips, "test_batch.png"),
        (write_strips, "train_lables.json"),
        (write_pickles, "cifar-10-batches-py/data_batch_5"),
        (write_records, "cifar-10-batches-bin/data_batch_2.bin"),
    ],
)
def test_truncated_cifar_is_said(write, name: str, cut: int, tmp_path: Path, pixels) -> None:
    write(tmp_path, pixels)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:cut])
    if path.suffix == ".json" and cut == 5000:
        path.unlink()
    with pytest.raises(TaskError, match=f"{path.name}"):
        task("cifar10", tmp_path).development(0)


def test_cifar_labels_that_do_not_belong_are_said(tmp_path: Path, pixels) -> None:
    write_strips(tmp_path, pixels)
    for wrong in ([0] * N, [10] * (5 * N), [0.5] * (5 * N), ["cat"] * (5 * N), [0, [1]]):
        (tmp_path / "train_lables.json").write_text(json.dumps(wrong))
        with pytest.raises(TaskError, match="do not belong together"):
            task("cifar10", tmp_path).development(0)


@pytest.mark.skipif(
    not (REAL / "data_batch_1.png").is_file(), reason="needs `ohmloop fetch cifar10`"
)
@pytest.mark.slow
def test_real_cifar_is_balanced() -> None:
    t = task("cifar10")
    source = t.entry.load(t.folder)
    assert source.development.x.shape == (50_000, 3, 32, 32)
    assert np.bincount(source.development.y).tolist() == [5000] * 10
    assert np.bincount(source.test.y).tolist() == [1000] * 10
    # Channel means of the training images, known from the literature: .4914, .4822, .4465.
    means = source.development.x.mean((0, 2, 3), dtype=np.float64) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=5e-5)


def every_crop(image: torch.Tensor, margin: int) -> dict[bytes, tuple[int, int, bool]]:
    """Return all crops of one padded image and of its mirror, made one by one."""
    side = image.shape[-1]
    out = {}
    padded = torch.nn.functional.pad(image, (margin,) * 4)
    for top in range(2 * margin + 1):
        for left in range(2 * margin + 1):
            crop = padded[:, top : top + side, left : left + side]
            out[crop.contiguous().numpy().tobytes()] = (top, left, False)
            out[crop.flip(-1).contiguous().numpy().tobytes()] = (top, left, True)
    return out


def test_crop_and_flip_draws_every_crop_about_equally() -> None:
    image = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0)) + 1
    known = every_crop(image, 1)
    assert len(known) == 18
    batch = image.expand(3600, 3, 9, 9)
    out = crop_and_flip(batch, torch.Generator().manual_seed(1), margin=1)
    counts = dict.fromkeys(known, 0)
    for one in out:
        counts[one.contiguous().numpy().tobytes()] += 1
    # Binomial: 200 each, deviation 13.7; five of them.
    assert all(130 < n < 270 for n in counts.values())


@pytest.mark.parametrize("change", [crop_and_flip, shift_and_relight])
def test_augmentation_depends_on_its_generator_alone(change) -> None:
    x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before, state = x.clone(), torch.get_rng_state()
    a, b, c = (change(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(x, before)
    assert torch.equal(state, torch.get_rng_state())
    assert a.shape == x.shape


def test_relighting_scales_with_the_pixels() -> None:
    x = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    small, large = (
        shift_and_relight(factor * x, torch.Generator().manual_seed(3)) for factor in (1.0, 255.0)
    )
    torch.testing.assert_close(255 * small, large, rtol=1e-4, atol=1e-3)


def paint(folder: Path, name: str, level: int, n: int, size: tuple[int, int] = (90, 70)) -> None:
    (folder / name).mkdir(parents=True)
    for k in range(n):
        Image.new("RGB", size, (level, k, 0)).save(folder / name / f"{k}.png")


def test_flat_folder_is_divided_by_class(tmp_path: Path) -> None:
    for level, name in enumerate(("robin", "Wren", "owl")):
        paint(tmp_path, name, 50 * level, 10)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    t = task("images", tmp_path, standardise=False)
    assert t.n_classes == 3
    assert t.input_shape == (3, 64, 64)
    train, validation = t.development(0)
    test = t.test(0)
    assert [len(part.y) for part in (train, validation, test)] == [18, 6, 6]
    # Classes are in the order of sorted names: Wren, owl, robin.
    red = torch.tensor([50.0, 100.0, 0.0])
    for part in (train, validation, test):
        assert torch.equal(part.x[:, 0].mean((1, 2)), red[part.y])
    assert t.model()(train.x[:2]).shape == (2, 3)
    assert t.model("cnn-bn").train()(train.x[:2]).shape == (2, 3)


def test_train_and_test_folders_are_kept(tmp_path: Path) -> None:
    for part, n in (("train", 5), ("validation", 2), ("test", 3)):
        for level, name in enumerate(("a", "b")):
            paint(tmp_path / part, name, 50 * level, n)
    t = task("images", tmp_path)
    train, validation = t.development(0)
    assert len(train.y) + len(validation.y) == 14
    assert len(t.test(0).y) == 6
    for path in (tmp_path / "test").rglob("*.png"):
        path.unlink()
    (tmp_path / "test" / "a").rmdir()
    (tmp_path / "test" / "b").rmdir()
    (tmp_path / "test").rmdir()
    t = task("images", tmp_path)
    assert sum(len(part.y) for part in t.development(0)) == 10
    assert len(t.test(0).y) == 4


def test_image_is_turned_upright_and_cut_about_its_middle(tmp_path: Path) -> None:
    for name in ("a", "b"):
        paint(tmp_path, name, 0, 3)
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, 100:200] = 200
    picture = Image.fromarray(wide)
    exif = picture.getexif()
    exif[0x0112] = 6  # orientation: turn by a right angle
    picture.save(tmp_path / "a" / "0.jpg", exif=exif)
    upper = np.zeros((200, 100, 3), np.uint8)
    upper[:100] = 255
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(upper)))
    turned.save(tmp_path / "b" / "0.jpg", exif=exif)
    source = task("images", tmp_path).entry.load(tmp_path)
    x = np.concatenate([source.development.x, source.test.x]).astype(float)
    bright = x[x.mean((1, 2, 3)) > 50]
    assert len(bright) == 2
    full, half = sorted(bright, key=lambda image: -image.mean())
    # The outermost pixels mix with what was cut off, as bilinear reduction does.
    assert np.abs(full[:, 1:-1, 1:-1] - 200).max() < 5
    # Upright again, the bright half is the upper one.
    assert half[:, :28].mean() > 250
    assert half[:, 36:].mean() < 5


def spoil_text(folder: Path) -> str:
    (folder / "a" / "notes.txt").write_text("seen at the lake")
    return r"notes\.txt is no image"


def spoil_image(folder: Path) -> str:
    path = folder / "b" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    return r"b.1\.png is a broken image"


def spoil_beside(folder: Path) -> str:
    (folder / "readme.md").write_text("x")
    return r"readme\.md lies beside"


def spoil_nested(folder: Path) -> str:
    (folder / "a" / "more").mkdir()
    return "folder inside the class folder a"


def spoil_small(folder: Path) -> str:
    (folder / "b" / "0.png").unlink()
    return r"holds 2 images; at least 3"


def spoil_lonely(folder: Path) -> str:
    for path in (folder / "b").iterdir():
        path.unlink()
    (folder / "b").rmdir()
    return "1 class folders; at least 2"


@pytest.mark.parametrize(
    "spoil",
    [spoil_text, spoil_image, spoil_beside, spoil_nested, spoil_small, spoil_lonely],
)
def test_spoilt_folder_is_said_by_name(spoil, tmp_path: Path) -> None:
    for name in ("a", "b"):
        paint(tmp_path, name, 0, 3)
    with pytest.raises(TaskError, match=spoil(tmp_path)):
        task("images", tmp_path).development(0)


def test_unknown_test_class_and_missing_folder_are_said(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            paint(tmp_path / part, name, 0, 3)
    paint(tmp_path / "test", "c", 0, 3)
    with pytest.raises(TaskError, match="no folder 'c'"):
        task("images", tmp_path)
    with pytest.raises(TaskError, match="--data FOLDER"):
        task("images", tmp_path / "nowhere")


def test_picture_too_large_to_be_honest_is_said(tmp_path: Path, pixels, monkeypatch) -> None:
    write_strips(tmp_path, pixels)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(TaskError, match="data_batch_1"):
        task("cifar10", tmp_path).development(0)


def test_test_folder_without_images_is_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        paint(tmp_path / "train", name, 0, 3)
        (tmp_path / "test" / name).mkdir(parents=True)
    with pytest.raises(TaskError, match="holds no images"):
        task("images", tmp_path)
