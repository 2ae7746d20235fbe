from .image_file import ImageFile, ImageFileError
from .image_folder import ImageFolder, find_images
from .loading import LoadRandomResizedCrop, LoadWholeImage
from .repeated_augmentation import RepeatedAugmentation, RepeatedSampler
from .seeded_sampling import SeededInfiniteSampler, SeedSample
from .worker import worker_init_fn

__all__ = [
    'ImageFile',
    'ImageFileError',
    'ImageFolder',
    'LoadRandomResizedCrop',
    'LoadWholeImage',
    'RepeatedAugmentation',
    'RepeatedSampler',
    'SeedSample',
    'SeededInfiniteSampler',
    'find_images',
    'worker_init_fn',
]
