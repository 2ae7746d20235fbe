"""Checkpoint files: read without running what a stranger may have put into them, written whole or not at all."""

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from mmengine.logging import MMLogger
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmconvmae.utils import write_whole

from .unpickling import load


class DamagedCheckpointError(ValueError):
    """A file is no whole checkpoint."""


def _is_safetensors(path: str | os.PathLike) -> bool:
    return Path(path).suffix.lower() == '.safetensors'


def read_checkpoint(path: str | os.PathLike, map_location: str | torch.device | Callable | None = 'cpu') -> dict:
    """Read a checkpoint file.

    Args:
        path (str | os.PathLike): The file, PyTorch's or, with this ending, ``.safetensors``.
        map_location (str | torch.device | Callable, optional): Where to put tensors, as of ``torch.load``. Defaults to
            'cpu'.

    Returns:
        dict: What is in it. Of ``.safetensors`` the tensors under 'state_dict', and the texts beside them under 'meta'.

    Raises:
        DamagedCheckpointError: If the file is no whole checkpoint.
        ValueError: If it holds objects that could run code, or no dict.
        OSError: If the file cannot be opened.
    """
    if _is_safetensors(path):
        return _read_safetensors(path, map_location)
    with open(path, 'rb') as file:
        try:
            content = load(file, map_location)
        except Exception as error:  # of a damaged file anything: what is unpickled has been changed at random
            refused = re.search(r'GLOBAL (\S+)', str(error))
            if refused is not None:
                raise ValueError(
                    f'{path} holds {refused[1]}, an object that could run code when it is read, and so was not read; '
                    'have its maker save the parameters alone.'
                ) from error
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise DamagedCheckpointError(
                f'{path} is truncated or not a PyTorch checkpoint ({reason}); fetch it again.'
            ) from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds {type(content).__name__} and no parameters; is it the right kind of file?')
    return content


def _safetensors(path: str | os.PathLike) -> ModuleType:
    # Not imported above, so that an environment that has only the OpenMMLab libraries does without it.
    try:
        import safetensors.torch
    except ImportError as error:
        raise ValueError(f'{path} needs another package: pip install safetensors') from error
    return safetensors


def _read_safetensors(path: str | os.PathLike, map_location: str | torch.device | Callable | None) -> dict:
    # A function says where each tensor of PyTorch's format was; these have been nowhere.
    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    safetensors = _safetensors(path)
    with open(path, 'rb'):
        pass  # names the file where it is missing, and a folder
    try:
        with safetensors.safe_open(path, framework='pt') as file:
            tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}
            meta = file.metadata()
    except safetensors.SafetensorError as error:
        raise DamagedCheckpointError(
            f'{path} is truncated or no .safetensors file ({str(error).splitlines()[0]}); fetch it again.'
        ) from error
    return dict(state_dict=tensors, meta=meta or {})


# In place of mmengine's own, of which one version runs what is in a file that it cannot read otherwise, and another
# cannot read its own files with PyTorch 2.6 or later.
@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str | os.PathLike, map_location: str | torch.device | Callable | None = None) -> dict:
    """Read a checkpoint wherever mmengine does: to resume, for ``load_from``, ``init_cfg`` and in tests.

    Args:
        filename (str | os.PathLike): The file.
        map_location (str | torch.device | Callable, optional): As of ``torch.load``. Defaults to None.

    Returns:
        dict: What is in it.

    Raises:
        ValueError: If the file is no whole checkpoint, or holds objects that could run code.
        FileNotFoundError: If there is no such file.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'There is no checkpoint {path}; check the path.')
    return read_checkpoint(path, map_location)


def find_checkpoints(work_dir: str | os.PathLike) -> list[str]:
    """Find the checkpoints from which a run can go on, the one saved last first and then those before.

    Args:
        work_dir (str | os.PathLike): Its work directory.

    Returns:
        list[str]: Their paths. They may be damaged, and the first may be gone.
    """
    named = Path(work_dir, 'last_checkpoint')
    last = named.read_text(errors='replace').strip() if named.is_file() else ''
    here = Path(work_dir, Path(last).name)
    if not os.path.isfile(last) and here.is_file():
        last = str(here)  # the folder was moved, or the run is started from another one
    numbers = {}
    for path in Path(work_dir).glob('*.pth'):
        match = re.fullmatch(r'(epoch|iter)_(\d+)', path.stem)
        if match:
            numbers[str(path)] = int(match[2])
    # A number above the last one's is a checkpoint that a run was stopped in while it wrote it.
    match = re.search(r'_(\d+)\.pth$', last)
    limit = int(match[1]) if match else max(numbers.values(), default=0) + 1
    before = sorted((path for path in numbers if numbers[path] < limit), key=numbers.get, reverse=True)
    return [last, *before] if match else before


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


def write_checkpoint(content: dict, path: str | os.PathLike) -> None:
    """Write a checkpoint so that the file is either whole or not there.

    Where the name ends in ``.safetensors``, the parameters and texts about them are all that such a file can hold; what
    is left out is logged.

    Args:
        content (dict): What to save; the parameters are under 'state_dict', or 'model' in official files.
        path (str | os.PathLike): The file; its folder is made where it is missing.

    Raises:
        ValueError: If there are no parameters for a ``.safetensors`` file.
    """
    if not _is_safetensors(path):
        with write_whole(path) as partial:
            torch.save(content, partial)
        return
    key = next((key for key in ('state_dict', 'model') if is_state_dict(content.get(key))), None)
    if key is None:
        raise ValueError(f'There are no parameters to write to {path}, which can hold nothing else; name a .pth file.')
    meta = content.get('meta', {})
    texts = {name: text for name, text in meta.items() if isinstance(text, str)}
    left_out = [
        *(name for name in content if name not in (key, 'meta')),
        *(f'meta.{name}' for name in meta if name not in texts),
    ]
    if left_out:
        MMLogger.get_current_instance().info(
            f'{path} holds parameters and texts alone; left out: {", ".join(map(str, left_out))}.'
        )
    safetensors = _safetensors(path)
    with write_whole(path) as partial:
        # Copies, for parameters that are tied or not contiguous cannot be written.
        safetensors.torch.save_file(
            {name: x.clone(memory_format=torch.contiguous_format) for name, x in content[key].items()}, partial, texts
        )
