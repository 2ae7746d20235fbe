from pathlib import Path

import numpy as np
import skimage
from PIL import Image


def find(crop, photo):
    """Leftmost column at which a crop sits in a photograph, pixel for pixel, or None."""
    edge = len(crop)
    corner = (photo[: -edge + 1 or None, : -edge + 1 or None] == crop[0, 0]).all(-1)
    for top, left in zip(*np.nonzero(corner)):
        if np.array_equal(photo[top : top + edge, left : left + edge], crop):
            return left
    return None


def test_crops_are_real_and_sides_apart(photos):
    photo = np.asarray(Image.open(Path(skimage.__file__).parent / 'data' / 'astronaut.png').convert('RGB'))
    border = int(photo.shape[1] * 0.7)
    train = find(np.asarray(Image.open(photos / 'train' / '00000.png')), photo)
    val = find(np.asarray(Image.open(photos / 'val' / '00000.png')), photo)
    assert train + 72 <= border <= val


def test_folder_that_is_there(run_tool, photos):
    result = run_tool('dataset_converters/skimage_photos.py', photos)
    assert result.returncode == 1 and 'is already there' in result.stderr
