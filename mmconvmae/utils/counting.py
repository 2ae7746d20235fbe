from collections.abc import Callable

import torch
import torch.nn as nn
from torch.utils.flop_counter import FlopCounterMode

from .old_torch import plain_attention


def count_multiply_adds(function: Callable, *args, **kwargs) -> int:
    """Count the multiply-adds of a call: those of matrix products, convolutions and attention, without gradients.

    On PyTorch's meta device nothing is computed for it.

    Args:
        function (Callable): What to call, such as a module.
        *args: Its arguments.
        **kwargs: Its keyword arguments.

    Returns:
        int: Multiply-adds, which is half of the floating-point operations.

    Raises:
        Exception: Whatever the call raises.
    """
    # Of attention only the plain form is counted on every device.
    with FlopCounterMode(display=False) as counter, plain_attention(), torch.no_grad():
        function(*args, **kwargs)
    return counter.get_total_flops() // 2


def count_parameters(*modules: nn.Module) -> int:
    """Count parameters, trained or not.

    Args:
        *modules (nn.Module): Modules that share none.

    Returns:
        int: Numbers in their parameters.
    """
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
