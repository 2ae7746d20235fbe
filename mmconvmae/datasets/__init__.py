from .loading import LoadWholeImage
from .worker import worker_init_fn

__all__ = ['LoadWholeImage', 'worker_init_fn']
