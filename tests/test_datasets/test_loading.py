import numpy as np
import pytest
import tifffile
from mmpretrain.datasets import RandomResizedCrop
from PIL import Image, ImageOps

from mmconvmae.registry import TRANSFORMS


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / 'photo.jpg'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    return path


def load(path, type='mmconvmae.LoadWholeImage', **kwargs):
    return TRANSFORMS.build(dict(type=type, **kwargs))(dict(img_path=str(path)))


def test_loads_as_pillow_does(photo):
    results = load(photo)
    assert results['img_shape'] == (40, 60)
    assert np.array_equal(results['img'][..., ::-1], np.asarray(Image.open(photo)))


@pytest.mark.parametrize('damage', ['truncated', 'text', 'empty', 'missing'])
@pytest.mark.parametrize('loader', [dict(), dict(type='mmconvmae.LoadRandomResizedCrop', scale=16)])
def test_damaged_image(photo, damage, loader):
    content = photo.read_bytes()
    if damage == 'missing':
        photo.unlink()
    else:
        photo.write_bytes(dict(truncated=content[: len(content) // 2], text=b'no image', empty=b'')[damage])
    with pytest.raises(
        OSError, match=r'The image .*photo\.jpg is unreadable or truncated \(.*\); replace it or take it'
    ):
        load(photo, **loader)


def test_full_scale(tmp_path):
    values = np.array([[0, 257], [32896, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / 'x.png')
    np.testing.assert_allclose(load(tmp_path / 'x.png', in_channels=1, full_scale=255)['img'][..., 0], values / 257)
    tifffile.imwrite(tmp_path / 'x.tif', values.astype(np.float32))
    with pytest.raises(OSError, match=r'x\.tif has values of type float32, which have no largest one'):
        load(tmp_path / 'x.tif', in_channels=1, full_scale=255)


def crop_as_mmpretrain_does(path, scale, **kwargs):
    reference = RandomResizedCrop(scale, backend='pillow', interpolation='bicubic', **kwargs)
    return reference(dict(img=np.asarray(Image.open(path).convert('RGB'))[..., ::-1].copy()))['img'].astype(int)


@pytest.fixture
def photograph(tmp_path):
    """A smooth picture of 1 200 x 900 pixels, as a photograph is at that size."""
    noise = np.random.default_rng(0).integers(0, 255, (45, 60, 3), dtype=np.uint8)
    path = tmp_path / 'large.jpg'
    Image.fromarray(noise).resize((1200, 900), Image.Resampling.BICUBIC).save(path, quality=95)
    return path


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_crop_without_reduced_decoding_is_pillows(photo, suffix):
    path = photo.with_suffix(suffix)
    Image.open(photo).save(path)
    for seed in range(10):
        np.random.seed(seed)
        ours = load(path, 'mmconvmae.LoadRandomResizedCrop', scale=(48, 64))['img']
        np.random.seed(seed)
        assert ours.shape == (48, 64, 3)
        assert np.abs(ours.astype(int) - crop_as_mmpretrain_does(path, (48, 64))).max() <= 2


def test_crop_of_a_reduced_photograph_is_nearly_pillows(photograph):
    for seed in range(10):
        np.random.seed(seed)
        ours = load(photograph, 'mmconvmae.LoadRandomResizedCrop', scale=64, crop_ratio_range=(0.2, 1.0))['img']
        np.random.seed(seed)
        difference = np.abs(ours.astype(int) - crop_as_mmpretrain_does(photograph, 64, crop_ratio_range=(0.2, 1.0)))
        assert difference.mean() < 3


@pytest.mark.parametrize('orientation', range(1, 9))
def test_reduced_decoding_follows_the_orientation(photograph, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.open(photograph).crop((0, 0, 1195, 893))  # eight divides neither
    image.save(tmp_path / 'turned.jpg', quality=95, exif=exif)
    ImageOps.exif_transpose(Image.open(tmp_path / 'turned.jpg')).save(tmp_path / 'upright.png')
    for seed in range(3):
        np.random.seed(seed)
        ours = load(tmp_path / 'turned.jpg', 'mmconvmae.LoadRandomResizedCrop', scale=64)['img'].astype(int)
        np.random.seed(seed)
        assert np.abs(ours - crop_as_mmpretrain_does(tmp_path / 'upright.png', 64)).mean() < 3


def test_reduced_decoding_with_full_scale(photograph):
    crops = []
    for full_scale in (None, 255):
        np.random.seed(0)
        crops.append(load(photograph, 'mmconvmae.LoadRandomResizedCrop', scale=64, full_scale=full_scale)['img'])
    assert (crops[0].dtype, crops[1].dtype) == (np.uint8, np.float32)
    # Of 8 bits the rows are rounded once before the columns are resized.
    assert np.abs(crops[0] - crops[1].clip(0, 255)).max() < 3


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_crop_of_six_bands(tmp_path, dtype):
    bands = np.random.default_rng(0).integers(0, 200, (40, 40, 6)).astype(dtype)
    tifffile.imwrite(tmp_path / 'x.tif', bands, photometric='minisblack', planarconfig='contig')
    np.random.seed(0)
    ours = load(tmp_path / 'x.tif', 'mmconvmae.LoadRandomResizedCrop', scale=16, in_channels=6)['img']
    for band in range(6):
        np.random.seed(0)
        reference = RandomResizedCrop(16, backend='pillow', interpolation='bicubic')
        top, left, rows, columns = reference.rand_crop_params(bands)
        expected = Image.fromarray(bands[top : top + rows, left : left + columns, band].astype(np.float32))
        expected = np.asarray(expected.resize((16, 16), Image.Resampling.BICUBIC))
        if dtype == np.uint8:
            expected = expected.clip(0, 255)
        assert np.abs(ours[..., band] - expected).max() <= (1 if dtype == np.uint8 else 0.01)
