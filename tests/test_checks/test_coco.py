"""Annotations that are wrong in one place each, and those of real data sets."""

import copy
import json
import logging
import re

import pytest
from helpers import COCO as CONTENT
from helpers import require
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmconvmae.registry import CHECKS

require('mmdet')
import mmdet.datasets  # noqa: E402, F401

CLASSES = ('cat', 'dog')


@pytest.fixture
def check(tmp_path, caplog):
    """Writes annotations and images, and gives the faults that are found in them and the log."""
    init_default_scope('mmdet')
    for i in (1, 2, 3):
        Image.new('RGB', (60, 40)).save(tmp_path / f'{i}.png')

    def check(content=CONTENT, parts=('train',), **changes):
        (tmp_path / 'a.json').write_text(content if isinstance(content, str) else json.dumps(content))
        data_set = dict(
            type='CocoDataset',
            data_root=str(tmp_path),
            ann_file='a.json',
            data_prefix=dict(img=''),
            metainfo=dict(classes=CLASSES),
            filter_cfg=dict(filter_empty_gt=True),
            pipeline=[dict(type='LoadAnnotations', with_bbox=True, with_mask=True)],
        )
        config = Config(
            dict(
                model=dict(
                    data_preprocessor=dict(pad_size_divisor=32),
                    backbone=dict(type='mmconvmae.ConvViT'),
                    rpn_head=dict(num_classes=1),
                    roi_head=dict(bbox_head=dict(num_classes=2), mask_head=[dict(num_classes=2)]),
                ),
                # As mmdet's configs wrap data sets.
                train_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=data_set)),
                val_dataloader=dict(dataset=copy.deepcopy(data_set)),
                val_evaluator=dict(type='CocoMetric', ann_file=str(tmp_path / 'a.json')),
            )
        )
        config.merge_from_dict(changes)
        logger = logging.getLogger('test_coco')
        with caplog.at_level(logging.INFO, 'test_coco'):
            faults = CHECKS.build(dict(type='mmconvmae.CocoCheck'))(config, parts, logger)
        return faults, caplog.text

    return check


def changed(kind, index=0, **values):
    content = copy.deepcopy(CONTENT)
    content[kind][index].update(values)
    return content


def without(kind, key):
    content = copy.deepcopy(CONTENT)
    for entry in content[kind]:
        entry.pop(key, None)
    return content


def test_nothing_wrong(check):
    faults, log = check()
    assert faults == []
    assert '1 of 3 images of' in log and 'have no object and are left out of training' in log


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (
            changed('categories', 1, name='doge'),
            r"has 'dog', and .*a\.json has not \(did you mean 'doge'\?\): it has cat",
        ),
        (changed('categories', 1, name='dog '), r"has 'dog', and .* number those after it one lower"),
        (changed('images', 1, file_name='gone.png'), r'1 of 3 images in .*a\.json are not in .*: gone\.png; put them'),
        (
            changed('images', 1, width=40, height=60),
            r'1 images of .* have another size .*2\.png is 60 x 40 and not 40 x 60',
        ),
        (
            changed('annotations', image_id=9),
            r'1 annotations in .* have a `image_id` that none of its images has \(9\)',
        ),
        (
            changed('annotations', category_id=3),
            r'1 annotations in .* have a `category_id` that none of its categories',
        ),
        (
            changed('annotations', segmentation=[]),
            r'1 of 3 annotations in .* have no `segmentation` \(ids 0\), .*boxes',
        ),
        (without('annotations', 'segmentation'), r'3 of 3 annotations in .* have no `segmentation` \(ids 0, 1, 2\)'),
        (without('annotations', 'area'), r'3 of 3 annotations in .* have no `area`; add it'),
        (without('images', 'width'), r'3 of 3 images in .* have no `width`; add it'),
        (changed('annotations', 1, id=0), r'has annotations with the same id \(0\); give each its own'),
        (
            dict(CONTENT, annotations=[]),
            r'None of the 3 images of .* has an object of cat, dog, so there is nothing to',
        ),
        (dict(images=[]), r'a\.json has no annotations, categories as COCO has them; export the annotations again'),
        ([], r'a\.json has no images, annotations, categories'),
        (dict(CONTENT, images='none'), r'a\.json has no images as COCO has them'),
        (without('categories', 'name'), r'2 of 2 categories in .* have no `name`; add it'),
        (
            changed('annotations', bbox=[1, 2, 3]),
            r'1 of 3 annotations in .* a `bbox` that is not four numbers \(ids 0\)',
        ),
        (changed('images', file_name=7), r'1 of 3 images in .* have a `file_name` that is no str \(7\); correct it'),
        (changed('annotations', image_id=[1]), r'1 of 3 annotations in .* `image_id` that is no int or str \(\[1\]\)'),
        (changed('annotations', bbox=None), r'1 of 3 annotations in .* a `bbox` that is not four numbers'),
        ('{"images": ', r'The annotations .*a\.json are not JSON \(.*\); export them again'),
    ],
)
def test_each_fault_is_a_sentence(check, content, message):
    faults, _ = check(content)
    assert len(faults) == 1 and re.search(message, faults[0]), faults


@pytest.mark.parametrize(
    ('setting', 'value', 'message'),
    [
        ('metainfo.classes', ('dog', 'cat'), r"`classes` is \('dog', 'cat'\), and .* in the order \('cat', 'dog'\)"),
        ('metainfo.classes', ('cat',), r'`model\.roi_head\.bbox_head\.num_classes` is 2, and `classes` has 1'),
        (
            'ann_file',
            'b.json',
            r'The annotations .*b\.json cannot be read \(No such file or directory\); check `data_root`',
        ),
        ('data_prefix.img', 'nowhere', r'There is no folder .*nowhere, where the images of .* should be'),
    ],
)
def test_faults_of_a_data_set_in_a_config(check, setting, value, message):
    faults, _ = check(**{f'train_dataloader.dataset.dataset.{setting}': value})
    assert re.search(message, faults[0]), faults


def test_faults_of_the_model(check):
    faults, _ = check(**{'model.roi_head.bbox_head.num_classes': 80})
    assert faults == [
        '`model.roi_head.bbox_head.num_classes` is 80, and `classes` has 2; labels beyond the head would stop the run '
        'or be learned as another class: set both alike.'
    ]
    faults, _ = check(**{'model.data_preprocessor.pad_size_divisor': 24})
    assert len(faults) == 1 and '`model.data_preprocessor.pad_size_divisor` is 24, and the backbone' in faults[0]
    faults, _ = check(**{'model.backbone.patch_sizes': (2, 2, 2), 'model.data_preprocessor.pad_size_divisor': 24})
    assert faults == []


def test_data_sets_that_do_not_go_together(check):
    faults, _ = check(parts=('train', 'val'), **{'val_evaluator.ann_file': 'other.json'})
    assert len(faults) == 1 and faults[0].startswith('`val_evaluator.ann_file` is other.json, and the images of val')
    faults, _ = check(parts=('train', 'val'), **{'val_dataloader.dataset.metainfo.classes': ('cat',)})
    assert any(
        fault.startswith("The data sets have different classes (('cat',) and ('cat', 'dog'))") for fault in faults
    )
    faults, log = check(parts=('train', 'val'))
    assert faults == [] and 'is of training and of val at once' in log


def test_no_crowd_flag_where_it_is_measured(check):
    content = without('annotations', 'iscrowd')
    assert check(content)[0] == []
    (fault,) = check(content, parts=('val',))[0]
    assert '3 of 3 annotations' in fault and 'have no `iscrowd`' in fault


def test_what_is_left_out_is_counted(check):
    content = changed('annotations', 2, bbox=[70, 1, 19, 19])
    content['annotations'][1].update(category_id=8)
    content['categories'].append(dict(id=8, name='bird'))
    content['annotations'][0]['bbox'] = [50, 1, 19, 19]
    faults, log = check(content)
    assert faults == []
    assert '1 objects in' in log and 'are of no class in `classes` and are left out: bird 1.' in log
    assert 'outside of their image, and are left out: ids 2.' in log
    assert '1 boxes in' in log and 'reach beyond their image' in log
    assert '2 of 3 images of' in log


def test_classes_of_coco_where_none_are_given(check):
    faults, _ = check(**{'train_dataloader.dataset.dataset.metainfo': None})
    assert "`classes` has 'person', and" in faults[0]


def test_mmdet_trains_in_silence_without_it(tmp_path):
    """What the check is for: a misspelt class is gone, and the one after it has its number."""
    from mmdet.datasets import CocoDataset

    (tmp_path / 'a.json').write_text(json.dumps(CONTENT))
    data = CocoDataset(
        ann_file=str(tmp_path / 'a.json'), metainfo=dict(classes=('kat', 'dog')), data_prefix=dict(img='')
    )
    assert [[x['bbox_label'] for x in data.get_data_info(i)['instances']] for i in range(2)] == [[0], [0]]
