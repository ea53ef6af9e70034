"""Captions: what they say, how they are read and written, and when one is right."""

import re
from collections import Counter

import numpy as np
import pytest
import torch
from tests.tasks.parts import Eye, need, pictures, tiny_language
from torch import nn

from ohmloop.errors import TaskError
from ohmloop.tasks import task
from ohmloop.tasks._entry import Data
from ohmloop.tasks._images._cifar import CLASSES
from ohmloop.tasks._language import _caption


def letters(text: str) -> list[int]:
    """Words and marks as tokens, as the real tokenizer splits captions."""
    return [sum(map(ord, word)) for word in re.findall(r"\w+|[.,:]", text)]


def labelled(n: int) -> Data:
    return Data(pictures(n).new_zeros(n, 3, 32, 32).numpy(), np.arange(n) % 10)


@pytest.mark.parametrize(
    ("wording", "name", "text"),
    [
        (0, "ship", " a photo of a ship."),
        (1, "airplane", " a picture of an airplane."),
        (2, "cat", " a cat, which is an animal."),
        (3, "truck", " a vehicle: a truck."),
    ],
)
def test_captions_name_the_thing_and_its_kind(wording: int, name: str, text: str) -> None:
    assert _caption.caption(_caption.WORDINGS[wording], name) == text


def test_captions_are_the_same_for_a_seed_and_in_every_wording() -> None:
    one, again = (_caption.describe(labelled(200), letters, 1) for _ in range(2))
    other = _caption.describe(labelled(200), letters, 2)
    assert np.array_equal(one.x, again.x)
    assert np.array_equal(one.y, again.y)
    assert not np.array_equal(one.y, other.y)
    # Ten classes in four wordings.
    assert len(np.unique(one.y, axis=0)) == 40
    with pytest.raises(TaskError, match="more than 8"):
        _caption.describe(labelled(2), lambda text: letters(text * 2), 1)


def test_no_caption_is_known_from_its_picture_beyond_the_documented_share() -> None:
    """The best guess of each token, given the class and the tokens before, over all wordings."""
    hits = tokens = 0
    for name in CLASSES:
        rows = [letters(_caption.caption(wording, name)) for wording in _caption.WORDINGS]
        tokens += sum(map(len, rows))
        after: dict[tuple[int, ...], Counter[int]] = {}
        for row in rows:
            for k, token in enumerate(row):
                after.setdefault(tuple(row[:k]), Counter())[token] += 1
        hits += sum(max(counts.values()) for counts in after.values())
    assert tokens / 40 == 6.5
    assert hits / tokens == pytest.approx(0.885, abs=5e-4)


def test_row_of_a_caption_holds_what_comes_before_each_token() -> None:
    data = _caption.describe(labelled(30), letters, 1)
    assert data.x.shape == (30, 3072 + 7)
    for x, y in zip(data.x[:, 3072:], data.y, strict=True):
        n = int((y != -100).sum())
        assert np.array_equal(x[: n - 1], y[: n - 1])
        assert y[n - 1] == ord(".")
        assert not x[n:].any()


@pytest.fixture
def captioner() -> _caption.Captioner:
    """Its eye is sharp: each of the four `scenes` is another soft word."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        eye = Eye()
        with torch.no_grad():
            eye.classifier.weight.mul_(100)
        words = torch.randn(4, 8)
        return _caption.Captioner(eye, tiny_language(0.5), words, [1, 2], [3, 4, 5], 19).eval()


def scenes() -> torch.Tensor:
    """Four pictures of one colour each, int32 ``4 x 3072``."""
    colours = torch.tensor([[0, 0, 0], [250, 0, 0], [0, 250, 0], [90, 90, 250]])
    return colours.repeat_interleave(1024, 1).to(torch.int32)


def test_greedy_caption_is_the_likeliest_token_after_its_own(
    captioner: _caption.Captioner,
) -> None:
    found = captioner.decode(scenes(), 8)
    assert len(found.unique(dim=0)) > 1
    assert not (found == 19).any()
    with torch.no_grad():
        logits = captioner(torch.cat([scenes(), found[:, :-1].to(torch.int32)], 1))
    assert logits.shape == (4, 8, 20)
    assert torch.equal(logits.argmax(-1), found)
    # A token of the second picture's caption now ends captions, and fills the rest of their rows.
    captioner.end = int(found[1, 3])
    after = (found == captioner.end).cumsum(1) > 0
    assert torch.equal(captioner.decode(scenes(), 8), found.masked_fill(after, captioner.end))


def test_captions_depend_on_the_picture_and_not_on_what_follows(
    captioner: _caption.Captioner,
) -> None:
    rows = torch.cat([scenes(), torch.full((4, 7), 9, dtype=torch.int32)], 1)
    changed = rows.clone()
    changed[:, -1] = 10
    with torch.no_grad():
        a, b = captioner(rows), captioner(changed)
    assert torch.allclose(a[:, :-1], b[:, :-1], atol=1e-5)
    assert not torch.allclose(a[:, -1], b[:, -1], atol=1e-5)
    assert (a[0] - a[1]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("tokens", "found"),
    [([5, 1, 2], {0}), ([5, 1, 3], {1}), ([3, 1, 2], {0, 1}), ([], set()), ([2, 1], set())],
)
def test_names_are_found_whole(tokens: list[int], found: set[int]) -> None:
    assert _caption.named(tokens, [[1, 2], [3]]) == found


def test_a_caption_is_right_if_it_names_its_class_and_no_other() -> None:
    class Fixed(_caption.Captioner):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.unused = nn.Parameter(torch.zeros(()))

        def decode(self, pixels: torch.Tensor, n: int) -> torch.Tensor:
            rows = [[7, 0], [1, 7], [0, 1], [7, 7]]
            return torch.tensor(rows)[pixels[:, 0].long()]

    x = np.arange(4, dtype=np.uint8)[:, None].repeat(3072, 1).reshape(4, 3, 32, 32)
    data = Data(x, np.array([0, 0, 0, 0]))
    # Right, another class, both, none.
    assert _caption.share_named(Fixed(), data, [[0], [1]]) == 0.25


@pytest.mark.slow
def test_real_captions_are_read_and_written() -> None:
    need("smollm2", "efficientnet-lite0", "imagenet-names", "cifar10")
    pytest.importorskip("transformers", reason='needs pip install "ohmloop[language]"')
    t = task("vl-caption")
    model, test = t.model(), t.test(0)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["words.weight"]
    with torch.no_grad():
        out = model(test.x[:2])
    assert out.shape == (2, _caption.LENGTH, t.n_classes)
    assert model.decode(test.x[:2, :3072], 3).shape == (2, 3)
