"""Unsound versions of the deterministic box: each must make the named test fail. See scripts/mutants.py."""

_INTERVAL = "src/ohmloop/certify/_interval.py"
_LAYERS = "src/ohmloop/certify/_interval_layers.py"
_CURVES = "src/ohmloop/certify/_interval_curves.py"
_RUN = "src/ohmloop/certify/_interval_run.py"
_BOX = "src/ohmloop/certify/_box.py"
_SINGLE = "src/ohmloop/certify/_single.py"
_LAYER_TEST = "tests/certify/test_box_layers.py::test_no_corner_leaves_the_bounds"

BOX_MUTANTS: list[tuple[str, str, str, str, str]] = [
    (
        "interval: missing cross term |dw| |dx|",
        _INTERVAL,
        "    ends = (low * f1, low * f2, high * f1, high * f2)\n",
        "    mid, moves = (low + high) / 2, (high - low) / 2 + (f2 - f1) / 2 * ((low + high) / 2).abs()\n"
        "    ends = (mid - moves, mid + moves, mid - moves, mid + moves)\n",
        "tests/certify/test_box.py::test_intervals_are_those_of_textbook_arithmetic",
    ),
    (
        "interval: weights do not move",
        _INTERVAL,
        "f1, f2 = factor or (one, one)",
        "f1, f2 = (one, one)",
        "tests/certify/test_box.py::test_one_linear_layer_is_exact[True-relative-interval]",
    ),
    (
        "linear: forms forget that weights move",
        _INTERVAL,
        "each(share, x.low) * loose",
        "0 * loose",
        "tests/certify/test_box.py::test_margins_bound_what_attacks_find",
    ),
    (
        "linear: chord of -s |x| on the wrong side",
        _INTERVAL,
        "return torch.addcmul(a, s, slope), dot_down(s, rest, 1)",
        "return torch.addcmul(a, s, slope), -dot_down(s, rest, 1)",
        "tests/certify/test_box_ranges.py::test_a_second_analog_layer_is_exact_on_a_box",
    ),
    (
        "interval: bias does not move",
        _LAYERS,
        "    return stretched(value, value, factor)\n\n\ndef linear",
        "    return value, value\n\n\ndef linear",
        "tests/certify/test_box.py::test_one_linear_layer_is_exact[True-relative-interval]",
    ),
    (
        "interval: signed weights for the radius",
        _LAYERS,
        "lambda t: F.linear(t, w.abs()),",
        "lambda t: F.linear(t, w),",
        "tests/certify/test_box.py::test_one_linear_layer_is_exact[True-relative-interval]",
    ),
    (
        "convolution: radius without padding",
        _LAYERS,
        "lambda t: function(t, w.abs(), None, stride, padding, dilation, groups),",
        "lambda t: function(t, w.abs(), None, stride, padding, dilation, groups) * 0.9,",
        "tests/certify/test_box_ranges.py::test_a_convolution_to_one_pixel_is_a_crossbar",
    ),
    (
        "batch norm: sign of the gain lost",
        _LAYERS,
        "lambda t: t * gain.abs(),\n",
        "lambda t: t * gain,\n",
        f"{_LAYER_TEST}[vector BatchNorm1d17]",
    ),
    (
        "batch norm in training mode is let through",
        _LAYERS,
        "if training or running_mean is None",
        "if running_mean is None",
        "tests/certify/test_box_layers.py::test_norms_in_training_mode_are_refused",
    ),
    (
        "GELU taken for a monotone function",
        _CURVES,
        "    low = torch.where((x.low < lowest) & (x.high > lowest), bottom, low)\n",
        "",
        "tests/certify/test_box_ranges.py::test_ranges_are_those_of_a_grid[gelu-a valley-1.0]",
    ),
    (
        "ReLU: the upper line goes through the origin",
        _CURVES,
        "constant = dot_down(a.clamp_max(0), rest, -1)",
        "constant = 0.0 * dot_down(a.clamp_max(0), rest, -1)",
        "tests/certify/test_box_ranges.py::test_ranges_are_those_of_a_grid[relu-both signs--1.0]",
    ),
    (
        "max pooling: an undecided window follows its winner upwards",
        _CURVES,
        "    decided = rivals <= low\n",
        "    decided = rivals <= high\n",
        "tests/certify/test_box_ranges.py::test_ranges_are_those_of_a_grid[max pool-overlap--1.0]",
    ),
    (
        "softmax: the other entries at their middle",
        _CURVES,
        "torch.logsumexp(high.unsqueeze(-2) - low.unsqueeze(-1) + others, -1)",
        "torch.logsumexp((high + low).unsqueeze(-2) / 2 - low.unsqueeze(-1) + others, -1)",
        "tests/certify/test_box_ranges.py::test_ranges_are_those_of_a_grid[softmax-positive-1.0]",
    ),
    (
        "rounding: no slack for single precision",
        _INTERVAL,
        "return n * self.unit / (1 - n * self.unit) + 4 * n * U64",
        "return 4 * n * U64",
        "tests/certify/test_box.py::test_rounding_of_single_precision_is_inside_the_bounds",
    ),
    (
        "an analog parameter taken for a constant",
        _RUN,
        'if "analog" in touched and ("interval" not in touched or name not in self._analog):',
        'if "analog" in touched and name not in self._analog and "interval" in touched:',
        "tests/certify/test_box_layers.py::test_an_analog_parameter_is_never_taken_for_a_constant",
    ),
    (
        "the lead is bounded over one rival only",
        _BOX,
        "    return leads.amin(0)\n",
        "    return leads[0]\n",
        "tests/certify/test_box.py::test_one_linear_layer_is_exact[True-relative-interval]",
    ),
    (
        "log box: a factor exp(r) down only by 1 - r",
        _BOX,
        "Factor((-r).exp() * (1 - 1e-15)",
        "Factor((1 - r / 2) * (1 - 1e-15)",
        "tests/certify/test_box.py::test_one_linear_layer_is_exact[True-log-interval]",
    ),
    (
        "crossbar: the tolerance of the best rival",
        _SINGLE,
        "_classes(weight, inputs, bias), np.inf).min(1)",
        "_classes(weight, inputs, bias), -np.inf).max(1)",
        "tests/certify/test_single.py::test_the_tolerance_is_what_linear_programming_finds",
    ),
    (
        "crossbar: deviations of rows added instead of squared",
        _SINGLE,
        "z = leads / (sigma * np.sqrt((terms**2).sum(-1)))",
        "z = leads / (sigma * np.abs(terms).sum(-1))",
        "tests/certify/test_single.py::test_the_pair_yield_is_the_published_formula",
    ),
]
