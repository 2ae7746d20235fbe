from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mmconvmae.registry import MODELS
from mmconvmae.visualization import draw_clips


@pytest.fixture
def model():
    preprocessor = dict(type='mmconvmae.ClipDataPreprocessor', mean=[120.0, 110.0, 100.0], std=[50.0, 60.0, 70.0])
    return SimpleNamespace(data_preprocessor=MODELS.build(preprocessor))


def make(model):
    """A clip (blue first, in units of files), what is drawn of it red first, a reconstruction in black, and a mask."""
    clip = torch.randint(0, 255, (1, 3, 4, 32, 48), dtype=torch.uint8)
    x = model.data_preprocessor(dict(inputs=clip, data_samples=None))['inputs']
    black = model.data_preprocessor(dict(inputs=torch.zeros_like(clip), data_samples=None))['inputs']
    removed = torch.zeros(1, 1, 1, 32, 48, dtype=torch.bool)
    removed[..., :16, 16:] = True
    return clip[0].permute(1, 2, 3, 0).flip(-1).numpy(), (x, black, removed)


def test_rows_of_frames(model, tmp_path):
    frames, args = make(model)
    out = tmp_path / 'clip.png'
    (drawn,) = draw_clips(model, *args, out)
    np.testing.assert_array_equal(drawn, np.asarray(Image.open(out)))
    cells = drawn.reshape(3, 36, 4, 52, 3).swapaxes(1, 2)[:, :, :32, :48]  # (rows, T, H, W, 3), without the gaps
    np.testing.assert_array_equal(cells[0], frames)
    hidden, filled = frames.copy(), frames.copy()
    hidden[:, :16, 16:], filled[:, :16, 16:] = 127, 0
    np.testing.assert_array_equal(cells[1], hidden)
    np.testing.assert_array_equal(cells[2], filled)


def test_gif_moves(model, tmp_path):
    _, args = make(model)
    out = tmp_path / 'clip.gif'
    drawn = draw_clips(model, *args, out)
    image = Image.open(out)
    assert drawn.shape == (4, 36, 3 * 52, 3) and image.n_frames == 4 and image.size == (3 * 52, 36)


def test_a_format_that_is_none_is_named(model, tmp_path):
    _, args = make(model)
    with pytest.raises(ValueError, match=r'clip\.xyz ends in no format'):
        draw_clips(model, *args, tmp_path / 'clip.xyz')
    assert not list(tmp_path.iterdir())
