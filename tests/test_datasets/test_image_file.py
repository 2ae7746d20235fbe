"""Values are compared with tifffile, NumPy, Pillow and what was written, never with our own reader."""

import io

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from mmconvmae.datasets import ImageFile, ImageFileError

COLOURS = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)


def deep(channels, dtype):
    values = np.random.default_rng(1).integers(0, 60000, (24, 32, channels))
    return (values - 30000 if np.dtype(dtype).kind == 'i' else values).astype(dtype)


def pillow(image, format, **kwargs):
    content = io.BytesIO()
    image.save(content, format, **kwargs)
    return content.getvalue()


def tiff(array, **kwargs):
    content = io.BytesIO()
    tifffile.imwrite(content, array, **kwargs)
    return content.getvalue()


@pytest.mark.parametrize(
    ('channels', 'dtype', 'kwargs'),
    [
        (1, np.uint16, dict(photometric='minisblack')),
        (1, np.int16, dict(photometric='minisblack')),
        (1, np.float32, dict(photometric='minisblack')),
        (3, np.uint16, dict(photometric='rgb')),
        (3, np.float32, dict(photometric='rgb', compression='zlib')),
        (4, np.uint16, dict(photometric='minisblack', planarconfig='contig', compression='lzw')),
        (6, np.uint8, dict(photometric='minisblack', planarconfig='contig')),
        (6, np.float64, dict(photometric='minisblack', planarconfig='contig')),
    ],
)
def test_deep_tiffs_keep_their_values(channels, dtype, kwargs):
    array = deep(channels, dtype)
    file = ImageFile('x.tif', tiff(array, **kwargs))
    assert (file.size, file.channels, file.dtype) == ((32, 24), channels, dtype)
    assert np.array_equal(file.read(), array)


def test_bands_that_lie_apart():
    array = deep(5, np.uint16)
    content = tiff(array.transpose(2, 0, 1), photometric='minisblack', planarconfig='separate')
    assert np.array_equal(ImageFile('x.tif', content).read(5), array)


def test_near_infrared_beside_eight_bit_colours_is_a_channel():
    array = deep(4, np.uint16).astype(np.uint8)
    content = tiff(array, photometric='rgb', extrasamples=['unspecified'])
    assert np.array_equal(ImageFile('x.tif', content).read(4), array)


def test_channels_that_are_pages():
    array = deep(4, np.uint16).transpose(2, 0, 1)
    content = tiff(array, imagej=True, metadata=dict(axes='CYX'))
    assert np.array_equal(ImageFile('x.tif', content).read(4), array.transpose(1, 2, 0))


@pytest.mark.parametrize('suffix', ['.png', '.ppm', '.jp2'])
@pytest.mark.parametrize('channels', [1, 3])
def test_sixteen_bits_of_other_formats(suffix, channels):
    array = deep(channels, np.uint16)
    if suffix == '.ppm' and channels == 1:
        suffix = '.pgm'
    if suffix == '.jp2':
        content = imagecodecs.jpeg2k_encode(array.squeeze(), reversible=True, level=0)
    else:
        content = cv2.imencode(suffix, array[..., ::-1])[1].tobytes()
    file = ImageFile('x' + suffix, content)
    assert (file.channels, file.dtype, file.full_scale) == (channels, np.uint16, 65535)
    assert np.array_equal(file.read(), array)


def test_a_graymap_keeps_a_scale_of_its_own():
    array = deep(1, np.uint16) % 1024
    file = ImageFile('x.pgm', b'P5\n32 24\n1023\n' + array.astype('>u2').tobytes())
    assert file.full_scale == 1023
    assert np.array_equal(file.read(), array)


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'I;16'])
def test_modes_become_colours_as_in_pillow(mode):
    image = Image.fromarray(COLOURS).convert(mode if mode != 'I;16' else 'L')
    if mode == 'I;16':
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    content = pillow(image, 'TIFF' if mode == 'CMYK' else 'PNG')
    expected = np.asarray(image.convert('RGB')) if mode != 'I;16' else np.asarray(image)[..., None].repeat(3, -1)
    assert np.array_equal(ImageFile('x', content).read(3), expected)


def test_lab_becomes_colours():
    image = Image.new('LAB', (8, 8), (128, 128, 128))  # grey of half lightness, by definition (119, 119, 119) in sRGB
    assert np.abs(ImageFile('x', pillow(image, 'TIFF')).read(3).astype(int) - 119).max() <= 2


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('format', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
def test_orientation(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    kwargs = dict(lossless=True) if format == 'WEBP' else {}
    content = pillow(Image.fromarray(COLOURS), format, exif=exif, **kwargs)
    file = ImageFile('x', content)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    assert file.size == expected.shape[1::-1]
    assert np.array_equal(file.read(3), expected)


def test_orientation_of_a_deep_tiff():
    array = deep(3, np.uint16)
    content = tiff(array, photometric='rgb', extratags=[(274, 'H', 1, 6, True)])
    file = ImageFile('x.tif', content)
    assert file.size == (24, 32)
    assert np.array_equal(file.read(3), np.rot90(array, -1))


def test_the_first_of_several():
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 20)]
    for format in ('TIFF', 'WEBP'):
        file = ImageFile('x', pillow(frames[0], format, save_all=True, append_images=frames[1:]))
        assert file.num_frames == 2
        assert np.abs(file.read(3).astype(int) - 10).max() <= 2


def test_not_finite_values_take_the_mean():
    array = deep(2, np.float32)
    array[3, 4, 0], array[5, 6, 0], array[:, 0, 1] = np.nan, np.inf, -np.inf
    file = ImageFile('x.tif', tiff(array, photometric='minisblack', planarconfig='contig'))
    expected = array.copy()
    for channel in range(2):
        finite = np.isfinite(array[..., channel])
        expected[..., channel][~finite] = array[..., channel][finite].astype(np.float64).mean()
    np.testing.assert_allclose(file.read(), expected, rtol=1e-6)
    assert file.num_not_finite == 26


def test_a_channel_without_values_is_refused():
    array = np.full((8, 8), np.nan, np.float32)
    with pytest.raises(ImageFileError, match=r'The image x\.tif has a channel without a single finite value; replace'):
        ImageFile('x.tif', tiff(array)).read()


@pytest.mark.parametrize('format', ['JPEG', 'PNG', 'TIFF', 'GIF', 'BMP', 'WEBP', 'JPEG2000', 'AVIF'])
def test_half_a_file_is_refused(format):
    content = pillow(Image.fromarray(COLOURS.repeat(8, 0).repeat(8, 1)), format)
    with pytest.raises(ImageFileError, match=r'The image x .*; replace it or take it out of the data set\.'):
        ImageFile('x', content[: len(content) // 2]).read(3)


def test_half_a_deep_file_is_refused():
    for content in (cv2.imencode('.png', deep(3, np.uint16))[1].tobytes(), tiff(deep(6, np.uint16), planarconfig=1)):
        with pytest.raises(ImageFileError, match='The image x is'):
            ImageFile('x', content[: len(content) // 2]).read()


@pytest.mark.parametrize(('content', 'fault'), [(b'', 'the file is empty'), (b'<html>', 'it is not an image')])
def test_no_image(content, fault):
    with pytest.raises(ImageFileError, match=rf'The image a/b\.jpg is unreadable or truncated \({fault}\); replace it'):
        ImageFile('a/b.jpg', content)


def test_other_channels_are_refused():
    file = ImageFile('x.tif', tiff(deep(6, np.uint8), photometric='minisblack', planarconfig='contig'))
    with pytest.raises(ImageFileError, match='has 6 channels where in_channels is 3; set in_channels=6'):
        file.read(3)


@pytest.mark.parametrize('reduce', [2, 4, 8])
def test_reduced_decoding_is_pillows(reduce):
    content = pillow(Image.fromarray(COLOURS.repeat(8, 0).repeat(8, 1)), 'JPEG')
    image = Image.open(io.BytesIO(content))
    image.draft('RGB', (256 // reduce, 192 // reduce))
    assert np.array_equal(ImageFile('x', content).read(3, reduce), np.asarray(image))
    assert image.size == (256 // reduce, 192 // reduce)
