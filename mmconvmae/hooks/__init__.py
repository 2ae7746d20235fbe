from .epoch_seed_hook import EpochSeedHook
from .finite_check_hook import FiniteCheckHook
from .iter_seed_hook import IterSeedHook
from .reconstruction_hook import ReconstructionHook

__all__ = ['EpochSeedHook', 'FiniteCheckHook', 'IterSeedHook', 'ReconstructionHook']
