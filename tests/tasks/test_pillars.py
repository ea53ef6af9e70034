"""PointPillars: parts against closed forms, all weights analog, perfect outputs score perfectly."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ohmloop.errors import TaskError
from ohmloop.nn import fleet_forward
from ohmloop.tasks import task
from ohmloop.tasks._driving import _pillars
from ohmloop.tasks._driving._kitti import _tasks
from ohmloop.tasks._driving._kitti._anchors import (
    LAYOUTS,
    N_CLASSES,
    NEGATIVE,
    OUTPUTS,
    POSITIVE,
    anchor_classes,
    anchors,
    assign,
    decode,
    direction_of,
    encode,
    layout_of,
)
from ohmloop.tasks._driving._kitti._boxes import bev_iou, wrap
from ohmloop.tasks._driving._kitti._metric import AnchorF1, detections
from ohmloop.tasks._driving._kitti._precision import average_precision
from ohmloop.tasks._driving._kitti._scenes import CALIBRATION, write_scenes
from ohmloop.tasks._driving._pillars import build_pillars, pillar_features

SMALL = LAYOUTS["pillars-small"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kitti")
    write_scenes(place, 4, 60)
    return place


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return build_pillars("pillars-small", 0).eval()


def perfect(y: torch.Tensor) -> torch.Tensor:
    """Return outputs ``B x A x 12`` that say exactly what is there."""
    states, objects = assign(SMALL, y)
    out = torch.zeros(len(y), SMALL.n_anchors, OUTPUTS)
    out[..., :N_CLASSES] = -30
    scene, place = (states == 1).nonzero(as_tuple=True)
    target = y[scene, objects[scene, place]]
    out[scene, place, target[:, 7].long()] = 30
    out[scene, place, 3:10] = encode(target[:, :7], anchors(SMALL, CPU)[place])
    out[scene, place, 10 + direction_of(target[:, 6])] = 30
    return out


def test_every_weight_is_in_a_layer_that_can_be_analog(net: nn.Module) -> None:
    leaves = {type(m) for m in net.modules() if not list(m.children())}
    digital = {nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.PixelShuffle}
    assert leaves == {nn.Linear, nn.Conv2d} | digital


def test_the_published_network_has_the_published_layers() -> None:
    net = build_pillars("pillars", 0)
    conv = 64 * 64 * 4 + 64 * 128 + 128 * 128 * 5 + 128 * 256 + 256 * 256 * 5
    up = 64 * 128 + 128 * 128 * 4 + 256 * 128 * 16
    norms = 2 * (64 + 64 * 4 + 128 * 6 + 256 * 6 + 3 * 128)
    head = 384 * 72 + 72
    assert sum(p.numel() for p in net.parameters()) == 9 * 64 + 9 * conv + up + norms + head
    # 248 x 216 cells of 3 classes x 2 directions
    assert LAYOUTS["pillars"].n_anchors == 321_408


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_spreading_is_a_transposed_convolution(factor: int) -> None:
    spread = _pillars._up(5, 3, factor, 0.1)[0]
    assert isinstance(spread, nn.Sequential)
    weight = spread[0].weight
    assert isinstance(weight, torch.Tensor)
    other = nn.ConvTranspose2d(5, 3, factor, factor, bias=False)
    with torch.no_grad():
        other.weight.copy_(weight.view(3, factor, factor, 5).permute(3, 0, 1, 2))
    x = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spread(x), other(x))


def test_features_of_points_are_what_the_paper_says() -> None:
    x = torch.zeros(1, 4, 4)
    x[0, 0] = torch.tensor([1.0, 0.1, -1.0, 0.5])
    x[0, 1] = torch.tensor([1.1, 0.2, -1.4, 0.2])
    x[0, 2] = torch.tensor([99.0, 0.0, 0.0, 0.2])  # too far away
    features, cell = pillar_features(x, SMALL)  # pillars of .24 m, y from -11.52 m
    assert cell[0].tolist() == [48 * 96 + 4, 48 * 96 + 4, 96 * 96, 96 * 96]
    offset = [-0.05, -0.05, 0.2, 1.0 - 4.5 * 0.24, 0.1 - 0.12]
    torch.testing.assert_close(features[0, 0], torch.tensor([1.0, 0.1, -1.0, 0.5, *offset]))
    assert not features[0, 2:].any()


def test_the_order_of_points_and_the_number_of_missing_ones_change_nothing(net: nn.Module) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, 300, 4, generator=g) * torch.tensor([22.0, 20.0, 2.0, 1.0])
    x[..., 1:3] -= torch.tensor([10.0, 2.5])
    with torch.no_grad():
        first = net(x)
        assert first.shape == (2, SMALL.n_anchors, OUTPUTS)
        mixed = torch.cat([x, torch.zeros(2, 50, 4)], 1)[:, torch.randperm(350, generator=g)]
        torch.testing.assert_close(net(mixed), first, atol=1e-4, rtol=1e-4)
        moved = x.clone()
        moved[0] += torch.tensor([0.3, 0.3, 0.0, 0.0])
        assert not torch.allclose(net(moved)[0], first[0], atol=1e-4)
        torch.testing.assert_close(net(moved)[1], first[1])


def test_devices_at_once_are_devices_one_by_one(net: nn.Module) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.rand(3, 60, 4, generator=g) * torch.tensor([22.0, 10.0, 1.0, 1.0])
    names = {
        f"{name}.{key}"
        for name, m in net.named_modules()
        if isinstance(m, nn.Linear | nn.Conv2d)
        for key, _ in m.named_parameters()
    }
    nominal = {n: p.detach() for n, p in net.named_parameters() if n in names}
    stacked = {
        n: p * (0.2 * torch.randn(2, *p.shape, generator=g)).exp() for n, p in nominal.items()
    }
    with torch.no_grad():
        got = fleet_forward(net, stacked, x)
        for k in range(2):
            one = torch.func.functional_call(net, {n: w[k] for n, w in stacked.items()}, (x,))
            torch.testing.assert_close(got[k], one, atol=1e-3, rtol=1e-3)


def test_boxes_go_to_offsets_and_back() -> None:
    g = torch.Generator().manual_seed(0)
    base = anchors(SMALL, CPU)[torch.randint(SMALL.n_anchors, (500,), generator=g)]
    boxes = base + torch.randn(500, 7, generator=g) * 0.3
    boxes[:, 3:6] = boxes[:, 3:6].abs() + 0.2
    boxes[:, 6] = (torch.rand(500, generator=g) - 0.5) * 12
    out = torch.cat(
        [
            torch.zeros(500, 3),
            encode(boxes, base),
            nn.functional.one_hot(direction_of(boxes[:, 6]), 2),
        ],
        1,
    )
    back = decode(out, base)
    torch.testing.assert_close(back[:, :6], boxes[:, :6], atol=1e-4, rtol=1e-4)
    assert np.abs(wrap((back[:, 6] - boxes[:, 6]).numpy())).max() < 1e-4


def test_a_half_turn_costs_only_the_direction() -> None:
    y = torch.tensor([[[10.0, 0, -1, 4, 1.6, 1.5, 0.1, 0]]])
    turned = y.clone()
    turned[..., 6] += math.pi
    metric = AnchorF1()
    out = perfect(y)
    right, wrong = metric.loss(out, y), metric.loss(out, turned)
    assert right < 1e-6
    assert wrong == pytest.approx(0.2 * 30, rel=1e-4)  # the weight of direction times 30 nats


def test_assignment_follows_overlap() -> None:
    # Upright boxes, where the overlap is the exact one.
    y = torch.full((2, 3, 8), -1.0)
    y[0, 0] = torch.tensor([10.2, 0.1, -1, 3.9, 1.6, 1.5, 0, 0])
    y[0, 1] = torch.tensor([6.0, 3.0, -0.8, 0.8, 0.6, 1.7, math.pi / 2, 1])
    y[1, 0] = torch.tensor([15.0, -4.0, -0.8, 1.8, 0.6, 1.7, math.pi, 2])
    states, objects = assign(SMALL, y)
    base, kinds = anchors(SMALL, CPU).numpy(), anchor_classes(SMALL, CPU).numpy()
    for b in range(2):
        expected = np.zeros(len(base), int)
        for g in range(3):
            c = int(y[b, g, 7])
            if c < 0:
                continue
            overlap = bev_iou(base, y[b, g : g + 1, :7].numpy())[:, 0] * (kinds == c)
            best = overlap >= overlap.max() - 1e-5
            expected[(overlap >= NEGATIVE[c]) & (overlap < POSITIVE[c])] = -1
            expected[(overlap >= POSITIVE[c]) | best] = 1
            mine = states[b].numpy() == 1
            assert (objects[b].numpy()[mine & (kinds == c)] == g).all()
        # Ties within rounding may fall either way.
        assert (states[b].numpy() != expected).sum() <= 2
        assert (states[b] == 1).sum() >= (y[b, :, 7] >= 0).sum()


def test_a_scene_without_objects_trains_and_scores() -> None:
    y = torch.full((1, 2, 8), -1.0)
    metric = AnchorF1()
    out = torch.zeros(1, SMALL.n_anchors, OUTPUTS, requires_grad=True)
    loss = metric.loss(out, y)
    loss.backward()
    assert out.grad is not None
    assert torch.isfinite(out.grad).all()
    assert metric.value(metric.totals(perfect(y)[None], y).numpy()).tolist() == [0]


@pytest.mark.slow
def test_perfect_outputs_score_perfectly(folder: Path) -> None:
    _, names = _tasks.split_names(folder)
    scenes = [_tasks._Scene(folder, name) for name in names]
    y = torch.from_numpy(_tasks.load_folder(folder, 64).test.y)
    out = perfect(y)
    metric = AnchorF1()
    right, finds, wanted = metric.totals(out[None], y)[0].tolist()
    assert right == finds == wanted > len(y)
    assert metric.value(np.array([[right, finds, wanted]])) == 1
    found = [detections(o, s.calibration, s.size) for o, s in zip(out, scenes, strict=True)]
    got = average_precision([s.labels for s in scenes], found)
    # 40 recall positions need as many objects; all of them are found, also those that count nowhere.
    assert min((y[..., 7] == c).sum() for c in range(N_CLASSES)) > 60
    np.testing.assert_allclose(got[:, 2], 1)


def test_totals_add_up_and_devices_are_scored_apart(folder: Path) -> None:
    y = torch.from_numpy(_tasks.load_folder(folder, 64).test.y)[:6]
    metric = AnchorF1()
    good = perfect(y)
    bad = good.clone()
    bad[..., 3] += 5  # boxes are far off, classes are right
    out = torch.stack([good, bad, torch.full_like(good, math.nan)])
    whole = metric.totals(out, y)
    torch.testing.assert_close(
        whole, metric.totals(out[:, :2], y[:2]) + metric.totals(out[:, 2:], y[2:])
    )
    assert metric.value(whole.numpy()).tolist() == [1, 0, 0]


def test_distance_is_zero_for_equals_only() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, SMALL.n_anchors, OUTPUTS, generator=g)
    metric = AnchorF1()
    assert abs(metric.distance(a, a)) < 1e-4
    assert metric.distance(a, b) > 0.1


def test_wild_outputs_are_no_detections() -> None:
    out = torch.full((SMALL.n_anchors, OUTPUTS), math.nan)
    assert len(detections(out, CALIBRATION).boxes) == 0
    wild = torch.full((SMALL.n_anchors, OUTPUTS), 1e4)
    found = detections(wild, CALIBRATION)
    assert np.isfinite(found.boxes).all()
    assert len(found.boxes) <= 100


def test_unknown_shapes_and_names_are_said() -> None:
    with pytest.raises(TaskError, match="321408 x 12"):
        layout_of(torch.zeros(1, 5, 12))
    with pytest.raises(TaskError, match="pillars-small"):
        build_pillars("pillar", 0)


def test_a_seed_is_a_network_and_the_global_state_stays() -> None:
    before = torch.random.get_rng_state()
    a, b, c = (build_pillars("pillars-small", s).state_dict() for s in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])


def test_points_are_filled_up_or_thinned() -> None:
    points = np.arange(1, 41, dtype=np.float32).reshape(10, 4)
    assert not _tasks.fit_points(points, 12)[10:].any()
    thinned = _tasks.fit_points(points, 4)
    assert thinned[:, 0].tolist() == [1, 13, 25, 37]


def test_the_task_reads_the_official_layout(folder: Path) -> None:
    t = task("kitti", folder)
    train, validation = t.development(0)
    assert len(train.x) + len(validation.x) == 4
    test = t.test(0)
    assert test.x.shape == (60, *t.input_shape)
    assert test.y.shape[2] == 8
    assert set(test.y[..., 7].unique().tolist()) <= {-1, 0, 1, 2}


def test_a_step_lowers_the_loss_of_its_batch_and_moves_every_weight(folder: Path) -> None:
    data = _tasks.load_folder(folder, _tasks.SCENE_POINTS).development
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    net = build_pillars("pillars-small", 0).train()
    metric = AnchorF1()
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        loss = metric.loss(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        losses.append(loss.item())
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]


def test_measuring_gives_a_share(folder: Path, net: nn.Module) -> None:
    score = _tasks.measure_folder(folder, _tasks.SCENE_POINTS)(net)
    assert 0 <= score <= 0.05  # untrained


def test_scenes_are_made_once_and_named_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OHMLOOP_DATA", str(tmp_path))
    monkeypatch.setattr(_tasks, "N_TRAIN", 3)
    monkeypatch.setattr(_tasks, "N_TEST", 2)
    t = task("kitti-scenes")
    train, validation = t.development(0)
    assert len(train.x) + len(validation.x) == 3
    place = tmp_path / _tasks.SCENES
    written = (place / "training" / "velodyne" / "000000.bin").stat().st_mtime_ns
    assert t.test(0).x.shape == (2, *t.input_shape)
    assert (place / "training" / "velodyne" / "000000.bin").stat().st_mtime_ns == written
    assert [p.name for p in tmp_path.iterdir()] == [_tasks.SCENES]


@pytest.mark.slow
def test_the_published_network_runs_and_learns_from_a_scene(folder: Path) -> None:
    data = _tasks.load_folder(folder, _tasks.KITTI_POINTS).development
    net = build_pillars("pillars", 0).train()
    out = net(torch.from_numpy(data.x[:1]))
    assert out.shape == (1, 321_408, OUTPUTS)
    AnchorF1().loss(out, torch.from_numpy(data.y[:1])).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
