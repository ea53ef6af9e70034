"""Vision and language: own networks against closed forms, and real weights where they are in the cache."""

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tasks.parts import Eye, need, pictures, tiny_language
from torch import nn
from torch.nn import functional as F

from ohmloop.errors import TaskError
from ohmloop.tasks import list_tasks, task
from ohmloop.tasks._entry import Data
from ohmloop.tasks._fetch import cache_folder
from ohmloop.tasks._language import _formulas, _latex, _lm, _minilm, _retrieval
from ohmloop.tasks._language._chat import Chat, answer_tokens, ask
from ohmloop.tasks._language._minilm import MiniLM, WordPiece, attention, load_minilm
from ohmloop.tasks._language._pix2tex import END, Pix2Tex, _standardised
from ohmloop.tasks._language._retrieval import NameClassifier, few, precision_at, recall_at
from ohmloop.tasks._language._safetensors import read_safetensors
from ohmloop.tasks._species import _birds

NAMES = (
    "lm",
    "vl-caption",
    "vl-chat",
    "vl-folder",
    "vl-latex",
    "vl-retrieval",
    "vl-retrieval-birds",
)
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tasks"


def test_tasks_are_listed() -> None:
    assert set(NAMES) <= set(list_tasks())


def write_safetensors(path: Path, header: dict[str, Any], body: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def test_safetensors_gives_the_values_that_were_written(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    fields = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}
    write_safetensors(
        tmp_path / "a", {"__metadata__": {"format": "pt"}, "w": fields}, values.tobytes()
    )
    found = read_safetensors(tmp_path / "a")
    assert found["w"].dtype == torch.float32
    assert torch.equal(found["w"], torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("cut", [3, 20, 1])
def test_truncated_safetensors_are_refused(tmp_path: Path, cut: int) -> None:
    fields = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    write_safetensors(tmp_path / "a", {"w": fields}, bytes(16))
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-cut])
    with pytest.raises(TaskError, match="safetensors"):
        read_safetensors(tmp_path / "a")


@pytest.fixture
def pieces(tmp_path: Path) -> WordPiece:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "snow", "##man", "##plough", "cafe", "-", "a"]
    vocabulary = {word: number for number, word in enumerate(words)}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": vocabulary}}))
    return WordPiece(path)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Snowman", [4, 5]),
        ("Café-a", [7, 8, 9]),
        ("snowplough  xyz\tA", [4, 6, 1, 9]),
        ("", []),
        ("a" * 101, [1]),
    ],
)
def test_longest_piece_first(pieces: WordPiece, text: str, tokens: list[int]) -> None:
    assert pieces.encode(text) == [2, *tokens, 3]


def test_attention_equals_the_library() -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4, generator=g) for _ in range(3))
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])[:, None, None]
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert torch.allclose(attention(q, k, v, mask), expected, atol=1e-6)


def tiny_text() -> MiniLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MiniLM(width=8, layers=2, heads=2, inner=16, words=10).eval()


def test_sentence_vectors_have_length_one_and_padding_changes_nothing(pieces: WordPiece) -> None:
    text = tiny_text()
    with torch.no_grad():
        both = text(*pieces.batch(["snowman", "snowman a cafe - a"]))
        alone = text(*pieces.batch(["snowman"]))
    assert torch.allclose(both.norm(dim=-1), torch.ones(2))
    assert torch.allclose(both[:1], alone, atol=1e-6)


def naming(pieces: WordPiece, names: list[str]) -> NameClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NameClassifier(Eye(), tiny_text(), torch.randn(4, 8), pieces.batch(names), 16).eval()


def test_names_are_read_by_the_drifting_text_encoder(pieces: WordPiece) -> None:
    model = naming(pieces, ["snowman", "cafe", "a - a"])
    x = pictures(2)
    parameters = dict(model.named_parameters())
    noisy = {
        name: 1.5 * value
        for name, value in parameters.items()
        if name.startswith("text.layers") and "value" in name and name.endswith("weight")
    }
    with torch.no_grad():
        before = model(x)
        drifted = torch.func.functional_call(model, noisy, (x,))
        again = model(x)
    assert before.shape == (2, 3)
    assert (drifted - before).abs().max() > 1e-4
    assert torch.equal(again, before)


def test_many_devices_in_one_pass_equal_each_alone(pieces: WordPiece) -> None:
    model = naming(pieces, ["snowman", "cafe"])
    x = pictures(3)
    names = [f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    parameters = dict(model.named_parameters())
    g = torch.Generator().manual_seed(1)
    stacked = {
        n: parameters[n] * (1 + 0.1 * torch.randn(3, *parameters[n].shape, generator=g))
        for n in names
    }
    with torch.no_grad():
        together = torch.func.vmap(lambda w: torch.func.functional_call(model, w, (x,)))(stacked)
        for k in range(3):
            one = {n: w[k] for n, w in stacked.items()}
            alone = torch.func.functional_call(model, one, (x,))
            assert torch.allclose(together[k], alone, atol=1e-4)


def test_a_name_whose_embedding_is_the_pictures_wins(pieces: WordPiece) -> None:
    model = naming(pieces, ["snowman", "cafe"])
    with torch.no_grad():
        # All classes of the image network get the place of the second name.
        model.words.weight.copy_(model.place_names()[1][:, None].expand(8, 4))
        assert model(pictures(5)).argmax(1).tolist() == [1] * 5
        assert model(pictures(1))[0, 1].item() == pytest.approx(model.contrast.item(), rel=1e-4)


class Scores(nn.Module):
    """Its input is its output."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_precision_counts_right_pictures_among_the_best() -> None:
    # Name 0: best two pictures are 0 (right) and 1 (wrong); name 1: 2 and 3, both right.
    x = np.array([[9, 0], [8, 1], [0, 9], [1, 8]], np.float32)
    data = Data(x, np.array([0, 1, 1, 1]))
    assert precision_at(Scores(), data, 2) == pytest.approx(0.75)


def test_recall_counts_pictures_found_under_their_own_name() -> None:
    # Name 0 has one picture, which is its second best; of the two of name 1, one is among its best two.
    data = Data(np.array([[8, 3], [9, 7], [1, 2]], np.float32), np.array([0, 1, 1]))
    assert recall_at(Scores(), data, 2) == pytest.approx(2 / 3)
    assert recall_at(Scores(), data, 1) == pytest.approx(1 / 3)
    assert recall_at(Scores(), data, 10) == 1


@pytest.fixture(scope="module")
def aviary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """525 species of four photographs, all the same; sorted names are not in the order of the table."""
    folder = tmp_path_factory.mktemp("birds")
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 20, 30)).save(file, "PNG")
    names = [f"{chr(65 + k % 26)} {chr(65 + k // 26)} BIRD" for k in range(525)]
    rows = "".join(f"p.png,{name},L {name}\n" for name in names for _ in range(4))
    (folder / "labels.csv").write_text("file,species,scientific_name\n" + rows)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.writestr("p.png", file.getvalue())
    return folder


def test_birds_are_asked_for_by_the_names_that_their_numbers_mean(
    aviary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Tokenizer:
        def batch(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
            asked[:] = texts
            n = len(texts)
            return torch.ones(n, 2, dtype=torch.int64), torch.ones(n, 2, dtype=torch.bool)

    monkeypatch.setattr(_retrieval, "find_folder", lambda *_: aviary)
    monkeypatch.setattr(_retrieval, "imagenet_names", lambda _: ["a", "b", "c", "d"])
    monkeypatch.setattr(_retrieval, "load_lite0", Eye)
    monkeypatch.setattr(_minilm, "load_minilm", lambda _: (tiny_text(), Tokenizer()))
    t = task("vl-retrieval-birds", aviary)
    model = t.model()
    assert t.is_pretrained()
    assert asked == sorted(asked)
    assert len(asked) == t.n_classes == 525
    assert model(torch.zeros(1, *t.input_shape, dtype=torch.uint8)).shape == (1, 525)


def test_birds_are_divided_as_those_of_birds525(
    aviary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 2,100 photographs take a second and a half to unpack and resize; here they all are the same.
    monkeypatch.setattr(
        _birds, "read_pixels", lambda _, files, size: np.zeros((len(files), 3, 2, 2), np.uint8)
    )
    ours, theirs = task("vl-retrieval-birds", aviary), task("birds525", aviary)
    assert torch.equal(ours.test(0).y, theirs.test(0).y)
    assert sorted(ours.test(0).y.tolist()) == list(range(525))
    measure = ours.measure()
    assert measure is not None
    assert measure(Always(525)) == pytest.approx(10 / 525)


class Always(nn.Module):
    """Gives every picture the same logits."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1)


def test_absent_photographs_of_birds_are_said(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"birds525 is not here.*Gob-Game-of-Bird.*--data FOLDER"):
        task("vl-retrieval-birds", tmp_path / "none")


def test_windows_are_followed_by_their_successors() -> None:
    x, y = _lm.windows(list(range(100)), 8, 5)
    assert np.array_equal(y, x + 1)
    assert x[0, 0] == 0
    assert y[-1, -1] == 99
    assert (np.diff(x[:, 0]) >= 8).all()
    with pytest.raises(TaskError, match="tokens"):
        _lm.windows(list(range(40)), 8, 5)


def test_standardised_weights_have_mean_zero_and_deviation_one() -> None:
    g = torch.Generator().manual_seed(0)
    w = _standardised(3 + 2 * torch.randn(5, 4, 3, 3, generator=g)).flatten(1)
    assert w.mean(1).abs().max() < 1e-6
    assert (w.std(1, unbiased=False) - 1).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("flaw", "lawn", 2)],
)
def test_edit_distance(a: str, b: str, distance: int) -> None:
    assert _latex.edit_distance([*map(ord, a)], [*map(ord, b)]) == distance
    assert _latex.edit_distance([*map(ord, b)], [*map(ord, a)]) == distance


def test_spaces_do_not_reach_the_renderer() -> None:
    assert _formulas.squeezed(r"x _ { 1 } = \pi r") == r"x_{1}=\pi r"
    assert _formulas.squeezed(r"{ \frac { a } { b } }") == r"{\dfrac{a}{b}}"


def test_formulas_are_distinct_the_same_for_a_seed_and_fill_the_picture() -> None:
    few_formulas = _formulas.formulas(6, 5)
    assert few_formulas == _formulas.formulas(6, 5)
    assert len(set(few_formulas)) == 6
    for text in few_formulas:
        ink = _formulas.render(text) < 128
        assert ink.shape == (64, 160)
        columns = np.flatnonzero(ink.any(0))
        assert columns[-1] - columns[0] > 100
        assert not ink[0].any()
        assert not ink[-1].any()
    with pytest.raises(TaskError, match="does not fit"):
        _formulas.render("x")


def test_packed_row_holds_picture_and_tokens() -> None:
    text = _formulas.formulas(1, 5)[0]
    data = _latex.pack([text], lambda _: [7, 8, 9])
    assert np.array_equal(data.x[0, : _latex.N_PIXELS].reshape(64, 160), _formulas.render(text))
    assert data.x[0, _latex.N_PIXELS :][:5].tolist() == [1, 7, 8, 9, 0]
    assert data.y[0, :5].tolist() == [7, 8, 9, 2, -100]
    with pytest.raises(TaskError, match="more than"):
        _latex.pack([text], lambda _: [7] * 100)


@pytest.fixture(scope="module")
def reader() -> Pix2Tex:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Pix2Tex(32, 64).eval()


def test_decoder_does_not_look_ahead(reader: Pix2Tex) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.cat(
        [
            torch.randint(0, 256, (1, 32 * 64), generator=g),
            torch.randint(3, 8000, (1, 6), generator=g),
        ],
        1,
    ).to(torch.int16)
    changed = x.clone()
    changed[0, -1] += 1 if changed[0, -1] < 100 else -1
    with torch.no_grad():
        a, b = reader(x), reader(changed)
    assert a.shape == (1, 6, 8000)
    assert torch.allclose(a[:, :-1], b[:, :-1], atol=1e-5)
    assert not torch.allclose(a[:, -1], b[:, -1], atol=1e-5)


def test_greedy_decoding_takes_the_likeliest_token_after_its_own(reader: Pix2Tex) -> None:
    pixels = torch.full((2, 32 * 64), 255, dtype=torch.int16)
    pixels[1, 500:600] = 0
    found = reader.decode(pixels, 5)
    packed = torch.cat(
        [pixels, torch.ones(2, 1, dtype=torch.int16), found[:, :-1].to(torch.int16)], 1
    )
    with torch.no_grad():
        best = reader(packed).argmax(-1)
    for row in range(2):
        n = [*found[row].tolist(), END].index(END)
        assert torch.equal(found[row, : n + 1], best[row, : n + 1])


@pytest.mark.parametrize("shape", [(30, 64), (224, 64), (32, 700)])
def test_unfit_picture_size_is_said(shape: tuple[int, int]) -> None:
    with pytest.raises(TaskError, match="multiples of 32"):
        Pix2Tex(*shape)


def test_each_picture_is_asked_each_question() -> None:
    data = Data(np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2), np.array([0, 3]))
    answers = answer_tokens(lambda text: [{" animal": 50, " vehicle": 51}.get(text, len(text))])
    asked = ask(data, answers)
    assert asked.x.shape == (4, 13)
    assert asked.x[:, 0].tolist() == [0, 0, 1, 1]
    assert np.array_equal(asked.x[2, 1:], data.x[0].reshape(-1))
    assert asked.y.tolist() == [len(" airplane"), len(" cat"), 51, 50]
    assert asked.groups is not None
    assert asked.groups.tolist() == [0, 1, 0, 1]


def test_chat_reads_at_the_end_of_its_own_question() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        language = tiny_language()
        words = torch.randn(4, 8)
        long = Chat(Eye(), language, words, [1, 2], [[3, 4], [5, 6, 7, 8]]).eval()
        short = Chat(long.vision, language, words, [1, 2], [[3, 4]]).eval()
    x = torch.cat([torch.zeros(2, 1, dtype=torch.uint8), pictures(2).new_zeros(2, 3072)], 1)
    x[1, 1:] = 200
    with torch.no_grad():
        assert torch.allclose(long(x), short(x), atol=1e-5)
        other = x.clone()
        other[:, 0] = 1
        assert not torch.allclose(long(other), long(x), atol=1e-3)


def test_few_is_stratified_and_always_the_same() -> None:
    data = Data(np.arange(100)[:, None], np.arange(100) % 10)
    from ohmloop.tasks._entry import Source

    one, two = few(Source(data, data), 40, 20), few(Source(data, data), 40, 20)
    assert np.array_equal(one.test.x, two.test.x)
    assert np.bincount(one.development.y).tolist() == [4] * 10
    assert np.bincount(one.test.y).tolist() == [2] * 10


def test_real_sentence_encoder_knows_what_is_alike() -> None:
    need("minilm")
    text, tokenizer = load_minilm(cache_folder("minilm"))
    with torch.no_grad():
        cat, kitten, truck = text(*tokenizer.batch(["a cat", "a kitten", "a truck"]))
    # The original (BertModel of transformers on the same weights) agrees to 1e-7.
    assert float(cat @ kitten) > 0.6 > 0.4 > float(cat @ truck)


@pytest.mark.slow
def test_real_pictures_are_named_far_above_chance() -> None:
    need("minilm", "efficientnet-lite0", "imagenet-names", "cifar10")
    t = task("vl-retrieval")
    model, test = t.model(), t.test(0)
    with torch.no_grad():
        logits = torch.cat([model(test.x[k : k + 50]) for k in range(0, 200, 50)])
    # 56 % on 500; 4 standard deviations of 200 Bernoulli trials below.
    floor = 0.56 - 4 * math.sqrt(0.56 * 0.44 / 200)
    assert float((logits.argmax(1) == test.y[:200]).double().mean()) > floor


@pytest.mark.slow
def test_real_birds_are_named_above_chance() -> None:
    need("minilm", "efficientnet-lite0", "imagenet-names")
    folder = SHARED / "birds525"
    if not (folder / "images.zip").exists():
        pytest.skip("images.zip not in ../shared/data/tasks/birds525 beside this checkout")
    t = task("vl-retrieval-birds", folder)
    model, test = t.model(), t.test(0)
    with torch.inference_mode():
        names = model.place_names()
        seen = torch.cat([model.place_pictures(part) for part in test.x.split(50)])
    hits = (seen @ names.T).argmax(1) == test.y
    # .076, measured once; chance is .002.
    assert hits.double().mean() == pytest.approx(0.076, abs=0.012)


@pytest.mark.slow
def test_real_formulas_are_read() -> None:
    need("pix2tex")
    pytest.importorskip("tokenizers", reason='needs pip install "ohmloop[language]"')
    folder = cache_folder("pix2tex")
    tokenizer = _latex.load_tokenizer(folder)
    data = _latex.pack(_formulas.formulas(12, 2), lambda text: list(tokenizer.encode(text).ids))
    model = task("vl-latex").model()
    metric = task("vl-latex").metric
    with torch.no_grad():
        out = model(torch.from_numpy(data.x))
    assert metric.value(metric.totals(out[None], torch.from_numpy(data.y)).numpy())[0] > 0.9
