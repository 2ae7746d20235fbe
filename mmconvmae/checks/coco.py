import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS

from mmconvmae.datasets import ImageFile, ImageFileError
from mmconvmae.registry import CHECKS
from mmconvmae.utils import find_types

from .base import DataCheck, check_heads, data_sets, meant, say_some, stride_of
from .files import some_of

# What there is in each field of the annotations. Others' ids are texts now and then, and mmdet takes them.
FIELDS = dict(
    id=(int, str),
    file_name=(str,),
    width=(int, float),
    height=(int, float),
    image_id=(int, str),
    category_id=(int, str),
    area=(int, float),
    iscrowd=(int, float),
    name=(str,),
)


@CHECKS.register_module()
class CocoCheck(DataCheck):
    """Annotations of objects in COCO's format, for mmdet.

    mmdet itself trains on what is left: it leaves out classes that it does not find, and with them their objects, and
    numbers the others without them.
    """

    def __call__(self, config: Config, parts: Sequence[str], logger: MMLogger) -> list[str]:
        """Check.

        Args:
            config (Config): The whole config.
            parts (Sequence[str]): Of which data loaders: some of 'train', 'val' and 'test'.
            logger (MMLogger): Is told what mmdet leaves out.

        Returns:
            list[str]: The faults.
        """
        faults, seen = [], {}
        for part, data_set in data_sets(config, parts, 'CocoDataset'):
            path = _place_of(data_set, data_set.get('ann_file'))
            classes = _classes_of(data_set)
            if (path, classes) not in seen:
                faults += _check_data_set(config, part, data_set, path, classes, self.max_opened, logger)
                seen[path, classes] = part
            elif part != 'train' and seen[path, classes] == 'train':
                logger.warning(
                    f'{path} is of training and of {part} at once, so its figures say nothing of new images.'
                )
            faults += _check_evaluator(config.get(f'{part}_evaluator'), path, part)
        every = {classes for _, classes in seen}
        if len(every) > 1:
            faults.append(
                f'The data sets have different classes ({" and ".join(map(str, sorted(every)))}); give all of them the '
                'same `metainfo`.'
            )
        for classes in every:
            faults += check_heads(config.model, len(classes))
        divisor = (config.model.get('data_preprocessor') or {}).get('pad_size_divisor', 1)
        stride = stride_of(config.model)
        if stride and divisor % stride:
            faults.append(
                f'`model.data_preprocessor.pad_size_divisor` is {divisor}, and the backbone takes images whose height '
                f'and width {stride} divides; set it to a multiple of {stride}, so that test images are padded.'
            )
        return faults


def _place_of(data_set: dict, *paths: str) -> Path:
    """Where something of a data set lies, as mmengine joins it.

    Args:
        data_set (dict): Its config.
        *paths (str): What follows its ``data_root``.

    Returns:
        Path: The path.
    """
    return Path(data_set.get('data_root') or '', *filter(None, paths))


def _classes_of(data_set: dict) -> tuple[str, ...]:
    """The classes of a data set: those of its config, or of its kind.

    Args:
        data_set (dict): Its config.

    Returns:
        tuple[str]: Their names, empty where neither tells.
    """
    classes = (data_set.get('metainfo') or {}).get('classes')
    if classes is None:
        with DATASETS.switch_scope_and_registry(None) as registry:
            classes = getattr(registry.get(data_set['type']), 'METAINFO', {}).get('classes', ())
    return (classes,) if isinstance(classes, str) else tuple(classes)


def _check_evaluator(evaluator: dict | None, path: Path, part: str) -> list[str]:
    metrics = find_types(evaluator, 'CocoMetric')
    return [
        f'`{part}_evaluator.ann_file` is {metric["ann_file"]}, and the images of {part} have the annotations {path}; '
        'name the same file.'
        for metric in metrics
        if metric.get('ann_file') and Path(metric['ann_file']) != path
    ]


def _check_data_set(
    config: Config,
    part: str,
    data_set: dict,
    path: Path,
    classes: tuple[str, ...],
    max_opened: int | None,
    logger: MMLogger,
) -> list[str]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        return [f'The annotations {path} cannot be read ({error.strerror}); check `data_root` and `ann_file`.']
    except ValueError as error:
        return [f'The annotations {path} are not JSON ({error}); export them again, in COCO format.']
    content = content if isinstance(content, dict) else {}
    missing = [key for key in ('images', 'annotations', 'categories') if not _are_entries(content.get(key))]
    if missing:
        return [f'{path} has no {say_some(missing)} as COCO has them; export the annotations again, in COCO format.']
    images = content['images']
    faults = _check_fields(path, content, with_masks=_has_masks(config), evaluated=part != 'train')
    if faults:
        return faults
    faults += _check_classes(path, content, classes, logger)
    faults += _check_references(path, content)
    counted = _usable_objects(path, content, classes, logger)
    empty = [image for image in images if not counted[image['id']]]
    filtered = (data_set.get('filter_cfg') or {}).get('filter_empty_gt', False)
    if len(empty) == len(images):
        faults.append(
            f'None of the {len(images)} images of {path} has an object of {say_some(classes, 5)}, so there is nothing '
            f'to {"learn" if part == "train" else "measure"}; check `classes` and the annotations.'
        )
    elif empty:
        become = 'are left out of training' if filtered and part == 'train' else 'count as background'
        logger.info(f'{len(empty)} of {len(images)} images of {path} have no object and {become}.')
    return faults + _check_images(data_set, path, images, max_opened, logger)


def _are_entries(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _has_masks(config: Config) -> bool:
    return any(step.get('with_mask') for step in find_types(config.get('train_dataloader'), 'LoadAnnotations'))


def _check_fields(path: Path, content: dict, with_masks: bool, evaluated: bool) -> list[str]:
    """What mmdet and pycocotools stop at with a KeyError."""
    faults, annotations = [], content['annotations']
    required = dict(
        images=['id', 'file_name', 'width', 'height'],
        annotations=['id', 'image_id', 'category_id', 'bbox', 'area'] + ['iscrowd'] * evaluated,
        categories=['id', 'name'],
    )
    for kind, keys in required.items():
        entries = content[kind]
        for key in keys:
            without = sum(key not in entry for entry in entries)
            if without:
                faults.append(f'{without} of {len(entries)} {kind} in {path} have no `{key}`; add it, as COCO has it.')
            types = FIELDS.get(key, ())
            odd = [entry[key] for entry in entries if types and key in entry and not isinstance(entry[key], types)]
            if odd:
                faults.append(
                    f'{len(odd)} of {len(entries)} {kind} in {path} have a `{key}` that is no '
                    f'{" or ".join(kind.__name__ for kind in types)} ({say_some(odd)}); correct it, as COCO has it.'
                )
        if faults:
            continue
        repeated = [value for value, times in Counter(entry.get('id') for entry in entries).items() if times > 1]
        if repeated:
            faults.append(f'{path} has {kind} with the same id ({say_some(repeated)}); give each its own.')
    odd = [entry.get('id') for entry in annotations if 'bbox' in entry and not _is_box(entry['bbox'])]
    if odd:
        faults.append(
            f'{len(odd)} of {len(annotations)} annotations in {path} have a `bbox` that is not four numbers (ids '
            f'{say_some(odd)}); give left, top, width and height, in pixels.'
        )
    outlines = [(entry.get('id'), entry.get('segmentation')) for entry in annotations]
    without = [name for name, outline in outlines if not outline or not isinstance(outline, (list, dict))]
    if with_masks and without:
        faults.append(
            f'{len(without)} of {len(annotations)} annotations in {path} have no `segmentation` (ids '
            f'{say_some(without)}), which a detector with masks needs; add outlines, or train boxes alone with the '
            'template detect_boxes.py.'
        )
    return faults


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(number, (int, float)) for number in value)


def _check_classes(path: Path, content: dict, classes: tuple[str, ...], logger: MMLogger) -> list[str]:
    names = [category['name'] for category in content['categories']]
    faults = [
        f'`classes` has {name!r}, and {path} has not{meant(name, names)}: it has {say_some(names, 20)}. mmdet would '
        'leave the class out and number those after it one lower; write it as there.'
        for name in classes
        if name not in names
    ]
    in_order = [name for name in names if name in classes]
    if not faults and in_order != list(classes):
        faults.append(
            f'`classes` is {classes}, and {path} has them in the order {tuple(in_order)}, in which mmdet numbers them '
            'whatever `classes` says, so that names would be mixed up; take the order of the file.'
        )
    others = {category['id']: category['name'] for category in content['categories'] if category['name'] not in classes}
    left_out = Counter(others.get(annotation['category_id']) for annotation in content['annotations'])
    left_out.pop(None, None)
    if left_out:
        each = ', '.join(f'{name} {number}' for name, number in left_out.items())
        logger.warning(f'{left_out.total()} objects in {path} are of no class in `classes` and are left out: {each}.')
    return faults


def _check_references(path: Path, content: dict) -> list[str]:
    faults = []
    for key, kind in (('image_id', 'images'), ('category_id', 'categories')):
        known = {entry['id'] for entry in content[kind]}
        unknown = sorted({annotation[key] for annotation in content['annotations']} - known, key=str)
        if unknown:
            number = sum(annotation[key] in unknown for annotation in content['annotations'])
            faults.append(
                f'{number} annotations in {path} have a `{key}` that none of its {kind} has ({say_some(unknown)}); '
                'correct or remove them.'
            )
    return faults


def _usable_objects(path: Path, content: dict, classes: tuple[str, ...], logger: MMLogger) -> Counter:
    """Objects that mmdet takes, of each image; it leaves others out without a word."""
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    wanted = {category['id'] for category in content['categories'] if category['name'] in classes}
    counted, unusable, beyond = Counter(), [], 0
    for annotation in content['annotations']:
        if annotation['category_id'] not in wanted or annotation['image_id'] not in sizes:
            continue
        (left, top, width, height), (columns, rows) = annotation['bbox'], sizes[annotation['image_id']]
        inside = min(left + width, columns) > max(left, 0) and min(top + height, rows) > max(top, 0)
        if not inside or annotation['area'] <= 0 or width < 1 or height < 1:
            unusable.append(annotation['id'])
            continue
        counted[annotation['image_id']] += 1
        beyond += left < -1 or top < -1 or left + width > columns + 1 or top + height > rows + 1
    if unusable:
        logger.warning(
            f'{len(unusable)} objects in {path} are smaller than a pixel, without area or outside of their image, and '
            f'are left out: ids {say_some(unusable)}.'
        )
    if beyond:
        logger.warning(f'{beyond} boxes in {path} reach beyond their image by more than a pixel.')
    return counted


def _check_images(
    data_set: dict, path: Path, images: list[dict], max_opened: int | None, logger: MMLogger
) -> list[str]:
    folder = _place_of(data_set, (data_set.get('data_prefix') or {}).get('img', ''))
    if not folder.is_dir():
        return [
            f'There is no folder {folder}, where the images of {path} should be; check `data_root` and `data_prefix`.'
        ]
    there, gone = {}, []
    for image in images:
        place = folder / image['file_name']
        if place.is_file():
            there[place] = image
        else:
            gone.append(image['file_name'])
    faults = []
    if gone:
        faults.append(
            f'{len(gone)} of {len(images)} images in {path} are not in {folder}: {say_some(gone)}; put them there or '
            'take them out of the annotations.'
        )
    wrong = []
    for place in some_of(list(there), max_opened, f'images of {path}', logger):
        try:
            size = ImageFile(str(place), place.read_bytes()).size
        except (ImageFileError, OSError) as error:
            faults.append(str(error))
            continue
        stated = there[place]['width'], there[place]['height']
        if size != stated:
            wrong.append(f'{place.name} is {size[0]} x {size[1]} and not {stated[0]} x {stated[1]}')
    if wrong:
        faults.append(
            f'{len(wrong)} images of {path} have another size than it says ({say_some(wrong)}), so that boxes would be '
            'in the wrong place; annotate these images, as they are turned by their EXIF orientation.'
        )
    return faults
