"""EfficientNet-lite0: the published code's outputs, digital parts apart, damaged weights said."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ohmloop.errors import TaskError
from ohmloop.tasks._efficientnet import (
    DATA,
    NAME,
    WEIGHTS,
    EfficientNetLite0,
    PixelScale,
    SamePad,
    load_lite0,
)
from ohmloop.tasks._fetch import find_folder


@pytest.fixture(scope="module")
def weights() -> Path:
    try:
        return find_folder(NAME, DATA, None)
    except TaskError:
        pytest.skip("the weights are not in the cache: ohmloop fetch efficientnet-lite0")


def pattern() -> torch.Tensor:
    """Pixels that anyone can make again."""
    i = torch.arange(3 * 224 * 224).reshape(1, 3, 224, 224)
    return ((i * i) % 251 + (i // 224) % 5).clamp(0, 255).to(torch.uint8)


def test_outputs_are_those_of_the_published_code(weights: Path) -> None:
    """Numbers of PyPI efficientnet-lite-pytorch 0.1.0 on the same weights and (pixels - 127) / 128."""
    model = load_lite0(weights)
    with torch.inference_mode():
        features, logits = model.features(pattern()), model(pattern())
    assert features.shape == (1, 1280)
    assert logits.shape == (1, 1000)
    torch.testing.assert_close(
        logits[0, :6],
        torch.tensor([-1.7050701, 1.2224861, -0.8585737, -0.7974722, -0.4539594, 0.8036107]),
        atol=1e-4,
        rtol=0,
    )
    torch.testing.assert_close(
        features[0, :8],
        torch.tensor([0.9786192, 0.0, 3.0053129, 0.0, 0.0, 0.0, 0.0, 0.0859991]),
        atol=1e-4,
        rtol=0,
    )
    assert int(logits.argmax()) == 904


def test_uint8_and_float_pixels_mean_the_same(weights: Path) -> None:
    model, x = load_lite0(weights), pattern()[..., :64, :64]
    with torch.inference_mode():
        assert torch.equal(model(x), model(x.float()))
        assert torch.equal(model.double()(x), model(x.double()))
        assert model(x).dtype == torch.float64


def test_new_classifier_starts_at_zero_and_the_rest_as_it_was(weights: Path) -> None:
    before = torch.random.get_rng_state()
    model, whole = load_lite0(weights, n_classes=7), load_lite0(weights)
    assert torch.equal(before, torch.random.get_rng_state())
    with torch.inference_mode():
        assert torch.equal(model(pattern()), torch.zeros(1, 7))
        assert torch.equal(model.features(pattern()), whole.features(pattern()))


def test_training_a_new_classifier_keeps_the_statistics_of_the_batch_norms() -> None:
    model = EfficientNetLite0()
    x = torch.arange(4 * 3 * 32 * 32).remainder(251).reshape(4, 3, 32, 32).to(torch.uint8)
    before = model.stem.norm.running_mean.clone()
    model.train()(x)
    assert not torch.equal(model.stem.norm.running_mean, before)
    model.renew(5)
    before = model.stem.norm.running_mean.clone()
    model.train()(x).sum().backward()
    assert torch.equal(model.stem.norm.running_mean, before)
    assert model.norm.running_mean.abs().max() > 0
    assert model.classifier.bias.grad is not None
    assert model.training
    assert not model.eval().norm.training


def test_analog_parameters_are_those_of_convolutions_and_the_classifier() -> None:
    model = EfficientNetLite0()
    kinds = {type(m) for m in model.modules() if list(m.parameters(recurse=False))}
    assert kinds == {nn.Conv2d, nn.BatchNorm2d, nn.Linear}
    # 4.65 million parameters: table of the source's README.
    assert sum(p.numel() for p in model.parameters()) == 4_652_008


@pytest.mark.parametrize("size", [32, 33, 96])
def test_any_size_from_32_on_is_taken(size: int) -> None:
    with torch.inference_mode():
        out = EfficientNetLite0(5).eval()(torch.zeros(2, 3, size, size))
    assert out.shape == (2, 5)


@pytest.mark.parametrize("n", [7, 8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_same_padding_gives_ceil_of_n_by_stride(n: int, kernel: int, stride: int) -> None:
    x = torch.zeros(1, 1, n, n)
    out = nn.Conv2d(1, 1, kernel, stride)(SamePad(kernel, stride)(x))
    assert out.shape[-2:] == (-(-n // stride),) * 2


def test_odd_zero_of_the_padding_goes_behind() -> None:
    padded = SamePad(3, 2)(torch.ones(1, 1, 4, 4))
    assert padded.shape == (1, 1, 5, 5)
    assert padded[0, 0, 0, 0] == 1
    assert padded[0, 0, -1].sum() == 0


def test_pixel_scale_by_hand() -> None:
    x = torch.tensor([127, 255, 0], dtype=torch.uint8)
    assert PixelScale()(x).tolist() == [0, 1, -127 / 128]


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(100)])
def test_damaged_weights_are_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(TaskError, match="does not hold the weights"):
        load_lite0(tmp_path)


def test_truncated_weights_are_said(tmp_path: Path, weights: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes((weights / WEIGHTS).read_bytes()[:1_000_000])
    with pytest.raises(TaskError, match="does not hold the weights"):
        load_lite0(tmp_path)


def test_weights_of_another_network_are_said(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / WEIGHTS)
    with pytest.raises(TaskError, match="other weights"):
        load_lite0(tmp_path)
    torch.save([1, 2], tmp_path / WEIGHTS)
    with pytest.raises(TaskError, match="does not hold the weights"):
        load_lite0(tmp_path)
