import itertools
import random
from collections.abc import Iterator

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import InfiniteSampler

from mmconvmae.registry import DATA_SAMPLERS, TRANSFORMS


class SeededIndex(int):
    """Index of a sample that has a seed with it, which data sets that wrap others hand on.

    Attributes:
        seed (int): For whatever is drawn at random for this sample, 32 bits.
    """

    seed: int

    def with_seed(self, seed: int) -> 'SeededIndex':
        """Give this index a seed."""
        self.seed = seed
        return self

    def __mod__(self, length: int) -> 'SeededIndex':  # of mmengine's RepeatDataset
        return SeededIndex(int(self) % length).with_seed(self.seed)

    def __sub__(self, start: int) -> 'SeededIndex':  # of mmengine's ConcatDataset
        return SeededIndex(int(self) - start).with_seed(self.seed)


@DATA_SAMPLERS.register_module()
class SeededInfiniteSampler(InfiniteSampler):
    """mmengine's ``InfiniteSampler``, which gives each sample a seed by its place in the run.

    With :class:`SeedSample` at the start of the pipeline and :class:`IterSeedHook`, a run that counts iterations goes
    on with the crops that it would have had, whatever workers drew before.

    Args:
        *args: Arguments of mmengine's ``InfiniteSampler``.
        **kwargs: The same.
    """

    def _indices_of_rank(self) -> Iterator[SeededIndex]:
        for place, index in itertools.islice(enumerate(self._infinite_indices()), self.rank, None, self.world_size):
            seed = np.random.SeedSequence((self.seed, place)).generate_state(1)[0]
            yield SeededIndex(index).with_seed(int(seed))


@TRANSFORMS.register_module()
class SeedSample(BaseTransform):
    """Seed Python, NumPy and PyTorch for a sample, where :class:`SeededInfiniteSampler` asks for it.

    A sample that is asked for by a plain index, as in a look at the data, is left to chance.
    """

    def transform(self, results: dict) -> dict:
        """Seed.

        Args:
            results (dict): What the data set knows of the sample.

        Returns:
            dict: The same.
        """
        if isinstance(index := results.get('sample_idx'), SeededIndex):
            random.seed(index.seed)
            np.random.seed(index.seed)
            torch.manual_seed(index.seed)
        return results
