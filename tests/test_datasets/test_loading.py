import numpy as np
import pytest
from PIL import Image

from mmconvmae.registry import TRANSFORMS


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / 'photo.jpg'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    return path


def load(path):
    return TRANSFORMS.build(dict(type='mmconvmae.LoadWholeImage'))(dict(img_path=str(path)))


def test_loads_as_pillow_does(photo):
    results = load(photo)
    assert results['img_shape'] == (40, 60)
    assert np.array_equal(results['img'][..., ::-1], np.asarray(Image.open(photo)))


@pytest.mark.parametrize('damage', ['truncated', 'text', 'empty', 'missing'])
def test_damaged_image(photo, damage):
    content = photo.read_bytes()
    if damage == 'missing':
        photo.unlink()
    else:
        photo.write_bytes(dict(truncated=content[: len(content) // 2], text=b'no image', empty=b'')[damage])
    with pytest.raises(
        OSError, match=r'The image .*photo\.jpg is unreadable or truncated \(.*\); replace it or take it'
    ):
        load(photo)
