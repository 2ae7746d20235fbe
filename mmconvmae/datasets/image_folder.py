"""Every image in a folder."""

import os
from collections import Counter
from pathlib import Path

from mmengine.logging import print_log
from PIL import Image

from mmconvmae.registry import DATASETS

from .damaged import FilesThatMayBeDamaged
from .finding import find_files, say_found

# Documents, films and data that Pillow knows by name but does not decode, or not without another program.
NO_IMAGES = ('BUFR', 'EPS', 'GRIB', 'HDF5', 'MPEG', 'PDF', 'WMF')


def image_suffixes() -> frozenset[str]:
    """The suffixes of files that can be read, in lower case.

    Returns:
        frozenset[str]: Those of Pillow and of the plugins that have been registered with it.
    """
    suffixes = Image.registered_extensions()
    return frozenset(suffix for suffix, name in suffixes.items() if name in Image.OPEN and name not in NO_IMAGES) | {
        '.jif',
        '.jpe',
        '.tif',
        '.tiff',
        '.btf',
    }


def find_images(root: str) -> tuple[list[str], Counter]:
    """Look for images in a folder and below it, by suffix: :func:`find_files` with the suffixes of images."""
    return find_files(root, image_suffixes(), 'images')


@DATASETS.register_module()
class ImageFolder(FilesThatMayBeDamaged):
    """Every image in a folder and below it, without labels.

    Args:
        data_root (str): The folder.
        ann_file (str): A list of images, one path a line relative to the folder, as ``scan_images.py`` writes it.
            Defaults to '', all that :func:`find_images` finds.
        skip_damaged (bool): Leave out images that cannot be used, and put another one in their place; each is named
            once in the log. Otherwise the first stops the run. Defaults to False.
        max_damaged (int): How many may be left out before the run stops. Defaults to 100.
        **kwargs: Arguments of mmengine's ``BaseDataset``: ``pipeline``, ``indices`` and others.

    Raises:
        FileNotFoundError: If there is no such folder or list.
        ValueError: If there is no image.
    """

    def __init__(self, *args, **kwargs) -> None:
        self._depth = None
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Find the images, or read the list.

        Returns:
            list[dict]: ``img_path`` of each.
        """
        if self.ann_file:
            if not Path(self.ann_file).is_file():
                raise FileNotFoundError(f'There is no list {self.ann_file}; `ann_file` is relative to `data_root`.')
            paths = [line for line in Path(self.ann_file).read_text(encoding='utf-8').splitlines() if line.strip()]
            found = f'{len(paths)} images are listed in {self.ann_file}'
        else:
            paths, passed_over = find_images(self.data_root)
            found = say_found(paths, passed_over, 'images', self.data_root)
        if not paths:
            raise ValueError(f'{found}; suffixes that are taken: {" ".join(sorted(image_suffixes()))}.')
        print_log(f'{found}.', logger='current')
        return [dict(img_path=os.path.join(self.data_root, path)) for path in paths]

    def prepare_data(self, idx: int) -> dict | None:
        """Load an image, through the pipeline.

        Args:
            idx (int): Index of the image.

        Returns:
            dict | None: What the pipeline gives, None for a damaged image that is left out.

        Raises:
            ImageFileError: If the image cannot be used and is not to be left out, or too many cannot.
            ValueError: If it has another depth than the images before.
        """
        data = super().prepare_data(idx)
        if data is not None:
            self._check_depth(idx, data)
        return data

    def _check_depth(self, idx: int, data: dict) -> None:
        """Stop where one mean cannot fit: 8 bits stay uint8 in a pipeline, and deeper images are floats."""
        pixels = data.get('inputs', data.get('img'))  # the latter where nothing but loading is in the pipeline
        dtype, path = getattr(pixels, 'dtype', None), self.get_data_info(idx)['img_path']
        first_dtype, first_path = self._depth = self._depth or (dtype, path)
        if dtype != first_dtype:
            raise ValueError(
                f'The images {first_path} and {path} have different depths (one has 8 bits, the other more), which one '
                'mean and std cannot fit; load them with full_scale=255, or take those of one depth out.'
            )
