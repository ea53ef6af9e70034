"""Any vision-language model that transformers reads, from a local folder: LLaVA, SmolVLM, Qwen-VL and others.

The folder holds ``model/`` (config, weights, tokenizer and processor as the hub lays them out) and
``questions.jsonl``, a line for each question::

    {"image": "images/1.png", "question": "What is this?", "answer": "a cat", "part": "test"}

``part`` is "development" or "test"; without it the questions about a fixed fifth of the pictures are the test
set. Pictures are given
relative to the folder.

Inputs of such models differ in number and shape from picture to picture, so what goes through the network as
``x`` is the number of the line, and the network holds the prepared inputs. Lines run one at a time: right for
every kind, and no slower where the pictures fill the device. Analog is every linear and convolutional layer, of
picture encoder, projector and language model; a head tied to the embedding gets weights of its own. The patch
embedding of Qwen-VL is a three-dimensional convolution and stays digital.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ohmloop.errors import TaskError
from ohmloop.tasks._entry import Data, Entry, Measure, Source
from ohmloop.tasks._fetch import DataSet, need_file
from ohmloop.tasks._language._lm import untie
from ohmloop.tasks._language._need import quiet, transformers
from ohmloop.tasks._metric import IGNORED, Perplexity
from ohmloop.tasks._split import TEST_SEED, TEST_SHARE, pick, take

QUESTIONS, MODEL = "questions.jsonl", "model"
DATA = {
    "vl-folder": DataSet(
        files=(QUESTIONS, f"{MODEL}/config.json"),
        packages=(),
        by_hand=f"make a folder of {MODEL}/ (a vision-language model and its processor as transformers saves "
        f'them) and {QUESTIONS}, lines like {{"image": "1.png", "question": "Which?", "answer": "a cat"}}, '
        "and name it: --data FOLDER.",
    )
}


class Question(NamedTuple):
    """A line of the file."""

    image: str
    question: str
    answer: str
    part: str | None


def read_questions(folder: Path) -> list[Question]:
    """Return the lines of ``questions.jsonl``.

    Raises:
        TaskError: If a line is no such object, naming the line.
    """
    path = need_file(folder, QUESTIONS)
    try:
        # Not splitlines: texts may hold what it takes for ends of lines (U+2028).
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} cannot be read: {error}. Save it as UTF-8.") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts = [row[key] for key in ("image", "question", "answer")]
        except (ValueError, KeyError, TypeError) as error:
            raise TaskError(
                f'{path} line {number}: expected {{"image": ..., "question": ..., "answer": ...}}, '
                f"found {line[:80]!r}."
            ) from error
        part = row.get("part")
        if not all(isinstance(text, str) and text for text in texts):
            raise TaskError(
                f"{path} line {number}: image, question and answer are texts, not empty."
            )
        if part not in (None, "development", "test"):
            raise TaskError(f'{path} line {number}: part is "development" or "test", not {part!r}.')
        found.append(Question(texts[0], texts[1], texts[2], part))
    if len(found) < 2:
        raise TaskError(f"{path} holds {len(found)} questions; at least 2 are needed.")
    return found


class Prepared(NamedTuple):
    """One question as the model takes it, its answer's tokens at the end of ``input_ids``."""

    inputs: dict[str, Tensor]
    answer: list[int]


def load_processor(folder: Path) -> Any:
    """Return the processor of ``folder/model``."""
    with quiet():
        try:
            return transformers().AutoProcessor.from_pretrained(
                str(folder / MODEL), local_files_only=True
            )
        # The library raises many kinds for folders that lack a file, and for processors of video without
        # torchvision.
        except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
            raise TaskError(
                f"{folder / MODEL} has no processor that transformers reads: {str(error)[:200]}. Save it there "
                "with processor.save_pretrained."
            ) from error


def _prompt(processor: Any, question: str) -> str:
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": question}]
        turn = [{"role": "user", "content": content}]
        return str(processor.apply_chat_template(turn, add_generation_prompt=True))
    # Models without a template of their own: the form that LLaVA 1.5 was trained on.
    return f"USER: {getattr(processor, 'image_token', '<image>')}\n{question} ASSISTANT:"


def prepare(processor: Any, folder: Path, question: Question) -> Prepared:
    """Return the model's inputs for a question, followed by its answer."""
    from PIL import Image

    path = folder / question.image
    try:
        with Image.open(path) as picture:
            image = picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TaskError(f"the picture {path} cannot be read: {error}.") from error
    with quiet():
        text = _prompt(processor, question.question)
        inputs = dict(processor(text=text, images=[image], return_tensors="pt"))
        answer = list(
            processor.tokenizer(" " + question.answer, add_special_tokens=False).input_ids
        )
    shape = inputs["input_ids"].shape
    for key, value in inputs.items():
        if value.shape == shape:  # one number a token: ids, mask, kinds
            fill = {"input_ids": answer, "attention_mask": [1] * len(answer)}.get(
                key, [0] * len(answer)
            )
            inputs[key] = torch.cat([value, torch.tensor([fill], dtype=value.dtype)], 1)
    return Prepared(inputs, answer)


class Answers(nn.Module):
    """Numbers of questions ``B x 1`` to logits ``B x A x vocabulary`` of the tokens of their answers.

    A is the length of the longest answer; positions past an answer's end are 0.
    """

    def __init__(self, model: nn.Module, prepared: list[Prepared]) -> None:
        super().__init__()
        self.model = model
        self.prepared = prepared
        self.longest = max(len(one.answer) for one in prepared)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of each answer token, after the true ones before it."""
        rows = []
        for number in x.flatten().tolist():
            inputs, answer = self.prepared[number]
            moved = {key: self._moved(value, x.device) for key, value in inputs.items()}
            logits = self.model(**moved, use_cache=False).logits[0]
            own = logits[-len(answer) - 1 : -1]
            rows.append(nn.functional.pad(own, (0, 0, 0, self.longest - len(answer))))
        return torch.stack(rows)

    def _moved(self, value: Tensor, device: torch.device) -> Tensor:
        kind = next(self.model.parameters()).dtype if value.is_floating_point() else value.dtype
        return value.to(device, kind)


def load_vlm(folder: Path) -> Any:
    """Return the model of ``folder/model``, in the precision it was saved in, head untied, in eval mode.

    Raises:
        TaskError: If transformers cannot read it, or has no picture-and-text class for it.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            model = transformers().AutoModelForImageTextToText.from_pretrained(
                str(folder / MODEL),
                local_files_only=True,
                dtype="auto",
                attn_implementation="eager",
            )
        # The library raises many kinds for damaged and unknown models.
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise TaskError(
                f"{folder / MODEL} is no vision-language model that transformers reads: {str(error)[:300]}"
            ) from error
    untie(model)
    return model.eval()


def _all(folder: Path) -> list[Prepared]:
    processor = load_processor(folder)
    return [prepare(processor, folder, question) for question in read_questions(folder)]


def _load(folder: Path | None) -> Source:
    assert folder is not None
    prepared = _all(folder)
    longest = max(len(one.answer) for one in prepared)
    y = np.full((len(prepared), longest), IGNORED, np.int64)
    for row, one in enumerate(prepared):
        y[row, : len(one.answer)] = one.answer
    questions = read_questions(folder)
    # Questions about one picture stay on one side of the divisions.
    numbers = {name: k for k, name in enumerate(dict.fromkeys(q.image for q in questions))}
    groups = np.array([numbers[question.image] for question in questions], np.int64)
    data = Data(np.arange(len(y))[:, None], y, groups)
    parts = [question.part for question in questions]
    if any(parts):
        if set(parts) != {"development", "test"}:
            raise TaskError(f"{folder / QUESTIONS}: give every line a part, and both parts lines.")
        test = np.flatnonzero([part == "test" for part in parts])
    else:
        test = pick(y, groups, TEST_SHARE, np.random.default_rng(TEST_SEED))
    development = np.setdiff1d(np.arange(len(y)), test)
    if len(np.unique(groups[development])) < 2:
        raise TaskError(
            f"{folder / QUESTIONS} asks about {len(numbers)} pictures, too few for training, validation and "
            "test: a picture with all its questions is in one of them. Ask about more pictures."
        )
    return Source(take(data, development), take(data, test))


def _build(name: str, seed: int, folder: Path | None) -> nn.Module:
    assert folder is not None
    return Answers(load_vlm(folder), _all(folder)).eval()


def _measure(folder: Path | None) -> Measure:
    test = _load(folder).test
    return lambda model: right_answers(model, test)


def right_answers(model: nn.Module, data: Data) -> float:
    """Return the share of questions whose reply, decoded greedily, begins with the answer given.

    No decoding is needed: a greedy reply begins so exactly if each true token is the likeliest after those
    before it.
    """
    device = next(model.parameters()).device
    right = []
    with torch.no_grad():
        for x, y in zip(data.x, data.y, strict=True):
            best = model(torch.from_numpy(x[None]).to(device))[0].argmax(-1).cpu().numpy()
            right.append(bool(((best == y) | (y == IGNORED)).all()))
    return float(np.mean(right))


ENTRIES = {
    "vl-folder": Entry(
        description="questions about pictures, for a vision-language model in a folder of yours",
        citation="yours; the folder's model and pictures",
        n_classes=0,  # the vocabulary is the folder's model's
        input_shape=(1,),
        default_model="folder",
        load=_load,
        data="vl-folder",
        scaling="none",
        models=("folder",),
        build=_build,
        metric=Perplexity(),
        measure=_measure,
        pretrained=("folder",),
        epochs=1,
        batch_size=4,
        lr=1e-5,
    )
}
