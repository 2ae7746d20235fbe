import pytest
import torch

from mmconvmae.models import MIMDet
from mmconvmae.registry import MODELS

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
    result = run_tool('model_converters/rival_official.py', 'mimdet', tmp_path / 'official.pth', tmp_path / 'ours.pth')
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
    result = run_tool('model_converters/rival_official.py', 'mimdet', tmp_path / 'official.pth', tmp_path / 'ours.pth')
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert 'encoder.cls_token; is it a checkpoint of something else?' in result.stderr
    assert not list(tmp_path.glob('*ours.pth*'))


def beit_names(depth):
    """Parameters of BEiT's code in its order, by the layers that it has."""
    yield from ('cls_token', 'mask_token', 'patch_embed.proj.weight', 'patch_embed.proj.bias')
    yield from ('rel_pos_bias.relative_position_bias_table', 'rel_pos_bias.relative_position_index')
    for i in range(depth):
        yield from (f'blocks.{i}.{name}' for name in ('gamma_1', 'gamma_2', 'attn.q_bias', 'attn.v_bias'))
        yield f'blocks.{i}.attn.qkv.weight'
        for layer in ('norm1', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2'):
            yield from (f'blocks.{i}.{layer}.weight', f'blocks.{i}.{layer}.bias')
    yield from (f'{layer}.{kind}' for layer in ('norm', 'lm_head') for kind in ('weight', 'bias'))


def test_data2vec(run_tool, tmp_path):
    """Every parameter but the index arrives, in a place of its own and of its shape."""
    arch = dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48)
    backbone = dict(type='BEiTPretrainViT', arch=arch, img_size=64, final_norm=False, out_indices=(0, 1))
    head = dict(type='mmconvmae.Data2VecHead', embed_dims=24)
    model = MODELS.build(dict(type='mmconvmae.Data2Vec', backbone=backbone, head=head))
    own = {name: x for name, x in model.state_dict().items() if not name.startswith('teacher.')}
    # In BEiT's code as here an order of parameters follows the order of layers, but for the biases of attention.
    shapes = {
        'cls_token': (1, 1, 24), 'mask_token': (1, 1, 24), 'patch_embed.proj.weight': (24, 3, 16, 16),
        'rel_pos_bias.relative_position_bias_table': (52, 2), 'rel_pos_bias.relative_position_index': (17, 17),
        'attn.qkv.weight': (72, 24), 'attn.proj.weight': (24, 24), 'mlp.fc1.weight': (48, 24), 'mlp.fc1.bias': (48,),
        'mlp.fc2.weight': (24, 48), 'lm_head.weight': (24, 24),
    }  # fmt: skip
    official = {}
    for name in beit_names(2):
        short = name.split('.', 2)[2] if name.startswith('blocks.') else name
        official[name] = torch.randn(shapes.get(short, (24,)))
    torch.save(dict(model=official), tmp_path / 'theirs.pth')
    result = run_tool('model_converters/rival_official.py', 'data2vec', tmp_path / 'theirs.pth', tmp_path / 'ours.pth')
    assert result.returncode == 0, result.stderr
    ours = torch.load(tmp_path / 'ours.pth')['state_dict']
    missing, unexpected = model.load_state_dict(ours, strict=False)
    assert not unexpected and {name for name in missing if not name.startswith('teacher.')} == {
        'backbone.rel_pos_bias.relative_position_index'
    }
    assert len(ours) == len(official) - 1 == len(own) - 1
    for theirs, name in (
        ('blocks.1.attn.v_bias', 'backbone.layers.1.attn.v_bias'),
        ('blocks.1.gamma_2', 'backbone.layers.1.gamma_2'),
        ('blocks.0.norm2.weight', 'backbone.layers.0.ln2.weight'),
        ('blocks.0.mlp.fc2.weight', 'backbone.layers.0.ffn.layers.1.weight'),
        ('norm.bias', 'head.norm.bias'),
        ('lm_head.bias', 'head.fc.bias'),
    ):
        assert torch.equal(ours[name], official[theirs]), name
