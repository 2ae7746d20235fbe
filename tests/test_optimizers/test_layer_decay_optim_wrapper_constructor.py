import copy

import pytest
import torch.nn as nn
from mmengine.optim import build_optim_wrapper

from mmconvmae.models import ConvViT

CONFIG = dict(
    constructor='mmconvmae.LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
    paramwise_cfg=dict(
        layer_decay_rate=0.5, norm_decay_mult=0.0, flat_decay_mult=0.0, custom_keys={'pos_embed': dict(decay_mult=0.0)}
    ),
)


class Detector(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.bbox_head = nn.Linear(2, 2)


def test_backbone_decays_by_layer_and_heads_do_not(small_arch):
    model = Detector(ConvViT(small_arch, img_size=64, rel_pos='per_block', fourth_level='conv'))
    groups = build_optim_wrapper(model, CONFIG).optimizer.param_groups
    assert sorted(group['param_name'] for group in groups) == sorted(name for name, _ in model.named_parameters())
    for group in groups:
        name = group['param_name'].removeprefix('backbone.')
        # 3 steps from layer 0 to the last, as stage 3 has 2 blocks.
        layer = 3
        if name.startswith('stages.2.blocks.'):
            layer = int(name.split('.')[3]) + 1
        elif name.startswith('stages.'):
            layer = 0
        assert group['lr'] == 0.5 ** (3 - layer), name
        flat = group['params'][0].dim() == 1 or name == 'stages.2.pos_embed.weight'
        assert group['weight_decay'] == (0.0 if flat else 0.1), name


@pytest.mark.parametrize('lr_mult', [1.0, 0.25])
def test_what_has_a_multiplier_is_in_no_layer(small_arch, lr_mult):
    config = copy.deepcopy(CONFIG)
    config['paramwise_cfg']['custom_keys']['pos_embed']['lr_mult'] = lr_mult
    groups = build_optim_wrapper(Detector(ConvViT(small_arch, img_size=64)), config).optimizer.param_groups
    rates = {group['param_name'].removeprefix('backbone.stages.'): group['lr'] for group in groups}
    assert rates['2.pos_embed.weight'] == lr_mult
    assert rates['2.token_embed.weight'] == rates['0.blocks.0.ln1.weight'] == 0.5**3
    assert rates['2.blocks.1.ln1.weight'] == 0.5


def test_backbone_that_does_not_know_its_layers():
    with pytest.raises(TypeError, match=r'the Linear of Detector has no `get_layer_depth`; use `mmconvmae.ConvViT`'):
        build_optim_wrapper(Detector(nn.Linear(2, 2)), CONFIG)
