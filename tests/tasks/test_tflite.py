"""TensorFlow Lite files: hand-made ones, the quantised arithmetic as an oracle, damaged ones said."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ohmloop.errors import TaskError
from ohmloop.tasks._species._mobilenet import MobileNetV2, load_mobilenet
from ohmloop.tasks._species._tflite import Graph, Operator, parse_tflite, read_tflite

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tasks" / "coral-inat"
FILES = {
    965: FOLDER / "mobilenet_v2_1.0_224_inat_bird_quant.tflite",
    1022: FOLDER / "mobilenet_v2_1.0_224_inat_insect_quant.tflite",
}


@pytest.fixture
def bird() -> Path:
    if not FILES[965].exists():
        pytest.skip(
            "the bird network (GitHub: google-coral/test_data) is not in "
            "../shared/data/tasks/coral-inat beside this checkout"
        )
    return FILES[965]


# A writer of flat buffers, front to back: every table is preceded by its own vtable.
def place(out: bytearray, item) -> int:
    """Append an item and what it points to; return where it lies."""
    while len(out) % 8:
        out.append(0)
    if isinstance(item, bytes):  # a vector's count and numbers
        at = len(out)
        out += item
        return at
    if isinstance(item, list):  # a vector of tables
        at = len(out)
        out += struct.pack("<I", len(item)) + bytes(4 * len(item))
        for k, child in enumerate(item):
            point(out, at + 4 + 4 * k, place(out, child))
        return at
    fields: dict = item  # a table: field -> bytes of a number (struct), or a child
    n = max(fields, default=-1) + 1
    vtable = len(out)
    offsets, body = [0] * n, 4
    for field in sorted(fields):
        offsets[field] = body
        body += 8
    out += struct.pack(f"<HH{n}H", 4 + 2 * n, body, *offsets)
    while len(out) % 8:
        out.append(0)
    at = len(out)
    out += struct.pack("<i", at - vtable) + bytes(body - 4)
    for field, value in fields.items():
        where = at + offsets[field]
        if isinstance(value, tuple):
            out[where : where + struct.calcsize(value[0])] = struct.pack("<" + value[0], value[1])
        else:
            point(out, where, place(out, value))
    return at


def point(out: bytearray, where: int, target: int) -> None:
    out[where : where + 4] = struct.pack("<I", target - where)


def vector(values, kind: str) -> bytes:
    array = np.array(values, kind)
    return struct.pack("<I", len(array)) + array.tobytes()


def quantised(shape, buffer: int, scale=(0.5,), zero=(128,), kind: int = 3, axis: int = 0) -> dict:
    return {
        0: vector(shape, "i4"),
        1: ("b", kind),
        2: ("I", buffer),
        4: {2: vector(scale, "f4"), 3: vector(zero, "i8"), 6: ("i", axis)},
    }


def tiny(tensors=None, weights: bytes = bytes(range(12)), operator: int = 9) -> bytes:
    """A fully connected layer of 4 to 3 without a bias."""
    tensors = tensors or [
        quantised([1, 4], 0),
        quantised([3, 4], 1, (0.25,), (2,)),
        quantised([1, 3], 0),
    ]
    model = {
        0: ("I", 3),
        1: [{0: ("b", operator)}],
        2: [
            {
                0: tensors,
                1: vector([0], "i4"),
                2: vector([2], "i4"),
                3: [{0: ("I", 0), 1: vector([0, 1, -1], "i4"), 2: vector([2], "i4")}],
            }
        ],
        4: [{}, {0: struct.pack("<I", len(weights)) + weights}],
    }
    out = bytearray(8)
    out[4:8] = b"TFL3"
    point(out, 0, place(out, model))
    return bytes(out)


def save(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "net.tflite"
    path.write_bytes(data)
    return path


def test_hand_made_layer_is_read_and_dequantised(tmp_path: Path) -> None:
    graph = read_tflite(save(tmp_path, tiny()))
    assert graph.inputs == (0,)
    assert graph.outputs == (2,)
    assert graph.operators == (Operator("FULLY_CONNECTED", (0, 1, -1), (2,), {"activation": 0}),)
    expected = (np.arange(12).reshape(3, 4) - 2) * 0.25
    assert np.array_equal(graph.tensors[1].real(), expected)
    assert graph.tensors[0].raw is None
    with pytest.raises(TaskError, match="computed in the file, not stored"):
        graph.tensors[0].real()


def test_scales_by_channel_follow_their_axis(tmp_path: Path) -> None:
    tensors = [
        quantised([1, 4], 0),
        quantised([3, 4], 1, (1, 2, 4, 8), (0, 1, 2, 3), axis=1),
        quantised([1, 3], 0),
    ]
    real = read_tflite(save(tmp_path, tiny(tensors))).tensors[1].real()
    expected = (np.arange(12).reshape(3, 4) - [0, 1, 2, 3]) * [1, 2, 4, 8]
    assert np.array_equal(real, expected)


@pytest.mark.parametrize(
    ("tensor", "match"),
    [
        (quantised([3, 5], 1), "has 12 numbers"),
        (quantised([3, -4], 1), "impossible shape"),
        (quantised([3, 4], 9), "buffer 9 of 2"),
        (quantised([3, 4], 1, (0.0,)), "not positive"),
        (quantised([3, 4], 1, (float("nan"),)), "not positive"),
        (quantised([3, 4], 1, (1, 2)), "2 quantisation scales"),
        (quantised([3, 4], 1, (1,), (256,)), "out of its type"),
        (quantised([3, 4], 1, (1,), ()), "out of its type"),
        (quantised([3, 4], 1, kind=99), "type 99"),
    ],
)
def test_impossible_tensors_are_said(tmp_path: Path, tensor: dict, match: str) -> None:
    data = tiny([quantised([1, 4], 0), tensor, quantised([1, 3], 0)])
    with pytest.raises(TaskError, match=match):
        read_tflite(save(tmp_path, data))


def test_unknown_operator_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="operator 77"):
        read_tflite(save(tmp_path, tiny(operator=77)))


def test_other_networks_are_said(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no MobileNetV2 as expected"):
        load_mobilenet(save(tmp_path, tiny()))


def test_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="cannot be read"):
        read_tflite(tmp_path / "none.tflite")


def test_every_truncation_of_a_small_file_is_said() -> None:
    data = tiny()
    for n in range(len(data) - 8):  # the last bytes may be padding
        with pytest.raises(TaskError):
            parse_tflite(data[:n], "cut")


def test_changed_bytes_are_said_or_harmless() -> None:
    data, rng = tiny(), np.random.default_rng(0)
    for _ in range(3000):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            changed[at] = rng.integers(256)
        try:
            for tensor in parse_tflite(bytes(changed), "changed").tensors:
                if tensor.raw is not None:
                    tensor.real()
        except TaskError:
            pass


@pytest.mark.parametrize("n_classes", sorted(FILES))
def test_public_networks_load_strictly(n_classes: int) -> None:
    if not FILES[n_classes].exists():
        pytest.skip("GitHub: google-coral/test_data is not in ../shared/data/tasks/coral-inat")
    model = load_mobilenet(FILES[n_classes])
    assert model.classifier.out_features == n_classes
    assert (model.scale.shift, model.scale.spread) == (128, 128)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = MobileNetV2(n_classes).state_dict()
    for name, value in model.state_dict().items():
        assert not torch.equal(value, drawn[name]), name


def test_damaged_public_network_is_said_or_harmless(tmp_path: Path, bird: Path) -> None:
    data, rng = bird.read_bytes(), np.random.default_rng(0)
    for n in (0, 7, 8, 1000, len(data) // 2, len(data) - 40_000):
        with pytest.raises(TaskError):
            load_mobilenet(save(tmp_path, data[:n]))
    # The tables of operators and tensors lie here, behind the weights.
    first, last = 3_500_000, 3_542_500
    for _ in range(15):
        changed = bytearray(data)
        for at in rng.integers(first, last, 20):
            changed[at] = rng.integers(256)
        try:
            load_mobilenet(save(tmp_path, bytes(changed)))
        except TaskError:
            pass


# The oracle: integer arithmetic after Jacob et al. 2018, section 2, with gemmlowp's two roundings.
def requantise(acc: np.ndarray, scale: float) -> np.ndarray:
    """Return round(acc * scale): a multiplier of 31 bits and a shift, each rounded."""
    part, exponent = np.frexp(scale)
    multiplier = round(float(part) * 2**31)
    left, right = max(int(exponent), 0), max(-int(exponent), 0)
    product = acc * (1 << left) * multiplier
    nudged = np.where(product >= 0, (product + 2**30) >> 31, -((-product + 2**30 - 1) >> 31))
    half = (1 << right) >> 1
    return np.where(nudged >= 0, (nudged + half) >> right, -((-nudged + half) >> right))


def convolve(graph: Graph, operator: Operator, x: np.ndarray, zero: int) -> np.ndarray:
    is_depthwise = operator.name == "DEPTHWISE_CONV_2D"
    order = (3, 0, 1, 2) if is_depthwise else (0, 3, 1, 2)
    weights = (graph.tensors[operator.inputs[1]].raw.astype(np.int64) - zero).transpose(order)
    stride, kernel, n = operator.options["stride_w"], weights.shape[-1], x.shape[1]
    total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
    sides = (total // 2, total - total // 2)
    # float64 holds these sums of integers exactly.
    out = F.conv2d(
        F.pad(torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64)), (*sides, *sides)),
        torch.from_numpy(weights.astype(np.float64)),
        stride=stride,
        groups=len(weights) if is_depthwise else 1,
    )
    return out.numpy().astype(np.int64).transpose(0, 2, 3, 1)


def integers(graph: Graph, pixels: np.ndarray) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Return real logits, and all integer activations, of pixels ``N x H x W x 3``."""

    def code(number: int) -> tuple[float, int]:
        stored = graph.tensors[number]
        return float(stored.scale[0]), int(stored.zero_point[0])

    values = {graph.inputs[0]: pixels.astype(np.int64)}
    for operator in graph.operators:
        first, target = operator.inputs[0], operator.outputs[0]
        (scale, zero), (out_scale, out_zero) = code(first), code(target)
        x, top = values[first] - zero, 255
        if operator.name == "SOFTMAX":
            return x * scale, values
        if operator.options["activation"] == 3:
            top = min(255, out_zero + round(6 / out_scale))
        if operator.name == "AVERAGE_POOL_2D":
            n = x.shape[1] * x.shape[2]
            out = (values[first].sum((1, 2), keepdims=True) + n // 2) // n
        elif operator.name == "ADD":
            other_scale, other_zero = code(operator.inputs[1])
            twice, other = 2 * max(scale, other_scale), values[operator.inputs[1]] - other_zero
            total = requantise(x << 20, scale / twice) + requantise(
                other << 20, other_scale / twice
            )
            out = requantise(total, twice / (out_scale * 2**20)) + out_zero
        else:
            weight_scale, weight_zero = code(operator.inputs[1])
            bias = graph.tensors[operator.inputs[2]].raw.astype(np.int64)
            if operator.name == "FULLY_CONNECTED":
                weights = graph.tensors[operator.inputs[1]].raw.astype(np.int64) - weight_zero
                acc = x.reshape(len(x), -1) @ weights.T
            else:
                acc = convolve(graph, operator, x, weight_zero)
            out = requantise(acc + bias, scale * weight_scale / out_scale) + out_zero
        values[target] = np.clip(out, 0, top)
    raise AssertionError("the graph ends in no SOFTMAX")


def test_requantising_rounds_and_breaks_ties_upwards() -> None:
    acc = np.array([-6, -5, -1, 0, 1, 5, 6])
    assert requantise(acc, 0.5).tolist() == [-3, -2, 0, 0, 1, 3, 3]
    acc = np.arange(-1000, 1000)
    assert (
        np.abs(requantise(acc, 0.0123) - acc * 0.0123).max() <= 0.5 + 2**-7
    )  # two roundings, the first finer by 2^6


def blobs(n: int) -> np.ndarray:
    """Smooth coloured pictures ``n x 224 x 224 x 3``: noise at 7 x 7, enlarged."""
    noise = np.random.default_rng(0).uniform(0, 255, (n, 3, 7, 7))
    large = F.interpolate(torch.from_numpy(noise), size=(224, 224), mode="bicubic").clamp(0, 255)
    return large.round().to(torch.uint8).numpy().transpose(0, 2, 3, 1)


@pytest.mark.slow
def test_floating_network_agrees_with_the_integer_arithmetic_of_the_file(bird: Path) -> None:
    """A step of the logits is .082; rounding 53 layers to 8 bits adds up to about three of them."""
    graph, model = read_tflite(bird), load_mobilenet(bird)
    pictures = blobs(4)
    logits, _ = integers(graph, pictures)
    with torch.inference_mode():
        real = model(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())).numpy()
    low, high = logits.min(), logits.max()
    inside = real.clip(low, high)
    assert np.sqrt(((logits - inside) ** 2).mean()) < 0.4
    assert np.corrcoef(logits.ravel(), real.ravel())[0, 1] > 0.95
    assert (logits.argmax(1) == real.argmax(1)).all()


def test_first_layers_agree_with_the_integer_arithmetic_within_its_bound(bird: Path) -> None:
    """Stem: half a step. Depthwise: half a step, and that of the stem through its nine weights."""
    graph, model = read_tflite(bird), load_mobilenet(bird)
    pictures = blobs(1)
    stem, depth = (operator.outputs[0] for operator in graph.operators[:2])
    stub = Operator("SOFTMAX", (depth,), (depth,), {})
    cut = Graph(graph.tensors, (*graph.operators[:2], stub), graph.inputs, (depth,))
    _, counted = integers(cut, pictures)
    with torch.inference_mode():
        x = torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())
        first = model.stem(model.scale(x))
        second = model.blocks[0].depth(first)
    # Outputs stop at 255 steps, which may be a little less than the 6 of ReLU6.
    steps = [float(graph.tensors[number].scale[0]) for number in (stem, depth)]
    # The first of the two roundings adds less than a hundredth of a step.
    short = [max(0.0, 6 - 255 * step) + step / 100 for step in steps]
    through = model.blocks[0].depth.conv.weight.abs().sum((1, 2, 3)).detach().numpy()
    bound = steps[0] / 2 + short[0]
    error = np.abs(counted[stem] * steps[0] - first.numpy().transpose(0, 2, 3, 1))
    assert error.max() <= bound
    assert error.mean() > bound / 20  # Rounding is there to be seen.
    error = np.abs(counted[depth] * steps[1] - second.numpy().transpose(0, 2, 3, 1))
    assert (error.max((0, 1, 2)) <= bound * through + steps[1] / 2 + short[1]).all()
