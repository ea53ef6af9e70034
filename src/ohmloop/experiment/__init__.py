"""Whole experiments: a network trained for a device, put on many virtual arrays, its energy counted."""

from ohmloop.experiment._arrays import run_arrays
from ohmloop.experiment._setting import ArraySetting
from ohmloop.experiment._study import ArrayRow, ArrayStudy, Matrix

__all__ = ["ArrayRow", "ArraySetting", "ArrayStudy", "Matrix", "run_arrays"]
