"""Unpickling of nothing but tensors and the few types that checkpoints hold beside them."""

import argparse
import codecs
import pickle
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import BinaryIO

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

try:
    from numpy._core import multiarray
except ImportError:  # numpy 1, of which only the last versions have both names
    from numpy.core import multiarray


# What ``getattr`` is for in mmengine's checkpoints: methods of its logs and of a schedule. Free use could run any code.
_METHODS = {
    HistoryBuffer: ('min', 'max', 'mean', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}


def _method(owner: type, name: str) -> Callable:
    if not isinstance(owner, type) or name not in _METHODS.get(owner, ()):
        raise pickle.UnpicklingError('GLOBAL getattr')
    return getattr(owner, name)


def _named(function: Callable, path: str) -> Callable:
    """Give a function the name under which PyTorch looks it up when it reads a checkpoint."""

    def call(*args):
        return function(*args)

    call.__module__, _, call.__qualname__ = path.rpartition('.')
    call.__name__ = call.__qualname__
    return call


# What checkpoints hold beside tensors: mmengine's logs and schedules, in numpy's arrays, and the authors' arguments.
# numpy 1 and 2, and pickle's protocols, differ in where they say that a function is.
SAFE_GLOBALS = (
    argparse.Namespace,
    codecs.encode,  # of bytes, in pickle's old protocols
    Counter,
    HistoryBuffer,
    OneCycleParamScheduler,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in (np.bool_, np.int64, np.uint32, np.float32, np.float64)},
    *(
        _named(getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
        for core in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    ),
    *(_named(_method, f'{builtins}.getattr') for builtins in ('builtins', '__builtin__')),
)

if hasattr(torch.serialization, 'add_safe_globals'):
    # For everybody: an mmengine that leaves the choice to PyTorch, 2.6 or later, cannot read its own checkpoints.
    torch.serialization.add_safe_globals(list(SAFE_GLOBALS))


class _SafeUnpickler(pickle.Unpickler):
    """What ``weights_only=True`` is in PyTorch 2.5 and later, which PyTorch before cannot be told other types of."""

    def find_class(self, module: str, name: str) -> object:
        path = f'{module}.{name}'
        allowed = dict(torch._weights_only_unpickler._get_allowed_globals())
        allowed.update((f'{item.__module__}.{item.__qualname__}', item) for item in SAFE_GLOBALS)
        if path not in allowed:
            raise pickle.UnpicklingError(f'GLOBAL {path}')
        return allowed[path]


def load(file: BinaryIO, map_location: object) -> object:
    """Read what ``torch.save`` wrote, without running what a stranger may have put into it.

    Args:
        file (BinaryIO): The file.
        map_location (object): As of ``torch.load``.

    Returns:
        object: What is in it.

    Raises:
        pickle.UnpicklingError: If it holds anything but tensors, plain data and :data:`SAFE_GLOBALS`.
    """
    if hasattr(torch.serialization, 'safe_globals'):
        return torch.load(file, map_location=map_location, weights_only=True)
    safe_pickle = SimpleNamespace(
        __name__='safe_pickle',
        Unpickler=_SafeUnpickler,
        load=lambda file, **kwargs: _SafeUnpickler(file, **kwargs).load(),
    )
    return torch.load(file, map_location=map_location, pickle_module=safe_pickle)
