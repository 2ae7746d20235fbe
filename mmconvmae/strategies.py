from mmengine._strategy.fsdp import FSDPStrategy as MMEngineFSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel

from mmconvmae.registry import STRATEGIES


@STRATEGIES.register_module()
class FSDPStrategy(MMEngineFSDPStrategy):
    """mmengine's, whose runs go on from a checkpoint with PyTorch 2.1 and later too.

    mmengine hands over arguments in the order that they had in PyTorch 2.0, and its wrapper in place of the optimiser.
    """

    def optim_state_dict(self) -> dict:
        """The state of the optimiser, gathered from all processes.

        Returns:
            dict: The state by the names of parameters, and the parameter groups.
        """
        return FullyShardedDataParallel.optim_state_dict(self.model, self.optim_wrapper.optimizer)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load the state of the optimiser, of which each process keeps its part.

        Args:
            state_dict (dict): What a checkpoint has under 'optimizer'.
        """
        part = FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict
        )
        self.optim_wrapper.optimizer.load_state_dict(part)
