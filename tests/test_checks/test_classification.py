"""Faults of labelled images and of what a config makes of them: each one sentence before anything is trained."""

import shutil
from unittest.mock import Mock

import numpy as np
import pytest
from helpers import copy_template
from mmengine.config import Config
from mmengine.logging import MMLogger
from PIL import Image

from mmconvmae.registry import CHECKS

CLASSES = ('cat', 'dog', 'owl')


def write(path, size=(48, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 80).convert('RGB').save(path)


@pytest.fixture
def root(tmp_path):
    for part in ('train', 'val'):
        for name in CLASSES:
            for index in range(2):
                write(tmp_path / 'data' / part / name / f'{index}.jpg')
    return tmp_path / 'data'


@pytest.fixture
def make(root, tmp_path):
    def make(**settings):
        settings = dict(data_root=str(root), classes=CLASSES, arch='tiny', image_size=(32, 48)) | settings
        return Config.fromfile(copy_template('classify', tmp_path / 'my_classify.py', **settings))

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
    assert faults == [] and 'train images: cat 2, dog 2, owl 2.' in said


def test_two_classes_are_one_setting(root, make):
    for part in ('train', 'val'):
        shutil.rmtree(root / part / 'owl')
    assert faults_of(make(classes=('cat', 'dog')))[0] == []


def test_other_number_of_classes_in_head_and_data_preprocessor(make):
    config = make()
    config.model.head.num_classes = 2
    config.data_preprocessor.num_classes = 1000
    head, preprocessor = faults_of(config)[0]
    assert '`model.head.num_classes` is 2, and `classes` has 3' in head
    assert '`data_preprocessor.num_classes` is 1000' in preprocessor
    config = make()
    config.model.data_preprocessor = dict(num_classes=1000)
    assert '`model.data_preprocessor.num_classes` is 1000' in only(faults_of(config)[0])


def test_more_of_the_best_than_classes(make):
    config = make()
    config.val_evaluator = dict(type='Accuracy', topk=(1, 5))
    assert '`topk` of `val_evaluator` is (1, 5), and there are 3 classes' in only(faults_of(config)[0])
    config = make()
    config.model.head.update(topk=5, cal_acc=True)
    assert '`topk` of `model.head` is 5' in only(faults_of(config)[0])


def test_one_class(root, make):
    for part in ('train', 'val'):
        shutil.rmtree(root / part / 'owl')
        shutil.rmtree(root / part / 'dog')
    first, _ = faults_of(make(classes=('cat',)))[0]
    assert 'The train data have 1 class, whose loss is 0' in first
    assert "write ('cat',) with its comma" in only(faults_of(make(classes='cat'))[0])


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (('cat', 'dog'), "`classes` has no 'owl'; make both the same"),
        ((*CLASSES, 'bat'), "there is no folder 'bat' (did you mean"),
        (('cat', 'dgo', 'owl'), "there is no folder 'dgo' (did you mean 'dog'?) and `classes` has no 'dog'"),
        (
            ('dog', 'cat', 'owl'),
            "by the alphabet, so that labels would have the names of others; write classes = ('cat',",
        ),
    ],
)
def test_folders_that_are_not_the_classes(make, classes, message):
    faults = faults_of(make(classes=classes), ('train',))[0]
    fault = only(faults)
    if classes == (*CLASSES, 'bat'):
        message = "there is no folder 'bat'"
    assert message in fault


def test_names_of_their_own_for_the_folders(make):
    faults, said = faults_of(make(classes=('Katze', 'Hund', 'Eule')))
    assert faults == [] and 'train images: Katze 2, Hund 2, Eule 2' in said


def test_folder_in_validation_that_training_lacks(root, make):
    write(root / 'val' / 'bee' / '0.jpg')
    fault = only(faults_of(make())[0])
    assert f"The folders in {root}/val of the val data are not those of `classes`: `classes` has no 'bee'" in fault
    shutil.rmtree(root / 'val' / 'owl')
    config = make()
    for part in ('train', 'val'):
        del config[f'{part}_dataloader'].dataset.metainfo
    fault = only(faults_of(config)[0])
    assert "'owl' is in the train data alone and 'bee' is in the val data alone" in fault


def test_folder_without_images(root, make):
    for path in (root / 'train/owl').iterdir():
        path.unlink()
    assert f'No image in {root}/train/owl of the train data, which a class needs' in only(faults_of(make())[0])
    write(root / 'train/owl/0.jpg')
    for path in (root / 'val/owl').iterdir():
        path.unlink()
    faults, said = faults_of(make())
    assert faults == [] and f'No image in {root}/val/owl; the val data say nothing of these classes' in said


def test_files_that_are_not_taken(root, make):
    write(root / 'train/cat/a.webp')
    (root / 'train/cat/notes.txt').write_text('')
    write(root / 'train/loose.jpg')
    faults, said = faults_of(make())
    assert faults == [] and 'cat 3' in said and '1 files in' in said and '.txt: 1' in said
    assert f'1 images lie in {root}/train itself, in the folder of no class' in said
    config = make()
    config.train_dataloader.dataset.extensions = ('.jpg',)
    fault = only(faults_of(config)[0])
    assert f'such as {root}/train/cat/a.webp; add .webp to `extensions`' in fault


def test_folder_that_is_not_there(make):
    assert 'nowhere of the train data; correct `data_root`' in only(faults_of(make(train_images='nowhere'))[0])


def test_damaged_image(root, make):
    path = root / 'val/dog/1.jpg'
    path.write_bytes(b'not an image')
    assert f'The image {path} is unreadable or truncated' in only(faults_of(make())[0])
    faults, said = faults_of(make(), max_opened=0)
    assert faults == [] and 'Reading 0 of 6 headers of the val images' in said


def test_lists(root, make):
    lines = [f'{name}/{index}.jpg {label}' for label, name in enumerate(CLASSES) for index in range(2)]
    (root / 'train.txt').write_text('\n'.join(lines))
    config = make(train_list='train.txt')
    faults, said = faults_of(config)
    assert faults == [] and 'train images: cat 2, dog 2, owl 2.' in said
    lines[1:4] = ['cat/9.jpg 0', 'dog/0.jpg 3', 'dog/1.jpg', '']
    (root / 'train.txt').write_text('\n'.join(lines))
    faults, said = faults_of(config)
    odd, beyond, missing = faults
    assert '2 of 7 lines of' in odd and "4 ('dog/1.jpg'), 5 ('')" in odd
    assert '1 of 7 lines of' in beyond and "beyond the 3 classes, 0 to 2: 3 ('dog/0.jpg 3')" in beyond
    assert f'such as {root}/train/cat/9.jpg; correct' in missing
    assert 'Classes without images in the train data: dog' in said
    (root / 'train.txt').write_text('')
    assert 'is empty; write a line for each image' in only(faults_of(config)[0])
    (root / 'train.txt').unlink()
    assert f'There is no list {root}/train.txt of the train data' in only(faults_of(config)[0])


def test_16_bits_that_the_inferencers_loader_cuts(root, make):
    for path in (root / 'val').rglob('*.jpg'):
        Image.fromarray(np.full((40, 48), 30000, np.uint16)).save(path.with_suffix('.png'))
        path.unlink()
    assert 'The val data have images of type uint16, which `LoadImageFromFile`' in only(faults_of(make())[0])
    assert faults_of(make(full_scale=255))[0] == []


def test_size_that_the_stride_does_not_divide(make):
    config = make(image_size=(40, 40))
    fault = faults_of(config)[0][-1]
    assert 'with 40 x 40 pixels, which its stride of 16 does not divide' in fault and '`pad_size_divisor=16`' in fault
    config.data_preprocessor.pad_size_divisor = 16
    assert faults_of(config)[0] == []
