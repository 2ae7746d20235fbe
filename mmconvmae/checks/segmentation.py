from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.fileio import list_dir_or_file
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from PIL import Image, UnidentifiedImageError

from mmconvmae.datasets import ImageFile, ImageFileError
from mmconvmae.registry import CHECKS
from mmconvmae.utils import find_types

from .base import DataCheck, check_heads, data_sets, say_some, stride_of
from .files import check_depth, kinds_of, one_text, some_of

IGNORED = 255  # what mmseg makes of pixels that do not count


@CHECKS.register_module()
class SegmentationCheck(DataCheck):
    """Check masks, and whether heads, loading and sizes agree with them."""

    def __call__(self, config: Config, parts: Sequence[str], logger: MMLogger) -> list[str]:
        """Check.

        Args:
            config (Config): The whole config.
            parts (Sequence[str]): Of which data loaders: some of 'train', 'val' and 'test'.
            logger (MMLogger): Is told how many pixels each class has, and which masks say nothing.

        Returns:
            list[str]: The faults.
        """
        from mmseg.datasets import BaseSegDataset

        faults, seen = check_losses(config.model), []
        first = None
        for part, data_set in data_sets(config, parts, *kinds_of(BaseSegDataset)):
            if data_set in seen:  # the test data are usually those of validation
                continue
            seen.append(data_set)
            classes = (data_set.get('metainfo') or {}).get('classes')
            if isinstance(classes, str):
                faults.append(one_text(classes))
                continue
            built = DATASETS.build(dict(data_set, pipeline=[], lazy_init=True))
            classes = built.metainfo.get('classes')
            if not classes:
                faults.append(
                    f'The {part} data set has no classes; name them in `metainfo=dict(classes=(...))` of the data set.'
                )
                continue
            first = first or (part, built)
            faults += compare(*first, part, built)
            faults += check_heads(config.model, len(classes))
            of_loading = check_loading(part, built, data_set, config.model)
            pairs, of_names = find_pairs(part, built, logger)
            usable, of_masks = self._check_masks(part, built, data_set, pairs, logger)
            faults += of_loading + of_names + of_masks
            if not of_loading and not of_masks:
                faults += check_sizes(part, built, data_set, usable, config.model)
        return list(dict.fromkeys(faults))

    def _check_masks(
        self,
        part: str,
        built: BaseDataset,
        data_set: dict,
        pairs: Sequence[tuple[Path, Path]],
        logger: MMLogger,
    ) -> tuple[list[tuple[Path, Path]], list[str]]:
        """Read masks and headers of images; gives a pair of each of some sizes, and the faults."""
        classes = built.metainfo['classes']
        masks = Masks(len(classes), built.reduce_zero_label, built.label_map)
        sizes, faults = {}, []
        for path, mask in some_of(pairs, self.max_opened, f'masks of the {part} data', logger):
            try:
                image = ImageFile(str(path), path.read_bytes())
                masks.add(mask, path, image.size)
            except (ImageFileError, OSError) as error:
                faults.append(str(error))
            else:
                faults += check_depth(image, part, data_set)
                sizes.setdefault(image.size, (path, mask))
        faults += masks.faults(part, classes, logger) if masks.number else []
        return list(sizes.values())[:5], faults


class Masks:
    """What masks have in them.

    Args:
        num_classes (int): How many classes there are.
        ignore_zero (bool): Whether 0 is no class and 1 the first.
        label_map (dict[int, int] | None): What numbers become, after that.
    """

    def __init__(self, num_classes: int, ignore_zero: bool, label_map: dict[int, int] | None) -> None:
        self.num_classes, self.ignore_zero, self.label_map = num_classes, ignore_zero, label_map
        self.number = 0
        self.pixels = np.zeros(num_classes, np.int64)
        self.written = Counter()  # pixels by the number in the file
        self.coloured, self.other_size, self.beyond, self.ignored = [], [], [], []

    def add(self, path: Path, image: Path, size: tuple[int, int]) -> None:
        """Read a mask.

        Args:
            path (Path): The mask.
            image (Path): Its image.
            size (tuple[int, int]): Width and height of the image.

        Raises:
            OSError: If it cannot be read.
        """
        try:
            with Image.open(path) as file:
                mode, array = file.mode, np.asarray(file)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise OSError(f'The mask {path} is unreadable or truncated ({error}); replace it.') from error
        self.number += 1
        if array.ndim != 2 or array.dtype.kind == 'f':
            self.coloured.append((path, mode))
            return
        if array.shape != size[::-1]:
            self.other_size.append(
                f'{path} has {array.shape[1]} x {array.shape[0]} pixels and {image} {size[0]} x {size[1]}'
            )
        if array.dtype == np.uint8:
            counts = np.bincount(array.ravel(), minlength=256)
            numbers = np.flatnonzero(counts)
            counts = counts[numbers]
        else:
            numbers, counts = np.unique(array, return_counts=True)
        labels = self._labels(numbers.astype(np.int64))
        wrong = numbers[(labels != IGNORED) & ((labels < 0) | (labels >= self.num_classes))]
        if len(wrong):
            self.beyond.append((path, [int(number) for number in wrong]))
        if (labels == IGNORED).all():
            self.ignored.append(path)
        valid = (labels >= 0) & (labels < self.num_classes)
        np.add.at(self.pixels, labels[valid], counts[valid])
        self.written.update(dict(zip(numbers.tolist(), counts.tolist())))

    def _labels(self, numbers: np.ndarray) -> np.ndarray:
        """What mmseg makes of the numbers in a file."""
        labels = numbers
        if self.ignore_zero:
            labels = np.where((numbers == 0) | (numbers == IGNORED), IGNORED, numbers - 1)
        if self.label_map is not None:
            labels = np.array([self.label_map.get(int(label), int(label)) for label in labels])
        return labels

    def faults(self, part: str, classes: Sequence[str], logger: MMLogger) -> list[str]:
        """Say what is wrong with the masks of a data set.

        Args:
            part (str): Which data set it is.
            classes (Sequence[str]): The classes.
            logger (MMLogger): Is told how many pixels each has, and which masks say nothing.

        Returns:
            list[str]: The faults.
        """
        faults = []
        if self.coloured:
            path, mode = self.coloured[0]
            faults.append(
                f'{len(self.coloured)} of {self.number} {part} masks are no numbers of classes, such as {path} '
                f'(mode {mode} of Pillow); save masks with one channel of integers, or with a palette.'
            )
        if self.other_size:
            faults.append(
                f'{len(self.other_size)} of {self.number} {part} masks have another size than their image '
                f'({self.other_size[0]}); make both alike, or take them out.'
            )
        if self.beyond:
            path, numbers = self.beyond[0]
            start = int(self.ignore_zero)
            last = start + self.num_classes - 1
            hint = ''
            if not self.ignore_zero and {number for _, found in self.beyond for number in found} == {self.num_classes}:
                hint = ', or set `reduce_zero_label` (`ignore_zero` in the template) if 0 is no class'
            faults.append(
                f'{len(self.beyond)} of {self.number} {part} masks have numbers that are no class, such as '
                f'{say_some(numbers)} in {path}: the {self.num_classes} classes are {start} to {last}, and {IGNORED} '
                f'is not counted; complete `classes`, or correct the masks{hint}.'
            )
        if self.coloured or self.beyond:
            return faults
        if len(self.ignored) == self.number:
            written = say_some([f'{number}' for number, _ in self.written.most_common()])
            faults.append(
                f'No pixel of the {part} masks counts: they have {written} alone, which '
                f'{"`reduce_zero_label` and " if self.ignore_zero else ""}{IGNORED} leave out, so the loss would be 0; '
                'write the numbers of classes into the masks, or set `reduce_zero_label` (`ignore_zero` in the '
                'template) to False if 0 is a class.'
            )
            return faults
        share = self.pixels / self.pixels.sum()
        logger.info(
            f'{part} masks, pixels that count: '
            + ', '.join(f'{name} {part:.2%}' for name, part in zip(classes, share))
            + f'; {self.written.total() - self.pixels.sum():,} of {self.written.total():,} do not count.'
        )
        if self.ignored:
            logger.warning(
                f'No pixel counts in {len(self.ignored)} of {self.number} {part} masks, such as {self.ignored[0]}; '
                'they teach nothing.'
            )
        absent = [name for name, count in zip(classes, self.pixels) if not count]
        if len(absent) == self.num_classes - 1 and self.num_classes > 1 and part == 'train':
            (only,) = set(classes) - set(absent)
            hint = f' ({IGNORED} in a mask is no class: write 1 for the second)' if self.written[IGNORED] else ''
            faults.append(
                f'All pixels of the {part} masks that count are {only!r}, so there is nothing to learn{hint}; write '
                'the numbers of the other classes into the masks.'
            )
        elif absent:
            logger.warning(f'Classes without a pixel in {self.number} {part} masks: {", ".join(absent)}.')
        return faults


def find_pairs(part: str, data_set: BaseDataset, logger: MMLogger) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Find images with masks, images without and masks without images.

    Args:
        part (str): Which data set it is.
        data_set (BaseDataset): The data set, with nothing loaded.
        logger (MMLogger): Is told what is passed over.

    Returns:
        tuple[list[tuple[Path, Path]], list[str]]: Images with their masks, and the faults.
    """
    faults = []
    prefix = data_set.data_prefix
    folders = [Path(prefix['img_path']), Path(prefix.get('seg_map_path') or prefix['img_path'])]
    missing = [
        f'There is no folder {folder} of the {part} {what}; correct `data_root` or `data_prefix`.'
        for folder, what in zip(folders, ('images', 'masks'))
        if not folder.is_dir()
    ]
    if missing:
        return [], missing
    suffixes = data_set.img_suffix, data_set.seg_map_suffix
    stems, others = zip(*(list_stems(folder, suffix) for folder, suffix in zip(folders, suffixes)))
    if folders[0] == folders[1]:
        others = (Counter(), Counter())
        stems[0].difference_update({stem + suffixes[1][: -len(suffixes[0])] for stem in stems[1]})
    names, wanted = data_set.ann_file, stems[0]
    if names and not Path(names).is_dir():
        if not Path(names).is_file():
            return [], [f'There is no list {names} of the {part} images; correct `ann_file`.']
        wanted = {line.strip() for line in Path(names).read_text(encoding='utf-8').splitlines()}
        absent = sorted(wanted - stems[0])
        if absent:
            faults.append(
                f'{len(absent)} of {len(wanted)} {part} images of the list {names} are not in {folders[0]}, such as '
                f'{say_some([repr(name + suffixes[0]) for name in absent])}; lines are names without '
                f'{suffixes[0]!r}: correct the list, or add the images.'
            )
        stems[1].intersection_update(wanted)
    for folder, suffix, other in zip(folders, suffixes, others):
        if other:
            counts = ', '.join(f'{end}: {number}' for end, number in other.most_common())
            logger.warning(f'{other.total()} files in {folder} do not end in {suffix!r} and are not taken ({counts}).')
    if not wanted:
        return [], [
            f'No {part} image in {folders[0]} ends in {suffixes[0]!r}; correct `img_suffix` (`image_suffix` in the '
            'template), or convert the images.'
        ]
    for lone, kind, folder, suffix in (
        (wanted & stems[0] - stems[1], 'images have no mask', folders[1], suffixes[1]),
        (stems[1] - stems[0], 'masks have no image', folders[0], suffixes[0]),
    ):
        if lone:
            files = say_some([str(folder / f'{stem}{suffix}') for stem in sorted(lone)], 2)
            faults.append(
                f'{len(lone)} {part} {kind}, and there should be {files}; add what is missing, take the others out, or '
                'list what is to be taken in `ann_file` of the data set.'
            )
    pairs = [
        (folders[0] / f'{stem}{suffixes[0]}', folders[1] / f'{stem}{suffixes[1]}')
        for stem in sorted(wanted & stems[0] & stems[1])
    ]
    return pairs, faults


def list_stems(folder: Path, suffix: str) -> tuple[set[str], Counter]:
    """List files as mmseg does, in a folder and below it.

    Args:
        folder (Path): The folder.
        suffix (str): What their names end in.

    Returns:
        tuple[set[str], Counter]: Their paths in the folder without the suffix, and how many other files there are,
        by suffix; hidden ones are not counted.
    """
    stems, others = set(), Counter()
    for path in list_dir_or_file(str(folder), list_dir=False, recursive=True):
        if path.endswith(suffix):
            stems.add(path[: -len(suffix)])
        else:
            others[Path(path).suffix or 'no suffix'] += 1
    return stems, others


def compare(first_part: str, first: BaseDataset, part: str, data_set: BaseDataset) -> list[str]:
    """Find data sets that mean different things by a number.

    Args:
        first_part (str): Which data set the first is.
        first (BaseDataset): The first.
        part (str): Which data set the other is.
        data_set (BaseDataset): The other.

    Returns:
        list[str]: The faults.
    """
    return [
        f'`{key}` of the {first_part} data set is {first.metainfo[key]} and of the {part} data set '
        f'{data_set.metainfo[key]}, so that a number would mean another class; give both the same.'
        for key in ('classes', 'reduce_zero_label')
        if first.metainfo[key] != data_set.metainfo[key]
    ]


def check_loading(part: str, built: BaseDataset, data_set: dict, model: dict) -> list[str]:
    """Find settings that say different things of 0.

    Args:
        part (str): Which data set it is.
        built (BaseDataset): The data set.
        data_set (dict): Its config.
        model (dict): The config of the model.

    Returns:
        list[str]: The faults.
    """
    reduced = built.reduce_zero_label
    faults = [
        f'`reduce_zero_label` of the {part} data set is {reduced} and of its `LoadAnnotations` '
        f'{step["reduce_zero_label"]}; set it on the data set alone.'
        for step in find_types(data_set.get('pipeline'), 'LoadAnnotations')
        if step.get('reduce_zero_label') not in (None, reduced)
    ]
    for name, head in heads_of(model):
        ignored = head.get('ignore_index', IGNORED)
        if reduced and ignored != IGNORED:
            faults.append(
                f'`{name}.ignore_index` is {ignored}, and `reduce_zero_label` of the {part} data set makes {IGNORED} '
                f'of the pixels that do not count; leave `ignore_index` out.'
            )
    return faults


def heads_of(model: dict) -> Iterator[tuple[str, dict]]:
    """The heads of a segmentor.

    Args:
        model (dict): Its config.

    Yields:
        tuple[str, dict]: Where the head stands, and its config.
    """
    for key in ('decode_head', 'auxiliary_head'):
        heads = model.get(key)
        if isinstance(heads, dict):
            yield f'model.{key}', heads
        for index, head in enumerate(heads if isinstance(heads, (list, tuple)) else ()):
            yield f'model.{key}[{index}]', head


def check_losses(model: dict) -> list[str]:
    """Find losses that one output cannot have.

    Args:
        model (dict): The config of a segmentor.

    Returns:
        list[str]: The faults.
    """
    faults = []
    for name, head in heads_of(model):
        losses = head.get('loss_decode', dict(type='CrossEntropyLoss'))
        losses = [losses] if isinstance(losses, dict) else losses
        softmax = any(
            find for loss in losses for find in find_types(loss, 'CrossEntropyLoss') if not loss.get('use_sigmoid')
        )
        if softmax and 1 in (head.get('num_classes'), head.get('out_channels')):
            faults.append(
                f'`{name}` has one output with cross-entropy over the classes, whose loss is 0 whatever it says; name '
                'two classes, of which the first is the background, or set `use_sigmoid=True` in `loss_decode`.'
            )
    return faults


def check_sizes(
    part: str, built: BaseDataset, data_set: dict, pairs: Sequence[tuple[Path, Path]], model: dict
) -> list[str]:
    """Find images that come to the backbone in sizes that its stride does not divide, by sending some on the way.

    Args:
        part (str): Which data set it is.
        built (BaseDataset): The data set.
        data_set (dict): Its config.
        pairs (Sequence[tuple[Path, Path]]): Images with their masks.
        model (dict): The config of the model.

    Returns:
        list[str]: The faults.
    """
    stride, pipeline = stride_of(model), data_set.get('pipeline')
    if stride is None or not pipeline:
        return []
    preprocessor = model.get('data_preprocessor') or {}
    padding = preprocessor if part == 'train' else preprocessor.get('test_cfg') or {}
    where = f'model.data_preprocessor{"" if part == "train" else ".test_cfg"}'
    test_cfg = model.get('test_cfg') or {}
    pipeline = Compose(pipeline)
    for image, mask in pairs:
        info = dict(
            img_path=str(image),
            seg_map_path=str(mask),
            label_map=built.label_map,
            reduce_zero_label=built.reduce_zero_label,
            seg_fields=[],
        )
        shape = pipeline(info)['inputs'].shape[-2:]
        if padding.get('size') is not None:
            shape = [max(edges) for edges in zip(shape, padding['size'])]
        divisor = padding.get('size_divisor') or 1
        shape = [-(-edge // divisor) * divisor for edge in shape]
        remedy = f'set `size_divisor` of `{where}` to a multiple of {stride}'
        if part != 'train' and test_cfg.get('mode') == 'slide':
            shape = [min(edges) for edges in zip(shape, test_cfg['crop_size'])]
            remedy = (
                f'set `size` of `{where}` to the `crop_size` of `model.test_cfg`, which has to be multiples of {stride}'
            )
        elif padding.get('size') is not None:
            remedy = f'set `size` of `{where}` and the size of crops to multiples of {stride}'
        if any(edge % stride for edge in shape):
            return [
                f'The {part} image {image} comes to the backbone with {shape[0]} x {shape[1]} pixels, which its stride '
                f'of {stride} does not divide; {remedy}, so that images are padded.'
            ]
    return []
