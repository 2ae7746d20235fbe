"""The ablations of the paper's tables 4 to 6, and the methods that table 1 compares with."""

import math

import pytest
import torch
from helpers import batch_from_file, build_on_meta, load, names_in, optimizer_of
from mmpretrain.structures import DataSample

from mmconvmae.registry import MODELS
from mmconvmae.utils import count_multiply_adds

ABLATIONS, PRETRAINING, CLASSIFICATION = map(
    names_in, ('convmae/ablations', 'baselines/pretraining', 'baselines/classification')
)
OURS = 'convmae_convvit-base-p16_8xb256-amp-coslr-1600e_in1k'
OUR_FINETUNING = 'convvit-base-p16_8xb128-coslr-100e_in1k'
OUR_PROBE = 'convvit-base-p16_8xb512-linear-coslr-90e_in1k'
BEIT = 'beit_beit-base-p16_8xb256-amp-coslr-1600e_in1k'
MAE = 'mae_vit-base-p16_8xb256-amp-coslr-1600e_in1k'
MASKFEAT = 'maskfeat_vit-base-p16_8xb256-amp-coslr-1600e_in1k'
DATA2VEC = 'data2vec_beit-base-p16_8xb256-amp-coslr-800e_in1k'
FINETUNED_DATA2VEC = 'data2vec-beit-base-p16_8xb128-coslr-100e_in1k'
SIMMIM = 'simmim_swin-base-w6_8xb256-amp-coslr-1600e_in1k-192px'


def ablation(what, epochs=800):
    return f'convmae_convvit-base-p16-{what}_8xb256-amp-coslr-{epochs}e_in1k'


# kernel, mode of the convolutions, and cells along the edge of a block
CHANGES = {
    'single-scale': (5, 'visible', 1),
    'token-mask': (5, 'masked', 4),
    'unmasked-conv': (5, 'unmasked', 1),
    'kernel3': (3, 'visible', 1),
    'kernel7': (7, 'visible', 1),
    'kernel9': (9, 'visible', 1),
}


@pytest.mark.parametrize('name', ABLATIONS)
def test_ablation_is_what_its_name_says(name):
    config, baseline = load(name), load(OURS)
    what = name.split('_')[1].removeprefix('convvit-base-p16-')
    model = build_on_meta(config)
    convs = [block.depthwise_conv for stage in model.backbone.stages[:2] for block in stage.blocks]
    assert len(convs) == 4
    (kernel,) = {conv.kernel_size[0] for conv in convs}
    assert (kernel, model.backbone.conv_mode, model.mask_generator.cells_per_edge) == CHANGES[what]
    assert not model.neck.fusion.projections  # the decoder sees one scale
    assert f'-{config.train_cfg.max_epochs}e_' in name
    # all the rest is as in our pretraining
    for part, changes in dict(backbone=('kernel_size', 'conv_mode'), mask_generator=('cells_per_edge',)).items():
        for key in changes:
            config.model[part].pop(key, None)
    assert config.model.neck.pop('multi_scale') is False
    config.train_cfg.max_epochs = baseline.train_cfg.max_epochs
    assert config.to_dict() == baseline.to_dict()


def test_ablations_are_those_of_the_tables():
    table4 = {ablation('single-scale', epochs) for epochs in (200, 400, 800, 1600)}
    table5 = {ablation(what) for what in CHANGES}
    assert set(ABLATIONS) == table4 | table5


@pytest.mark.parametrize('what', CHANGES)
def test_a_step_of_an_ablation(what):
    config = load(ablation(what))
    config.model.backbone.update(arch='tiny', img_size=64)
    config.model.neck.update(embed_dims=32, depth=1, num_heads=2)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    loss = model.loss(torch.randn(2, 3, 64, 64), None)['loss']
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.fixture(scope='module')
def multiply_adds():
    """What the authors' form of an ablation costs: whole maps in stages 1 and 2, and every patch predicted."""

    def measure(what):
        config = load(ablation(what))
        if config.model.backbone.get('conv_mode', 'visible') == 'visible':
            config.model.backbone.conv_mode = 'masked'
        model = build_on_meta(config)
        images = torch.rand(1, 3, 224, 224, device='meta')
        mask = model.generate_mask(images)
        feats = model.backbone(images, mask)
        # without block-wise masks, stage 3 has every block
        assert feats[2].shape == (1, 196 if what == 'token-mask' else 49, 768)
        return count_multiply_adds(lambda: model.neck(model.backbone(images, mask), mask, all_patches=True))

    return {what: measure(what) for what in CHANGES}


# The printed digits are cut off: no cost of a model rounds to 0.997 for 16 taps less and 1.003 for 24 more.
@pytest.mark.parametrize(
    'what, printed, digits',
    [
        ('single-scale', 1, 3),
        ('token-mask', 1.7, 1),
        ('unmasked-conv', 1, 3),
        ('kernel3', 0.997, 3),
        ('kernel7', 1.003, 3),
        ('kernel9', 1.007, 3),
    ],
)
def test_relative_cost_is_the_papers(multiply_adds, what, printed, digits):
    """Table 5 gives the cost of the whole pretraining model, encoder and decoder."""
    ratio = multiply_adds[what] / multiply_adds['single-scale']
    assert math.floor(ratio * 10**digits) / 10**digits == printed


@pytest.mark.parametrize('name', PRETRAINING)
def test_a_rival_is_pretrained_in_our_pipeline(name):
    config, ours = load(name), load(OURS)
    assert config.train_pipeline[0].type in ('mmconvmae.LoadWholeImage', 'mmconvmae.LoadRandomResizedCrop')
    assert config.train_dataloader.dataset.pipeline == config.train_pipeline
    for key in ('mean', 'std', 'to_rgb'):
        assert config.data_preprocessor[key] == ours.data_preprocessor[key]
    config.train_dataloader.dataset.pop('pipeline')
    ours.train_dataloader.dataset.pop('pipeline')
    assert (
        config.optim_wrapper.pop('clip_grad', None)
        == {
            MAE: None,
            BEIT: dict(max_norm=3.0),
            SIMMIM: dict(max_norm=5.0),
            MASKFEAT: dict(max_norm=0.02),
            DATA2VEC: dict(max_norm=3.0),
        }[name]
    )
    if name == DATA2VEC:  # its own recipe
        assert config.optim_wrapper.optimizer == dict(type='AdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05)
        assert [scheduler.get('end') for scheduler in config.param_scheduler] == [10, None]
        assert config.param_scheduler[1].begin == 10 and config.train_cfg.max_epochs == 800
        for key in ('param_scheduler', 'train_cfg'):
            config[key] = ours[key]
        config.optim_wrapper.optimizer = ours.optim_wrapper.optimizer
    for rest in (config, ours):
        for key in ('model', 'data_preprocessor', 'train_pipeline', 'find_unused_parameters'):
            rest.pop(key, None)
    assert config.to_dict() == ours.to_dict()


def shrink(config):
    """Make a model of a method's config tiny; images stay as large as its pipeline makes them."""
    model = config.model
    backbone = model.backbone
    if 'Swin' in backbone.type:
        backbone.arch = dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 2])
        width = 64
    else:
        backbone.arch = dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48)
        width = 24
    if backbone.get('frozen_stages'):
        backbone.frozen_stages = 2
    match model.type:
        case 'mmconvmae.Data2Vec':
            backbone.out_indices = (0, 1)
            model.head.embed_dims = width
        case 'MAE':
            model.neck.update(embed_dim=width, decoder_embed_dim=24, decoder_depth=1, decoder_num_heads=2)
        case 'BEiT':
            model.head.embed_dims = width
            model.target_generator.update(n_hid=8, init_cfg=None)  # a tokenizer, but not the trained one
        case 'ImageClassifier':
            model.head.in_channels = width
            if 'linear' in config.filename:
                model.neck.input_features = width
        case _:
            model.neck.in_channels = width
    torch.manual_seed(0)
    return MODELS.build(dict(model, data_preprocessor=dict(config.data_preprocessor)))


@pytest.mark.parametrize('name', PRETRAINING + CLASSIFICATION)
def test_a_step_of_a_rival_from_files_to_loss(name, tmp_path):
    config = load(name)
    config.model.backbone.pop('init_cfg', None)
    model = shrink(config).train()
    model.init_weights()
    batch = model.data_preprocessor(batch_from_file(config.train_pipeline, tmp_path), training=True)
    loss = model(**batch, mode='loss')['loss']
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
    trained = {p for p, value in model.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}
    if 'linear' in name:
        assert trained == {'head.fc.weight', 'head.fc.bias'}
    else:
        assert any(p.startswith('backbone.patch_embed') for p in trained)
        assert not any(p.startswith(('target_generator', 'teacher')) for p in trained)


def test_classifiers_are_those_of_the_table():
    """Finetuning of all, and a linear probe of those for which the paper has one."""
    backbones = {'VisionTransformer': 2, 'BEiTViT': 3, 'mmconvmae.ResizableSwinTransformer': 1}
    types = [load(name).model.backbone.type for name in CLASSIFICATION]
    assert {kind: types.count(kind) for kind in types} == backbones


@pytest.mark.parametrize('name', CLASSIFICATION)
def test_a_rival_is_finetuned_and_probed_as_ours(name):
    config, ours = load(name), load(OUR_PROBE if 'linear' in name else OUR_FINETUNING)
    if 'swin' in name:
        assert config.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.9
        assert config.model.pop('neck').type == 'GlobalAveragePooling'
        config.optim_wrapper.paramwise_cfg.layer_decay_rate = 0.65
        config.model.head.in_channels = 768
    if name == FINETUNED_DATA2VEC:  # its own recipe
        assert config.model.backbone.drop_path_rate == 0.2
        assert config.optim_wrapper.optimizer == dict(ours.optim_wrapper.optimizer, lr=4e-3, weight_decay=0.0)
        assert [scheduler.get('end') for scheduler in config.param_scheduler] == [10, None]
        config.model.backbone.drop_path_rate = ours.model.backbone.drop_path_rate
        config.optim_wrapper.optimizer, config.param_scheduler = ours.optim_wrapper.optimizer, ours.param_scheduler
    backbone, our_backbone = config.model.pop('backbone'), ours.model.pop('backbone')
    assert backbone.get('drop_path_rate', 0) == our_backbone.get('drop_path_rate', 0)
    assert config.to_dict() == ours.to_dict()


@pytest.mark.parametrize('name, blocks', [('vit-base-p16', 12), ('beit-base-p16', 12), ('swin-base-w7', 24)])
def test_layer_decay_of_a_rival(name, blocks):
    config = load(f'{name}_8xb128-coslr-100e_in1k')
    groups = optimizer_of(config, build_on_meta(config)).param_groups
    scales = {group['param_name']: group['lr_scale'] for group in groups}
    rate = config.optim_wrapper.paramwise_cfg.layer_decay_rate
    assert scales['head.fc.weight'] == 1
    stem = scales['backbone.patch_embed.projection.weight']
    assert stem == min(scales.values()) == pytest.approx(rate ** (blocks + 1))
    assert {group['weight_decay'] for group in groups if group['params'][0].ndim == 1} == {0}


@pytest.mark.parametrize(
    'name, pretraining',
    [
        ('vit-base-p16_8xb128-coslr-100e_in1k', MAE),
        ('vit-base-p16_8xb128-coslr-100e_in1k', MASKFEAT),
        ('vit-base-p16_8xb512-linear-coslr-90e_in1k', MAE),
        ('beit-base-p16_8xb128-coslr-100e_in1k', BEIT),
        ('beit-base-p16_8xb512-linear-coslr-90e_in1k', BEIT),
        (FINETUNED_DATA2VEC, DATA2VEC),
        ('swin-base-w7_8xb128-coslr-100e_in1k', SIMMIM),
    ],
)
def test_a_classifier_starts_from_a_rivals_checkpoint(name, pretraining, tmp_path):
    source, config = load(pretraining), load(name)
    if pretraining != MASKFEAT:  # that is for an option
        epochs = source.train_cfg.max_epochs
        assert config.model.backbone.init_cfg.checkpoint == f'work_dirs/{pretraining}/epoch_{epochs}.pth'
        assert f'-{epochs}e_' in pretraining
    pretrained = shrink(source)
    for parameter in pretrained.parameters():
        torch.nn.init.normal_(parameter)
    torch.save(dict(state_dict=pretrained.state_dict()), tmp_path / 'pretrained.pth')
    config.model.backbone.init_cfg.checkpoint = str(tmp_path / 'pretrained.pth')
    model = shrink(config).eval()
    model.init_weights()
    given = dict(pretrained.backbone.named_parameters())
    shared = given.get('rel_pos_bias.relative_position_bias_table')  # BEiT's, of which each block gets one
    new = set()
    for key, value in model.backbone.named_parameters():
        source = shared if shared is not None and 'relative_position_bias_table' in key else given.get(key)
        if source is None:
            new.add(key)
        elif value.shape != source.shape:  # SimMIM's windows of 6, made 7
            assert 'relative_position_bias_table' in key and len(source) == 11**2 and len(value) == 13**2
            offsets = source.T.unflatten(1, (11, 11))[None]
            expected = torch.nn.functional.interpolate(offsets, (13, 13), mode='bicubic', align_corners=False)
            torch.testing.assert_close(value, expected[0].flatten(1).T)
        else:
            assert torch.equal(value, source), key
    # the norm after the mean over the image
    averages = config.model.backbone.get('out_type') == 'avg_featmap'
    assert new == ({'ln2.weight', 'ln2.bias'} if averages else set())
    samples = [DataSample().set_gt_label(1) for _ in range(2)]
    assert torch.stack([s.pred_score for s in model.predict(torch.randn(2, 3, 224, 224), samples)]).shape == (2, 1000)
