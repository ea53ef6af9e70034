"""Vision-language models from a folder: tiny random ones, saved and read back without a network."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ohmloop.errors import TaskError
from ohmloop.tasks import task
from ohmloop.tasks._entry import Data
from ohmloop.tasks._language._folder import right_answers

transformers = pytest.importorskip("transformers", reason='needs pip install "ohmloop[language]"')

WORDS = [
    "<pad>",
    "<unk>",
    "<image>",
    "USER:",
    "ASSISTANT:",
    "what",
    "is",
    "this",
    "a",
    "cat",
    "dog",
]


TEMPLATE = (
    "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
    "{% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}ASSISTANT:"
)


def tokenizer(extra: tuple[str, ...] = ()) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [*WORDS, *extra]
    inner = Tokenizer(models.WordLevel({w: k for k, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>", *extra],
    )


def llava(place: Path) -> None:
    text = transformers.LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    vision = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=16,
    )
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=2,
        tie_word_embeddings=True,
        vision_feature_layer=-1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.LlavaForConditionalGeneration(config).save_pretrained(place)
    pictures = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    transformers.LlavaProcessor(
        pictures,
        tokenizer(),
        patch_size=16,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
    ).save_pretrained(place)


def smolvlm(place: Path) -> None:
    extra = ("<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = transformers.LlamaConfig(
        vocab_size=len(WORDS) + len(extra), num_key_value_heads=1, pad_token_id=0, **small
    )
    config = transformers.Idefics3Config(
        vision_config={**small, "image_size": 64, "patch_size": 16},
        text_config=text,
        image_token_id=2,
        scale_factor=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.Idefics3ForConditionalGeneration(config).save_pretrained(place)
    pictures = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 64}, do_image_splitting=False
    )
    transformers.Idefics3Processor(
        pictures, tokenizer(extra), image_seq_len=4, chat_template=TEMPLATE
    ).save_pretrained(place)


def write_questions(place: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    lines = []
    for k in range(6):
        Image.fromarray(rng.integers(0, 256, (32 + k, 40, 3), dtype=np.uint8)).save(
            place / f"{k}.png"
        )
        answer = "a cat" if k % 2 else "dog"
        lines.append(
            json.dumps({"image": f"{k}.png", "question": "what is this", "answer": answer})
        )
    (place / "questions.jsonl").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("vl")
    transformers.utils.logging.set_verbosity_error()
    llava(place / "model")
    write_questions(place)
    return place


def test_answers_are_scored_as_the_library_scores_them(folder: Path) -> None:
    from PIL import Image

    t = task("vl-folder", folder)
    model, test = t.model(), t.test(0)
    reference = transformers.AutoModelForImageTextToText.from_pretrained(folder / "model")
    processor = transformers.AutoProcessor.from_pretrained(folder / "model")
    losses = []
    for (number,), y in zip(test.x.tolist(), test.y, strict=True):
        answer = "a cat" if number % 2 else "dog"
        batch = processor(
            text=f"USER: <image>\nwhat is this ASSISTANT: {answer}",
            images=[Image.open(folder / f"{number}.png")],
            return_tensors="pt",
        )
        n = int((y >= 0).sum())
        labels = batch["input_ids"].clone()
        labels[:, :-n] = -100
        with torch.no_grad():
            losses.append((float(reference(**batch, labels=labels).loss) * n, n))
    expected = np.exp(sum(loss for loss, _ in losses) / sum(n for _, n in losses))
    with torch.no_grad():
        found = t.metric.value(t.metric.totals(model(test.x)[None], test.y).numpy())
    assert found[0] == pytest.approx(expected, rel=1e-4)


def test_smolvlm_with_a_chat_template_is_read_too(tmp_path: Path) -> None:
    smolvlm(tmp_path / "model")
    write_questions(tmp_path)
    t = task("vl-folder", tmp_path)
    x, y = t.test(0)
    model = t.model()
    with torch.no_grad():
        out = model(x)
        alone = torch.cat([model(row[None]) for row in x])
    assert out.shape == (*y.shape, len(WORDS) + 3)
    assert torch.equal(out, alone)
    value = t.metric.value(t.metric.totals(out[None], y).numpy())[0]
    # Random weights know nothing: the perplexity is about the vocabulary's size.
    assert 5 < value < 60


def test_tied_head_is_an_array_of_its_own(folder: Path) -> None:
    t = task("vl-folder", folder)
    model, x = t.model(), t.test(0).x[:1]
    parameters = dict(model.named_parameters())
    name = next(n for n in parameters if n.endswith("lm_head.weight"))
    with torch.no_grad():
        before = model(x)
        doubled = torch.func.functional_call(model, {name: 2 * parameters[name]}, (x,))
    assert torch.allclose(doubled, 2 * before, atol=1e-5)


def test_an_answer_is_right_if_greedy_decoding_gives_it(folder: Path, tmp_path: Path) -> None:
    t = task("vl-folder", folder)
    measure = t.measure()
    assert measure is not None
    model = t.model()

    x, y = (part.numpy() for part in t.test(0))
    with torch.no_grad():
        first = model(torch.from_numpy(x)).argmax(-1)[:, 0].numpy()
    likely = np.full_like(y, -100)
    likely[:, 0] = first
    assert right_answers(model, Data(x, likely)) == 1
    likely[:, 0] = (first + 1) % len(WORDS)
    assert right_answers(model, Data(x, likely)) == 0
    assert 0 <= measure(model) <= 1


def test_parts_given_by_the_user_are_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(folder / "model")
    lines = []
    for k, line in enumerate((folder / "questions.jsonl").read_text().splitlines()):
        (tmp_path / f"{k}.png").symlink_to(folder / f"{k}.png")
        lines.append(json.dumps({**json.loads(line), "part": "test" if k < 2 else "development"}))
    (tmp_path / "questions.jsonl").write_text("\n".join(lines))
    assert task("vl-folder", tmp_path).test(0).x.flatten().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2"),
        ('{"image": "0.png", "question": "q"}', "line 2"),
        ('{"image": "0.png", "question": "q", "answer": ""}', "not empty"),
        ('{"image": "0.png", "question": "q", "answer": "a", "part": "dev"}', "part"),
        ('{"image": "none.png", "question": "q", "answer": "a"}', "none.png"),
    ],
)
def test_a_bad_line_is_named(folder: Path, tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "model").symlink_to(folder / "model")
    (tmp_path / "0.png").symlink_to(folder / "0.png")
    good = '{"image": "0.png", "question": "q", "answer": "a"}'
    (tmp_path / "questions.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(TaskError, match=says):
        task("vl-folder", tmp_path).test(0)


def test_a_folder_without_a_model_says_what_to_make(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"questions\.jsonl"):
        task("vl-folder", tmp_path)


def test_questions_about_one_picture_stay_together(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(folder / "model")
    lines = []
    for k in range(12):
        # A separator of lines that is none in JSON lines.
        row = {"image": f"{k % 6}.png", "question": "what\u2028is", "answer": "dog"}
        lines.append(json.dumps(row, ensure_ascii=False))
    for k in range(6):
        (tmp_path / f"{k}.png").symlink_to(folder / f"{k}.png")
    (tmp_path / "questions.jsonl").write_text("\n".join(lines), "utf-8")
    t = task("vl-folder", tmp_path)
    train, validation = t.development(0)
    parts = [set((x % 6).flatten().tolist()) for x in (train.x, validation.x, t.test(0).x)]
    assert sorted(k for part in parts for k in part) == list(range(6))


def test_too_few_pictures_are_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(folder / "model")
    (tmp_path / "0.png").symlink_to(folder / "0.png")
    line = '{"image": "0.png", "question": "q", "answer": "dog"}'
    (tmp_path / "questions.jsonl").write_text(f"{line}\n{line}\n{line}\n")
    with pytest.raises(TaskError, match="1 pictures, too few"):
        task("vl-folder", tmp_path).test(0)
