"""The templates for classes of images and of pixels, copied and changed as people do it."""

import numpy as np
import pytest
import tifffile
import torch
from helpers import ROOT, copy_template, optimizer_of, require
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmconvmae.registry import MODELS
from mmconvmae.runner import ScheduleRunner

RNG = np.random.default_rng(0)
SEGMENT = dict(arch='tiny', image_size=(32, 48), short_edge=32, batch_size=2, max_iters=2, classes=('a', 'b', 'c'))
CLASSIFY = dict(arch='tiny', image_size=(32, 48), batch_size=2, max_epochs=1, classes=('a', 'b'))


def write_image(path, channels=3, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = (RNG.random((44, 60, channels)) * np.iinfo(dtype).max).astype(dtype)
    if path.suffix == '.tif':
        tifffile.imwrite(path, image, photometric='minisblack', planarconfig='contig')
    else:
        Image.fromarray(image.squeeze()).save(path)


def make_segmentation(root, num_classes=3, suffix='.jpg', start=0, **image):
    for part, number in (('training', 4), ('validation', 2)):
        for index in range(number):
            write_image(root / 'images' / part / f'{index}{suffix}', **image)
            path = root / 'annotations' / part / f'{index}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RNG.integers(start, start + num_classes, (44, 60)).astype(np.uint8)).save(path)


def make_classification(root, classes=('a', 'b'), suffix='.jpg', **image):
    for part in ('train', 'val'):
        for name in classes:
            for index in range(2):
                write_image(root / part / name / f'{index}{suffix}', **image)


def run(path, work_dir, **options):
    config = Config.fromfile(path)
    config.merge_from_dict(dict(work_dir=str(work_dir), **options))
    for part in ('train', 'val', 'test'):
        config[f'{part}_dataloader'].num_workers = 0
        config[f'{part}_dataloader'].persistent_workers = False
    config.experiment_name = str(work_dir).replace('/', '_')
    runner = ScheduleRunner.from_cfg(config)
    runner.train()
    assert all(weight.isfinite().all() for weight in runner.model.state_dict().values())
    return runner


def pretrained(path, **backbone):
    model = MODELS.build(
        dict(
            type='mmconvmae.ConvMAE',
            backbone=dict(type='mmconvmae.ConvMAEViT', arch='tiny', img_size=64, **backbone),
            neck=dict(type='mmconvmae.ConvMAEPretrainDecoder', embed_dims=32, depth=1, num_heads=2),
            head=dict(type='mmconvmae.ConvMAEPretrainHead'),
        )
    )
    torch.save(dict(state_dict=model.state_dict()), path)
    return {name: value for name, value in model.backbone.state_dict().items() if 'pos_embed' not in name}


def four_bands(make, root, **others):
    make(root, suffix='.tif', channels=4, dtype=np.uint16, **others)
    return dict(in_channels=4, mean=[32000.0] * 4, std=[19000.0, 18000.0, 17000.0, 16000.0])


def grey(make, root, **others):
    make(root, suffix='.png', channels=1, **others)
    return dict(in_channels=1, mean=[127.0], std=[70.0])


def colours_of_16_and_8_bits(make, root, **others):
    make(root, suffix='.tif', channels=3, dtype=np.uint16, **others)
    return dict(full_scale=255)


def usual(make, root, **others):
    make(root, **others)
    return {}


KINDS = pytest.mark.parametrize('kind', [usual, grey, four_bands, colours_of_16_and_8_bits])


@KINDS
def test_segmentation_from_another_folder(tmp_path, monkeypatch, kind):
    require('mmseg')
    monkeypatch.chdir(tmp_path)
    settings = kind(make_segmentation, tmp_path / 'mine')
    suffix = next((tmp_path / 'mine/images/training').iterdir()).suffix
    path = copy_template(
        'segment', tmp_path / 'my.py', **(SEGMENT | dict(data_root='mine', image_suffix=suffix) | settings)
    )
    runner = run(path, tmp_path / 'work')
    assert runner.iter == 2 and 0 <= runner.message_hub.get_scalar('val/mIoU').current() <= 100
    assert runner.model.backbone.in_channels == settings.get('in_channels', 3)
    assert runner.model.decode_head.num_classes == 3
    # Each channel of the whole training image, by its own mean and deviation.
    config = Config.fromfile(path)
    sample = runner.val_dataloader.dataset[0]
    batch = runner.model.data_preprocessor(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))
    assert batch['inputs'].shape == (1, config.in_channels, 32, 48)
    values = batch['inputs'][..., :32, :43].mean(dim=(0, 2, 3))
    full = 65535 if kind is four_bands else 255
    expected = [(full / 2 - m) / s for m, s in zip(config.mean, config.std)]
    assert values.tolist() == pytest.approx(expected, abs=0.1)


@KINDS
def test_classification_from_another_folder(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    settings = kind(make_classification, tmp_path / 'mine')
    path = copy_template('classify', tmp_path / 'my.py', **(CLASSIFY | dict(data_root='mine') | settings))
    runner = run(path, tmp_path / 'work')
    assert runner.epoch == 1 and 0 <= runner.message_hub.get_scalar('val/accuracy/top1').current() <= 100
    assert runner.model.backbone.in_channels == settings.get('in_channels', 3)
    assert runner.model.head.num_classes == 2
    assert runner.val_dataloader.dataset[0]['inputs'].shape[1:] == (32, 48)


def test_zero_is_no_class(tmp_path):
    require('mmseg')
    make_segmentation(tmp_path / 'mine', start=0, num_classes=3)
    settings = SEGMENT | dict(data_root=str(tmp_path / 'mine'), classes=('a', 'b'), ignore_zero=True)
    runner = run(copy_template('segment', tmp_path / 'my.py', **settings), tmp_path / 'work')
    labels = runner.val_dataloader.dataset[0]['data_samples'].gt_sem_seg.data
    written = np.asarray(Image.open(tmp_path / 'mine/annotations/validation/0.png'))
    assert np.array_equal(labels[0].numpy(), np.array([255, 0, 1])[written])
    assert runner.model.decode_head.num_classes == 2


@pytest.mark.parametrize('classes', [('a', 'b'), tuple('abcdefg')])
def test_all_batch_augmentations_for_any_number_of_classes(tmp_path, classes):
    """The data preprocessor's number of classes, and what is counted as right, follow `classes`."""
    make_classification(tmp_path / 'mine', classes)
    settings = dict(data_root=str(tmp_path / 'mine'), classes=classes, strong_augmentation=True)
    runner = run(copy_template('classify', tmp_path / 'my.py', **(CLASSIFY | settings)), tmp_path / 'work')
    assert runner.model.data_preprocessor.batch_augments is not None
    assert ('val/accuracy/top5' in runner.message_hub.log_scalars) == (len(classes) > 5)


def test_a_list_of_images(tmp_path):
    make_classification(tmp_path / 'mine')
    (tmp_path / 'mine/train.txt').write_text('train/a/0.jpg 1\nval/b/1.jpg 0\n')
    settings = dict(data_root=str(tmp_path / 'mine'), train_list='train.txt', train_images='')
    runner = run(copy_template('classify', tmp_path / 'my.py', **(CLASSIFY | settings)), tmp_path / 'work')
    assert runner.train_dataloader.dataset.get_gt_labels().tolist() == [1, 0]
    assert runner.train_dataloader.dataset.get_data_info(1)['img_path'] == str(tmp_path / 'mine' / 'val/b/1.jpg')


@pytest.mark.parametrize('template', ['segment', 'classify'])
def test_begins_with_a_pretraining_checkpoint(tmp_path, template):
    if template == 'segment':
        require('mmseg')
        make_segmentation(tmp_path / 'mine')
    else:
        make_classification(tmp_path / 'mine')
    weights = pretrained(tmp_path / 'ours.pth')
    settings = SEGMENT if template == 'segment' else CLASSIFY
    settings = settings | dict(data_root=str(tmp_path / 'mine'), checkpoint=str(tmp_path / 'ours.pth'), frozen_stages=3)
    runner = run(copy_template(template, tmp_path / 'my.py', **settings), tmp_path / 'work')
    backbone = runner.model.backbone.state_dict()
    assert all(torch.equal(backbone[name], value) for name, value in weights.items())

    settings.update(frozen_stages=0, layer_decay=0.75)
    config = Config.fromfile(copy_template(template, tmp_path / 'my.py', **settings))
    # The stages before the blocks of stage 3, each of its six blocks, and what follows.
    assert sorted(set(learning_rates(config))) == pytest.approx([config.base_lr * 0.75**n for n in range(7, -1, -1)])
    config = Config.fromfile(copy_template(template, tmp_path / 'my.py', **(settings | dict(checkpoint=None))))
    assert len(set(learning_rates(config))) == 1


def learning_rates(config):
    init_default_scope(config.default_scope)
    model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    return [round(group['lr'], 12) for group in optimizer_of(config, model).param_groups]


@pytest.mark.parametrize(('checkpoint', 'rate'), [('pretrained.pth', 1e-3), (None, 3e-4)])
def test_random_weights_learn_at_a_lower_rate(tmp_path, checkpoint, rate):
    """At 1e-3 their loss rises again."""
    config = Config.fromfile(copy_template('classify', tmp_path / 'my.py', **(CLASSIFY | dict(checkpoint=checkpoint))))
    assert max(learning_rates(config)) == pytest.approx(rate)


@pytest.mark.parametrize('template', ['segment', 'classify'])
def test_checkpoint_of_another_number_of_channels(tmp_path, template):
    if template == 'segment':
        require('mmseg')
        make_segmentation(tmp_path / 'mine')
    else:
        make_classification(tmp_path / 'mine')
    pretrained(tmp_path / 'ours.pth', in_channels=4)
    settings = SEGMENT if template == 'segment' else CLASSIFY
    settings = settings | dict(data_root=str(tmp_path / 'mine'), checkpoint=str(tmp_path / 'ours.pth'))
    with pytest.raises(ValueError, match=r'patch_embed.projection.weight is \(48, 4, 4, 4\) in it and \(48, 3, 4, 4\)'):
        run(copy_template(template, tmp_path / 'my.py', **settings), tmp_path / 'work')


@pytest.mark.parametrize('template', ['segment', 'classify'])
def test_a_fault_stops_the_run_before_training(tmp_path, template):
    if template == 'segment':
        require('mmseg')
        make_segmentation(tmp_path / 'mine', num_classes=4)
        message = '4 of 4 train masks have numbers that are no class'
    else:
        make_classification(tmp_path / 'mine', ('a', 'b', 'c'))
        message = "`classes` has no 'c'"
    settings = dict(SEGMENT if template == 'segment' else CLASSIFY, data_root=str(tmp_path / 'mine'))
    path = copy_template(template, tmp_path / 'my.py', **settings)
    with pytest.raises(ValueError, match=message):
        run(path, tmp_path / 'work')
    assert not list((tmp_path / 'work').glob('*.pth'))
    with pytest.raises(ValueError, match='batch_size was set to 3 from outside'):
        run(path, tmp_path / 'work', batch_size=3)


def test_inferencers_take_the_templates(tmp_path):
    require('mmseg')
    from mmpretrain import ImageClassificationInferencer
    from mmseg.apis import MMSegInferencer

    make_classification(tmp_path / 'mine')
    image = str(tmp_path / 'mine/val/a/0.jpg')
    path = copy_template('classify', tmp_path / 'classify.py', **(CLASSIFY | dict(data_root=str(tmp_path / 'mine'))))
    run(path, tmp_path / 'classify')
    inferencer = ImageClassificationInferencer(
        str(path), pretrained=str(tmp_path / 'classify/epoch_1.pth'), device='cpu'
    )
    assert inferencer(image)[0]['pred_class'] in ('a', 'b')

    make_segmentation(tmp_path / 'masks')
    path = copy_template('segment', tmp_path / 'segment.py', **(SEGMENT | dict(data_root=str(tmp_path / 'masks'))))
    run(path, tmp_path / 'segment')
    inferencer = MMSegInferencer(str(path), weights=str(tmp_path / 'segment/iter_2.pth'), device='cpu')
    result = inferencer(image, out_dir=str(tmp_path / 'out'), show=False)
    assert result['predictions'].shape == (44, 60) and result['predictions'].max() <= 2
    assert (tmp_path / 'out/vis/0.jpg').exists()


@pytest.mark.parametrize(('template', 'lines'), [('segment', 29), ('classify', 25)])
def test_opens_with_what_one_changes(template, lines):
    if template == 'segment':
        require('mmseg')  # of which its base is
    screen = (ROOT / 'configs' / 'own_images' / f'{template}.py').read_text().splitlines()
    rule = next(number for number, line in enumerate(screen) if line.startswith('# -----'))
    assert rule <= lines
    settings = Config.fromfile(ROOT / 'configs' / 'own_images' / f'{template}.py').settings
    names = [line.split(' = ')[0] for line in screen[:rule] if ' = ' in line and not line.startswith('#')]
    assert names == list(settings)
