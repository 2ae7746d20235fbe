import numpy as np
import pytest
import tifffile
import torch
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from mmconvmae.apis import load_center_crop, load_whole
from mmconvmae.datasets import ImageFileError, LoadWholeImage


@pytest.fixture
def path(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 103, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'an image.png')
    return str(tmp_path / 'an image.png')


def assert_alike(result, expected):
    """PyTorch and Pillow round a few values to different sides."""
    assert result.dtype == expected.dtype == torch.uint8 and result.shape == expected.shape
    difference = (result.int() - expected.int()).abs()
    assert difference.max() <= 1 and difference.float().mean() < 0.02


@pytest.mark.parametrize(('size', 'short_edge'), [((64, 64), 73), ((32, 64), 64), ((96, 80), 97)])
def test_as_the_test_pipeline_of_classification(path, size, short_edge):
    data = dict(img_path=path)
    for step in (
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=short_edge, edge='short', backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=size[::-1]),  # mmcv has the width first
        dict(type='PackInputs'),
    ):
        data = TRANSFORMS.build(step)(data)
    result = load_center_crop(path, LoadWholeImage(), size, short_edge)
    assert_alike(result, data['inputs'])


def test_whole_image(path):
    result = load_whole(path, LoadWholeImage(), 96, 16)
    assert result.shape == (3, 96, 144)  # 141.3 by its proportions
    expected = np.asarray(Image.open(path).resize((144, 96), Image.Resampling.BICUBIC))[..., ::-1].transpose(2, 0, 1)
    assert_alike(result, torch.from_numpy(expected.copy()))


def test_six_channels_of_16_bits(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (70, 103, 6), np.uint16)
    tifffile.imwrite(tmp_path / 'bands.tif', pixels, photometric='minisblack', planarconfig='contig')
    result = load_center_crop(str(tmp_path / 'bands.tif'), LoadWholeImage(in_channels=6), (64, 64), 70)
    assert result.dtype == torch.float32
    expected = pixels[3:67, 20:84].transpose(2, 0, 1).astype(np.float32)  # 19.5 is rounded to what is even
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1)
    with pytest.raises(ImageFileError, match=r'bands\.tif'):
        load_center_crop(str(tmp_path / 'bands.tif'), LoadWholeImage(), (64, 64), 70)
