"""The configs of the paper's rivals in detection and segmentation: other backbones in our pipelines."""

import numpy as np
import pytest
import torch
from helpers import build_on_meta, import_script, load, names_in, optimizer_of, save_backbone
from mmengine.registry import DATASETS, PARAM_SCHEDULERS
from mmengine.structures import PixelData
from mmengine.utils import to_2tuple

from mmconvmae.registry import MODELS
from mmconvmae.utils import count_parameters

DETECTION = names_in('baselines/detection')
SEGMENTATION = names_in('baselines/segmentation')
RIVALS = [*DETECTION, *SEGMENTATION]
VIT_FPN = 'mask-rcnn_vit-base-p16_fpn_8xb4-amp-lsj-100e_coco'
VITDET = 'mask-rcnn_vit-base-p16_vitdet_8xb8-amp-lsj-100e_coco'
MVIT_FPN = 'mask-rcnn_mvitv2-base_fpn_8xb4-amp-lsj-36e_coco'
MIMDET = 'mask-rcnn_mimdet-vit-base-p16_fpn_8xb8-amp-ms-crop-36e_coco'
SWIN_FPN = 'mask-rcnn_swin-base_fpn_8xb4-amp-lsj-36e_coco'
VIT = 'upernet_vit-base-p16_8xb2-amp-160k_ade20k-512x512'
BEIT = 'upernet_beit-base-p16_8xb2-amp-160k_ade20k-512x512'
MAE = 'upernet_mae-base-p16_8xb2-amp-160k_ade20k-512x512'
SWIN = 'upernet_swin-base_8xb2-amp-160k_ade20k-512x512'


def base_of(name):
    """Our own config whose pipelines and heads a rival has."""
    if name in SEGMENTATION:
        return load('upernet_convvit-base-p16_8xb2-amp-160k_ade20k-512x512')
    recipe = 'vitdet_8xb2-amp-lsj-184k' if name == VITDET else 'fpn_8xb4-amp-lsj-25e'
    return load(f'mask-rcnn_convvit-base-p16_{recipe}_coco')


def param_groups(config, model):
    """Those of the optimiser, by name of the parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = optimizer_of(config, model).param_groups
    return {names[id(parameter)]: group for group in groups for parameter in group['params']}


@pytest.mark.parametrize('name', [name for name in RIVALS if name != MIMDET])
def test_all_but_the_backbone_is_ours(name):
    config, base = load(name), base_of(name)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'):
        config[key].pop('batch_size', None), base[key].pop('batch_size', None)
        assert config[key] == base[key]
    assert config.model.data_preprocessor == base.model.data_preprocessor
    assert config.model.test_cfg == base.model.test_cfg
    if name in DETECTION:
        assert [config.model[key] for key in ('rpn_head', 'roi_head')] == [
            base.model[key] for key in ('rpn_head', 'roi_head')
        ]
    assert config.param_scheduler == base.param_scheduler and config.custom_hooks == base.custom_hooks
    assert config.runner_type == base.runner_type
    assert [config.optim_wrapper[key] for key in ('type', 'dtype')] == [
        base.optim_wrapper[key] for key in ('type', 'dtype')
    ]
    assert 'mmconvmae' in config.custom_imports.imports


@pytest.mark.parametrize('name', DETECTION)
def test_detector_takes_images_of_the_pipelines(name):
    config = load(name)
    model = build_on_meta(config)
    divisor = config.model.data_preprocessor.pad_size_divisor
    height, width = (-(-edge // divisor) * divisor for edge in to_2tuple(config.image_size))
    levels = model.extract_feat(torch.rand(1, 3, height, width, device='meta'))
    sizes = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32, 64)]
    assert [tuple(x.shape) for x in levels] == [(1, 256, *size) for size in sizes]
    assert len(param_groups(config, model)) == sum(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize('name', SEGMENTATION)
def test_segmentor_takes_images_of_the_pipelines(name):
    config = load(name)
    model = build_on_meta(config)
    size = config.crop_size[0]
    feats = model.extract_feat(torch.rand(2, 3, size, size, device='meta'))
    channels = model.decode_head.in_channels
    assert [tuple(x.shape) for x in feats] == [(2, c, size // s, size // s) for c, s in zip(channels, (4, 8, 16, 32))]
    assert tuple(model.decode_head(feats).shape) == (2, 150, size // 4, size // 4)
    assert tuple(model.auxiliary_head(feats).shape) == (2, 150, size // 16, size // 16)
    assert len(param_groups(config, model)) == len(list(model.parameters()))


# The second convolution of the RPN, and four convolutions and a linear layer with norms instead of two linear layers.
HEADS = 590_080 + 1_312_768
# The position embedding of 64² positions instead of 14² and a class token.
POSITIONS = (64**2 - 14**2 - 1) * 768


@pytest.mark.parametrize(
    ('name', 'more', 'millions'),
    [
        (VIT_FPN, 0, 118.6),
        (VITDET, POSITIONS, 110.9),
        (SWIN_FPN, HEADS, 107.1),
        (MVIT_FPN, HEADS, 71.0),
        (MIMDET, 0, 127.95),
        (VIT, 0, 163.3),
        (BEIT, 0, 163.1),
        (MAE, 0, 163.9),
        (SWIN, 0, 121.3),
    ],
)
def test_parameters_are_the_papers(name, more, millions):
    """The paper prints 118, 111, 107, 71, 127, 163 and 121; it counts the auxiliary heads of these segmentors."""
    assert (count_parameters(build_on_meta(load(name))) - more) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ('name', 'epochs'), [(VIT_FPN, 100), (VITDET, 100), (SWIN_FPN, 36), (MVIT_FPN, 36), (MIMDET, 36)]
)
def test_length_of_detection(name, epochs):
    config = load(name)
    batch = config.train_dataloader.batch_size * 8
    assert config.auto_scale_lr.base_batch_size == batch and f'_8xb{batch // 8}-' in name and f'-{epochs}e_' in name
    if name == VITDET:
        assert config.train_cfg.max_iters * batch / 118_000 == pytest.approx(epochs, abs=0.5)
    else:
        assert config.train_cfg.max_epochs == epochs


@pytest.mark.parametrize(('name', 'size'), [(VIT_FPN, 16), (VITDET, 14)])
def test_windows(name, size):
    backbone = build_on_meta(load(name)).backbone
    assert [layer.window_size for layer in backbone.layers] == [size, size, 0] * 4
    assert backbone.layers[0].attn.rel_pos_h.shape == (2 * size - 1, 64)
    assert backbone.layers[2].attn.rel_pos_h.shape == (127, 64)


@pytest.mark.parametrize(('name', 'rate'), [(VITDET, 0.7), (VIT, 0.75), (BEIT, 0.75), (MAE, 0.75)])
def test_learning_rate_decays_over_the_layers(name, rate):
    config = load(name)
    groups = param_groups(config, build_on_meta(config))
    for parameter, layer in (
        ('backbone.patch_embed.projection.weight', 0),
        ('backbone.layers.0.ln1.weight', 1),
        ('backbone.layers.11.attn.qkv.weight', 12),
    ):
        assert groups[parameter]['lr'] == pytest.approx(1e-4 * rate ** (13 - layer)), parameter
    assert {group['lr'] for name, group in groups.items() if not name.startswith('backbone.')} == {1e-4}
    embeddings = [group for name, group in groups.items() if 'pos_embed' in name]
    assert all(group['weight_decay'] == 0 and group['lr'] < 1e-5 for group in embeddings)


@pytest.mark.parametrize(
    ('name', 'rate', 'relative'),
    [
        (VIT_FPN, 8e-5, 'rel_pos'),
        (MVIT_FPN, 8e-5, 'rel_pos'),
        (SWIN_FPN, 8e-5, 'relative_position_bias_table'),
        (SWIN, 6e-5, 'relative_position_bias_table'),
    ],
)
def test_layers_with_one_learning_rate(name, rate, relative):
    config = load(name)
    groups = param_groups(config, build_on_meta(config))
    assert {g['lr'] for parameter, g in groups.items() if 'pos_embed' not in parameter} == {rate}
    decays = {g['weight_decay'] for parameter, g in groups.items() if relative in parameter or '.norm' in parameter}
    assert decays == {0.0}


def test_recipe_of_mimdet():
    """By the released configuration: 64 images a step, three learning rates, norms and biases without decay."""
    config, base = load(MIMDET), base_of(MIMDET)
    assert [config.model[part] for part in ('rpn_head', 'roi_head')] == [
        base.model[part] for part in ('rpn_head', 'roi_head')
    ]
    model = build_on_meta(config)
    groups = param_groups(config, model)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    assert set(shapes) - set(groups) == {'backbone.pos_embed.weight', 'backbone.decoder_pos_embed.weight'}
    for name, group in groups.items():
        is_encoder = name.startswith(('backbone.layers.', 'backbone.ln1.'))
        scale = 1 / 2 if is_encoder else 1 if name.startswith('backbone.stem.') else 2
        assert group['lr'] == pytest.approx(64 / 16 * 8e-5 * scale), name
        assert group['weight_decay'] == (0 if len(shapes[name]) == 1 else 0.1), name
    backbone = model.backbone
    assert [layer.attn.out_drop.drop_prob for layer in backbone.layers] == pytest.approx([i / 110 for i in range(12)])
    assert not any(block.attn.out_drop.drop_prob for block in backbone.decoder_blocks)
    assert backbone.sample_ratio == 0.5 and backbone.pos_embed.weight.shape == (1, 50 * 50, 768)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.SyncBatchNorm)]
    assert len(norms) == 8 + 4 + 4  # of the pyramid, the box head and the mask head
    assert config.model.data_preprocessor.pad_size_divisor == 32


def test_schedule_of_mimdet():
    """From 0 in a quarter of an epoch; a tenth after 27 epochs and after 33."""
    config = load(MIMDET)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    epoch_length = 400
    schedulers = [
        PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=optimizer, epoch_length=epoch_length))
        for scheduler in config.param_scheduler
    ]
    rates = []
    optimizer.step()
    for _ in range(config.train_cfg.max_epochs):
        for _ in range(epoch_length):
            rates.append(optimizer.param_groups[0]['lr'])
            schedulers[0].step()
        schedulers[1].step()
    assert rates[:100] == pytest.approx([i / 99 for i in range(100)], abs=2e-6)
    for first, last, rate in ((99, 27, 1), (27 * 400, 33, 0.1), (33 * 400, 36, 0.01)):
        assert rates[first : last * 400] == pytest.approx([rate] * (last * 400 - first))


def test_images_of_mimdet(mini_coco):
    """Short edges of 480 to 800 and long ones of up to 1 333, with crops; a test image is fitted into both."""
    config, miniature = load(MIMDET), load('mask-rcnn_convvit-tiny-p16_fpn_1xb2-10e_mini-coco-384px')
    datasets = [
        DATASETS.build(dict(loader.dataset, data_root=f'{mini_coco}/', metainfo=dict(classes=miniature.classes)))
        for loader in (config.train_dataloader, config.test_dataloader)
    ]
    np.random.seed(0)
    ratios = set()
    for i in range(12):
        sample = datasets[0][i % 2]
        height, width = sample['data_samples'].img_shape
        assert sample['inputs'].shape == (3, height, width)
        short, long = sorted((height, width))
        assert short in (480, 512, 544, 576, 608, 640, 736, 768, 800) or long == 1333
        assert long <= 1333
        ratios.add(round(height / width, 2))
        instances = sample['data_samples'].gt_instances
        assert len(instances.masks) == len(instances.bboxes) and (instances.masks.areas >= 1).all()
        assert (instances.masks.height, instances.masks.width) == (height, width)
    assert len(ratios) > 3
    for sample in datasets[1]:
        short, long = sorted(sample['data_samples'].ori_shape)
        scale = min(800 / short, 1333 / long)
        assert sorted(sample['inputs'].shape[1:]) == pytest.approx([scale * short, scale * long], abs=1)


def test_cost_of_mimdet_is_the_papers(monkeypatch):
    """The paper's 1.1 T are multiply-adds of an image of 800 x 1280 pixels."""
    paper_tables = import_script('benchmarks/paper_tables.py')
    config = load(MIMDET)
    config.image_size = (800, 1280)
    model = build_on_meta(config).eval()
    monkeypatch.setattr(paper_tables, 'build', lambda name: (config, model))
    with torch.device('meta'):
        _, multiply_adds = paper_tables.measure_detector([MIMDET])
    assert multiply_adds / 1e12 == pytest.approx(1.125, abs=0.0005)


VIT_ARCH = dict(embed_dims=96, num_layers=12, num_heads=2, feedforward_channels=192, global_attn_indexes=(2, 5, 8, 11))


def narrow(config):
    """Divide widths by 8, in place."""
    for key, value in config.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                narrow(part)
        if key.endswith(('channels', 'embed_dim', 'embed_dims')):
            config[key] = [width // 8 for width in value] if isinstance(value, list) else value // 8


@pytest.fixture
def small():
    """Makes a config small, for images of 128 pixels."""

    def make(name):
        config = load(name)
        narrow(config.model)
        backbone = config.model.backbone
        if 'Swin' in backbone.type:
            backbone.depths = (1, 2, 1, 1)
        elif 'MViT' in backbone.type:
            backbone.arch = dict(embed_dims=12, num_layers=4, num_heads=1, downscale_indices=(1, 2, 3))
        elif 'MIMDet' in backbone.type:
            backbone.update(arch=VIT_ARCH, img_size=128, decoder_dims=64)
        else:
            backbone.update(arch=VIT_ARCH, img_size=(128, 128))
        if name in DETECTION:
            config.model.data_preprocessor.pad_size_divisor = 128
        else:
            config.model.data_preprocessor.size = (128, 128)
        return config

    return make


def batch_of(name):
    """Random images and annotations."""
    if name in DETECTION:
        from mmdet.testing import demo_mm_inputs

        return demo_mm_inputs(2, (3, 128, 128), num_items=[3, 2], num_classes=80, with_mask=True)
    from mmseg.structures import SegDataSample

    samples = [SegDataSample(metainfo=dict(img_shape=(128, 128), ori_shape=(128, 128))) for _ in range(2)]
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.randint(150, (1, 128, 128)))
    return dict(inputs=[torch.randint(256, (3, 128, 128)) for _ in range(2)], data_samples=samples)


@pytest.mark.parametrize('name', RIVALS)
def test_a_step(small, name):
    torch.manual_seed(0)
    config = small(name)
    model = MODELS.build(config.model).train()
    loss, _ = model.parse_losses(model(**model.data_preprocessor(batch_of(name), training=True), mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    # Where no proposal is positive, the mask head has nothing to learn.
    learners = [
        parameter
        for key, parameter in model.named_parameters()
        if parameter.requires_grad and not key.startswith('roi_head.')
    ]
    assert all(parameter.grad is not None for parameter in learners)
    first = model.backbone.stem[0][0] if name == MIMDET else model.backbone.patch_embed.projection
    before = first.weight.clone()
    optimizer_of(config, model).step()
    assert not torch.equal(first.weight, before)


def load_backbone(config, state_dict, path):
    """The backbone of a config, started from a checkpoint of mmpretrain's with this state dict of a backbone."""
    config.model.backbone.init_cfg.checkpoint = save_backbone(state_dict, path)
    backbone = MODELS.build(config.model.backbone)
    backbone.init_weights()
    return backbone.state_dict()


@pytest.mark.parametrize('name', [VIT_FPN, VITDET, VIT, MAE])
def test_checkpoint_of_a_vision_transformer(small, build, tmp_path, name):
    """It fills the backbone, and the position embedding is resized; ViTSAM needs that in a map."""
    config = small(name)
    pretrained = build(dict(type='mmpretrain.VisionTransformer', arch=VIT_ARCH, img_size=64)).state_dict()
    embeddings = pretrained['pos_embed']
    expected = embeddings[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(expected, (8, 8), mode='bicubic', align_corners=False)
    expected = expected.permute(0, 2, 3, 1)
    if name in DETECTION:
        pretrained['pos_embed'] = embeddings[:, 1:].unflatten(1, (4, 4))
    else:
        expected = torch.cat([embeddings[:, :1], expected.flatten(1, 2)], dim=1)
    loaded = load_backbone(config, pretrained, tmp_path / 'pretrained.pth')
    torch.testing.assert_close(loaded['pos_embed'], expected)
    shared = set(loaded) & set(pretrained) - {'pos_embed'}
    assert all(torch.equal(loaded[key], pretrained[key]) for key in shared)
    assert set(pretrained) - set(loaded) <= {'cls_token', 'ln1.weight', 'ln1.bias'}
    new = {key.split('.')[-1] for key in set(loaded) - set(pretrained)}
    assert new <= {
        'rel_pos_h',
        'rel_pos_w',
        'relative_position_bias_table',
        'relative_position_index',
        'gamma_1',
        'gamma_2',
    }


def test_checkpoint_of_beit(small, build, tmp_path):
    """The table that pretraining shares becomes one of each layer, for the larger image."""
    config = small(BEIT)
    shared = dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
    pretrained = build(dict(type='mmpretrain.BEiTViT', arch=VIT_ARCH, img_size=64, out_type='raw', **shared))
    pretrained = pretrained.state_dict()
    loaded = load_backbone(config, dict(pretrained), tmp_path / 'pretrained.pth')
    for key in set(pretrained) & set(loaded):
        assert torch.equal(loaded[key], pretrained[key])
    assert {key for key in pretrained if key not in loaded} == {
        'rel_pos_bias.relative_position_bias_table',
        'rel_pos_bias.relative_position_index',
    }
    table = pretrained['rel_pos_bias.relative_position_bias_table']
    for i in range(12):
        resized = loaded[f'layers.{i}.attn.relative_position_bias_table']
        assert resized.shape == (15**2 + 3, 2)
        assert torch.equal(resized[-3:], table[-3:])  # of the class token
        torch.testing.assert_close(resized[15**2 // 2], table[7**2 // 2])  # of a position to itself
