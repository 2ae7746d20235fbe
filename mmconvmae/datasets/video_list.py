import os
from collections import Counter
from pathlib import Path

from mmengine.logging import print_log

from mmconvmae.registry import DATASETS

from .damaged import FilesThatMayBeDamaged
from .finding import find_files, say_found
from .video_file import VIDEO_SUFFIXES


def find_videos(root: str) -> tuple[list[str], Counter]:
    """Look for videos in a folder and below it, by suffix: :func:`find_files` with the suffixes of videos."""
    return find_files(root, VIDEO_SUFFIXES, 'videos')


@DATASETS.register_module()
class VideoList(FilesThatMayBeDamaged):
    """Videos from a list, with classes or without, or all of a folder.

    A folder for each class goes with mmpretrain's ``CustomDataset``, whose ``extensions`` are then those of videos. The
    path of a sample has the key ``img_path``, as in everything of mmpretrain.

    Args:
        data_root (str): The folder.
        ann_file (str): The list, relative to ``data_root``. A line has a path relative to ``data_root`` and, after a
            blank, the number of the class, as mmaction2 and VideoMAE write it. Either all lines have a class or none
            has. Defaults to '': every video in the folder and below it, without classes.
        skip_damaged (bool): Leave out videos that cannot be used, as :class:`ImageFolder`. Defaults to False.
        max_damaged (int): How many may be left out before the run stops. Defaults to 100.
        **kwargs: Arguments of mmengine's ``BaseDataset``: ``pipeline``, ``metainfo`` with ``classes``, and others.

    Raises:
        FileNotFoundError: If there is no such folder or list, or not the first video of the list.
        ValueError: If there is no video, or a line is not of this form.
    """

    KIND = 'videos'

    @property
    def CLASSES(self) -> tuple[str, ...] | None:
        """Names of the classes, as mmpretrain's ``ClassNumCheckHook`` asks for them."""
        return self.metainfo.get('classes')

    def load_data_list(self) -> list[dict]:
        """Read the list, or look into the folder.

        Returns:
            list[dict]: ``img_path`` of each video, and ``gt_label`` where the list has classes.
        """
        if not Path(self.data_root).is_dir():
            raise FileNotFoundError(f'There is no folder {self.data_root}; give the folder of the videos.')
        if self.ann_file:
            samples = self._read_list()
            found = f'{len(samples)} videos are listed in {self.ann_file}'
        else:
            paths, passed_over = find_videos(self.data_root)
            samples = [dict(img_path=os.path.join(self.data_root, path)) for path in paths]
            found = say_found(paths, passed_over, 'videos', self.data_root)
        if not samples:
            raise ValueError(f'{found}; suffixes that are taken from a folder: {" ".join(VIDEO_SUFFIXES)}.')
        print_log(f'{found}.', logger='current')
        return samples

    def _read_list(self) -> list[dict]:
        if not Path(self.ann_file).is_file():
            raise FileNotFoundError(f'There is no list {self.ann_file}; `ann_file` is relative to `data_root`.')
        samples = []
        for number, line in enumerate(Path(self.ann_file).read_text(encoding='utf-8').splitlines(), 1):
            if not line.strip():
                continue
            path, _, label = line.strip().rpartition(' ')
            sample = dict(img_path=line.strip())
            if path and label.lstrip('-').isdecimal():
                sample = dict(img_path=path.strip(), gt_label=int(label))
                classes = self.metainfo.get('classes')
                if not 0 <= sample['gt_label'] < (len(classes) if classes else float('inf')):
                    raise ValueError(
                        f'Line {number} of {self.ann_file} has the class {label}'
                        + (f', and there are {len(classes)} classes' if classes else '')
                        + '; number the classes from 0.'
                    )
            if samples and sample.keys() != samples[0].keys():
                has = 'a class, and lines before have none' if 'gt_label' in sample else 'no class, and lines before do'
                raise ValueError(
                    f'Line {number} of {self.ann_file} ({line.strip()!r}) has {has}; write `path class` in every line, '
                    'or in every line the path alone.'
                )
            sample['img_path'] = os.path.join(self.data_root, sample['img_path'])
            samples.append(sample)
        if samples and not Path(samples[0]['img_path']).is_file():
            raise FileNotFoundError(
                f'The first video of {self.ann_file}, {samples[0]["img_path"]}, is not there; paths in the list are '
                'relative to `data_root`.'
            )
        return samples
