"""Scores of finished chips in a study's folder: an interrupted run goes on after them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ohmloop._files import write_whole
from ohmloop.crossbar import Hardware
from ohmloop.experiment._setting import ArraySetting
from ohmloop.nn import Deployment


class Scores(NamedTuple):
    """One network on all chips of one kind.

    Attributes:
        digital: Its score without a chip.
        test: On test data, a chip each.
        development: On development data, a chip each; None where they are not scored.
    """

    digital: float
    test: NDArray[np.float64]
    development: NDArray[np.float64] | None


def kept_scores(
    folder: Path | None, question: Mapping[str, Any], score: Callable[[], Scores]
) -> Scores:
    """Return the scores that the folder holds for this very question, or score, and keep them there.

    Args:
        folder: Of the study; None keeps nothing.
        question: All that the scores depend on, as JSON.
        score: Scores the chips.
    """
    if folder is None:
        return score()
    text = json.dumps(question, sort_keys=True)
    path = folder / "scores" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if (found := _read(path, json.loads(text))) is not None:
        return found
    scores = score()
    known = None if scores.development is None else scores.development.tolist()
    value = {
        "question": question,
        "digital": scores.digital,
        "test": scores.test.tolist(),
        "development": known,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(value) + "\n")
    return scores


def question_of(
    setting: ArraySetting,
    model: nn.Module,
    hardware: Hardware,
    deployment: Deployment,
    seeds: tuple[int, int],
) -> dict[str, Any]:
    """Return all that one network's scores on chips depend on.

    Args:
        setting: Of the study.
        model: The digital network, as trained.
        hardware: Of the chips.
        deployment: What each chip gets beside its weights.
        seeds: Of training, which splits the data too, and of the chips.
    """
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return {
        "network": [*setting.network, digest.hexdigest()],
        "limit": setting.limit,
        "n_arrays": setting.n_arrays,
        "seeds": list(seeds),
        "hardware": hardware.model_dump(mode="json"),
        "deployment": [deployment.calibration, deployment.samples],
    }


def _read(path: Path, question: Any) -> Scores | None:
    """Return kept scores; None if there are none, or if the file is not whole."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["question"] != question:
            return None
        known = value["development"]
        return Scores(
            float(value["digital"]),
            np.array(value["test"], dtype=np.float64),
            None if known is None else np.array(known, dtype=np.float64),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
