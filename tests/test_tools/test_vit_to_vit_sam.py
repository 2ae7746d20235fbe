import pytest
import torch
from helpers import save_backbone

from mmconvmae.registry import MODELS

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)


@pytest.fixture
def checkpoint(build, tmp_path):
    """A plain ViT of 64-pixel images, as a checkpoint of a classifier has it."""
    vit = build(dict(type='mmpretrain.VisionTransformer', arch=ARCH, img_size=64))
    return save_backbone(vit.state_dict(), tmp_path / 'vit.pth', **{'head.fc.bias': torch.zeros(3)}), vit


def test_converted_checkpoint_gives_the_same_features(run_tool, checkpoint, tmp_path):
    """Without windows and relative positions ViTSAM is a ViT without class token."""
    source, vit = checkpoint
    result = run_tool('model_converters/vit_to_vit_sam.py', source, tmp_path / 'sam.pth')
    assert result.returncode == 0, result.stderr
    config = dict(arch=dict(ARCH, global_attn_indexes=[0, 1]), img_size=64, use_rel_pos=False, out_channels=0)
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'sam.pth'), prefix='backbone.')
    sam = MODELS.build(dict(type='mmpretrain.ViTSAM', init_cfg=init_cfg, **config))
    sam.init_weights()
    sam.eval()  # gives nothing back
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        x = vit.patch_embed(images)[0] + vit.pos_embed[:, 1:]
        for layer in vit.layers:
            x = layer(x)
        (features,) = sam(images)
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), x, rtol=1e-4, atol=1e-5)


def test_what_is_no_vit_leaves_nothing(run_tool, checkpoint, tmp_path):
    source, _ = checkpoint
    content = torch.load(source)
    content['state_dict']['backbone.pos_embed'] = torch.zeros(1, 16, 16)
    torch.save(content, source)
    result = run_tool('model_converters/vit_to_vit_sam.py', source, tmp_path / 'sam.pth')
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert "'backbone.pos_embed' is of shape (1, 16, 16), and not of a class token" in result.stderr
    assert not list(tmp_path.glob('*sam.pth*'))
