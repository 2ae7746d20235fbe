import pytest
import torch

from mmconvmae.models import MIMDet

# Two layers of an encoder, a block of a decoder, and heads, as detectron2 names them.
BLOCK = {
    'norm1': 'ln1',
    'attn.qkv': 'attn.qkv',
    'attn.proj': 'attn.proj',
    'norm2': 'ln2',
    'mlp.fc1': 'ffn.layers.0.0',
    'mlp.fc2': 'ffn.layers.1',
}


@pytest.fixture
def model():
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=48)
    return MIMDet(arch=arch, img_size=64, decoder_dims=16, decoder_depth=1, decoder_num_heads=2)


@pytest.fixture
def official():
    """A checkpoint of the authors' code, by the layers that it has: a class token's place and a mean of pixels too."""
    content = {'pixel_mean': torch.zeros(3, 1, 1)}

    def add(name, *shape, **others):
        content.update({f'{name}.{key}': torch.randn(size) for key, size in dict(weight=shape, **others).items()})

    encoder, decoder = 'backbone.bottom_up.encoder.', 'backbone.bottom_up.decoder.'
    for stage, (before, after) in enumerate(((3, 4), (4, 8), (8, 16), (16, 32))):
        add(f'{encoder}patch_embed.proj.{stage}.0', after, before, 3, 3)
        add(f'{encoder}patch_embed.proj.{stage}.1', after, bias=(after,))
    add(f'{encoder}patch_embed.proj.3.3', 32, 32, 1, 1, bias=(32,))
    content[f'{encoder}pos_embed'] = torch.randn(1, 17, 32)
    content[f'{decoder}decoder_pos_embed'] = torch.randn(1, 17, 16)
    for blocks, number, width, hidden in (
        (f'{encoder}blocks', 2, 32, 48),
        (f'{decoder}decoder_blocks', 1, 16, 64),
    ):
        for i in range(number):
            for norm in ('norm1', 'norm2'):
                add(f'{blocks}.{i}.{norm}', width, bias=(width,))
            add(f'{blocks}.{i}.attn.qkv', 3 * width, width, bias=(3 * width,))
            add(f'{blocks}.{i}.attn.proj', width, width, bias=(width,))
            add(f'{blocks}.{i}.mlp.fc1', hidden, width, bias=(hidden,))
            add(f'{blocks}.{i}.mlp.fc2', width, hidden, bias=(width,))
    add(f'{encoder}norm', 32, bias=(32,))
    add(f'{decoder}decoder_norm', 16, bias=(16,))
    for name in ('decoder_embed', 'conv_feat_proj'):
        add(f'{decoder}{name}', 16, 32, bias=(16,))
    add('backbone.fpn_lateral2', 8, 4, 1, 1)
    add('backbone.fpn_lateral2.norm', 8, bias=(8,), running_mean=(8,))
    add('proposal_generator.rpn_head.conv.conv1', 8, 8, 3, 3, bias=(8,))
    add('roi_heads.box_predictor.cls_score', 81, 8, bias=(81,))
    return content


def test_every_parameter_has_its_place(run_tool, official, model, tmp_path):
    torch.save(dict(model=official), tmp_path / 'official.pth')
    result = run_tool('model_converters/mimdet_official.py', tmp_path / 'official.pth', tmp_path / 'ours.pth')
    assert result.returncode == 0, result.stderr
    ours = torch.load(tmp_path / 'ours.pth')['state_dict']
    backbone = {name.removeprefix('backbone.'): x for name, x in ours.items() if name.startswith('backbone.')}
    model.load_state_dict(backbone)
    start = 'backbone.bottom_up.'
    for theirs, name in (
        ('encoder.patch_embed.proj.2.1.bias', 'stem.2.1.bias'),
        ('encoder.patch_embed.proj.3.3.weight', 'stem.3.3.weight'),
        ('encoder.norm.weight', 'ln1.weight'),
        ('decoder.decoder_embed.weight', 'decoder_embed.weight'),
        ('decoder.conv_feat_proj.weight', 'stem_embed.weight'),
        ('decoder.decoder_norm.bias', 'decoder_norm.bias'),
        *((f'encoder.blocks.1.{a}.bias', f'layers.1.{b}.bias') for a, b in BLOCK.items()),
        *((f'decoder.decoder_blocks.0.{a}.bias', f'decoder_blocks.0.{b}.bias') for a, b in BLOCK.items()),
    ):
        assert torch.equal(backbone[name], official[start + theirs]), name
    assert torch.equal(backbone['pos_embed.weight'], official[f'{start}encoder.pos_embed'][:, 1:])
    assert torch.equal(
        ours['neck.lateral_convs.0.bn.running_mean'], official['backbone.fpn_lateral2.norm.running_mean']
    )
    assert {name for name in ours if not name.startswith('backbone.')} == {
        'neck.lateral_convs.0.conv.weight',
        *(f'neck.lateral_convs.0.bn.{key}' for key in ('weight', 'bias', 'running_mean')),
        *(f'rpn_head.rpn_conv.1.conv.{key}' for key in ('weight', 'bias')),
        *(f'roi_head.bbox_head.fc_cls.{key}' for key in ('weight', 'bias')),
    }


def test_another_checkpoint_leaves_nothing(run_tool, official, tmp_path):
    official['backbone.bottom_up.encoder.cls_token'] = torch.zeros(1, 1, 32)
    torch.save(dict(model=official), tmp_path / 'official.pth')
    result = run_tool('model_converters/mimdet_official.py', tmp_path / 'official.pth', tmp_path / 'ours.pth')
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert 'encoder.cls_token; is it a checkpoint of something else?' in result.stderr
    assert not list(tmp_path.glob('*ours.pth*'))
