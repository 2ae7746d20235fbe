import os
import random
import threading
import time
from collections.abc import Callable

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


class EndWithParent:
    """What a data-loading worker does first: see to it that it ends when the main process does, however that ends.

    PyTorch's workers notice within seconds that the main process was killed, but then wait until everything they have
    made has been read, and of large samples, as of detection, nobody reads the rest.

    Args:
        init_fn (Callable[[int], None], optional): What else the worker does first. Defaults to None.
    """

    def __init__(self, init_fn: Callable[[int], None] | None = None) -> None:
        self.init_fn = init_fn

    def __call__(self, worker_id: int) -> None:
        """Begin to watch, in a thread.

        Args:
            worker_id (int): Index of the worker.
        """
        threading.Thread(target=self._watch, args=(os.getppid(),), daemon=True).start()
        if self.init_fn is not None:
            self.init_fn(worker_id)

    @staticmethod
    def _watch(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)
