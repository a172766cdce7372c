import pytest
import torch

from digitq.worker.learning.augmentation import Augmenter, Distortion
from tests.drawing import draw_bars


def test_distortions_keep_shape_and_range() -> None:
    torch.manual_seed(0)
    images, _ = draw_bars(200)
    distorted = Augmenter(Distortion())(images)
    assert distorted.shape == (200, 784)
    assert distorted.min() >= 0 and 200 < distorted.max() <= 255.01
    kept = distorted.sum(1) / images.flatten(1).float().sum(1)
    assert 0.8 < kept.mean() < 1.2  # the ink is still there


def test_distortions_differ_from_image_to_image() -> None:
    torch.manual_seed(0)
    images = draw_bars(1)[0].expand(50, 28, 28)
    distorted = Augmenter(Distortion())(images)
    assert len(torch.unique(distorted, dim=0)) == 50


def test_a_distortion_of_nothing_is_the_image() -> None:
    images, _ = draw_bars(20)
    nothing = Distortion(rotation_degrees=0, stretch=0, shear=0, shift_pixels=0, elastic_pixels=0)
    expected = images.flatten(1).float()
    torch.testing.assert_close(Augmenter(nothing)(images), expected, atol=0.05, rtol=0)


def test_elastic_pixels_is_how_far_a_pixel_moves() -> None:
    torch.manual_seed(0)
    distorter = Augmenter(Distortion(elastic_pixels=2.0))
    mix = distorter.draw_mix(500)[:, :, 3:]
    moved = mix @ distorter.fields[3:] * 14  # half a side is 14 pixels
    assert moved.std(0).mean().item() == pytest.approx(2.0, rel=0.05)


def test_a_share_is_black_and_white_and_a_share_is_faded() -> None:
    torch.manual_seed(0)
    images, _ = draw_bars(400)
    plain = Augmenter(Distortion())(images)
    distort = Augmenter(Distortion(thresholded_share=0.3, faded_share=0.0))
    two_valued = ((changed := distort.change_values(plain)) % 255 == 0).all(1)
    assert 0.2 < two_valued.float().mean() < 0.4
    assert torch.equal(changed[~two_valued], plain[~two_valued])
    faded = Augmenter(Distortion(faded_share=0.3)).change_values(plain)
    contrast = faded.amax(1) / plain.amax(1)
    assert 0.2 < (contrast < 1).float().mean() < 0.4
    assert 0.25 <= contrast.min() < 0.5
    torch.testing.assert_close(faded, plain * contrast[:, None])
