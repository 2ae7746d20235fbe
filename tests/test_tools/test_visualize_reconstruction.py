import numpy as np
import pytest
import torch
from helpers import import_script, run_main
from mmengine.config import Config
from PIL import Image

from mmconvmae.registry import MODELS

SCRIPT = 'tools/visualize_reconstruction.py'


@pytest.fixture
def visualize(monkeypatch, tmp_path):
    """Runs the tool in this process; gives the error that it exits with, or None."""
    module = import_script(SCRIPT)

    def visualize(config, checkpoint, *args):
        out = tmp_path / 'new' / 'picture.png'
        return run_main(module, monkeypatch, '--config', config, '--checkpoint', checkpoint, '--out', out, *args)

    return visualize


def test_picture_and_faults(run_tool, visualize, train_config, photos, tmp_path):
    config = train_config('model.update(head=dict(norm_pix=True))')
    model = MODELS.build(Config.fromfile(config).model)
    whole, encoder, other = (tmp_path / f'{name}.pth' for name in ('whole', 'encoder', 'other'))
    state_dict = model.state_dict()
    torch.save(dict(state_dict=state_dict), whole)
    torch.save(dict(state_dict={k: v for k, v in state_dict.items() if 'decoder' not in k}), encoder)
    torch.save(dict(state_dict={k: v[:8] if 'stages.0.patch_embed' in k else v for k, v in state_dict.items()}), other)
    out = tmp_path / 'new' / 'picture.png'

    images = sorted((photos / 'val').iterdir())[:3]
    damaged = tmp_path / 'damaged.png'
    damaged.write_bytes(images[0].read_bytes()[:1000])
    for args, message in (
        ((encoder, *images), 'encoder.pth has no decoder, so it cannot reconstruct'),
        ((other, *images), 'of another architecture'),
        ((whole, damaged), 'damaged.png is unreadable or truncated'),
        ((whole, *images, '--mask-ratio', '1'), 'must lie between 0 and 1'),
        ((whole, *images, '--config', tmp_path / 'missing.py'), 'missing.py'),
    ):
        assert message in visualize(config, *args)
        assert not out.exists()
    assert "'xyz' is not supported" in visualize(config, whole, *images, '--out', out.with_suffix('.xyz'))
    assert not list(out.parent.iterdir())

    result = run_tool(SCRIPT.split('/')[1], *images, '--config', config, '--checkpoint', whole, '--out', out)
    assert result.returncode == 0, result.stderr
    width, height = Image.open(out).size
    assert width == 10 * 150 and height == round(6.8 * 150)


def test_images_of_one_channel_and_16_bits(visualize, train_config, tmp_path):
    config = train_config(
        """
        model.update(backbone=dict(model['backbone'], in_channels=1), head=dict(norm_pix=False))
        data_preprocessor = dict(mean=[30000.0], std=[15000.0])
        """
    )
    checkpoint, image = tmp_path / 'grey.pth', tmp_path / 'grey.png'
    torch.save(dict(state_dict=MODELS.build(Config.fromfile(config).model).state_dict()), checkpoint)
    ramp = torch.linspace(0, 60000, 80).expand(70, 80).contiguous()
    Image.fromarray(ramp.numpy().astype('uint16')).save(image)
    assert visualize(config, checkpoint, image) is None
    picture = Image.open(tmp_path / 'new' / 'picture.png').convert('RGB')
    assert picture.width == 8 * 150
    shades = [picture.getpixel((x, picture.height // 2)) for x in (20, 150, 280)]
    assert all(red == green == blue for red, green, blue in shades)
    assert shades[0][0] < 20 and 100 < shades[1][0] < 156 and shades[2][0] > 235


def test_full_scale_is_that_of_training(visualize, train_config, tmp_path, monkeypatch):
    config = train_config(
        """
        data_preprocessor = dict(mean=[120.0] * 3, std=[60.0] * 3)
        train_dataloader['dataset']['pipeline'][0] = dict(
            type='mmconvmae.LoadRandomResizedCrop', scale=64, full_scale=255
        )
        """
    )
    checkpoint = tmp_path / 'deep.pth'
    torch.save(dict(state_dict=MODELS.build(Config.fromfile(config).model).state_dict()), checkpoint)
    generator = np.random.default_rng(0)
    grey = generator.integers(0, 256, (80, 80), np.uint8)
    pictures = []
    for name, image in ('shallow', grey), ('deep', grey.astype(np.uint16) * 257):
        path = tmp_path / f'{name}.png'
        Image.fromarray(image).save(path)
        assert visualize(config, checkpoint, path) is None
        pictures.append(np.asarray(Image.open(tmp_path / 'new' / 'picture.png').convert('RGB'), int))
    # 8 bits are rounded after resizing, and floats are not.
    assert pictures[0].std() > 20 and abs(pictures[0] - pictures[1]).max() <= 3
