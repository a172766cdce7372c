from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.drawing import draw_bars
from worker.distortion import (
    Distorter,
    Distortion,
    blur,
    change_contrast,
    change_edge,
    change_width,
    dilate,
    roughen,
)

CHANGES = [change_width, blur, change_contrast, change_edge]


def test_distortions_keep_shape_and_range() -> None:
    torch.manual_seed(0)
    images, _ = draw_bars(200)
    distorted = Distorter(Distortion())(images)
    assert distorted.shape == (200, 784)
    assert distorted.min() >= 0 and 200 < distorted.max() <= 255.01
    kept = distorted.sum(1) / images.flatten(1).float().sum(1)
    assert 0.8 < kept.mean() < 1.2  # the ink is still there


def test_distortions_differ_from_image_to_image() -> None:
    torch.manual_seed(0)
    images = draw_bars(1)[0].expand(50, 28, 28)
    distorted = Distorter(Distortion())(images)
    assert len(torch.unique(distorted, dim=0)) == 50


def test_a_distortion_of_nothing_is_the_image() -> None:
    images, _ = draw_bars(20)
    nothing = Distortion(rotation_degrees=0, stretch=0, shear=0, shift_pixels=0, elastic_pixels=0)
    expected = images.flatten(1).float()
    torch.testing.assert_close(Distorter(nothing)(images), expected, atol=0.05, rtol=0)


def test_elastic_pixels_is_how_far_a_pixel_moves() -> None:
    torch.manual_seed(0)
    distorter = Distorter(Distortion(elastic_pixels=2.0))
    mix = distorter.draw_mix(500)[:, :, 3:]
    moved = mix @ distorter.fields[3:] * 14  # half a side is 14 pixels
    assert moved.std(0).mean().item() == pytest.approx(2.0, rel=0.05)


def draw_columns(count: int, width: int) -> Tensor:
    """The same upright stroke in each image: (count, 1, 28, 28)."""
    images = torch.zeros(count, 1, 28, 28)
    images[:, :, 6:22, 12 : 12 + width] = 200
    return images


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_keeps_the_range_and_leaves_its_input_alone(
    change: Callable[[Tensor], Tensor],
) -> None:
    torch.manual_seed(0)
    images = draw_columns(300, width=3)
    changed = change(images)
    assert torch.equal(images, draw_columns(300, width=3))
    assert changed.shape == images.shape
    assert changed.min() >= 0 and changed.max() <= 255
    assert len(torch.unique(changed, dim=0)) > 100


def test_the_width_of_strokes_goes_both_ways_and_none_vanishes() -> None:
    torch.manual_seed(0)
    ink = change_width(draw_columns(300, width=3)).sum((1, 2, 3)) / draw_columns(1, width=3).sum()
    assert ink.min() < 0.6 and ink.max() > 1.5
    assert change_width(draw_columns(300, width=1)).amax((1, 2, 3)).min() > 100
    assert (change_width(torch.zeros(10, 1, 28, 28)) == 0).all()


def test_a_point_dilates_to_a_cross() -> None:
    point = torch.zeros(1, 1, 28, 28)
    point[0, 0, 5, 5] = 1
    expected = torch.zeros(28, 28)
    expected[4:7, 5] = expected[5, 4:7] = 1
    assert torch.equal(dilate(point)[0, 0], expected)


def test_contrast_makes_a_digit_faint_or_hard_edged() -> None:
    torch.manual_seed(0)
    soft = draw_columns(300, width=3) / 200 * 100
    brightest = change_contrast(soft).amax((1, 2, 3))
    assert brightest.min() < 30 and brightest.max() == 255


def test_only_one_edge_is_covered_and_the_middle_stays() -> None:
    torch.manual_seed(0)
    images = torch.rand(200, 1, 28, 28) * 255
    changed = change_edge(images) != images
    assert not changed[:, :, 5:23, 5:23].any()
    at_edges = torch.stack(
        [
            changed[:, 0, 0, 5:23],
            changed[:, 0, -1, 5:23],
            changed[:, 0, 5:23, 0],
            changed[:, 0, 5:23, -1],
        ]
    ).any(2)
    assert (at_edges.sum(0) == 1).all()
    assert at_edges.any(1).all()  # each of the four, now and then


def test_roughening_changes_the_share_it_is_asked_for() -> None:
    torch.manual_seed(0)
    images = draw_columns(400, width=3)
    assert torch.equal(roughen(images, 0.0), images)
    changed = (roughen(images, 0.3) != images).any(-1).flatten(1).any(1)
    assert changed.float().mean().item() == pytest.approx(1 - 0.7**4, abs=0.07)
