from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from inspect import signature
from math import prod

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmconvmae.models import ConvViT
from mmconvmae.utils import find_types


class DataCheck(ABC):
    """Looks through the annotations of a config and through what the config makes of them.

    A config names checks under ``checks``, and :class:`ScheduleRunner` runs them before it builds a data set. A fault
    is one sentence: what is wrong, where, and what to do. What a library leaves out of its own accord, and a user may
    have meant so, is counted in the log instead.

    Names are compared for the whole data set. Files, of which each takes some milliseconds, are opened up to a number;
    of more, about that many at even distances are, and the log says so.

    Args:
        max_opened (int, optional): How many files of each data set are opened; None for all, 0 for none. Defaults to
            1000.
    """

    def __init__(self, max_opened: int | None = 1000) -> None:
        self.max_opened = max_opened

    @abstractmethod
    def __call__(self, config: Config, parts: Sequence[str], logger: MMLogger) -> list[str]:
        """Check.

        Args:
            config (Config): The whole config.
            parts (Sequence[str]): Of which data loaders: some of 'train', 'val' and 'test'.
            logger (MMLogger): For what is counted.

        Returns:
            list[str]: The faults.
        """


def data_sets(config: Config, parts: Sequence[str], *names: str) -> Iterator[tuple[str, dict]]:
    """Find the data sets of some classes, also within others.

    Args:
        config (Config): The whole config.
        parts (Sequence[str]): Of which data loaders.
        *names (str): Names of the classes, without scope.

    Yields:
        tuple[str, dict]: The part, and the config of the data set.
    """
    for part in parts:
        loader = config.get(f'{part}_dataloader')
        for data_set in find_types(loader.get('dataset') if loader else None, *names):
            yield part, data_set


def check_heads(model: dict, num_classes: int, path: str = 'model') -> list[str]:
    """Find heads for another number of classes.

    Args:
        model (dict): The config of a model, or of a part of it.
        num_classes (int): How many classes there are.
        path (str): Where the part stands. Defaults to 'model'.

    Returns:
        list[str]: The faults.
    """
    faults = []
    parts = model.items() if isinstance(model, dict) else enumerate(model) if isinstance(model, (list, tuple)) else ()
    for key, part in parts:
        # Region proposals have one class, whatever the data.
        if key == 'num_classes' and part != num_classes and 'rpn' not in path:
            faults.append(
                f'`{path}.num_classes` is {part}, and `classes` has {num_classes}; labels beyond the head would stop '
                f'the run or be learned as another class: set both alike.'
            )
        faults += check_heads(part, num_classes, f'{path}.{key}')
    return faults


def stride_of(model: dict) -> int | None:
    """The total stride of a model's backbone.

    Args:
        model (dict): The config of the model.

    Returns:
        int | None: The stride, in pixels, None where the backbone is no ConvViT.
    """
    backbone = next(find_types(model.get('backbone'), 'ConvViT', 'VideoConvViT'), None)
    if backbone is None:
        return None
    return prod(backbone.get('patch_sizes', signature(ConvViT).parameters['patch_sizes'].default))


def say_some(items: Sequence, number: int = 3) -> str:
    """List the first items, and say how many more there are.

    Args:
        items (Sequence): The items.
        number (int): How many to list. Defaults to 3.

    Returns:
        str: They, with commas.
    """
    more = f' and {len(items) - number} more' if len(items) > number else ''
    return ', '.join(map(str, items[:number])) + more


def meant(name: str, names: Sequence[str]) -> str:
    """Ask for a name that looks like another.

    Args:
        name (str): A name that there is not.
        names (Sequence[str]): Those that there are.

    Returns:
        str: The question, or nothing where none looks alike.
    """
    return ''.join(f' (did you mean {match!r}?)' for match in get_close_matches(name, names, 1))
