from .epoch_seed_hook import EpochSeedHook
from .finite_check_hook import FiniteCheckHook

__all__ = ['EpochSeedHook', 'FiniteCheckHook']
