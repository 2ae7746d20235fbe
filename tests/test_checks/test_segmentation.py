"""Faults of masks and of what a config makes of them: each one sentence before anything is trained."""

from unittest.mock import Mock

import numpy as np
import pytest
from helpers import copy_template, require
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from PIL import Image

from mmconvmae.registry import CHECKS

require('mmseg')
CLASSES = ('ground', 'tree', 'house')


def write(root, part, name, mask=None, size=(48, 32), mode=None):
    """An image, and a mask of the numbers 0, 1 and 2 or another."""
    for folder in (root / 'images' / part, root / 'annotations' / part):
        folder.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 80).convert('RGB').save(root / 'images' / part / f'{name}.jpg')
    if mask is None:
        mask = np.arange(size[0] * size[1]).reshape(size[::-1]) % 3
    if isinstance(mask, np.ndarray):
        mask = Image.fromarray(mask.astype(np.uint8))
    path = root / 'annotations' / part / f'{name}.png'
    mask.save(path)
    return path


@pytest.fixture
def root(tmp_path):
    for part in ('training', 'validation'):
        for name in 'ab':
            write(tmp_path / 'data', part, name)
    return tmp_path / 'data'


@pytest.fixture
def make(root, tmp_path):
    init_default_scope('mmseg')

    def make(**settings):
        settings = (
            dict(data_root=str(root), classes=CLASSES, arch='tiny', image_size=(32, 48), short_edge=32) | settings
        )
        return Config.fromfile(copy_template('segment', tmp_path / 'my_segment.py', **settings))

    return make


def faults_of(config, parts=('train', 'val'), **check):
    logger = Mock(MMLogger)
    faults = CHECKS.build(dict(config.checks[0], **check))(config, parts, logger)
    said = [call.args[0] for call in (*logger.info.call_args_list, *logger.warning.call_args_list)]
    return faults, '\n'.join(said)


def only(faults):
    (fault,) = faults
    assert fault.endswith('.') and '\n' not in fault
    return fault


def test_good_data_have_no_faults(make):
    faults, said = faults_of(make())
    assert faults == []
    assert 'Reading 2 of 2 masks of the train data' in said
    assert 'train masks, pixels that count: ground 33.33%, tree 33.33%, house 33.33%; 0 of 3,072 do not count' in said


def test_palette_and_one_bit_are_numbers(root, make):
    palette = Image.fromarray((np.arange(32 * 48).reshape(32, 48) % 3).astype(np.uint8))
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    assert palette.mode == 'P'
    write(root, 'training', 'a', palette)
    write(root, 'training', 'b', Image.fromarray(np.eye(32, 48) > 0))
    faults, said = faults_of(make())
    assert faults == [] and 'Classes without' not in said


def test_numbers_beyond_the_classes(root, make):
    mask = np.ones((32, 48))
    mask[3, 4], mask[5, 6] = 27, 3
    path = write(root, 'validation', 'b', mask)
    fault = only(faults_of(make())[0])
    assert (
        f'1 of 2 val masks have numbers that are no class, such as 3, 27 in {path}: the 3 classes are 0 to 2' in fault
    )
    fault = only(faults_of(make(ignore_zero=True))[0])
    assert '27' in fault and 'the 3 classes are 1 to 3' in fault


def test_number_of_16_bits_that_8_would_wrap(root, make):
    path = write(root, 'training', 'a', Image.fromarray(np.full((32, 48), 256, np.uint16)))
    assert f'such as 256 in {path}' in only(faults_of(make())[0])


def test_zero_that_is_no_class_is_suggested(root, make):
    for name in 'ab':
        for part in ('training', 'validation'):
            write(root, part, name, np.arange(32 * 48).reshape(32, 48) % 4)
    faults = faults_of(make())[0]
    assert len(faults) == 2 and all('or set `reduce_zero_label` (`ignore_zero` in the template)' in x for x in faults)
    assert faults_of(make(ignore_zero=True))[0] == []


def test_masks_of_another_size(root, make):
    path = write(root, 'training', 'b', np.zeros((32, 47)))
    fault = only(faults_of(make())[0])
    assert f'1 of 2 train masks have another size than their image ({path} has 47 x 32 pixels and ' in fault
    assert f'{root}/images/training/b.jpg 48 x 32)' in fault


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'LA', 'F'])
def test_masks_in_colours(root, make, mode):
    image = Image.new(mode, (48, 32))
    if mode == 'F':
        image.save(root / 'annotations/training/a.tiff')
        (root / 'annotations/training/a.tiff').rename(root / 'annotations/training/a.png')
    else:
        write(root, 'training', 'a', image)
    fault = only(faults_of(make())[0])
    assert '1 of 2 train masks are no numbers of classes, such as' in fault and f'(mode {mode} of Pillow)' in fault


def test_damaged_mask_and_image(root, make):
    path = root / 'annotations/training/a.png'
    path.write_bytes(path.read_bytes()[:60])
    image = root / 'images/validation/a.jpg'
    image.write_bytes(b'')
    first, second = faults_of(make())[0]
    assert f'The mask {path} is unreadable or truncated' in first and f'The image {image} is unreadable' in second


def test_images_without_masks_and_masks_without_images(root, make):
    (root / 'annotations/training/a.png').unlink()
    (root / 'images/training/b.jpg').unlink()
    write(root, 'training', 'c')
    no_mask, no_image = faults_of(make())[0]
    assert no_mask.startswith(f'1 train images have no mask, and there should be {root}/annotations/training/a.png;')
    assert no_image.startswith(f'1 train masks have no image, and there should be {root}/images/training/b.jpg;')


def test_a_list_takes_some(root, make):
    write(root, 'training', 'c')
    (root / 'annotations/training/c.png').unlink()
    (root / 'list.txt').write_text('a\nb\n')
    config = make()
    config.train_dataloader.dataset.ann_file = 'list.txt'
    assert faults_of(config)[0] == []
    (root / 'list.txt').write_text('a\nx\n')
    assert '1 of 2 train images of the list' in only(faults_of(config)[0]) and "'x.jpg'" in only(faults_of(config)[0])
    config.train_dataloader.dataset.ann_file = 'nowhere.txt'
    assert f'There is no list {root}/nowhere.txt' in only(faults_of(config)[0])


def test_folders_that_are_not_there(make):
    fault = only(faults_of(make(train_masks='masks'))[0])
    assert 'masks of the train masks; correct `data_root` or `data_prefix`' in fault


def test_other_suffixes(root, make):
    for path in (root / 'images/training').iterdir():
        path.rename(path.with_suffix('.jpeg'))
    faults, said = faults_of(make())
    assert 'No train image in' in only(faults) and 'correct `img_suffix` (`image_suffix` in the template)' in only(
        faults
    )
    assert '2 files in' in said and '.jpeg: 2' in said
    (root / 'images/training/notes.txt').write_text('')
    faults, said = faults_of(make(image_suffix='.jpeg'), ('train',))
    assert faults == [] and '.txt: 1' in said


def test_all_pixels_ignored(root, make):
    write(root, 'training', 'a', np.full((32, 48), 255))
    faults, said = faults_of(make())
    assert faults == [] and f'No pixel counts in 1 of 2 train masks, such as {root}/annotations/training/a.png' in said
    write(root, 'training', 'b', np.full((32, 48), 255))
    assert 'No pixel of the train masks counts: they have 255 alone' in only(faults_of(make())[0])
    for name in 'ab':
        write(root, 'training', name, np.zeros((32, 48)))
    config = make(ignore_zero=True)
    assert 'they have 0 alone, which `reduce_zero_label` and 255 leave out' in only(faults_of(config)[0])


def test_foreground_written_as_255(root, make):
    for part in ('training', 'validation'):
        for name in 'ab':
            write(root, part, name, (np.arange(32 * 48).reshape(32, 48) % 2) * 255)
    fault = only(faults_of(make(classes=('background', 'cell')))[0])
    assert "All pixels of the train masks that count are 'background'" in fault
    assert '255 in a mask is no class: write 1 for the second' in fault


def test_class_that_never_occurs(make):
    faults, said = faults_of(make(classes=(*CLASSES, 'river')))
    assert faults == [] and 'Classes without a pixel in 2 train masks: river' in said


def test_one_class_with_cross_entropy(root, make):
    for part in ('training', 'validation'):
        for name in 'ab':
            write(root, part, name, np.zeros((32, 48)))
    config = make(classes=('cell',))
    fault = only(faults_of(config)[0])
    assert '`model.decode_head` has one output with cross-entropy over the classes, whose loss is 0' in fault
    assert 'name two classes' in fault and '`use_sigmoid=True`' in fault
    config.model.decode_head.loss_decode.use_sigmoid = True
    assert faults_of(config)[0] == []
    config.model.auxiliary_head = [dict(num_classes=1)]
    assert '`model.auxiliary_head[0]` has one output' in only(faults_of(config)[0])


def test_classes_as_text(make):
    config = make(classes='cell')
    config.model.decode_head.num_classes = 1
    config.model.decode_head.loss_decode.use_sigmoid = True
    assert "write ('cell',) with its comma" in only(faults_of(config)[0])


def test_heads_of_another_number_of_classes(make):
    config = make()
    config.model.decode_head.num_classes = 150
    assert '`model.decode_head.num_classes` is 150, and `classes` has 3' in only(faults_of(config)[0])
    config = make()
    config.model.auxiliary_head = dict(num_classes=19)
    assert '`model.auxiliary_head.num_classes` is 19' in only(faults_of(config)[0])


def test_settings_of_zero_that_disagree(make):
    config = make(ignore_zero=True)
    (step,) = [step for step in config.train_dataloader.dataset.pipeline if step.type == 'LoadAnnotations']
    step.reduce_zero_label = False
    fault = only([x for x in faults_of(config)[0] if 'LoadAnnotations' in x])
    assert '`reduce_zero_label` of the train data set is True and of its `LoadAnnotations` False' in fault
    config = make(ignore_zero=True)
    config.val_dataloader.dataset.reduce_zero_label = False
    fault = only([x for x in faults_of(config)[0] if '`reduce_zero_label` of the train' in x])
    assert 'is True and of the val data set False' in fault
    config = make(ignore_zero=True)
    config.model.decode_head.ignore_index = 0
    assert any('`model.decode_head.ignore_index` is 0' in x for x in faults_of(config)[0])


def test_classes_of_training_and_validation_differ(make):
    config = make()
    config.val_dataloader.dataset.metainfo.classes = CLASSES[::-1]
    assert '`classes` of the train data set is' in only(faults_of(config)[0])


@pytest.mark.parametrize('part', ['train', 'val'])
def test_sizes_that_the_stride_does_not_divide(make, part):
    config = make(short_edge=30)
    assert faults_of(config)[0] == []  # padded to the crop
    if part == 'train':
        config.model.data_preprocessor.size = (40, 56)
        message = r'set `size` of `model.data_preprocessor` and the size of crops to multiples of 16'
    else:
        config.model.data_preprocessor.test_cfg = None
        message = 'set `size` of `model.data_preprocessor.test_cfg` to the `crop_size` of `model.test_cfg`'
    fault = only(faults_of(config)[0])
    assert f'The {part} image' in fault and 'its stride of 16 does not divide' in fault and message in fault


def test_whole_inference_needs_size_divisor(make):
    config = make(short_edge=30)
    config.model.test_cfg = dict(mode='whole')
    config.model.data_preprocessor.test_cfg = None
    fault = only(faults_of(config)[0])
    assert '30 x 45 pixels' in fault and 'set `size_divisor` of `model.data_preprocessor.test_cfg` to a mul' in fault
    config.model.data_preprocessor.test_cfg = dict(size_divisor=16)
    assert faults_of(config)[0] == []
    config.model.backbone.patch_sizes = (4, 2, 4)
    assert 'its stride of 32' in ' '.join(faults_of(config)[0])


def test_16_bits_that_the_inferencers_loader_cuts(root, make):
    import cv2

    for name in 'ab':
        cv2.imwrite(str(root / f'images/validation/{name}.png'), np.full((32, 48, 3), 30000, np.uint16))
        (root / f'images/validation/{name}.png').rename(root / f'images/validation/{name}.jpg')
    assert 'The val data have images of type uint16, which `LoadImageFromFile`' in only(faults_of(make())[0])
    assert faults_of(make(full_scale=255))[0] == []


def test_reads_so_many_masks_at_even_distances(root, make):
    for index in range(20):
        write(root, 'training', f'c{index:02}', np.full((32, 48), 100 + index))
    fault = only(faults_of(make(), ('train',), max_opened=6)[0])
    assert '5 of 6 train masks' in fault or '4 of 6 train masks' in fault
    assert '20 of 22 train masks' in only(faults_of(make(), ('train',), max_opened=None)[0])
    faults, said = faults_of(make(), ('train',), max_opened=0)
    assert faults == [] and 'Reading 0 of 22 masks' in said


def test_progress_of_long_checks(root, make, monkeypatch):
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr('mmconvmae.checks.files.monotonic', lambda: next(clock))
    for index in range(4):
        write(root, 'training', f'c{index}')
    assert '1 of 6, 60 seconds to go' in faults_of(make(), ('train',))[1]


def test_other_kinds_of_data_sets(root, make):
    """ADE20K's own have classes and suffixes of their own; those within others are found."""
    config = make()
    data_set = dict(config.train_dataloader.dataset, type='ADE20KDataset', metainfo=dict(classes=('building', 'wall')))
    for key in ('reduce_zero_label', 'img_suffix', 'seg_map_suffix'):
        del data_set[key]
    config.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=data_set)
    config.model.decode_head.num_classes = 2
    faults, said = faults_of(config, ('train',))
    assert faults == []
    # 0 is no class in ADE20K, 1 is its wall and 2 its building.
    assert 'pixels that count: building 50.00%, wall 50.00%; 1,024 of 3,072 do not count' in said
