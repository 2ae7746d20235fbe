import random

import numpy as np
import torch

from mmconvmae.registry import FUNCTIONS


@FUNCTIONS.register_module()
def worker_init_fn(worker_id: int) -> None:
    """Seed a data-loading worker from the main process's random state at the start of the epoch.

    mmengine's own function gives each worker the same seed whenever it starts. See :class:`EpochSeedHook`.

    Args:
        worker_id (int): Index of the worker; PyTorch has counted it in.
    """
    seed = torch.initial_seed() % 2**32  # NumPy takes 32 bits
    random.seed(seed)
    np.random.seed(seed)
