import random
from types import SimpleNamespace

import numpy as np
import torch

from mmconvmae.registry import HOOKS


def draw(seed, epoch, world_size=1):
    hook = HOOKS.build(dict(type='mmconvmae.EpochSeedHook'))
    hook.before_train_epoch(SimpleNamespace(seed=seed, epoch=epoch, world_size=world_size))
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_an_epoch_draws_the_same_whenever_it_runs():
    draws = [draw(0, epoch) for epoch in range(3)]
    assert [draw(0, epoch) for epoch in (2, 0, 1)] == [draws[2], draws[0], draws[1]]
    assert len(set(draws)) == 3


def test_processes_and_epochs_all_differ():
    # mmengine adds the rank to the seed
    assert len({draw(rank, epoch, world_size=3) for rank in range(3) for epoch in range(4)}) == 12
