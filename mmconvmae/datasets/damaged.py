import logging

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from .image_file import MediaFileError


class FilesThatMayBeDamaged(BaseDataset):
    """A data set of files, of which those that cannot be used stop the run or are left out.

    Args:
        data_root (str): The folder.
        ann_file (str): A list of files, relative to the folder. Defaults to '', what the folder holds.
        skip_damaged (bool): Leave out files that cannot be used, and put another one in their place; each is named
            once in the log. Otherwise the first stops the run. Defaults to False.
        max_damaged (int): How many may be left out before the run stops. Defaults to 100.
        **kwargs: Arguments of mmengine's ``BaseDataset``.
    """

    KIND = 'images'

    def __init__(
        self, data_root: str, ann_file: str = '', *, skip_damaged: bool = False, max_damaged: int = 100, **kwargs
    ) -> None:
        self.skip_damaged = skip_damaged
        self.max_damaged = max_damaged
        super().__init__(ann_file=ann_file, data_root=str(data_root), **kwargs)

    def full_init(self) -> None:
        """Find the files."""
        if self._fully_initialized:
            return
        super().full_init()
        # In shared memory: workers come and go with each epoch, and what one has found is known to all.
        self.damaged = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    def prepare_data(self, idx: int) -> dict | None:
        """Load a file, through the pipeline.

        Args:
            idx (int): Its index.

        Returns:
            dict | None: What the pipeline gives, None for a damaged file that is left out.

        Raises:
            MediaFileError: If the file cannot be used and is not to be left out, or too many cannot.
        """
        if self.skip_damaged and self.damaged[idx]:
            return None
        try:
            return super().prepare_data(idx)
        except MediaFileError as error:
            if not self.skip_damaged:
                raise
            self.damaged[idx] = True
            number = int(self.damaged.sum())
            # An error to logging, because the other ranks of a run log nothing less; each has a count of its own.
            print_log(f'Left out, {number} by now: {error}', logger='current', level=logging.ERROR)
            if number > self.max_damaged or number == len(self):
                raise type(error)(
                    f'{number} of {len(self)} {self.KIND} in {self.data_root} cannot be used, and max_damaged is '
                    f'{self.max_damaged}; scan the folder, or raise max_damaged. The last: {error}'
                ) from error
            return None

    def _rand_another(self) -> int:
        """Draw a file that is not known to be damaged, in place of one that is.

        Returns:
            int: Its index.
        """
        return int(np.random.choice(np.flatnonzero(~self.damaged.numpy())))
