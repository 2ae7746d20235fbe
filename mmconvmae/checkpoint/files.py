"""Checkpoint files: read without running what a stranger may have put into them, written whole or not at all."""

import argparse
import ast
import os
import pickle
import re
from collections.abc import Callable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from mmconvmae.utils import write_whole


def _statistic(owner: type, name: str) -> Callable:
    """What ``getattr`` is for in mmengine's checkpoints: methods of its logs. Free use of it could run any code."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError('GLOBAL getattr')
    return getattr(owner, name)


def _named(function: Callable, path: str) -> Callable:
    """Give a function the name under which PyTorch looks it up when it reads a checkpoint."""

    def call(*args):
        return function(*args)

    call.__module__, _, call.__qualname__ = path.rpartition('.')
    call.__name__ = call.__qualname__
    return call


_MULTIARRAY = (np._core if hasattr(np, '_core') else np.core).multiarray
# What checkpoints hold beside tensors: mmengine's logs of a run, in numpy's arrays, and the authors' arguments. numpy 1
# and 2, and pickle's protocols, differ in where they say that a function is.
SAFE_GLOBALS = (
    argparse.Namespace,
    HistoryBuffer,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in (np.bool_, np.int64, np.uint32, np.float32, np.float64)},
    *(
        _named(getattr(_MULTIARRAY, name), f'numpy.{core}.multiarray.{name}')
        for core in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    ),
    *(_named(_statistic, f'{builtins}.getattr') for builtins in ('builtins', '__builtin__')),
)


def read_checkpoint(path: str | os.PathLike) -> dict:
    """Read a checkpoint file.

    Args:
        path (str | os.PathLike): The file.

    Returns:
        dict: What is in it, on the CPU.

    Raises:
        ValueError: If the file is no whole checkpoint, or holds objects that could run code.
        OSError: If the file cannot be opened.
    """
    with open(path, 'rb') as file:
        try:
            with torch.serialization.safe_globals(list(SAFE_GLOBALS)):
                content = torch.load(file, map_location='cpu', weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f'{path} {_fault(error)}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds {type(content).__name__} and no parameters; is it the right kind of file?')
    return content


def is_state_dict(entry: object) -> bool:
    """Whether something read from a checkpoint holds the parameters of a model.

    Args:
        entry (object): Anything.

    Returns:
        bool: Whether it is a dict of tensors and not empty.
    """
    return isinstance(entry, dict) and bool(entry) and all(isinstance(value, Tensor) for value in entry.values())


def read_state_dict(path: str | os.PathLike, *keys: str) -> dict[str, Tensor]:
    """Read the parameters out of a checkpoint file.

    Args:
        path (str | os.PathLike): The file.
        *keys (str): The entries that may hold them: 'model' in official files, 'state_dict' in mmengine's and mmseg's.

    Returns:
        dict[str, Tensor]: The parameters.

    Raises:
        ValueError: If the file is no whole checkpoint, has no such entry, or holds objects that could run code.
        OSError: If the file cannot be opened.
    """
    content = read_checkpoint(path)
    key = next((key for key in keys if key in content), keys[0])
    if not is_state_dict(content.get(key)):
        entries = ', '.join(map(str, list(content)[:5]))
        raise ValueError(f'{path} has no parameters under {key!r} (it holds {entries}); is it the right kind of file?')
    return content[key]


def config_of(content: dict) -> dict:
    """Read the config that a checkpoint was trained with, as far as it is plain data.

    mmengine's checkpoints have it as Python source. That is not run but taken apart: what is no literal and no
    ``dict(...)`` of literals is passed over, so a stranger's checkpoint can do nothing here.

    Args:
        content (dict): What :func:`read_checkpoint` gives.

    Returns:
        dict: The config, empty if there is none.
    """
    meta = content.get('meta')
    config = meta.get('cfg', meta.get('config')) if isinstance(meta, dict) else None
    if isinstance(config, dict):
        return config
    if not isinstance(config, str):
        return {}
    try:
        statements = ast.parse(config).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    values = {}
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                values[statement.targets[0].id] = _evaluate(statement.value)
            except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
                continue
    return values


def _evaluate(node: ast.expr) -> object:
    """The value of a literal that may have ``dict(...)`` in it."""
    match node:
        case ast.Call(func=ast.Name(id='dict'), args=args, keywords=keywords) if len(args) <= 1:
            value = dict(_evaluate(args[0])) if args else {}
            for keyword in keywords:  # one without a name is `**`
                value.update(
                    _evaluate(keyword.value) if keyword.arg is None else {keyword.arg: _evaluate(keyword.value)}
                )
            return value
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {ast.literal_eval(key): _evaluate(value) for key, value in zip(keys, values)}
        case ast.List(elts=elements):
            return [_evaluate(element) for element in elements]
        case ast.Tuple(elts=elements):
            return tuple(_evaluate(element) for element in elements)
    return ast.literal_eval(node)


def _fault(error: Exception) -> str:
    """Say what is wrong with a file that cannot be read."""
    refused = re.search(r'GLOBAL (\S+)', str(error))
    if refused is not None:
        return (
            f'holds {refused[1]}, an object that could run code when it is read, and so was not read; have its maker '
            'save the parameters alone.'
        )
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f'is truncated or not a PyTorch checkpoint ({reason}); fetch it again.'


def write_checkpoint(content: dict, path: str | os.PathLike) -> None:
    """Write a checkpoint so that the file is either whole or not there.

    Args:
        content (dict): What to save.
        path (str | os.PathLike): The file; its folder is made where it is missing.
    """
    with write_whole(path) as partial:
        torch.save(content, partial)
