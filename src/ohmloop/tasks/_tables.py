"""Tasks that come with a package: digits, iris, penguins (their test set is a fixed fifth), and letters."""

from __future__ import annotations

import csv
import itertools
from importlib import resources
from pathlib import Path

import numpy as np

from ohmloop.tasks._entry import Data, Entry, Source
from ohmloop.tasks._split import hold_out


def _digits(folder: Path | None) -> Source:
    from sklearn.datasets import load_digits

    data = load_digits()
    return hold_out(data.images[:, None].astype(np.float32), data.target.astype(np.int64))


def _iris(folder: Path | None) -> Source:
    from sklearn.datasets import load_iris

    data = load_iris()
    return hold_out(data.data.astype(np.float32), data.target.astype(np.int64))


_PENGUINS = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")
_SPECIES = ("Adelie", "Chinstrap", "Gentoo")


def _penguins(folder: Path | None) -> Source:
    text = resources.files("ohmloop.tasks").joinpath("data/penguins.csv").read_text("utf-8")
    rows = [
        row
        for row in csv.DictReader(text.splitlines())
        if all(row[key] not in ("", "NA") for key in _PENGUINS)
    ]
    x = np.array([[float(row[key]) for key in _PENGUINS] for row in rows], dtype=np.float32)
    y = np.array([_SPECIES.index(row["species"]) for row in rows], dtype=np.int64)
    return hold_out(x, y)


_LETTERS = {"z": "110 010 011", "v": "101 101 010", "n": "010 101 101"}


def _letters(folder: Path | None) -> Source:
    """Each letter as it is and with one pixel flipped; tested on two flipped pixels, all 36 pairs."""
    shapes = [
        np.array([1.0 if c == "1" else -1.0 for c in text if c != " "], dtype=np.float32)
        for text in _LETTERS.values()
    ]

    def flipped(count: int) -> Data:
        x, y = [], []
        for label, shape in enumerate(shapes):
            for pixels in itertools.combinations(range(9), count):
                image = shape.copy()
                image[list(pixels)] *= -1
                x.append(image.reshape(1, 3, 3))
                y.append(label)
        return Data(np.stack(x), np.array(y, dtype=np.int64))

    clean, once = flipped(0), flipped(1)
    development = Data(np.concatenate([clean.x, once.x]), np.concatenate([clean.y, once.y]))
    return Source(development, flipped(2))


ENTRIES = {
    "digits": Entry(
        description="8 x 8 images of handwritten digits",
        citation="Alpaydin & Kaynak 1998, UCI; as scikit-learn brings it (BSD)",
        n_classes=10,
        input_shape=(1, 8, 8),
        default_model="mlp",
        load=_digits,
    ),
    "letters": Entry(
        description="3 x 3 letters z, v, n with one flipped pixel; tested with two flipped pixels",
        citation=(
            "task of Prezioso et al., Nature 521, 61 (2015), on a 12 x 12 memristor array: 30 images, here the "
            "development data; drawing of the letters and the two-pixel test set are ours"
        ),
        n_classes=3,
        input_shape=(1, 3, 3),
        default_model="linear",
        load=_letters,
        scaling="none",
        epochs=200,
        batch_size=10,
        lr=1e-2,
    ),
    "iris": Entry(
        description="four measures of iris flowers, three species",
        citation="Fisher 1936, Anderson 1936; as scikit-learn brings it (BSD)",
        n_classes=3,
        input_shape=(4,),
        default_model="mlp",
        load=_iris,
        scaling="features",
    ),
    "penguins": Entry(
        description="four measures of penguins, three species; rows with gaps left out",
        citation="Gorman, Williams, Fraser 2014; Horst, Hill, Gorman, palmerpenguins (CC0)",
        n_classes=3,
        input_shape=(4,),
        default_model="mlp",
        load=_penguins,
        scaling="features",
    ),
}
