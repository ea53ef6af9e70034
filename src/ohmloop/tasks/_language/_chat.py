"""Questions about photographs, answered by a language model that is shown what an image network sees.

The shape is LLaVA's (Liu et al. 2023): an image encoder, a projector, a language model that reads the
picture as a word among words. The parts are far smaller: EfficientNet-lite0 for CLIP's ViT-L, SmolLM2 of 135
million parameters for Vicuna's 7 thousand million, one soft word for 576, and questions made from the labels
of CIFAR-10.

No projector of these two comes with a package, so it begins as what needs no training: softmax(logits / 4)
over the 1,000 ImageNet classes mixes the language model's embeddings of their names. Train it before you
judge devices: untrained it names 8 % of 100 test pictures, out of the whole vocabulary, and tells animals from
vehicles in 56 %; 80 steps of 16 questions (136 s of one core) bring 67 % and 93 %. In "lite0-smollm2" only the
projector learns, which a CPU can do; in "lite0-smollm2-full" everything does, for a GPU.

Analog: convolutions and classifier of the image network, the projector, all linear layers of the language
model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.tasks._efficientnet import load_lite0
from ohmloop.tasks._entry import Data, Entry, Source
from ohmloop.tasks._fetch import find_folder
from ohmloop.tasks._images import _cifar
from ohmloop.tasks._language import _lm
from ohmloop.tasks._language._retrieval import DATA as NAMES
from ohmloop.tasks._language._retrieval import TEMPERATURE, few, imagenet_names

SIZE = 96
N_DEVELOPMENT, N_TEST = 2_000, 300
N_PIXELS = 3 * 32 * 32
_BEFORE = "A photo of a"
_QUESTIONS = (
    ". In one word, the photo shows a",
    ". Is it an animal or a vehicle? It is a kind of",
)
_ANIMALS = frozenset({"bird", "cat", "deer", "dog", "frog", "horse"})
MODELS = ("lite0-smollm2", "lite0-smollm2-full")


def kind(name: str) -> str:
    """Return "animal" or "vehicle" for a class of CIFAR-10."""
    return "animal" if name in _ANIMALS else "vehicle"


class PictureReader(nn.Module):
    """A language model that reads a picture as one soft word.

    Args:
        vision: EfficientNet: has ``features`` and ``classifier``.
        language: Causal language model of transformers.
        words: Embeddings of the classifier's classes in the language model, ``c x width``.
    """

    def __init__(self, vision: nn.Module, language: Any, words: Tensor) -> None:
        super().__init__()
        self.vision, self.language = vision, language
        self.words = nn.Linear(words.shape[0], words.shape[1], bias=False)
        with torch.no_grad():
            self.words.weight.copy_(words.T)
        self.length = float(language.get_input_embeddings().weight.detach().norm(dim=-1).mean())

    def see(self, pixels: Tensor) -> Tensor:
        """Return the soft word ``B x width`` of pixels ``B x (3 * 32 * 32)``, of the mean length of words."""
        x = pixels.to(self.words.weight.dtype).reshape(-1, *_cifar.SHAPE)
        x = F.interpolate(x, size=(SIZE, SIZE), mode="bicubic").clamp(0, 255)
        logits = self.vision.classifier(self.vision.features(x))  # type: ignore[operator]  # modules
        word = self.words(F.softmax(logits / TEMPERATURE, -1))
        return self.length * F.normalize(word, dim=-1)


class Chat(PictureReader):
    """Rows of a question's number and pixels, uint8 ``B x (1 + 3 * 32 * 32)``, to logits of the next token.

    Args:
        vision: See `PictureReader`.
        language: See there.
        words: See there, ``c x width``.
        before: Tokens before the picture.
        after: Tokens after it, for each question.
    """

    def __init__(
        self,
        vision: nn.Module,
        language: Any,
        words: Tensor,
        before: list[int],
        after: list[list[int]],
    ) -> None:
        super().__init__(vision, language, words)
        tokens = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in after], batch_first=True)
        self.register_buffer("before", torch.tensor(before))
        self.register_buffer("after", tokens)
        self.register_buffer("last", torch.tensor([len(row) - 1 for row in after]))
        self.before: Tensor
        self.after: Tensor
        self.last: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``B x vocabulary`` of the first token of the answer."""
        question = x[:, 0].long()
        embed = self.language.get_input_embeddings()
        before = embed(self.before).expand(len(x), -1, -1)
        line = torch.cat([before, self.see(x[:, 1:])[:, None], embed(self.after[question])], 1)
        hidden = self.language.model(inputs_embeds=line, use_cache=False).last_hidden_state
        # Questions differ in length: what pads the shorter ones comes after the place that is read.
        place = (len(self.before) + 1 + self.last[question])[:, None, None]
        read = hidden.gather(1, place.expand(-1, 1, hidden.shape[-1]))[:, 0]
        logits: Tensor = self.language.get_output_embeddings()(read)
        return logits


def ask(data: Data, answers: NDArray[np.int64]) -> Data:
    """Return every question about every picture: rows ``2 n x (1 + pixels)``, answers ``2 n``.

    Args:
        data: Pictures and classes of CIFAR-10.
        answers: Token of the answer ``questions x classes``.
    """
    n = len(data.y)
    pixels = data.x.reshape(n, -1)
    rows = [np.insert(pixels, 0, k, axis=1) for k in range(len(answers))]
    # Both questions about one picture stay on one side of the division.
    groups = np.tile(np.arange(n), len(answers))
    return Data(np.concatenate(rows), np.concatenate([row[data.y] for row in answers]), groups)


def answer_tokens(encode: Any) -> NDArray[np.int64]:
    """Return the first token of each answer, ``questions x classes``."""
    kinds = [f" {kind(name)}" for name in _cifar.CLASSES]
    names = [f" {name}" for name in _cifar.CLASSES]
    return np.array([[encode(text)[0] for text in row] for row in (names, kinds)], np.int64)


def load_pictures(folder: Path | None) -> Source:
    """Return the part of CIFAR-10 that is asked about: 2,000 and 300 pictures ``n x 3 x 32 x 32``."""
    return few(_cifar.ENTRIES["cifar10"].load(folder), N_DEVELOPMENT, N_TEST)


def _load(folder: Path | None) -> Source:
    source = load_pictures(folder)
    answers = answer_tokens(_lm.load_tokenizer(find_folder("smollm2", _lm.DATA, None)))
    return Source(*(ask(part, answers) for part in source))


class Parts(NamedTuple):
    """What a `PictureReader` is made of, and what turns text into its tokens."""

    vision: nn.Module
    language: Any
    words: Tensor
    encode: Callable[[str], list[int]]


def load_parts() -> Parts:
    """Return the two networks with their weights, and the embeddings of ImageNet's names ``1000 x width``.

    Raises:
        TaskError: If weights or names are not in the cache.
    """
    place = find_folder("smollm2", _lm.DATA, None)
    language, encode = _lm.load_smollm2(place), _lm.load_tokenizer(place)
    table = language.get_input_embeddings().weight.detach()
    classes = imagenet_names(find_folder("imagenet-names", NAMES, None))
    words = torch.stack([table[encode(" " + text.split(",")[0])].mean(0) for text in classes])
    return Parts(load_lite0(), language, words, encode)


def ready(model: PictureReader, name: str) -> nn.Module:
    """Return the model in eval mode; only the projector of "lite0-smollm2" learns."""
    if name == "lite0-smollm2":
        model.requires_grad_(False)
        model.words.requires_grad_(True)
    return model.eval()


def _build(name: str, seed: int, folder: Path | None) -> nn.Module:
    vision, language, words, encode = load_parts()
    model = Chat(vision, language, words, encode(_BEFORE), [encode(q) for q in _QUESTIONS])
    return ready(model, name)


ENTRIES = {
    "vl-chat": Entry(
        description="two questions about photographs of CIFAR-10: what it shows, and animal or vehicle",
        citation="Krizhevsky 2009 (cite); EfficientNet-lite0, SmolLM2-135M-Instruct (Apache-2.0)",
        n_classes=_lm.N_VOCABULARY,
        input_shape=(1 + N_PIXELS,),
        default_model="lite0-smollm2",
        load=_load,
        data="cifar10",
        scaling="none",
        models=MODELS,
        build=_build,
        epochs=1,
        batch_size=16,
        lr=3e-3,
    )
}
