from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mmconvmae.models.mask_generators import ConvMAEMaskGenerator
from mmconvmae.registry import MODELS
from mmconvmae.visualization import draw_reconstructions, with_neighbours_statistics

GREY = 127  # of what is masked


@pytest.fixture
def head():
    return MODELS.build(dict(type='mmconvmae.ConvMAEPretrainHead', patch_size=16, in_channels=3))


@pytest.fixture
def draw(tmp_path):
    """Draws images, in the units of files, as a model that knows them would; gives the picture and its file."""

    def draw(images, mean, std, norm_pix=False, removed=None, **kwargs):
        channels = images.shape[1]
        preprocessor = MODELS.build(
            dict(type='mmconvmae.ImageDataPreprocessor', mean=[mean] * channels, std=[std] * channels, **kwargs)
        )
        head = dict(type='mmconvmae.ConvMAEPretrainHead', patch_size=16, in_channels=channels, norm_pix=norm_pix)
        model = SimpleNamespace(head=MODELS.build(head), data_preprocessor=preprocessor)
        x = preprocessor(dict(inputs=images, data_samples=None))['inputs']
        if removed is None:
            removed = torch.zeros(len(x), 1, *x.shape[2:], dtype=torch.bool)
        out = tmp_path / 'new' / 'picture.png'
        picture = draw_reconstructions(model, x, x, removed, out)
        np.testing.assert_array_equal(picture, np.asarray(Image.open(out).convert('RGB')))
        assert [path.name for path in out.parent.iterdir()] == ['picture.png']
        return picture

    return draw


def constant(values, height=32, width=32):
    """An image of some channels, as files have them, and a batch of it."""
    return torch.tensor(values).view(1, -1, 1, 1).expand(1, -1, height, width).clone()


def colours(picture, number=4):
    """The colour in the middle of each column, where all of a row is one colour."""
    row = picture[picture.shape[0] // 2]
    return [row[round((place + 0.5) * row.shape[0] / number)].tolist() for place in range(number)]


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ([60], [60] * 3),
        ([60, 200], [60] * 3),
        ([200, 60, 20], [20, 60, 200]),  # blue first in a pipeline
        ([200, 60, 20, 90, 3], [200, 60, 20]),
    ],
)
def test_every_number_of_channels_in_its_colours(draw, values, expected):
    images = constant(values).to(torch.uint8)
    for mean, std in ((120.0, 60.0), (0.0, 255.0), (0.0, 1.0)):
        assert colours(draw(images, mean, std)) == [expected] * 4


def test_colours_where_the_model_has_blue_first(draw):
    images = constant([200, 60, 20]).to(torch.uint8)
    assert colours(draw(images, 120.0, 60.0, to_rgb=False)) == [[20, 60, 200]] * 4


def test_resized_floats_that_go_beyond_255_are_still_8_bits(draw):
    images = constant([60.0, 60.0, 60.0])
    images[..., 0, :8] = 258.0
    assert colours(draw(images, 120.0, 60.0)) == [[60] * 3] * 4


@pytest.mark.parametrize(('scale', 'offset'), [(30000.0, 0.0), (0.5, 0.0), (40.0, -80.0), (0.1, 5000.0)])
def test_other_values_are_shown_from_the_2nd_to_the_98th_percentile(draw, scale, offset):
    # Left half 0, right half 1, and a hot corner that shall not darken the rest; the second image twice as bright.
    images = torch.zeros(2, 1, 32, 96)
    images[..., 48:] = 1
    images[..., :2, :2] = 100
    images[1] *= 2
    picture = draw(images * scale + offset, offset, scale)
    cell = picture.shape[1] / 4
    for row in (0.3, 0.7):
        line = picture[round(row * picture.shape[0])]
        assert [line[round(place * cell)].tolist() for place in (0.25, 0.75)] == [[0] * 3, [255] * 3]


def test_columns_of_a_masked_image(draw):
    # As large as a patch, and visible but for the last of three.
    images = constant([60], 16, 48).to(torch.uint8)
    removed = torch.zeros(1, 1, 16, 48, dtype=torch.bool)
    removed[..., 32:] = True
    picture = draw(images, 120.0, 60.0, norm_pix=True, removed=removed)
    cell, line = picture.shape[1] / 5, picture[picture.shape[0] // 2, :, 0]
    shades = [[line[round((place + part) * cell)] for part in (0.3, 0.8)] for place in range(5)]
    assert shades == [[60, 60], [60, GREY], [60, 60], [60, 60], [60, 60]]


def test_neighbours_statistics_do_not_know_the_answer(head):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, 32, 48, generator=generator)
    removed = torch.zeros(1, 1, 32, 48, dtype=torch.bool)
    removed[..., :16, :16] = True  # the first of 2 x 3 patches
    prediction = torch.randn(1, 6, 768, generator=generator)

    def borrowed(images):
        return with_neighbours_statistics(head, head.reconstruct(prediction, images, (2, 3)), images, removed)

    weights = np.array([1, 1 / 4, 1, 1 / 2, 1 / 5])
    patches = head.patchify(images)[0, 1:].numpy()
    std, mean = patches.std(1, ddof=1), patches.mean(1)
    expected = prediction[0, 0].numpy() * np.average(std, weights=weights) + np.average(mean, weights=weights)
    result = head.patchify(borrowed(images))[0]
    np.testing.assert_allclose(result[0].numpy(), expected, atol=1e-4)
    assert torch.equal(result[1:], head.patchify(images)[0, 1:])
    other = images.clone()
    other[..., :16, :16] = 3 * other[..., :16, :16] + 7
    torch.testing.assert_close(borrowed(other), borrowed(images), atol=1e-4, rtol=0)


def test_where_cells_are_removed_a_patch_has_the_statistics_of_its_visible_ones(head):
    torch.manual_seed(0)
    images, prediction = torch.randn(2, 3, 32, 48), torch.randn(2, 6, 768)
    removed = ConvMAEMaskGenerator(0.75, cells_per_edge=4)(2, (2, 3)).removed
    removed = removed.repeat_interleave(4, 1).repeat_interleave(4, 2).unsqueeze(1)  # (B, 1, H, W)
    removed[0, :, :16, :16] = True  # all of this patch
    gone = removed.expand_as(images)

    def borrowed(images):
        return with_neighbours_statistics(head, head.reconstruct(prediction, images, (2, 3)), images, removed)

    result = borrowed(images)
    assert torch.equal(result[~gone], images[~gone]) and result.isfinite().all()
    patch, hidden = (x[1, :, 16:, 16:32].permute(1, 2, 0).flatten() for x in (images, gone))  # the 5th of 6
    visible = patch[~hidden].double()
    expected = prediction[1, 4][hidden] * visible.std() + visible.mean()
    got = result[1, :, 16:, 16:32].permute(1, 2, 0).flatten()[hidden]
    np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=1e-4)
    other = torch.where(gone, torch.randn_like(images), images)
    torch.testing.assert_close(borrowed(other), result, atol=1e-4, rtol=0)
