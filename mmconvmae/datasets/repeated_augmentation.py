"""Several crops of each image that is decoded."""

import copy
from collections.abc import Iterator, Sequence

from mmengine.dataset import BaseDataset, Compose, DefaultSampler
from torch.utils.data import Dataset

from mmconvmae.registry import DATA_SAMPLERS, DATASETS


@DATASETS.register_module()
class RepeatedAugmentation(Dataset):
    """Several samples of each image, which is loaded once for all of them.

    Samples are what is counted everywhere: in the length, in a batch, in the learning rate that follows the batch. An
    epoch therefore has each image ``repeats`` times. Those of an image have consecutive indices, and a
    :class:`RepeatedSampler` keeps them together; in another order, or where a batch ends between them, the image is
    loaded again.

    Args:
        dataset (dict | BaseDataset): The images. What its pipeline does is done once for an image, so there is nothing
            random in it: ``[dict(type='mmconvmae.LoadWholeImage')]``.
        pipeline (Sequence[dict]): What is done for each sample, from the loaded image on, such as
            :class:`LoadRandomResizedCrop`.
        repeats (int): Samples of an image.

    Raises:
        ValueError: If ``repeats`` is less than 1.
    """

    def __init__(self, dataset: dict | BaseDataset, pipeline: Sequence[dict], repeats: int) -> None:
        if repeats < 1:
            raise ValueError(f'`repeats` is {repeats}; an image has 1 sample or more.')
        self.images = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.pipeline = Compose(pipeline)
        self.repeats = repeats
        self._last = None  # index of the image that was loaded last, and what its pipeline gave

    @property
    def metainfo(self) -> dict:
        """What is known of the images as a whole."""
        return self.images.metainfo

    def full_init(self) -> None:
        """Find the images."""
        self.images.full_init()

    def __len__(self) -> int:
        return len(self.images) * self.repeats

    def __getitem__(self, index: int) -> dict:
        """Give a sample.

        Args:
            index (int): Its index: that of the image times ``repeats``, and up to ``repeats`` - 1 more.

        Returns:
            dict: What the pipeline gives.

        Raises:
            Exception: Whatever loading the image raises.
        """
        image = index // self.repeats
        if self._last is None or self._last[0] != image:
            self._last = image, self.images[image]
        # Transforms may work in place.
        return self.pipeline(copy.deepcopy(self._last[1]))


@DATA_SAMPLERS.register_module()
class RepeatedSampler(DefaultSampler):
    """Shuffles the images of a :class:`RepeatedAugmentation`, and keeps the samples of each together.

    The processes of a distributed run share images out as mmengine's ``DefaultSampler`` does, and have all samples of
    theirs.

    Args:
        dataset (RepeatedAugmentation): The data set.
        **kwargs: Arguments of mmengine's ``DefaultSampler``: ``shuffle``, ``seed`` and ``round_up``.

    Raises:
        TypeError: If the data set is another.
    """

    def __init__(self, dataset: RepeatedAugmentation, **kwargs) -> None:
        if not isinstance(dataset, RepeatedAugmentation):
            raise TypeError(
                f'RepeatedSampler keeps the samples of a RepeatedAugmentation together, and the data set is a '
                f'{type(dataset).__name__}; use DefaultSampler.'
            )
        super().__init__(dataset.images, **kwargs)
        self.repeats = dataset.repeats

    def __iter__(self) -> Iterator[int]:
        for image in super().__iter__():
            yield from range(image * self.repeats, (image + 1) * self.repeats)

    def __len__(self) -> int:
        return super().__len__() * self.repeats
