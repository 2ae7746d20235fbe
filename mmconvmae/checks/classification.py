from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.fileio import list_dir_or_file
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS

from mmconvmae.datasets import ImageFile, VideoFile
from mmconvmae.datasets.image_file import MediaFileError
from mmconvmae.datasets.image_folder import image_suffixes
from mmconvmae.datasets.video_file import VIDEO_SUFFIXES
from mmconvmae.registry import CHECKS
from mmconvmae.utils import find_types

from .base import DataCheck, check_heads, data_sets, meant, say_some, stride_of
from .files import check_depth, kinds_of, one_text, some_of


@CHECKS.register_module()
class ClassificationCheck(DataCheck):
    """Check folders or lists of labelled images, and whether head, metrics and sizes agree with them."""

    KIND = 'images'

    def __call__(self, config: Config, parts: Sequence[str], logger: MMLogger) -> list[str]:
        """Check.

        Args:
            config (Config): The whole config.
            parts (Sequence[str]): Of which data loaders: some of 'train', 'val' and 'test'.
            logger (MMLogger): Is told how many images each class has.

        Returns:
            list[str]: The faults.
        """
        from mmpretrain.datasets import CustomDataset

        faults, seen, first = [], [], None
        for part, data_set in data_sets(config, parts, *kinds_of(CustomDataset)):
            if data_set in seen:  # the test data are usually those of validation
                continue
            seen.append(data_set)
            classes = (data_set.get('metainfo') or {}).get('classes')
            if isinstance(classes, str):
                faults.append(one_text(classes))
                continue
            built = DATASETS.build(dict(data_set, pipeline=[], lazy_init=True))
            if built.ann_file:
                files, classes, found = read_list(part, built, self.KIND)
            else:
                files, classes, found = read_folders(part, built, logger, self.KIND, self._suffixes())
            faults += found
            if classes:
                first = first or (part, classes)
                if first[1] != classes:
                    faults.append(differing(*first, part, classes))
                faults += check_outputs(config, part, len(classes))
            if files:
                count(part, files, classes, logger, self.KIND)
                faults += self._check_files(part, data_set, config, [path for path, _ in files], logger)
        return list(dict.fromkeys(faults))

    def _suffixes(self) -> tuple[str, ...]:
        return image_suffixes()

    def _open(self, path: Path, part: str, data_set: dict) -> list[str]:
        return check_depth(ImageFile(str(path), path.read_bytes()), part, data_set)

    def _check_files(
        self, part: str, data_set: dict, config: Config, paths: Sequence[Path], logger: MMLogger
    ) -> list[str]:
        faults, usable = [], None
        for path in some_of(paths, self.max_opened, f'headers of the {part} {self.KIND}', logger):
            try:
                faults += self._open(path, part, data_set)
            except (MediaFileError, OSError) as error:
                faults.append(str(error))
            else:
                usable = usable or path
        if usable and not faults:
            faults += check_size(part, data_set, config, usable)
        return faults


@CHECKS.register_module()
class VideoClassificationCheck(ClassificationCheck):
    """The same for labelled videos, the first frames of which are decoded."""

    KIND = 'videos'

    def _suffixes(self) -> tuple[str, ...]:
        return VIDEO_SUFFIXES

    def _open(self, path: Path, part: str, data_set: dict) -> list[str]:
        load = next(find_types(data_set.get('pipeline'), 'LoadClip'), {})
        VideoFile(str(path), load.get('decoder', 'opencv')).read([0])
        return []


def read_folders(
    part: str, data_set: BaseDataset, logger: MMLogger, kind: str, suffixes: tuple[str, ...]
) -> tuple[list[tuple[Path, int]], tuple[str, ...], list[str]]:
    """Look into a folder of folders.

    Args:
        part (str): Which data set it is.
        data_set (BaseDataset): The data set, with nothing loaded.
        logger (MMLogger): Is told what is passed over.
        kind (str): What files are looked for, 'images' or 'videos'.
        suffixes (tuple[str, ...]): Of files of that kind, whether the data set takes them or not.

    Returns:
        tuple[list[tuple[Path, int]], tuple[str, ...], list[str]]: Files with their labels, the classes, and the
        faults.
    """
    root = Path(data_set.img_prefix)
    if not root.is_dir():
        return [], (), [f'There is no folder {root} of the {part} data; correct `data_root` or `data_prefix`.']
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith('.'))
    classes = tuple(data_set.metainfo.get('classes') or folders)
    faults = compare_folders(part, root, folders, classes)
    images, readable, others = [], [], Counter()
    empty = []
    for label, folder in enumerate(folders):
        files = [
            root / folder / name
            for name in sorted(list_dir_or_file(str(root / folder), list_dir=False, recursive=True))
        ]
        taken = [path for path in files if data_set.is_valid_file(path.name)]
        images += [(path, label) for path in taken]
        left = [path for path in files if not data_set.is_valid_file(path.name)]
        readable += [path for path in left if path.suffix.lower() in suffixes]
        others.update(path.suffix or 'no suffix' for path in left if path.suffix.lower() not in suffixes)
        if not taken:
            empty.append(folder)
    loose = [path for path in root.iterdir() if data_set.is_valid_file(path.name)]
    if loose:
        logger.warning(f'{len(loose)} {kind} lie in {root} itself, in the folder of no class, and are not taken.')
    if others:
        counts = ', '.join(f'{suffix}: {number}' for suffix, number in others.most_common())
        logger.warning(f'{others.total()} files in {root} are no {kind} and are not taken ({counts}).')
    if readable:
        faults.append(
            f'{len(readable)} {kind} in {root} would be left out, such as {readable[0]}; add '
            f'{say_some(sorted({path.suffix for path in readable}))} to `extensions` of the {part} data set.'
        )
    if empty and folders:
        sentence = f'No {kind[:-1]} in {say_some([str(root / folder) for folder in empty])}'
        if part == 'train':
            faults.append(
                f'{sentence} of the {part} data, which a class needs to be learned; add {kind}, or take folder and '
                'class out.'
            )
        else:
            logger.warning(f'{sentence}; the {part} data say nothing of these classes.')
    return images, classes, faults


def compare_folders(part: str, root: Path, folders: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Compare folders with classes; mmpretrain numbers folders in alphabetical order, whatever the classes are.

    Args:
        part (str): Which data set it is.
        root (Path): Where the folders are.
        folders (Sequence[str]): Names of the folders, in alphabetical order.
        classes (Sequence[str]): Names of the classes.

    Returns:
        list[str]: The faults.
    """
    if not folders:
        return [f'There is no folder of a class in {root} of the {part} data; make one for each, or give a list.']
    lacking = [name for name in classes if name not in folders]
    extra = [name for name in folders if name not in classes]
    if not lacking and not extra:
        if list(classes) == list(folders):
            return []
        return [
            f'`classes` are not in the order of the folders in {root}, which mmpretrain numbers by the alphabet, so '
            f'that labels would have the names of others; write classes = {tuple(folders)}.'
        ]
    if len(folders) == len(classes) and len(lacking) == len(classes):
        return []  # names of their own, which the log shows beside the folders
    parts = []
    if lacking:
        parts.append(f'there is no folder {say_some([repr(name) + meant(name, extra) for name in lacking])}')
    if extra:
        parts.append(f'`classes` has no {say_some([repr(name) for name in extra])}')
    return [
        f'The folders in {root} of the {part} data are not those of `classes`: {" and ".join(parts)}; make both the '
        'same (an empty folder for a class without images, as mmpretrain counts them).'
    ]


def read_list(part: str, data_set: BaseDataset, kind: str) -> tuple[list[tuple[Path, int]], tuple[str, ...], list[str]]:
    """Read a list of files and labels.

    Args:
        part (str): Which data set it is.
        data_set (BaseDataset): The data set, with nothing loaded.
        kind (str): What is listed, 'images' or 'videos'.

    Returns:
        tuple[list[tuple[Path, int]], tuple[str, ...], list[str]]: Files with their labels, the classes, and the
        faults.
    """
    path, root = Path(data_set.ann_file), Path(data_set.img_prefix)
    classes = tuple(data_set.metainfo.get('classes') or ())
    if not path.is_file():
        return [], classes, [f'There is no list {path} of the {part} data; correct `data_root` or `ann_file`.']
    faults, images, odd, beyond = [], [], [], []
    lines = path.read_text(encoding='utf-8').splitlines()
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.isdecimal():
            odd.append(f'{number} ({line.strip()!r})')
        elif classes and int(label) >= len(classes):
            beyond.append(f'{number} ({line.strip()!r})')
        else:
            images.append((root / name, int(label)))
    if not classes:
        faults.append(
            f'The {part} data set is a list, {path}, and has no classes; name them in `metainfo=dict(classes=(...))`, '
            'in the order of the numbers.'
        )
    if odd:
        faults.append(
            f'{len(odd)} of {len(lines)} lines of {path} are not a path, a space and the number of a class: '
            f'{say_some(odd)}; correct them.'
        )
    if beyond:
        faults.append(
            f'{len(beyond)} of {len(lines)} lines of {path} have labels beyond the {len(classes)} classes, 0 to '
            f'{len(classes) - 1}: {say_some(beyond)}; complete `classes`, or correct the list.'
        )
    missing = [image for image, _ in images if not image.is_file()]
    if missing:
        faults.append(
            f'{len(missing)} of {len(lines)} {kind} of {path} are not there, such as {missing[0]}; correct `data_root` '
            f'or `data_prefix`, add the {kind}, or take their lines out.'
        )
    if not lines:
        faults.append(f'The list {path} of the {part} data is empty; write a line for each {kind[:-1]}.')
    return [(image, label) for image, label in images if image not in set(missing)], classes, faults


def differing(first_part: str, first: Sequence[str], part: str, classes: Sequence[str]) -> str:
    """Say that two data sets have other classes.

    Args:
        first_part (str): Which data set the first is.
        first (Sequence[str]): Its classes.
        part (str): Which data set the other is.
        classes (Sequence[str]): Its classes.

    Returns:
        str: The fault.
    """
    only = [name for name in first if name not in classes], [name for name in classes if name not in first]
    what = ' and '.join(
        f'{say_some([repr(name) for name in names])} is in the {which} data alone'
        for names, which in zip(only, (first_part, part))
        if names
    )
    return (
        f'The classes of the {first_part} and the {part} data differ ({what or "their order does"}), so that a number '
        'would mean another class; make folders of the same names in both, or give both the same `classes`.'
    )


def check_outputs(config: Config, part: str, num_classes: int) -> list[str]:
    """Find heads, data preprocessors and metrics for another number of classes.

    Args:
        config (Config): The whole config.
        part (str): Which data set has the classes.
        num_classes (int): How many classes there are.

    Returns:
        list[str]: The faults.
    """
    faults = check_heads(config.model, num_classes)
    if (config.get('data_preprocessor') or {}).get('num_classes') is not None:
        faults += check_heads(config.data_preprocessor, num_classes, 'data_preprocessor')
    if num_classes < 2:
        faults.append(
            f'The {part} data have {num_classes} class, whose loss is 0 whatever a model says; give two or more, such '
            'as one for images that show something else.'
        )
    metrics = (
        []
        if part == 'train'
        else [(f'{part}_evaluator', metric) for metric in find_types(config.get(f'{part}_evaluator'), 'Accuracy')]
    )
    head = config.model.get('head') or {}
    for name, metric in [*metrics, *([('model.head', head)] if head.get('cal_acc') else [])]:
        topk = metric.get('topk', 1)
        worst = topk if isinstance(topk, int) else max(topk)
        if worst > num_classes:
            faults.append(
                f'`topk` of `{name}` is {topk}, and there are {num_classes} classes; give no more than that, such as '
                'topk=(1,).'
            )
    return faults


def count(part: str, files: Sequence[tuple[Path, int]], classes: Sequence[str], logger: MMLogger, kind: str) -> None:
    """Log how many files each class has.

    Args:
        part (str): Which data set it is.
        files (Sequence[tuple[Path, int]]): Files with their labels.
        classes (Sequence[str]): The classes.
        logger (MMLogger): The log.
        kind (str): What they are, 'images' or 'videos'.
    """
    numbers = Counter(label for _, label in files)
    names = dict(enumerate(classes))
    says = [f'{names.get(label, label)} {numbers[label]}' for label in sorted({*names, *numbers})]
    logger.info(f'{part} {kind}: {say_some(says, 30)}.')
    absent = [name for label, name in names.items() if not numbers[label]]
    if absent:
        logger.warning(f'Classes without {kind} in the {part} data: {say_some(absent, 30)}.')


def check_size(part: str, data_set: dict, config: Config, path: Path) -> list[str]:
    """Find a size that the stride of the backbone does not divide, by sending an image through the pipeline.

    Args:
        part (str): Which data set it is.
        data_set (dict): Its config.
        config (Config): The whole config.
        path (Path): The image.

    Returns:
        list[str]: The faults.
    """
    stride = stride_of(config.model)
    if stride is None or not data_set.get('pipeline'):
        return []
    shape = Compose(data_set['pipeline'])(dict(img_path=str(path), gt_label=0))['inputs'].shape[-2:]
    preprocessor = config.model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    divisor = preprocessor.get('pad_size_divisor', 1)
    if all(-(-edge // divisor) * divisor % stride == 0 for edge in shape):
        return []
    return [
        f'The {part} file {path} comes to the backbone with {shape[0]} x {shape[1]} pixels, which its stride of '
        f'{stride} does not divide; crop or resize to multiples of {stride}, or set `pad_size_divisor={stride}` in '
        '`data_preprocessor`.'
    ]
