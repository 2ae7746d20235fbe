import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmconvmae.optimizers import AutocastOptimWrapper
from mmconvmae.registry import HOOKS
from mmconvmae.utils import not_finite_error


@HOOKS.register_module()
class FiniteCheckHook(Hook):
    """Keep weights that are not finite out of checkpoints, and stop a run at the first loss that is not.

    ``AutocastOptimWrapper`` stops at such a loss before the weights move, so this hook leaves losses to it. With any
    other wrapper they have moved by the time that a hook sees the loss.

    Raises:
        FloatingPointError: If a loss, or a weight about to be saved, is NaN or infinite. The checkpoints saved before
            are left as they are.
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Check the losses of an iteration.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not used.
            data_batch (dict, optional): Not used.
            outputs (dict, optional): The losses.
        """
        if isinstance(runner.optim_wrapper, AutocastOptimWrapper):
            return
        for name, value in (outputs or {}).items():
            if isinstance(value, torch.Tensor) and not torch.isfinite(value).all():
                raise not_finite_error(f'{name} is {value.item()} in', runner.optim_wrapper)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the weights that are about to be saved.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What is about to be saved.
        """
        for name, value in checkpoint['state_dict'].items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise not_finite_error(f'{name} is not finite after', runner.optim_wrapper)
