"""Files that the tool writes, run on images that it has not seen, against the libraries' own models and pipelines."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import import_script, needs_torch, require, run_main, write_config
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from mmconvmae.apis import export
from mmconvmae.checkpoint import write_checkpoint

onnx, onnxruntime, _ = map(pytest.importorskip, ('onnx', 'onnxruntime', 'onnxscript'))

pytestmark = [
    needs_torch(export.OLDEST_TORCH, 'export needs a newer PyTorch'),
    pytest.mark.filterwarnings('ignore'),  # the exporters'
]

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
MAPS = dict(out_type='featmap', out_indices=(0, 1, 2, 3))
FORMS = dict(
    maps=dict(out_type='featmap', out_indices=(0, 1, 2)),
    per_block=dict(
        rel_pos='per_block',
        layer_scale_init_value=1.0,
        fourth_level='conv',
        fourth_level_norm_cfg=dict(type='BN'),
        **MAPS,
    ),
    decomposed=dict(rel_pos='decomposed', out_type='featmap'),
    shared_in_windows=dict(rel_pos='shared', fourth_level='max_pool', window_size=3, global_attn_indexes=(1,), **MAPS),
)


@pytest.fixture(scope='module')
def tool():
    return import_script('tools/deployment/export.py')


@pytest.fixture
def make(small_arch, build, tmp_path):
    """Writes the config and the checkpoint of a model, and gives the model and both paths."""
    small_arch['depths'] = (1, 1, 2)

    def make(kind):
        of_backbone = dict(type='mmconvmae.ConvViT', arch=small_arch, img_size=64, **FORMS.get(kind, {}))
        config = dict(custom_imports=dict(imports=['mmconvmae']), default_scope='mmpretrain', model=of_backbone)
        if kind == 'classifier':
            head = dict(type='LinearClsHead', num_classes=5, in_channels=32)
            config['model'] = dict(type='ImageClassifier', backbone=of_backbone, head=head)
            config['data_preprocessor'] = dict(type='ClsDataPreprocessor', mean=MEAN, std=STD, to_rgb=True)
        elif kind == 'segmentor':
            require('mmseg')
            config['default_scope'] = 'mmseg'
            config['model'] = dict(
                type='EncoderDecoder',
                # Blue first, as no model of ours wants it.
                data_preprocessor=dict(type='SegDataPreProcessor', mean=MEAN[::-1], std=STD[::-1], bgr_to_rgb=False),
                backbone=dict(of_backbone, fourth_level='max_pool', **MAPS),
                decode_head=dict(
                    type='SegformerHead',
                    in_channels=[16, 24, 32, 32],
                    in_index=[0, 1, 2, 3],
                    channels=8,
                    num_classes=4,
                    norm_cfg=dict(type='BN'),
                    align_corners=False,
                ),
                train_cfg=dict(),
                test_cfg=dict(mode='whole'),
            )
        elif kind == 'detector':
            require('mmdet')
            config['default_scope'] = 'mmdet'
            config['model'] = dict(
                type='RetinaNet',
                data_preprocessor=dict(
                    type='DetDataPreprocessor', mean=MEAN, std=STD, bgr_to_rgb=True, pad_size_divisor=32
                ),
                backbone=dict(of_backbone, fourth_level='max_pool', **MAPS),
                neck=dict(type='FPN', in_channels=[16, 24, 32, 32], out_channels=8, num_outs=5),
                bbox_head=dict(type='RetinaHead', num_classes=3, in_channels=8, feat_channels=8),
            )
        path = write_config(tmp_path / f'{kind}.py', Config(config).pretty_text)
        init_default_scope(config['default_scope'])
        settings = Config(config).model
        if 'data_preprocessor' in config:
            settings['data_preprocessor'] = config['data_preprocessor']
        model = build(settings).eval()
        write_checkpoint(dict(state_dict=model.state_dict()), tmp_path / f'{kind}.pth')
        return model, path, tmp_path / f'{kind}.pth'

    return make


def run_onnx(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return [torch.from_numpy(x) for x in session.run(None, {session.get_inputs()[0].name: images.numpy()})]


def run_torch(path, images):
    return torch.export.load(path).module()(images)


def assert_same(outputs, expected):
    assert len(outputs) == len(expected)
    for out, x in zip(outputs, expected):
        torch.testing.assert_close(out, x, rtol=1e-4, atol=1e-4)


def scores(model, images):
    """What a classifier's logits become, by mmpretrain's own way."""
    batch = model.data_preprocessor(dict(inputs=images.flip(1), data_samples=None))
    with torch.no_grad():
        samples = model(batch['inputs'], mode='predict')
    return torch.stack([sample.pred_score for sample in samples])


@pytest.mark.parametrize(('format', 'run'), [('onnx', run_onnx), ('torch-export', run_torch)])
def test_classifier_with_its_preprocessing(tool, make, tmp_path, monkeypatch, capsys, format, run):
    model, config, checkpoint = make('classifier')
    out = tmp_path / 'new' / 'classifier.pt2'
    assert run_main(tool, monkeypatch, config, checkpoint, out, '--dynamic', '--format', format) is None
    printed = capsys.readouterr().out
    assert (
        'ImageClassifier, whole: any number of images of any size from 80 on that 16 divides, uint8, red first'
        in printed
    )
    assert '3 x 3 x 96 x 112: largest difference ' in printed
    assert f'{out}: {out.stat().st_size / 2**20:.2f} MiB' in printed
    for shape in ((4, 3, 80, 80), (2, 3, 96, 144)):
        images = torch.randint(256, shape, dtype=torch.uint8)
        (logits,) = run(out, images)
        torch.testing.assert_close(logits.softmax(1), scores(model, images), rtol=1e-4, atol=1e-5)
    assert [path.name for path in out.parent.iterdir()] == ['classifier.pt2']


@pytest.mark.parametrize('form', FORMS)
def test_forms_of_the_backbone(tool, make, tmp_path, monkeypatch, capsys, form):
    model, config, checkpoint = make(form)
    dynamic = ('--dynamic',) if form == 'per_block' else ()  # which takes several times as long
    out = tmp_path / 'backbone.onnx'
    assert run_main(tool, monkeypatch, config, checkpoint, out, *dynamic) is None
    assert 'ConvViT, backbone: ' in capsys.readouterr().out
    images = torch.randn(4, 3, *((96, 112) if dynamic else (64, 64)))
    with torch.no_grad():
        assert_same(run_onnx(out, images), model(images))


def test_segmentor_gives_logits_of_the_images_size(tool, make, tmp_path, monkeypatch):
    model, config, checkpoint = make('segmentor')
    out = tmp_path / 'segmentor.onnx'
    assert run_main(tool, monkeypatch, config, checkpoint, out, '--size', 64, 96) is None
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        samples = model.test_step(dict(inputs=[image.flip(0) for image in images]))
    (logits,) = run_onnx(out, images)
    assert_same(logits, [sample.seg_logits.data for sample in samples])


def test_detector_up_to_its_neck(tool, make, tmp_path, monkeypatch, capsys):
    model, config, checkpoint = make('detector')
    out = tmp_path / 'detector.onnx'
    assert run_main(tool, monkeypatch, config, checkpoint, out, '--size', 64, 96) is None
    assert 'RetinaNet, neck: any number of images of 64 x 96, uint8' in capsys.readouterr().out
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        batch = model.data_preprocessor(dict(inputs=[image.flip(0) for image in images], data_samples=None))
        assert_same(run_onnx(out, images), model.extract_feat(batch['inputs']))


def test_backbone_of_a_classifier_with_a_checkpoint_of_pretraining(
    tool, make, small_config, build, tmp_path, monkeypatch
):
    """Which has no head, and none is needed."""
    _, config, _ = make('classifier')
    small_config['backbone']['arch'] = Config.fromfile(config).model.backbone.arch
    pretrained = build(small_config).eval()
    write_checkpoint(dict(state_dict=pretrained.state_dict()), tmp_path / 'pretrained.safetensors')
    command = (config, tmp_path / 'pretrained.safetensors', tmp_path / 'out.pt2', '--format', 'torch-export')
    error = run_main(tool, monkeypatch, *command)
    assert 'does not fit' in error and 'head.fc.weight is missing' in error and '\n' not in error
    options = ('--part', 'backbone', '--cfg-options', 'model.backbone.out_type=featmap')
    assert run_main(tool, monkeypatch, *command, *options) is None
    images = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8)
    normalised = (images.float() - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)
    backbone = MODELS.build(dict(Config.fromfile(config).model.backbone, out_type='featmap')).eval()
    backbone.load_state_dict(pretrained.backbone.state_dict(), strict=False)
    with torch.no_grad():
        assert_same(run_torch(tmp_path / 'out.pt2', images), backbone(normalised))


@pytest.mark.parametrize('calibrated', [False, True])
def test_int8(tool, make, tmp_path, monkeypatch, capsys, calibrated):
    model, config, checkpoint = make('classifier')
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (70 + 9 * i, 80, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.png')
    out = tmp_path / 'int8.onnx'
    # The random images of the comparison reach beyond the ranges of these.
    options = ('--calibration', folder, '--tolerance', 0.5) if calibrated else ()
    assert run_main(tool, monkeypatch, config, checkpoint, out, '--int8', *options) is None
    assert ('those of 3 images' in capsys.readouterr().out) == calibrated
    types = {x.data_type for x in onnx.load(out).graph.initializer if len(x.dims) == 2 and min(x.dims) > 4}
    assert types == {onnx.TensorProto.INT8}  # every matrix
    images = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8)
    (logits,) = run_onnx(out, images)
    error = (logits.softmax(1) - scores(model, images)).abs().max()
    assert 1e-6 < error < (0.3 if calibrated else 0.1)


def test_accuracy_on_the_test_images(tool, make, tmp_path, monkeypatch, capsys):
    """Of labels that are the classifier's own answers, but for one."""
    model, config, checkpoint = make('classifier')
    lines = []
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{i}.png')
        (answer,) = scores(model, torch.from_numpy(pixels).permute(2, 0, 1)[None]).argmax(1).tolist()
        lines.append(f'{i}.png {answer if i else (answer + 1) % 5}')
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    text = config.read_text()
    data = f"""
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset',
        data_root={str(tmp_path)!r},
        ann_file='list.txt',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    ),
)
"""
    config.write_text(text + data)
    assert run_main(tool, monkeypatch, config, checkpoint, tmp_path / 'out.onnx', '--evaluate') is None
    printed = capsys.readouterr().out
    assert 'Of 5 test images the model classifies 4 rightly (80.00%), the graph 4 (80.00%).' in printed
    config.write_text(text)
    error = run_main(tool, monkeypatch, config, checkpoint, tmp_path / 'other.onnx', '--evaluate')
    assert '--evaluate is for the whole of a classifier whose config has a `test_dataloader`.' in error
    assert not list(tmp_path.glob('*other*'))


@pytest.mark.parametrize(
    ('kind', 'options', 'message'),
    [
        ('classifier', ('--size', 60, 64), 'The size is 60 x 64, which the total stride of 16 does not divide; give'),
        ('shared_in_windows', ('--dynamic',), 'Attention in windows of 3 tokens has as many windows as the size makes'),
        ('classifier', ('--int8', '--format', 'torch-export'), '--int8 is by ONNX Runtime'),
        ('classifier', ('--calibration', '.'), '--calibration is for --int8'),
        ('classifier', ('--int8', '--calibration', 'missing'), 'missing'),
        ('maps', ('--int8', '--calibration', '.'), 'The config does not say how images are normalised'),
        ('maps', ('--part', 'whole'), 'ConvViT is no classifier and no segmentor'),
        ('maps', ('--part', 'neck'), "ConvViT has no neck of use without a mask; choose 'backbone'."),
        ('classifier', ('--tolerance', 0), 'The graph differs from the model by '),
        ('classifier', ('--cfg-options', 'model.backbone.arch=tiny'), 'The checkpoint is of another architecture'),
        ('classifier', ('--cfg-options', 'model.head.num_classes=7'), 'does not fit'),
        ('classifier', ('--cfg-options', 'model.type=Nothing'), 'has no model that can be built (KeyError: '),
        (
            'classifier',
            ('--cfg-options', 'model.backbone.rel_pos=per_block'),
            'attn.rel_pos.weight is missing; ',
        ),
    ],
)
def test_faults_are_told_in_one_line(tool, make, tmp_path, monkeypatch, kind, options, message):
    monkeypatch.chdir(tmp_path)
    _, config, checkpoint = make(kind)
    error = run_main(tool, monkeypatch, config, checkpoint, 'new/out.onnx', *options)
    assert error.startswith('Error: nothing was exported: ') and message in error and '\n' not in error
    assert not list(tmp_path.glob('new/*')) and not list(tmp_path.glob('new/.*'))


def test_files_that_are_of_no_use(tool, make, tmp_path, monkeypatch):
    _, config, checkpoint = make('classifier')
    foreign = write_config(
        tmp_path / 'foreign.py',
        """
        default_scope = 'mmpretrain'
        model = dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet', depth=18),
            head=dict(type='LinearClsHead', num_classes=5, in_channels=512),
        )
        """,
    )
    no_model = write_config(tmp_path / 'no_model.py', 'a = 1')
    broken = write_config(tmp_path / 'broken.py', 'model = dict(')
    damaged = tmp_path / 'damaged.pth'
    damaged.write_bytes(checkpoint.read_bytes()[:1000])
    for config_path, checkpoint_path, message in (
        (foreign, checkpoint, 'ImageClassifier has no ConvViT for images as its backbone'),
        (no_model, checkpoint, 'has no `model`; give the config'),
        (broken, checkpoint, 'cannot be read as a config (SyntaxError: '),
        (tmp_path / 'missing.py', checkpoint, 'missing.py'),
        (config, tmp_path / 'missing.pth', 'missing.pth'),
        (config, damaged, 'damaged.pth is truncated or not a PyTorch checkpoint'),
    ):
        error = run_main(tool, monkeypatch, config_path, checkpoint_path, tmp_path / 'out.onnx')
        assert error.startswith('Error: nothing was exported: ') and message in error and '\n' not in error
        assert not list(tmp_path.glob('*out.onnx*'))


@pytest.mark.parametrize('library', ['onnxscript', 'onnxruntime'])
def test_libraries_that_are_missing(tool, make, tmp_path, monkeypatch, library):
    _, config, checkpoint = make('maps')
    monkeypatch.setitem(sys.modules, library, None)
    error = run_main(tool, monkeypatch, config, checkpoint, tmp_path / 'out.onnx')
    assert f'{library} is not installed; pip install -r requirements/deployment.txt' in error and '\n' not in error
    assert not list(tmp_path.glob('*out.onnx*'))


def test_old_pytorch(tool, make, tmp_path, monkeypatch):
    _, config, checkpoint = make('maps')
    monkeypatch.setattr(torch, '__version__', '2.1.2')
    error = run_main(tool, monkeypatch, config, checkpoint, tmp_path / 'out.onnx')
    assert error == 'Error: nothing was exported: Exporting needs PyTorch 2.6 or later, and 2.1.2 is installed.'


def test_a_graph_that_gives_something_else(make):
    model, *_ = make('maps')
    part = export.ExportedPart(model)
    images = part.random_images(2, (64, 64), seed=0)
    with torch.no_grad():
        expected = part(images)
    assert export.compare(part, part, images) == (0, 0)
    difference, share = export.compare(part, lambda images: [x + 1 for x in part(images)], images)
    assert difference == pytest.approx(1, rel=1e-4)
    assert share == pytest.approx(1 / min(x.abs().max().item() for x in expected), rel=1e-4)
    broken = export.compare(part, lambda images: [x * torch.nan for x in part(images)], images)
    assert all(value != value for value in broken)
    with pytest.raises(ValueError, match='gives other shapes for images of 2 x 3 x 64 x 64'):
        export.compare(part, lambda images: [F.avg_pool2d(x, 2) for x in part(images)], images)
