"""KITTI: files to boxes, overlaps against closed forms, average precision by hand, simulated scenes."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmloop.errors import TaskError
from ohmloop.tasks import task
from ohmloop.tasks._driving._kitti import _scenes
from ohmloop.tasks._driving._kitti._boxes import (
    bev_iou,
    corners,
    iou_3d,
    overlap_area,
    suppress,
    wrap,
)
from ohmloop.tasks._driving._kitti._precision import (
    Detections,
    average_precision,
    difficulties,
)
from ohmloop.tasks._driving._kitti._reader import (
    CLASSES,
    Calibration,
    Labels,
    image_size,
    in_view,
    read_calibration,
    read_labels,
    read_points,
    split_names,
)
from ohmloop.tasks._driving._kitti._scenes import CALIBRATION, simulate, write_scenes

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tasks" / "kitti"
LABEL = "Car 0.10 1 -1.57 500.00 170.00 600.00 230.00 1.50 1.60 4.00 2.00 1.65 20.00 -1.57"


def box(*values: float) -> np.ndarray:
    return np.array([values], np.float64)


# Overlaps


def test_a_box_overlaps_itself_fully_however_it_is_written() -> None:
    rng = np.random.default_rng(0)
    boxes = np.column_stack(
        [rng.uniform(-50, 50, (300, 3)), rng.uniform(0.2, 5, (300, 3)), rng.uniform(-7, 7, 300)]
    )
    area = boxes[:, 3] * boxes[:, 4]
    for turn in (0, math.pi, -math.pi, 2 * math.pi):
        other = boxes.copy()
        other[:, 6] += turn
        np.testing.assert_allclose(overlap_area(boxes, other), area, atol=1e-7)
    quarter = boxes[:, [0, 1, 2, 4, 3, 5, 6]]
    quarter[:, 6] += math.pi / 2
    np.testing.assert_allclose(overlap_area(boxes, quarter), area, atol=1e-7)


def test_axis_aligned_overlap_is_the_product_of_the_overlaps_of_intervals() -> None:
    rng = np.random.default_rng(1)
    a, b = (
        np.column_stack([rng.uniform(-2, 2, (99, 3)), rng.uniform(0.5, 3, (99, 3)), np.zeros(99)])
        for _ in range(2)
    )
    low = np.maximum(a[:, :3] - a[:, 3:6] / 2, b[:, :3] - b[:, 3:6] / 2)
    high = np.minimum(a[:, :3] + a[:, 3:6] / 2, b[:, :3] + b[:, 3:6] / 2)
    sides = np.maximum(high - low, 0)
    np.testing.assert_allclose(overlap_area(a, b), sides[:, :2].prod(1), atol=1e-7)
    shared = sides.prod(1)
    union = a[:, 3:6].prod(1) + b[:, 3:6].prod(1) - shared
    np.testing.assert_allclose(np.diag(iou_3d(a, b)), shared / union, atol=1e-7)


@pytest.mark.parametrize("degrees", [1, 17, 30, 45, 60, 89])
def test_concentric_squares_share_the_area_of_the_closed_form(degrees: float) -> None:
    # The common part is an octagon of inradius 1/2 whose sides subtend t and pi/2 - t in turn.
    t = math.radians(degrees)
    shared = overlap_area(box(3, -2, 0, 1, 1, 1, 0.3), box(3, -2, 0, 1, 1, 1, 0.3 + t))[0]
    assert shared == pytest.approx(2 / (1 + math.sin(t) + math.cos(t)), abs=1e-8)


def test_a_stripe_across_a_stripe_shares_a_rhombus() -> None:
    for t in (0.4, 1.0, 1.5):
        shared = overlap_area(box(0, 0, 0, 90, 2, 1, 0), box(0, 0, 0, 90, 3, 1, t))[0]
        assert shared == pytest.approx(2 * 3 / math.sin(t), rel=1e-8)


def test_overlap_agrees_with_counting_points() -> None:
    rng = np.random.default_rng(2)
    n, points = 60, rng.uniform(-4, 4, (40_000, 2))
    a, b = (
        np.column_stack(
            [rng.uniform(-1.5, 1.5, (n, 3)), rng.uniform(0.5, 4, (n, 3)), rng.uniform(-4, 4, n)]
        )
        for _ in range(2)
    )

    def inside(one: np.ndarray) -> np.ndarray:
        c, s = math.cos(one[6]), math.sin(one[6])
        along = (points - one[:2]) @ np.array([[c, -s], [s, c]])
        return (np.abs(along) <= one[3:5] / 2).all(1)

    counted = np.array([(inside(x) & inside(y)).mean() * 64 for x, y in zip(a, b, strict=True)])
    # Five deviations of a share of 40,000 points on 64 square metres.
    assert np.abs(overlap_area(a, b) - counted).max() < 5 * 64 * 0.5 / 200
    assert np.abs(overlap_area(a, b) - counted).mean() < 64 * 0.5 / 200


@given(
    st.lists(st.floats(-3, 3), min_size=4, max_size=4),
    st.lists(st.floats(0.1, 5), min_size=4, max_size=4),
    st.lists(st.floats(-7, 7), min_size=3, max_size=3),
)
def test_overlap_is_symmetric_bounded_and_moves_with_the_boxes(
    place: list[float], size: list[float], angle: list[float]
) -> None:
    a = box(place[0], place[1], 0, size[0], size[1], 1, angle[0])
    b = box(place[2], place[3], 0, size[2], size[3], 1, angle[1])
    shared = overlap_area(a, b)[0]
    assert -1e-6 <= shared <= min(size[0] * size[1], size[2] * size[3]) + 1e-6
    assert shared == pytest.approx(overlap_area(b, a)[0], abs=1e-6)
    c, s = math.cos(angle[2]), math.sin(angle[2])
    moved = [x.copy() for x in (a, b)]
    for x in moved:
        x[:, :2] = x[:, :2] @ np.array([[c, s], [-s, c]]) + 20
        x[:, 6] += angle[2]
    assert shared == pytest.approx(overlap_area(*moved)[0], abs=1e-6)


def test_boxes_above_one_another_share_no_volume() -> None:
    a, b = box(0, 0, 0, 2, 2, 2, 0), box(0, 0, 1, 2, 2, 2, 0)
    assert iou_3d(a, b)[0, 0] == pytest.approx(1 / 3)
    assert iou_3d(a, box(0, 0, 2, 2, 2, 2, 0))[0, 0] == 0
    assert bev_iou(a, box(0, 0, 9, 2, 2, 2, 0))[0, 0] == pytest.approx(1)


def test_suppression_keeps_the_best_of_each_heap() -> None:
    boxes = np.array(
        [
            [0, 0, 0, 4, 2, 1, 0],
            [0.3, 0, 0, 4, 2, 1, 0.1],
            [0, 3, 0, 4, 2, 1, 0],
            [9, 9, 0, 1, 1, 1, 1],
        ],
        float,
    )
    kept = suppress(boxes, np.array([0.5, 0.9, 0.4, 0.2]), 0.1, 10)
    assert kept.tolist() == [1, 2, 3]
    assert suppress(boxes, np.array([0.5, 0.9, 0.4, 0.2]), 0.1, 2).tolist() == [1, 2]
    assert len(suppress(np.zeros((0, 7)), np.zeros(0), 0.1, 2)) == 0


# Files


def write(folder: Path, names: list[str], labels: str = LABEL) -> None:
    for part in ("velodyne", "label_2", "calib"):
        (folder / "training" / part).mkdir(parents=True, exist_ok=True)
    for name in names:
        np.array([[10, 0, -1, 0.5], [-10, 0, -1, 0.5]], "<f4").tofile(
            folder / "training" / "velodyne" / f"{name}.bin"
        )
        (folder / "training" / "label_2" / f"{name}.txt").write_text(labels + "\n")
        (folder / "training" / "calib" / f"{name}.txt").write_text(
            "P2: 700 0 600 0 0 700 180 0 0 0 1 0\nR0_rect: 1 0 0 0 1 0 0 0 1\n"
            "Tr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 0\n"
        )


def test_a_label_lies_where_its_line_says(tmp_path: Path) -> None:
    write(
        tmp_path, ["000000"], LABEL + "\nDontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10"
    )
    part = tmp_path / "training"
    calibration = read_calibration(part / "calib" / "000000.txt")
    labels = read_labels(part / "label_2" / "000000.txt", calibration)
    # Camera (2, 1.65, 20), bottom: right 2, down 1.65, ahead 20; a car that looks ahead has rotation -90.
    np.testing.assert_allclose(labels.boxes, [[20, -2, -1.65 + 0.75, 4, 1.6, 1.5, 0]], atol=1e-2)
    assert labels.names == ("Car",)
    assert labels.occluded.tolist() == [1]
    assert labels.dont_care.tolist() == [[1, 2, 3, 4]]
    assert difficulties(labels).tolist() == [[False, True, True]]


def test_calibration_goes_there_and_back() -> None:
    rng = np.random.default_rng(3)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    some = Calibration(CALIBRATION.camera, np.column_stack([turn, [0.1, 0.2, 0.3]]))
    points = rng.normal(size=(20, 3))
    np.testing.assert_allclose(some.to_lidar(some.to_camera(points)), points, atol=1e-12)
    angles = rng.uniform(-3, 3, 20)
    np.testing.assert_allclose(wrap(some.heading(some.heading(angles)) - angles), 0, atol=1e-12)


def test_image_boxes_are_those_of_the_pinhole() -> None:
    pinhole = Calibration(
        np.array([[700, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]], float),
        np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]], float),
    )
    one = box(11, 0, 0, 2, 4, 1, 0)  # its near face is 10 m ahead
    np.testing.assert_allclose(pinhole.image_boxes(one), [[460, 145, 740, 215]])
    behind = pinhole.image_boxes(box(-11, 0, 0, 2, 4, 1, 0))[0]
    assert (behind[2:] == behind[:2]).all()
    assert pinhole.image_boxes(np.zeros((0, 7))).shape == (0, 4)


def test_points_outside_the_image_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, ["000000"])
    part = tmp_path / "training"
    points = read_points(part / "velodyne" / "000000.bin")
    seen = in_view(points, read_calibration(part / "calib" / "000000.txt"), (1242, 375))
    assert seen.tolist() == [True, False]


def test_the_size_of_an_image_is_read_from_its_head(tmp_path: Path) -> None:
    assert image_size(tmp_path, "000000") == (1242, 375)
    (tmp_path / "training" / "image_2").mkdir(parents=True)
    head = (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
        + (1224).to_bytes(4, "big")
        + (370).to_bytes(4, "big")
    )
    (tmp_path / "training" / "image_2" / "000000.png").write_bytes(head)
    assert image_size(tmp_path, "000000") == (1224, 370)
    (tmp_path / "training" / "image_2" / "000001.png").write_bytes(b"no image")
    with pytest.raises(TaskError, match="no PNG"):
        image_size(tmp_path, "000001")


def test_the_official_lists_divide_and_without_them_every_second_scene(tmp_path: Path) -> None:
    write(tmp_path, ["000000", "000001", "000002"])
    assert split_names(tmp_path) == (["000000", "000002"], ["000001"])
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets" / "train.txt").write_text("000001\n000002\n")
    (tmp_path / "ImageSets" / "val.txt").write_text("000000\n")
    assert split_names(tmp_path) == (["000001", "000002"], ["000000"])
    (tmp_path / "ImageSets" / "val.txt").write_text("000001\n")
    with pytest.raises(TaskError, match="1 in both"):
        split_names(tmp_path)


def test_damaged_files_are_said(tmp_path: Path) -> None:
    write(tmp_path, ["000000"])
    part = tmp_path / "training"
    calibration = read_calibration(part / "calib" / "000000.txt")
    label = part / "label_2" / "000000.txt"
    label.write_text("Car 0 0 0 1 2 3\n")
    with pytest.raises(TaskError, match="line 1 has 7 columns"):
        read_labels(label, calibration)
    label.write_text("Car 0 0 0 1 2 x 4 5 6 7 8 9 10 11\n")
    with pytest.raises(TaskError, match="line 1: could not convert"):
        read_labels(label, calibration)
    (part / "calib" / "000000.txt").write_text("P2: 1 2 3\n")
    with pytest.raises(TaskError, match="P2 should be 12 numbers"):
        read_calibration(part / "calib" / "000000.txt")
    (part / "velodyne" / "000000.bin").write_bytes(b"12345678")
    with pytest.raises(TaskError, match="points have 4 each"):
        read_points(part / "velodyne" / "000000.bin")
    with pytest.raises(TaskError, match="cannot be read"):
        read_points(part / "velodyne" / "000009.bin")


def test_without_the_data_set_the_message_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OHMLOOP_DATA", str(tmp_path))
    with pytest.raises(TaskError, match="cvlibs"):
        task("kitti")


# Average precision


def scene(n: int, name: str = "Car", height: float = 60, occluded: int = 0) -> Labels:
    boxes = np.zeros((n, 7))
    boxes[:, 0] = 10 * np.arange(n)
    boxes[:, 3:6] = 4, 2, 1.5
    image = np.tile([0, 0, 50, height], (n, 1)).astype(float)
    return Labels((name,) * n, boxes, image, np.full(n, occluded), np.zeros(n), np.zeros((0, 4)))


def found(
    boxes: np.ndarray, scores: np.ndarray | float, kind: int = 0, height: float = 60
) -> Detections:
    n = len(boxes)
    return Detections(
        boxes, np.broadcast_to(scores, n).astype(float), np.full(n, kind), np.full(n, height)
    )


def car(labels: list[Labels], hits: list[Detections]) -> list[float]:
    return average_precision(labels, hits)[0].tolist()


def test_all_found_and_nothing_else_is_precision_one() -> None:
    labels = scene(80)
    result = average_precision([labels], [found(labels.boxes, np.linspace(1, 0.2, 80))])
    np.testing.assert_allclose(result[0], 1)
    assert np.isnan(result[1:]).all()


def test_half_of_the_objects_found_is_half() -> None:
    labels = scene(80)
    assert car([labels], [found(labels.boxes[:40], np.linspace(1, 0.2, 40))]) == pytest.approx(
        [0.5] * 3, abs=1 / 40
    )


def test_wrong_ones_of_a_lower_score_cost_nothing_and_of_a_higher_all() -> None:
    labels = scene(80)
    wrong = labels.boxes + np.array([0, 50, 0, 0, 0, 0, 0])
    both = np.concatenate([labels.boxes, wrong])
    low = found(both, np.r_[np.linspace(1, 0.5, 80), np.full(80, 0.1)])
    assert car([labels], [low]) == pytest.approx([1] * 3)
    high = found(both, np.r_[np.linspace(0.4, 0.2, 80), np.full(80, 0.9)])
    # At the last recall position 80 are right of 160; precision is the best at a higher recall.
    assert car([labels], [high]) == pytest.approx([0.5] * 3)


def test_as_many_wrong_as_right_at_each_score_is_half() -> None:
    labels = scene(200)
    wrong = labels.boxes + np.array([0, 50, 0, 0, 0, 0, 0])
    scores = np.linspace(1, 0.2, 200)
    pairs = found(np.concatenate([labels.boxes, wrong]), np.r_[scores, scores])
    assert car([labels], [pairs]) == pytest.approx([0.5] * 3, abs=0.01)


def test_a_second_box_on_an_object_is_wrong() -> None:
    labels = scene(80)
    twice = found(np.concatenate([labels.boxes] * 2), np.r_[np.full(80, 0.5), np.full(80, 0.5)])
    assert car([labels], [twice]) == pytest.approx([0.5] * 3)


@pytest.mark.parametrize(("shift", "expected"), [(0.70, 1.0), (0.71, 0.0)])
def test_cars_need_seven_tenths_of_overlap(shift: float, expected: float) -> None:
    # Moved along its length by s, a box of 4 m has the overlap (4 - s) / (4 + s): .7 at s = 12 / 17.
    labels = scene(60)
    moved = labels.boxes + np.array([shift, 0, 0, 0, 0, 0, 0])
    assert car([labels], [found(moved, np.linspace(1, 0.2, 60))]) == pytest.approx([expected] * 3)


def test_pedestrians_need_half_of_overlap_and_their_own_class() -> None:
    labels = scene(60, "Pedestrian")
    moved = labels.boxes + np.array([1.3, 0, 0, 0, 0, 0, 0])  # 2.7 / 5.3
    scores = np.linspace(1, 0.2, 60)
    assert average_precision([labels], [found(moved, scores, 1)])[1] == pytest.approx([1] * 3)
    assert average_precision([labels], [found(moved, scores, 2)])[1] == pytest.approx([0] * 3)


def test_hidden_objects_count_only_where_they_may() -> None:
    plain, hidden = scene(60), scene(60, occluded=2)
    hits = [found(plain.boxes, np.linspace(1, 0.2, 60)), found(np.zeros((0, 7)), 0)]
    easy, moderate, hard = car([plain, hidden], hits)
    assert (easy, moderate) == (1, 1)
    assert hard == pytest.approx(0.5, abs=1 / 40)


def test_finding_what_is_ignored_is_neither_right_nor_wrong() -> None:
    plain = scene(60)
    scores = np.linspace(0.5, 0.2, 60)
    for other in (scene(60, occluded=3), scene(60, "Van"), scene(60, height=20)):
        hits = [found(plain.boxes, scores), found(other.boxes, 0.9)]
        assert car([plain, other], hits) == pytest.approx([1] * 3)
    truck = scene(60, "Truck")
    hits = [found(plain.boxes, scores), found(truck.boxes, 0.9)]
    assert car([plain, truck], hits) == pytest.approx([0.5] * 3)


def test_low_detections_are_never_wrong() -> None:
    plain = scene(60)
    empty = plain.boxes + np.array([0, 50, 0, 0, 0, 0, 0])
    both = [found(plain.boxes, np.linspace(0.5, 0.2, 60)), found(empty, 0.9, height=30)]
    none = scene(0)
    easy, moderate, hard = car([plain, none], both)
    assert easy == 1  # 30 pixels are too low for easy,
    assert moderate == hard == pytest.approx(0.5)  # but not for the others.


def test_scores_may_be_stretched_without_change() -> None:
    rng = np.random.default_rng(4)
    labels = [scene(10) for _ in range(10)]
    hits = []
    for one in labels:
        boxes = one.boxes + rng.normal(0, 0.2, (10, 7)) * np.array([1, 1, 1, 0, 0, 0, 0.5])
        hits.append(found(boxes, rng.random(10)))
    first = car(labels, hits)
    assert 0 < first[0] < 1
    stretched = [h._replace(scores=h.scores**3 / 2) for h in hits]
    assert car(labels, stretched) == first


# Simulated scenes


def test_a_scene_follows_from_its_number() -> None:
    first, again, other = simulate(5), simulate(5), simulate(6)
    np.testing.assert_array_equal(first.points, again.points)
    assert first.labels == again.labels
    assert first.labels != other.labels


def test_scenes_are_read_back_with_returns_on_the_surfaces_of_their_boxes(tmp_path: Path) -> None:
    write_scenes(tmp_path, 4, 2)
    train, held = split_names(tmp_path)
    assert (len(train), len(held)) == (4, 2)
    share = []
    for name in [*train, *held]:
        calibration = read_calibration(tmp_path / "training" / "calib" / f"{name}.txt")
        labels = read_labels(tmp_path / "training" / "label_2" / f"{name}.txt", calibration)
        points = read_points(tmp_path / "training" / "velodyne" / f"{name}.bin")
        assert {*labels.names} <= {*CLASSES, "Van"}
        for one in labels.boxes:
            c, s = math.cos(one[6]), math.sin(one[6])
            local = (points[:, :2] - one[:2]) @ np.array([[c, -s], [s, c]])
            inside = (np.abs(local) <= one[3:5] / 2 + 0.1).all(1)
            inside &= np.abs(points[:, 2] - one[2]) <= one[5] / 2 + 0.1
            assert inside.sum() >= _scenes.FEWEST
            deep = np.abs(local[inside]) <= one[3:5] / 2 - 0.3
            share.append(deep.all(1).mean())
        # The written image box is that of the box in space.
        np.testing.assert_allclose(calibration.image_boxes(labels.boxes), labels.image, atol=6)
    assert len(share) > 20
    assert np.mean(share) < 0.3


def test_ground_returns_lie_on_the_plane() -> None:
    slope = np.array([0.01, -0.02])
    ranges, hit, _ = _scenes._trace([], np.zeros((0, 7)), slope)
    back = np.isfinite(ranges)
    points = ranges[back, None] * _scenes._rays()[back]
    assert (hit[back] == 0).all()
    np.testing.assert_allclose(points[:, 2], -_scenes.HEIGHT + points[:, :2] @ slope, atol=1e-9)


def test_a_wall_hides_what_is_behind_it() -> None:
    wall = box(5, 0, 0, 0.4, 30, 8, 0)
    both = np.concatenate([wall, box(10, 0, -1, 4, 1.6, 1.5, 0)])
    _, hit, share = _scenes._trace(["wall", "Car"], both, np.zeros(2))
    assert (hit != 1).all()
    assert share[1] == 0
    assert share[0] > 0.9


def test_corners_are_half_a_diagonal_away() -> None:
    one = box(1, 2, 3, 4, 2, 1.5, 0.7)
    away = np.linalg.norm(corners(one)[0] - one[0, :3], axis=1)
    np.testing.assert_allclose(away, math.sqrt(4**2 + 2**2 + 1.5**2) / 2)


def test_the_real_data_set_is_read() -> None:
    if not (SHARED / "training" / "velodyne").exists():
        pytest.skip("KITTI needs a registration and is not in ../shared/data/tasks/kitti")
    train, _ = split_names(SHARED)
    calibration = read_calibration(SHARED / "training" / "calib" / f"{train[0]}.txt")
    assert read_labels(SHARED / "training" / "label_2" / f"{train[0]}.txt", calibration).names
