"""Pictures and words in one space: EfficientNet-lite0 and MiniLM, joined without a single captioned picture.

The bridge is that of Norouzi et al. 2014 ("Zero-shot learning by convex combination of semantic embeddings"):
softmax(logits / temperature) over the 1,000 ImageNet classes weighs the embeddings of their names, which gives
a picture a place among sentences. Names that ImageNet does not have (the 10 of CIFAR-10; 512 of 525 birds) are
then compared by cosine. It stands in for CLIP (Radford et al. 2021), of which no weights come with a package,
and is far weaker: of 525 photographs of birds, one a species, it names 7.6 % right.

Everything that multiplies drifts: both encoders, the 1,000-way classifier and the matrix of 1,000 name
embeddings. The names asked for go through the drifting text encoder in each forward pass; nothing is cached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.errors import TaskError
from ohmloop.tasks._efficientnet import load_lite0
from ohmloop.tasks._entry import Data, Entry, Measure, Source
from ohmloop.tasks._fetch import DataSet, Member, Package, cache_place, find_folder, need_file
from ohmloop.tasks._images import _cifar
from ohmloop.tasks._language import _minilm
from ohmloop.tasks._species import _birds
from ohmloop.tasks._split import TEST_SEED, pick, take

_SYNSETS, _LEMMAS = "imagenet_synsets.txt", "imagenet_synset_to_lemma.txt"
DATA = {
    "imagenet-names": DataSet(
        files=(_SYNSETS, _LEMMAS),
        packages=(
            Package(
                "pypi",
                "timm",
                "1.0.20",
                {
                    _SYNSETS: Member(
                        f"timm/data/_info/{_SYNSETS}",
                        "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15",
                    ),
                    _LEMMAS: Member(
                        f"timm/data/_info/{_LEMMAS}",
                        "1b8babda187421a4bde0c9c5a197c36f6bdda962f7ca11ffb2813806cbb2178f",
                    ),
                },
            ),
        ),
        by_hand="take the two files out of the Python package timm 1.0.20, folder timm/data/_info, and place "
        f"them in {cache_place('imagenet-names')}.",
    )
}

TEMPERATURE = 4.0
"""Best of .5, 1, 2, 4, 6, 8, 12 on 600 training pictures at 96 and 128 pixels."""
CONTRAST = 20.0
"""Cosines times this are logits; only sets how sharp the softmax of training begins."""
N_DEVELOPMENT, N_TEST = 5_000, 1_000
TOP = 10
_SIZES = {"lite0-minilm": 96, "lite0-minilm-64": 64, "lite0-minilm-128": 128}


class NameClassifier(nn.Module):
    """Pictures ``B x 3 x H x W``, 0..255, to logits over names ``B x n_names``.

    Args:
        vision: Has ``features`` (``B x f``) and ``classifier`` (to ``B x c``).
        text: From tokens and mask ``n x T`` to vectors ``n x width`` of length 1.
        words: Embeddings of the classifier's own classes ``c x width``.
        names: Tokens and mask ``n_names x T`` of the names asked for.
        size: Height and width that pictures are scaled to first.
    """

    def __init__(
        self,
        vision: nn.Module,
        text: nn.Module,
        words: Tensor,
        names: tuple[Tensor, Tensor],
        size: int,
    ) -> None:
        super().__init__()
        self.vision, self.text, self.size = vision, text, size
        self.words = nn.Linear(words.shape[0], words.shape[1], bias=False)
        # Sentence vectors share a large common part; without it the cosines spread.
        self.register_buffer("common", words.mean(0))
        self.common: Tensor
        with torch.no_grad():
            self.words.weight.copy_((words - self.common).T)
        self.contrast = nn.Parameter(torch.tensor(CONTRAST))
        self.register_buffer("tokens", names[0])
        self.register_buffer("mask", names[1])
        self.tokens: Tensor
        self.mask: Tensor

    def place_pictures(self, x: Tensor) -> Tensor:
        """Return vectors ``B x width`` of length 1 of pictures."""
        shape = (self.size, self.size)
        scaled = F.interpolate(x.to(self.common.dtype), size=shape, mode="bicubic").clamp(0, 255)
        logits = self.vision.classifier(self.vision.features(scaled))  # type: ignore[operator]  # modules
        return F.normalize(self.words(F.softmax(logits / TEMPERATURE, -1)), dim=-1)

    def place_names(self) -> Tensor:
        """Return vectors ``n_names x width`` of length 1 of the names asked for."""
        return F.normalize(self.text(self.tokens, self.mask) - self.common, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``B x n_names``."""
        return self.contrast * self.place_pictures(x) @ self.place_names().T


def imagenet_names(folder: Path) -> list[str]:
    """Return what the 1,000 classes are called, in the order of the classifier."""
    try:
        lines = need_file(folder, _LEMMAS).read_text("utf-8").splitlines()
        lemmas = dict(line.split("\t", 1) for line in lines)
        return [lemmas[s] for s in need_file(folder, _SYNSETS).read_text("utf-8").split()]
    except (OSError, ValueError, KeyError) as error:
        raise TaskError(
            f"{folder} does not hold the names of ImageNet's classes ({error}). Delete it, then\n"
            "    ohmloop fetch imagenet-names"
        ) from error


def embed(text: nn.Module, tokenizer: _minilm.WordPiece, texts: Sequence[str]) -> Tensor:
    """Return vectors ``n x width`` of texts, 100 at a time."""
    with torch.no_grad():
        parts = [
            text(*tokenizer.batch(texts[start : start + 100]))
            for start in range(0, len(texts), 100)
        ]
    return torch.cat(parts)


def _build(
    name: str,
    seed: int,
    folder: Path | None,
    names: Callable[[Path | None], Sequence[str]],
) -> nn.Module:
    """Return the pair that compares with the names a data folder asks for; nothing in it is drawn."""
    text, tokenizer = _minilm.load_minilm(find_folder("minilm", _minilm.DATA, None))
    classes = imagenet_names(find_folder("imagenet-names", DATA, None))
    return NameClassifier(
        load_lite0(),
        text,
        embed(text, tokenizer, classes),
        tokenizer.batch(names(folder)),
        _SIZES[name],
    ).eval()


def few(source: Source, n_development: int, n_test: int) -> Source:
    """Return a stratified part of a data set, the same for everyone."""
    parts = []
    for data, n in zip(source, (n_development, n_test), strict=True):
        share = min(n / len(data.y), 1)
        chosen = pick(data.y, None, share, np.random.default_rng(TEST_SEED))
        parts.append(take(data, chosen))
    return Source(*parts)


def _load(folder: Path | None) -> Source:
    return few(_cifar.ENTRIES["cifar10"].load(folder), N_DEVELOPMENT, N_TEST)


def _cifar_names(folder: Path | None) -> tuple[str, ...]:
    return _cifar.CLASSES


def _measure(folder: Path | None) -> Measure:
    test = _load(folder).test
    return lambda model: precision_at(model, test, TOP)


def _birds_load(folder: Path | None) -> Source:
    return _birds.load_birds(folder, _birds.BIRD_SIZE)


def _birds_measure(folder: Path | None) -> Measure:
    test = _birds_load(folder).test
    return lambda model: recall_at(model, test, TOP)


def _hits(model: nn.Module, data: Data, k: int) -> Tensor:
    """Return whether each of the k pictures that fit a name best shows it, bool ``k x n_names``."""
    device = next(model.parameters()).device
    y = torch.from_numpy(data.y)
    with torch.no_grad():
        scores = torch.cat(
            [
                model(torch.from_numpy(data.x[start : start + 100]).to(device)).cpu()
                for start in range(0, len(y), 100)
            ]
        )
    best = scores.topk(min(k, len(y)), dim=0).indices
    return y[best] == torch.arange(scores.shape[1])


def precision_at(model: nn.Module, data: Data, k: int) -> float:
    """Return the share of right pictures among the k that fit a name best, mean over names."""
    return float(_hits(model, data, k).double().mean())


def recall_at(model: nn.Module, data: Data, k: int) -> float:
    """Return the share of pictures that are among the k that fit their own name best.

    For names with fewer than k pictures, of which precision could not reach 1.
    """
    return float(_hits(model, data, k).sum()) / len(data.y)


ENTRIES = {
    "vl-retrieval": Entry(
        description="photographs of CIFAR-10 named by comparing them with the names, both read by networks",
        citation="Krizhevsky 2009 (cite); EfficientNet-lite0, all-MiniLM-L6-v2, timm (Apache-2.0)",
        n_classes=len(_cifar.CLASSES),
        input_shape=_cifar.SHAPE,
        default_model="lite0-minilm",
        load=_load,
        data="cifar10",
        scaling="none",
        models=tuple(_SIZES),
        build=partial(_build, names=_cifar_names),
        measure=_measure,
        pretrained=tuple(_SIZES),
        epochs=3,
        batch_size=50,
        lr=3e-4,
    ),
    "vl-retrieval-birds": Entry(
        description="photographs of birds named by comparing them with 525 names, both read by networks",
        citation=f"{_birds.PHOTO_SOURCE}; EfficientNet-lite0, all-MiniLM-L6-v2, timm (Apache-2.0)",
        n_classes=_birds.N_BIRDS,
        input_shape=(3, _birds.BIRD_SIZE, _birds.BIRD_SIZE),
        default_model="lite0-minilm-128",
        load=_birds_load,
        data="birds525",
        scaling="none",
        models=tuple(_SIZES),
        build=partial(_build, names=_birds.bird_names),
        measure=_birds_measure,
        pretrained=tuple(_SIZES),
        epochs=3,
        batch_size=50,
        lr=3e-4,
    ),
}
