import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmconvmae.registry import HOOKS


@HOOKS.register_module()
class FiniteCheckHook(Hook):
    """Stop a run at the first loss that is not finite, and keep weights that are not out of checkpoints.

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
            batch_idx (int): Index of the batch in its epoch.
            data_batch (dict, optional): Not used.
            outputs (dict, optional): The losses.
        """
        for name, value in (outputs or {}).items():
            if isinstance(value, torch.Tensor) and not torch.isfinite(value).all():
                self._stop(runner, f'{name} is {value.item()} in batch {batch_idx + 1} of')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the weights that are about to be saved.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What is about to be saved.
        """
        for name, value in checkpoint['state_dict'].items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                self._stop(runner, f'{name} is not finite after')

    @staticmethod
    def _stop(runner: Runner, what: str) -> None:
        last = runner.message_hub.runtime_info.get('last_ckpt', 'none')
        rates = ', '.join(f'{rate[0]:.3g}' for rate in runner.optim_wrapper.get_lr().values())
        raise FloatingPointError(
            f'{what} epoch {runner.epoch + 1} (iteration {runner.iter + 1}, learning rate {rates}): training stops '
            f'here. Last good checkpoint: {last}. Resume from it with a lower learning rate, or with bfloat16 or '
            'float32 if this was float16.'
        )
