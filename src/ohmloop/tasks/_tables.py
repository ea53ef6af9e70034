"""Tasks that come with a package: digits, iris, penguins. Their test set is a fixed fifth."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

import numpy as np

from ohmloop.tasks._entry import Entry, Source
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


ENTRIES = {
    "digits": Entry(
        description="8 x 8 images of handwritten digits",
        citation="Alpaydin & Kaynak 1998, UCI; as scikit-learn brings it (BSD)",
        n_classes=10,
        input_shape=(1, 8, 8),
        default_model="mlp",
        load=_digits,
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
