from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed

from mmconvmae.registry import HOOKS


@HOOKS.register_module()
class IterSeedHook(Hook):
    """Seed every iteration by its number, for runs that count iterations and have no epochs for :class:`EpochSeedHook`.

    So a resumed run has the masks, dropout and stochastic depth of an uninterrupted one. Crops, which are drawn before
    and in workers, need :class:`SeededInfiniteSampler`.
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Seed Python, NumPy and PyTorch.

        Args:
            runner (Runner): The runner, whose ``seed`` already differs between processes.
            batch_idx (int): Not used.
            data_batch (dict, optional): Not used.
        """
        set_random_seed(runner.seed + runner.iter * runner.world_size)
