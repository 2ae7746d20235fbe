import argparse
import json

import pytest
import torch

from mmconvmae.checkpoint import (
    check_strict,
    from_official,
    infer_model,
    read_state_dict,
    to_official,
    write_checkpoint,
)
from mmconvmae.registry import MODELS


@pytest.fixture
def official(golden):
    return torch.load(golden('official_tiny_pretrain.pth'), weights_only=False)['model']


@pytest.fixture
def classifier(golden):
    return torch.load(golden('official_tiny_finetune.pth'), weights_only=False)['model']


def test_every_name_and_shape_of_base(golden):
    shapes = json.loads(golden('official_base_pretrain_keys.json').read_text())
    ours = from_official({name: torch.empty(shape, device='meta') for name, shape in shapes.items()})
    config = infer_model(ours)
    assert config['backbone'] == dict(
        type='mmconvmae.ConvMAEViT',
        arch=dict(embed_dims=(256, 384, 768), depths=(2, 2, 11), num_heads=12, mlp_ratios=(4, 4, 4)),
        img_size=224,
        patch_sizes=(4, 2, 2),
        in_channels=3,
        kernel_size=5,
    )
    assert config['neck'] == dict(
        type='mmconvmae.ConvMAEPretrainDecoder',
        in_channels=(256, 384, 768),
        patch_sizes=(4, 2, 2),
        multi_scale=True,
        img_size=224,
        in_chans=3,
        embed_dims=512,
        depth=8,
        mlp_ratio=4,
    )
    check_strict(ours, config)
    assert {name: list(value.shape) for name, value in to_official(ours).items()} == shapes


@pytest.mark.parametrize('kind', ['pretraining', 'encoder', 'single scale', 'classifier'])
def test_there_and_back_bit_for_bit(official, classifier, kind):
    checkpoint = classifier if kind == 'classifier' else official
    if kind == 'encoder':
        checkpoint = {name: value for name, value in official.items() if 'decoder' not in name and name != 'mask_token'}
    if kind == 'single scale':
        checkpoint = {name: value for name, value in official.items() if 'output_decode' not in name}
    ours = from_official(checkpoint)
    config = infer_model(ours)
    check_strict(ours, config)
    config['backbone']['arch']['num_heads'] = 4
    if kind in ('pretraining', 'single scale'):
        config['neck']['num_heads'] = 4
    MODELS.build(config).load_state_dict(ours)  # strictly
    back = to_official(ours)
    assert back.keys() == checkpoint.keys()
    for name, value in checkpoint.items():
        assert back[name].dtype == value.dtype and torch.equal(back[name], value), name


def test_foreign_names(official):
    with pytest.raises(ValueError, match=r"2 of 121 names are none of the authors' ConvMAE: cls_token, blocks\.0"):
        from_official({**official, 'cls_token': torch.zeros(1), 'blocks.0.norm1.weight': torch.zeros(1)})


def test_missing_parameter(official):
    del official['blocks3.1.mlp.fc2.weight'], official['norm.bias']
    ours = from_official(official)
    with pytest.raises(ValueError, match=r"'backbone\.stages\.2\.1\.ffn\.layers\.1\.weight' is missing; 'neck\.norm"):
        check_strict(ours, infer_model(ours))
    with pytest.raises(ValueError, match=r"'backbone\.patch_embeds\.0\.projection\.weight' is missing"):
        infer_model({})


def test_shape_that_does_not_fit(official):
    official['blocks2.0.conv1.weight'] = torch.zeros(48, 40, 1, 1)
    ours = from_official(official)
    with pytest.raises(ValueError, match=r'conv1\.weight. is \(48, 40, 1, 1\) and not \(48, 48, 1, 1\)'):
        check_strict(ours, infer_model(ours))


def test_read_keeps_the_authors_arguments_harmless(tmp_path):
    path = tmp_path / 'checkpoint.pth'
    torch.save(dict(model=dict(a=torch.ones(2)), args=argparse.Namespace(lr=0.1)), path)
    assert torch.equal(read_state_dict(path, 'model')['a'], torch.ones(2))


@pytest.mark.parametrize('share', [0.0, 0.5, 0.99])
def test_read_truncated_file(golden, tmp_path, share):
    content = golden('official_tiny_pretrain.pth').read_bytes()
    path = tmp_path / 'truncated.pth'
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r'truncated\.pth is truncated or not a PyTorch checkpoint .*; fetch it again'):
        read_state_dict(path, 'model')


def test_read_file_of_another_kind(tmp_path):
    path = tmp_path / 'other.pth'
    torch.save(dict(state_dict=dict(a=torch.ones(2)), meta={}), path)
    with pytest.raises(ValueError, match=r"no parameters under 'model' \(it holds state_dict, meta\)"):
        read_state_dict(path, 'model')


def test_write_leaves_nothing_half_written(tmp_path):
    with pytest.raises(AttributeError):
        write_checkpoint(dict(cannot_be_saved=lambda: None), tmp_path / 'new' / 'checkpoint.pth')
    assert list((tmp_path / 'new').iterdir()) == []
