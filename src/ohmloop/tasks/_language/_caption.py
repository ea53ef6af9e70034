"""Captions of photographs, written by the network of ``vl-chat``: one soft word a picture.

No captioned pictures come with a package, so captions are made from the labels of CIFAR-10 and what kind of
thing each names, in one of four wordings that is drawn for each picture: "a photo of a ship.", "a picture of
a ship.", "a ship, which is a vehicle." or "a vehicle: a ship.". Outputs are scored by the share of right
tokens, each after the true ones before it. The wording cannot be seen in the picture: three of four times the
token that tells it is wrong, so with 6.5 tokens a caption no network can be expected above .885. By doing, the
network writes captions of its own, greedily, and they are right if they name what is on the picture.

The projector must be trained before devices are judged, as that of ``vl-chat``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmloop.errors import TaskError
from ohmloop.tasks._entry import Data, Entry, Measure, Source
from ohmloop.tasks._fetch import find_folder
from ohmloop.tasks._images import _cifar
from ohmloop.tasks._language import _lm
from ohmloop.tasks._language._chat import (
    MODELS,
    N_PIXELS,
    PictureReader,
    kind,
    load_parts,
    load_pictures,
    ready,
)
from ohmloop.tasks._metric import IGNORED, TokenAccuracy
from ohmloop.tasks._split import take

N_DECODED = 100
"""Of the test pictures `_measure` decodes: a caption costs up to eight passes of the language model."""
LENGTH = 8
"""Tokens of a caption with its full stop at most."""
WORDINGS = (
    " a photo of {name}.",
    " a picture of {name}.",
    " {name}, which is {kind}.",
    " {kind}: {name}.",
)
# The language model as it comes is better at captions after an example of one.
_BEFORE, _AFTER, _END = "a tree, which is a plant. A photo of a", ". It shows", "."
_SEED_DEVELOPMENT, _SEED_TEST = 1, 2

Encode = Callable[[str], list[int]]


class Captioner(PictureReader):
    """Rows of pixels and tokens, ``B x (3 * 32 * 32 + L - 1)``, to logits of the L tokens of a caption.

    Args:
        vision: See `PictureReader`.
        language: See there.
        words: See there, ``c x width``.
        before: Tokens before the picture.
        after: Tokens between the picture and its caption.
        end: Token that ends a caption.
    """

    def __init__(
        self,
        vision: nn.Module,
        language: Any,
        words: Tensor,
        before: list[int],
        after: list[int],
        end: int,
    ) -> None:
        super().__init__(vision, language, words)
        self.register_buffer("before", torch.tensor(before))
        self.register_buffer("after", torch.tensor(after))
        self.before: Tensor
        self.after: Tensor
        self.end = end

    def _begin(self, pixels: Tensor) -> Tensor:
        """Return the embeddings ``B x T x width`` of what comes before a caption."""
        embed = self.language.get_input_embeddings()
        before, after = (
            embed(part).expand(len(pixels), -1, -1) for part in (self.before, self.after)
        )
        return torch.cat([before, self.see(pixels)[:, None], after], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``B x L x vocabulary`` of each token of the caption, after those in the row."""
        start = self._begin(x[:, :N_PIXELS])
        caption = self.language.get_input_embeddings()(x[:, N_PIXELS:].long())
        line = torch.cat([start, caption], 1)
        hidden = self.language.model(inputs_embeds=line, use_cache=False).last_hidden_state
        logits: Tensor = self.language.get_output_embeddings()(hidden[:, start.shape[1] - 1 :])
        return logits

    @torch.no_grad()
    def decode(self, pixels: Tensor, n: int) -> Tensor:
        """Return the greedy tokens ``B x n`` of pixels ``B x (3 * 32 * 32)``; the end token fills the rest."""
        line = self._begin(pixels)
        found: Tensor = self.language.generate(
            inputs_embeds=line,
            attention_mask=torch.ones(line.shape[:2], dtype=torch.long, device=line.device),
            max_new_tokens=n,
            do_sample=False,
            eos_token_id=self.end,
            pad_token_id=self.end,
        )
        return nn.functional.pad(found, (0, n - found.shape[1]), value=self.end)


def caption(wording: str, name: str) -> str:
    """Return the caption of a picture of that class.

    >>> caption(" {kind}: {name}.", "cat")
    ' an animal: a cat.'
    """
    return wording.format(name=_with_article(name), kind=_with_article(kind(name)))


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def describe(data: Data, encode: Encode, seed: int) -> Data:
    """Return pictures with captions: rows ``n x (pixels + LENGTH - 1)``, int32, tokens ``n x LENGTH``.

    Args:
        data: Pictures and classes of CIFAR-10.
        encode: From text to tokens.
        seed: Of the wordings.

    Raises:
        TaskError: If a caption has more than `LENGTH` tokens.
    """
    n = len(data.y)
    table = np.array([[_row(caption(w, c), encode) for c in _cifar.CLASSES] for w in WORDINGS])
    y = table[np.random.default_rng(seed).integers(len(WORDINGS), size=n), data.y]
    # What is read is never what fills up: a place behind the end of a caption is not scored.
    seen = np.where(y[:, :-1] == IGNORED, 0, y[:, :-1])
    return Data(np.concatenate([data.x.reshape(n, -1), seen], 1, dtype=np.int32), y)


def _row(text: str, encode: Encode) -> NDArray[np.int64]:
    tokens = encode(text)
    if len(tokens) > LENGTH:
        raise TaskError(f"the caption{text} has {len(tokens)} tokens, more than {LENGTH}.")
    row = np.full(LENGTH, IGNORED, np.int64)
    row[: len(tokens)] = tokens
    return row


def named(tokens: Sequence[int], names: Sequence[Sequence[int]]) -> set[int]:
    """Return which of the names, each a row of tokens, occur in a row of tokens."""
    own = list(tokens)
    return {
        number
        for number, name in enumerate(names)
        if any(own[k : k + len(name)] == list(name) for k in range(len(own) - len(name) + 1))
    }


def share_named(
    model: Captioner, data: Data, names: Sequence[Sequence[int]], batch: int = 50
) -> float:
    """Return the share of captions, decoded greedily, that name the class of the picture and no other.

    Args:
        model: Writes the captions.
        data: Pictures ``n x 3 x 32 x 32`` and classes.
        names: Tokens of each class's name.
        batch: Pictures at a time.
    """
    device = next(model.parameters()).device
    right = []
    for start in range(0, len(data.y), batch):
        pixels = torch.from_numpy(data.x[start : start + batch]).flatten(1).to(device)
        found = model.decode(pixels, LENGTH).tolist()
        labels = data.y[start : start + batch].tolist()
        right += [named(row, names) == {label} for row, label in zip(found, labels, strict=True)]
    return float(np.mean(right))


def _tokenizer() -> Encode:
    return _lm.load_tokenizer(find_folder("smollm2", _lm.DATA, None))


def _load(folder: Path | None) -> Source:
    source, encode = load_pictures(folder), _tokenizer()
    return Source(
        describe(source.development, encode, _SEED_DEVELOPMENT),
        describe(source.test, encode, _SEED_TEST),
    )


def _measure(folder: Path | None) -> Measure:
    test = take(load_pictures(folder).test, np.arange(N_DECODED))
    encode = _tokenizer()
    names = [encode(f" {name}") for name in _cifar.CLASSES]

    def measure(model: nn.Module) -> float:
        if not isinstance(model, Captioner):
            raise TaskError(f"vl-caption decodes a Captioner network, not {type(model).__name__}.")
        return share_named(model, test, names)

    return measure


def _build(name: str, seed: int, folder: Path | None) -> nn.Module:
    vision, language, words, encode = load_parts()
    end = encode(_END)[-1]
    model = Captioner(vision, language, words, encode(_BEFORE), encode(_AFTER), end)
    return ready(model, name)


ENTRIES = {
    "vl-caption": Entry(
        description="captions of photographs of CIFAR-10, made from their labels in four wordings",
        citation="Krizhevsky 2009 (cite); EfficientNet-lite0, SmolLM2-135M-Instruct (Apache-2.0)",
        n_classes=_lm.N_VOCABULARY,
        input_shape=(N_PIXELS + LENGTH - 1,),
        default_model="lite0-smollm2",
        load=_load,
        data="cifar10",
        scaling="none",
        models=MODELS,
        build=_build,
        metric=TokenAccuracy(),
        measure=_measure,
        epochs=3,
        batch_size=16,
        lr=3e-3,
    )
}
