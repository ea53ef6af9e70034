"""Whole experiments: a network trained for a device, put on many virtual arrays, its energy counted."""

from ohmloop.experiment._arrays import ArrayRow, ArraySetting, ArrayStudy, Matrix, run_arrays

__all__ = ["ArrayRow", "ArraySetting", "ArrayStudy", "Matrix", "run_arrays"]
