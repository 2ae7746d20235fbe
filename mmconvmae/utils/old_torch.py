"""What PyTorch 2.1 to 2.4 have under another name, or not at all. The original mmcv has wheels for these only."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torch.nn as nn
from torch.fx.experimental import symbolic_shapes

# Whether a graph is captured, and whether a condition on sizes holds for every size that a symbol may stand for. Before
# 2.3, graphs with free sizes were not exported in a way that could ask.
is_compiling = getattr(torch.compiler, 'is_compiling', torch._utils.is_compiling)
statically_known_true = getattr(symbolic_shapes, 'statically_known_true', bool)


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The type that autocast computes in.

    Args:
        device_type (str): Type of a device.

    Returns:
        torch.dtype | None: The type, None where there is no autocast.
    """
    if hasattr(torch.amp, 'is_autocast_available'):
        if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
            return torch.get_autocast_dtype(device_type)
    elif device_type == 'cpu' and torch.is_autocast_cpu_enabled():
        return torch.get_autocast_cpu_dtype()
    elif device_type == 'cuda' and torch.is_autocast_enabled():
        return torch.get_autocast_gpu_dtype()
    return None


def plain_attention() -> AbstractContextManager:
    """Compute attention by matrix products and softmax, and not in one fused kernel.

    Returns:
        AbstractContextManager: The context in which it is so.
    """
    if hasattr(torch.nn, 'attention'):
        return torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    return torch.backends.cuda.sdp_kernel(enable_flash=False, enable_mem_efficient=False)


def register_load_state_dict_pre_hook(module: nn.Module, hook: Callable) -> None:
    """Call a function before a module's own parameters are loaded.

    Args:
        module (nn.Module): The module.
        hook (Callable): Is given the module, the state dict, the prefix of the module's names, and more.
    """
    if hasattr(module, 'register_load_state_dict_pre_hook'):
        module.register_load_state_dict_pre_hook(hook)
    else:
        module._register_load_state_dict_pre_hook(hook, with_module=True)
