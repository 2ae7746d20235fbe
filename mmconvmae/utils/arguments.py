"""Checks of arguments that come from a config: one sentence for what could not be meant."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real


def check_choice(name: str, value: object, choices: Sequence) -> None:
    """Check that an argument is one of those that there are.

    Args:
        name (str): Name of the argument.
        value (object): Its value.
        choices (Sequence): What it may be.

    Raises:
        ValueError: If it is something else.
    """
    if value not in choices:
        raise ValueError(f'`{name}` is {value!r}; choose one of {", ".join(map(str, choices))}.')


def check_integer(name: str, value: object, least: int = 1) -> None:
    """Check that an argument is a whole number.

    Args:
        name (str): Name of the argument.
        value (object): Its value.
        least (int): The smallest that it may be. Defaults to 1.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f'`{name}` is {value!r}; give a whole number of {least} or more.')


def check_number(name: str, value: object, least: float = 0.0, most: float = math.inf) -> None:
    """Check that an argument is a number.

    Args:
        name (str): Name of the argument.
        value (object): Its value.
        least (float): The smallest that it may be. Defaults to 0.
        most (float): The largest. Defaults to infinity, which it may not be itself.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not least <= value <= most or math.isinf(value):
        limits = f'of {least:g} or more' if most == math.inf else f'from {least:g} to {most:g}'
        raise ValueError(f'`{name}` is {value!r}; give a number {limits}.')


def check_stages(name: str, values: object, check: Callable, *limits: float) -> None:
    """Check that there is a value for each stage.

    Args:
        name (str): Name of the argument.
        values (object): Its value.
        check (Callable): Check of the value of one stage, one of those above.
        *limits (float): Its limits.

    Raises:
        ValueError: If there are not three, or one of them is not what it may be.
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 3:
        raise ValueError(f'`{name}` is {values!r}; give one value for each of the three stages.')
    for i, value in enumerate(values):
        check(f'{name}[{i}]', value, *limits)


def check_config(name: str, value: object) -> None:
    """Check that an argument is the config of a module, or the module.

    Args:
        name (str): Name of the argument.
        value (object): Its value.

    Raises:
        ValueError: If it could be neither.
    """
    if value is None or isinstance(value, (bool, int, float, str, list, tuple)):
        raise ValueError(f'`{name}` is {value!r}; give a config, a dict with its `type`.')
    if isinstance(value, dict) and 'type' not in value:
        raise ValueError(f'`{name}` is {value!r}, without a `type`; name the module in it.')
