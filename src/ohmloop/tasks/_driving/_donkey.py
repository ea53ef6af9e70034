"""Steering from the camera: recordings of a donkeycar, a model car that a person drives.

A tub is donkeycar's folder of one recording. Two layouts exist: since version 4 `manifest.json`, whose last
line names the catalog files (JSON lines, images under `images/`); before, one `record_N.json` a frame beside
its image. Both are read, from a folder or from `tub.tar.gz`.
"""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from ohmloop.errors import TaskError
from ohmloop.tasks._entry import Data, Entry, Source
from ohmloop.tasks._fetch import DataSet
from ohmloop.tasks._metric import RSquared

HEIGHT, WIDTH = 60, 80
"""Pixels the lower part of an image is reduced to (box average); the usual camera has 120 x 160."""
SKY = 1 / 3
"""Share cut off at the top: above the horizon there is no track, but people and lamps to learn by heart."""
SHIFT = 4
"""Pixels that training images are moved by, at most: the camera shakes."""
BLOCK = 50
"""Frames of one block of time, 2.5 s at donkeycar's 20 Hz: what is kept together."""
GAP = 20
"""Frames left out before the test part, 1 s: the angle's autocorrelation is .57 there in the public tub."""
TEST_SHARE = 0.2
MIN_FRAMES = 4 * BLOCK


class _Record(NamedTuple):
    """One frame: its number, the image's path inside the tub, the angle from -1 (left) to 1 (right)."""

    number: int
    image: str
    angle: float


class _Tub(NamedTuple):
    """Files of a tub by path, and how one is read."""

    names: tuple[str, ...]
    read: Callable[[str], bytes]


def _load(folder: Path | None) -> Source:
    """Return frames ``n x 3 x 60 x 80`` (uint8, RGB) and angles ``n x 1`` in the order of time.

    The last fifth is the test part; `GAP` frames before it belong to neither part.
    """
    assert folder is not None
    x, y = _frames(folder)
    first = len(y) - round(TEST_SHARE * len(y))
    blocks = np.arange(len(y), dtype=np.int64) // BLOCK
    cut = first - GAP
    return Source(
        Data(x[:cut], y[:cut], blocks[:cut]),
        Data(x[first:], y[first:], blocks[first:]),
    )


def _frames(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    archive = folder / "tub.tar.gz"
    if archive.is_file():
        try:
            return _decode(_from_archive(archive), archive)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise TaskError(
                f"{archive} cannot be unpacked: {error}. Get it again, or unpack it yourself."
            ) from error
    inside = folder / "tub" if (folder / "tub").is_dir() else folder
    return _decode(_from_folder(inside), inside)


def _from_folder(folder: Path) -> _Tub:
    names = tuple(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return _Tub(names, lambda name: (folder / name).read_bytes())


def _from_archive(path: Path) -> _Tub:
    """Read everything at once: looking up single members of a gzipped tar would unpack it each time."""
    files: dict[str, bytes] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                files[member.name] = file.read()
    return _Tub(tuple(files), files.__getitem__)


def _decode(tub: _Tub, where: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    records = sorted(_records(tub, where))
    if len(records) < MIN_FRAMES:
        raise TaskError(
            f"{where} holds {len(records)} frames driven by a person; at least {MIN_FRAMES} are "
            "needed for training, validation and test. Join recordings, or record longer."
        )
    x = np.stack([_image(tub, record.image, where) for record in records])
    y = np.array([[record.angle] for record in records], dtype=np.float32)
    return x, y


def _records(tub: _Tub, where: Path) -> Iterator[_Record]:
    """Yield the frames that a person drove (mode "user") and did not delete."""
    # A Mac leaves "._NAME" beside each NAME in an archive: no part of the recording.
    names = [name for name in tub.names if not PurePosixPath(name).name.startswith("._")]
    manifest = next((n for n in names if PurePosixPath(n).name == "manifest.json"), None)
    if manifest is not None:
        yield from _catalogued(tub, manifest, where)
        return
    old = [n for n in names if re.fullmatch(r"record_\d+\.json", PurePosixPath(n).name)]
    if not old:
        raise TaskError(
            f"{where} is no tub: it has neither manifest.json nor record_0.json. {_BY_HAND}"
        )
    for name in old:
        index = int(re.findall(r"\d+", PurePosixPath(name).name)[0])
        yield from _record(_json(tub.read(name), name, where), index, PurePosixPath(name).parent)


def _catalogued(tub: _Tub, manifest: str, where: Path) -> Iterator[_Record]:
    top = PurePosixPath(manifest).parent
    lines = tub.read(manifest).splitlines()
    about = _json(lines[-1] if lines else b"", manifest, where)
    try:
        deleted = {int(k) for k in about.get("deleted_indexes") or ()}
        catalogs = [(str(name), str(top / name)) for name in about.get("paths") or ()]
    except (TypeError, ValueError) as error:
        raise TaskError(f"{where}: the last line of {manifest} is damaged: {error}.") from error
    for catalog, name in catalogs:
        if name not in tub.names:
            raise TaskError(f"{where}: {manifest} names {catalog}, which is not there.")
        for line in tub.read(name).splitlines():
            if not line.strip():
                continue
            row = _json(line, name, where)
            try:
                index = int(row.get("_index", -1))
            except (TypeError, ValueError) as error:
                raise TaskError(
                    f"{where}: {name} holds a record whose _index is no number: {error}."
                ) from error
            if index not in deleted:
                yield from _record(row, index, top / "images")


def _record(row: Mapping[str, Any], index: int, images: PurePosixPath) -> Iterator[_Record]:
    if row.get("user/mode", "user") != "user":
        return
    try:
        record = _Record(index, str(images / row["cam/image_array"]), float(row["user/angle"]))
        if not math.isfinite(record.angle):
            raise ValueError(f"the angle is {record.angle}")
    except (KeyError, TypeError, ValueError) as error:
        raise TaskError(
            f"frame {index} has no cam/image_array and user/angle that can be used: {error}. "
            "Take that record out of the tub."
        ) from error
    yield record


def _json(text: bytes, name: str, where: Path) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise TaskError(f"{where}: {name} holds a line that is no JSON: {error}.") from error
    if not isinstance(row, dict):
        raise TaskError(f"{where}: {name} holds a line that is no record: {text[:60]!r}.")
    return row


def _image(tub: _Tub, name: str, where: Path) -> NDArray[np.uint8]:
    """Return one image ``3 x 60 x 80``."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(tub.read(name))) as image:
            track = (0, round(SKY * image.height), image.width, image.height)
            small = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BOX, box=track)
    except (KeyError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TaskError(f"{where}: the image {name} cannot be read: {error}.") from error
    return np.asarray(small, dtype=np.uint8).transpose(2, 0, 1)


def _build(name: str, seed: int, folder: Path | None) -> nn.Module:
    """Return a network ``B x 3 x 60 x 80`` -> ``B x 1``; "-bn" has batch norm after each convolution.

    Four strided convolutions and one hidden layer: the shape of donkeycar's own "linear" pilot, itself after
    Bojarski et al. 2016, for images of half the size.
    """
    channels = ((3, 16, 5), (16, 24, 5), (24, 32, 3), (32, 32, 3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for c, d, kernel in channels:
            layers.append(nn.Conv2d(c, d, kernel, stride=2))
            if name == "donkey-cnn-bn":
                layers.append(nn.BatchNorm2d(d))
            layers.append(nn.ReLU())
        return nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(32 * 2 * 3, 64),
            nn.ReLU(),
            nn.Linear(64, 1),
        )


def _augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return images ``B x 3 x H x W``, each with other light and moved by up to `SHIFT` pixels.

    Light: a factor from .8 to 1.2, then an offset of deviation .2 (of the scaled pixels, whose deviation
    is 1). No mirroring: that would have to change the angle.
    """
    n, device = len(x), generator.device
    gain = 0.8 + 0.4 * torch.rand(n, 1, 1, 1, generator=generator, device=device)
    offset = 0.2 * torch.randn(n, 1, 1, 1, generator=generator, device=device)
    moved = torch.randint(0, 2 * SHIFT + 1, (2, n, 1), generator=generator, device=device)
    moved = moved.to(x.device)
    rows = moved[0] + torch.arange(HEIGHT, device=x.device)
    columns = moved[1] + torch.arange(WIDTH, device=x.device)
    padded = functional.pad(x, (SHIFT,) * 4, mode="replicate")
    picked = padded[
        torch.arange(n, device=x.device)[:, None, None], :, rows[:, :, None], columns[:, None]
    ].permute(0, 3, 1, 2)
    return picked * gain.to(x.device, x.dtype) + offset.to(x.device, x.dtype)


_BY_HAND = (
    "place a donkeycar tub (its folder, named tub, or tub.tar.gz as in the test folder of "
    "https://github.com/autorope/donkeycar) in a folder and name it: --data FOLDER."
)

DATA = {
    "donkey": DataSet(
        files=("tub.tar.gz|tub|manifest.json|meta.json|record_0.json",),
        packages=(),
        by_hand=_BY_HAND,
    )
}

ENTRIES = {
    "donkey": Entry(
        description="60 x 80 camera images of a model car's track; a person's steering angle, -1 to 1",
        citation="autorope/donkeycar (MIT)",
        n_classes=1,
        input_shape=(3, HEIGHT, WIDTH),
        default_model="donkey-cnn",
        load=_load,
        data="donkey",
        models=("donkey-cnn", "donkey-cnn-bn"),
        build=_build,
        metric=RSquared(),
        augment=_augment,
        epochs=40,
        batch_size=32,
        lr=1e-3,
    )
}
