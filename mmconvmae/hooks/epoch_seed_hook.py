from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed

from mmconvmae.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed every epoch by its number, so that a resumed run draws what an uninterrupted one would.

    mmengine restores weights, optimiser and schedule, but its random state begins anew, and with it masks and crops.
    For crops drawn in worker processes this needs workers that start with each epoch and take their seed from the
    main process: ``persistent_workers=False`` and ``worker_init_fn=dict(type='mmconvmae.worker_init_fn')``.

    The processes of a distributed run draw different numbers with ``randomness = dict(diff_rank_seed=True)``.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed Python, NumPy and PyTorch.

        Args:
            runner (Runner): The runner, whose ``seed`` already differs between processes.
        """
        set_random_seed(runner.seed + runner.epoch * runner.world_size)
