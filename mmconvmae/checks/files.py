from collections.abc import Iterator, Sequence
from time import monotonic

import numpy as np
from mmengine.logging import MMLogger

from mmconvmae.datasets import ImageFile
from mmconvmae.utils import find_types


def kinds_of(data_set: type) -> Iterator[str]:
    """Names of a class of data sets and of all that are made from it.

    Args:
        data_set (type): The class.

    Yields:
        str: The names.
    """
    yield data_set.__name__
    for kind in data_set.__subclasses__():
        yield from kinds_of(kind)


def some_of(items: Sequence, number: int | None, what: str, logger: MMLogger) -> Iterator:
    """Give items, or so many at even distances where there are more, with progress where it may take time.

    Args:
        items (Sequence): The items.
        number (int, optional): How many at most; None for all.
        what (str): What they are, for the log.
        logger (MMLogger): Is told how many are taken.

    Yields:
        object: The items.
    """
    chosen = items if number is None else items[:: -(-len(items) // number) or 1] if number else []
    logger.info(f'Reading {len(chosen)} of {len(items)} {what}.')
    start = said = monotonic()
    for done, item in enumerate(chosen):
        now = monotonic()
        if now - said > 10:
            said = now
            logger.info(f'{done} of {len(chosen)}, {(now - start) / done * (len(chosen) - done):.0f} seconds to go.')
        yield item


def check_depth(image: ImageFile, part: str, data_set: dict) -> list[str]:
    """Find an image whose depth mmcv's loader would cut to 8 bits, where training keeps it.

    Args:
        image (ImageFile): The image.
        part (str): Of which data loader it is.
        data_set (dict): The config of its data set.

    Returns:
        list[str]: The faults, which do not name the image, so that they are alike.
    """
    if image.dtype == np.uint8 or not any(True for _ in find_types(data_set.get('pipeline'), 'LoadImageFromFile')):
        return []
    return [
        f'The {part} data have images of type {image.dtype}, which `LoadImageFromFile` of their pipeline cuts to 8 '
        'bits; load them with `mmconvmae.LoadWholeImage` as in training (in the template, set `full_scale=255`).'
    ]


def one_text(classes: str) -> str:
    """Say that classes are a text, each letter of which would count.

    Args:
        classes (str): The text.

    Returns:
        str: The fault.
    """
    return (
        f'`classes` is the text {classes!r}, where names are wanted; write ({classes!r},) with its comma for one class.'
    )
