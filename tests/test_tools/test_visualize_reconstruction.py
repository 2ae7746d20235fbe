import torch
from mmengine.config import Config
from PIL import Image

from mmconvmae.registry import MODELS


def test_picture_and_faults(run_tool, train_config, photos, tmp_path):
    config = train_config()
    model = MODELS.build(Config.fromfile(config).model)
    whole, encoder, other = (tmp_path / f'{name}.pth' for name in ('whole', 'encoder', 'other'))
    state_dict = model.state_dict()
    torch.save(dict(state_dict=state_dict), whole)
    torch.save(dict(state_dict={k: v for k, v in state_dict.items() if 'decoder' not in k}), encoder)
    torch.save(dict(state_dict={k: v[:8] if 'stages.0.patch_embed' in k else v for k, v in state_dict.items()}), other)
    out = tmp_path / 'new' / 'picture.png'

    def visualize(checkpoint, *images):
        args = ('--config', config, '--checkpoint', checkpoint, '--out', out)
        return run_tool('visualize_reconstruction.py', *args, *images)

    images = sorted((photos / 'val').iterdir())[:3]
    damaged = tmp_path / 'damaged.png'
    damaged.write_bytes(images[0].read_bytes()[:1000])
    for args, message in (
        ((encoder, *images), 'encoder.pth has no decoder, so it cannot reconstruct'),
        ((other, *images), 'of another architecture'),
        ((whole, damaged), 'damaged.png is unreadable or truncated'),
    ):
        result = visualize(*args)
        assert result.returncode == 1 and message in result.stderr, result.stderr
        assert 'Traceback' not in result.stderr and not out.exists()

    result = visualize(whole, *images, '--mask-ratio', '1')
    assert result.returncode == 1 and 'must lie between 0 and 1' in result.stderr, result.stderr
    result = visualize(whole, *images, '--config', tmp_path / 'missing.py')
    assert result.returncode == 1 and 'missing.py' in result.stderr and 'Traceback' not in result.stderr
    result = visualize(whole, *images, '--out', out.with_suffix('.xyz'))
    assert result.returncode == 1 and "'xyz' is not supported" in result.stderr and not list(out.parent.iterdir())

    result = visualize(whole, *images)
    assert result.returncode == 0, result.stderr
    width, height = Image.open(out).size
    assert width == 10 * 150 and height == round(6.7 * 150)
