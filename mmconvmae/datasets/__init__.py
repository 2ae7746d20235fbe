from .image_file import ImageFile, ImageFileError
from .image_folder import ImageFolder, find_images
from .loading import LoadRandomResizedCrop, LoadWholeImage
from .worker import worker_init_fn

__all__ = [
    'ImageFile',
    'ImageFileError',
    'ImageFolder',
    'LoadRandomResizedCrop',
    'LoadWholeImage',
    'find_images',
    'worker_init_fn',
]
