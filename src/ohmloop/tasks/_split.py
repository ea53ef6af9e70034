"""Divisions of a data set: stratified by class, whole groups together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmloop.tasks._entry import Data, Source

TEST_SEED = 20240101
"""Fixes the test set of data sets without an official one; the training seed never moves it."""
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.2


def pick(
    y: NDArray[Any],
    groups: NDArray[np.int64] | None,
    share: float,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return sorted indices of about ``share`` of the data.

    Classes (one integer for each sample) are stratified, at least one of each is picked. With groups, whole
    groups are picked, and a class of one group stays out of the pick: it is needed on the other side. A group
    of several classes counts as one of the class of its first sample.
    """
    strata = y if y.ndim == 1 and np.issubdtype(y.dtype, np.integer) else np.zeros(len(y), np.int64)
    names, first = (None, None) if groups is None else np.unique(groups, return_index=True)
    picked = []
    for label in np.unique(strata):
        if groups is None or names is None:
            members = np.flatnonzero(strata == label)
            chosen = rng.permutation(members)[: max(1, round(share * len(members)))]
        else:
            own = rng.permutation(names[strata[first] == label])
            n = max(0, min(max(1, round(share * len(own))), len(own) - 1))
            chosen = np.flatnonzero(np.isin(groups, own[:n]))
        picked.append(chosen)
    return np.sort(np.concatenate(picked))


def take(data: Data, index: NDArray[np.int64]) -> Data:
    """Return the samples at ``index``."""
    groups = None if data.groups is None else data.groups[index]
    return Data(data.x[index], data.y[index], groups)


def hold_out(x: NDArray[Any], y: NDArray[Any], groups: NDArray[np.int64] | None = None) -> Source:
    """Return a source whose test part is a fixed fifth, the same for everyone."""
    data = Data(x, y, groups)
    test = pick(y, groups, TEST_SHARE, np.random.default_rng(TEST_SEED))
    return Source(take(data, np.setdiff1d(np.arange(len(y)), test)), take(data, test))
