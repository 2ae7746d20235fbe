from contextlib import AbstractContextManager

import torch
import torch.nn as nn
from mmengine.device import get_device
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer.amp_optimizer_wrapper import GradScaler

from mmconvmae.registry import OPTIM_WRAPPERS
from mmconvmae.utils import not_finite_error


def _why_float32(dtype: str) -> str | None:
    device = get_device()
    # mmengine's autocast refuses Apple's GPUs.
    if device in ('cpu', 'mps'):
        return f'autocast to {dtype} needs a GPU, NPU or MLU, and this run is on {device}'
    # PyTorch calls bfloat16 supported where it only emulates it; Ampere is the first GPU that computes in it.
    if device == 'cuda' and dtype == 'bfloat16' and torch.cuda.get_device_capability() < (8, 0):
        return f'{torch.cuda.get_device_name()} does not compute in bfloat16'
    return None


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(AmpOptimWrapper):
    """mmengine's mixed precision where the machine has it and float32 elsewhere, so that one config runs on both.

    A loss that is not finite stops the run before weights, gradients or the optimiser's state have changed, and all
    processes of a distributed run together. A run goes on from a checkpoint of this wrapper or of mmengine's, whatever
    the precision was.

    Args:
        dtype (str, optional): What to autocast to. ``'float16'`` comes with dynamic loss scaling, ``'bfloat16'`` needs
            none, and None stands for float32 on every machine. Defaults to ``'bfloat16'``.
        **kwargs: Those of mmengine's ``OptimWrapper``: optimizer, accumulative_counts, clip_grad.

    Raises:
        ValueError: If there is no such ``dtype``.
    """

    def __init__(self, dtype: str | None = 'bfloat16', **kwargs) -> None:
        if dtype not in ('bfloat16', 'float16', None):
            raise ValueError(
                f"`optim_wrapper.dtype` is {dtype!r}, and can be 'bfloat16', 'float16' or None, which is float32."
            )
        why_float32 = None if dtype is None else _why_float32(dtype)
        if dtype is None or why_float32:
            # mmengine's own refuses to be made without an accelerator.
            OptimWrapper.__init__(self, **kwargs)
            self.cast_dtype, self.loss_scaler, self._scale_update_param = None, GradScaler(enabled=False), None
        else:
            super().__init__(loss_scale=dict(enabled=dtype == 'float16'), dtype=dtype, **kwargs)
        if dtype is not None:
            print_log(
                f'Training in float32: {why_float32}.' if why_float32 else f'Training with autocast to {dtype}.',
                logger='current',
            )

    def optim_context(self, model: nn.Module) -> AbstractContextManager:
        """Make the context of the forward pass: autocast, and no synchronisation while gradients accumulate.

        Args:
            model (nn.Module): The model.

        Returns:
            AbstractContextManager: The context.
        """
        if self.cast_dtype is None:
            return OptimWrapper.optim_context(self, model)
        return super().optim_context(model)

    def update_params(
        self, loss: torch.Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None
    ) -> None:
        """Back-propagate a loss, and update the weights if enough gradients have accumulated.

        Args:
            loss (torch.Tensor): The loss, of no dimension.
            step_kwargs (dict, optional): Arguments of the optimiser's ``step``. Defaults to None.
            zero_kwargs (dict, optional): Arguments of the optimiser's ``zero_grad``. Defaults to None.

        Raises:
            FloatingPointError: If the loss is not finite, in this process or in another.
        """
        # The sum of what is not finite is not finite either, and says the same in each process.
        worst = loss.detach().float()
        worst = worst.where(~worst.isfinite(), worst.new_zeros(()))
        all_reduce(worst)
        if not worst.isfinite():
            raise not_finite_error(f'loss is {worst.item()} in', self)
        super().update_params(loss, step_kwargs, zero_kwargs)

    def state_dict(self) -> dict:
        """Give the state to save.

        Returns:
            dict: That of the optimiser, and of the loss scaling where there is any.
        """
        state = super().state_dict()
        if not state['loss_scaler']:
            del state['loss_scaler']  # mmengine's wrapper would refuse an empty one
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over a saved state.

        Args:
            state_dict (dict): That of this wrapper or of one of mmengine's.
        """
        super().load_state_dict({key: value for key, value in state_dict.items() if key != 'loss_scaler' or value})
