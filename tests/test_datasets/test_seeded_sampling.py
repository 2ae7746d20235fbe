"""A run that counts iterations goes on with the samples, crops and dropout of one that was not stopped."""

import random

import numpy as np
import pytest
import torch
import torch.nn as nn
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.runner import Runner
from torch.utils.data import default_collate


@TRANSFORMS.register_module()
class Throw:
    """Adds what is random to a sample, from all three sources."""

    def __call__(self, results):
        dice = random.random(), np.random.random(), torch.rand(()).item()
        return dict(x=torch.tensor([float(results['number']), *dice]))


@DATASETS.register_module()
class Numbers(BaseDataset):
    def load_data_list(self):
        return [dict(number=i) for i in range(5)]


@MODELS.register_module()
class Dropping(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, x, mode='loss'):
        return dict(loss=self.layer(x).square().mean())


NUMBERS = dict(type='Numbers', pipeline=[dict(type='mmconvmae.SeedSample'), dict(type='Throw')])
DATA = {
    'plain': NUMBERS,
    'repeated': dict(type='RepeatDataset', dataset=NUMBERS, times=3),
    'concatenated': dict(type='ConcatDataset', datasets=[NUMBERS, NUMBERS]),
}


def loader(dataset=NUMBERS, num_workers=0, sampler='mmconvmae.SeededInfiniteSampler'):
    return dict(
        batch_size=2,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        sampler=dict(type=sampler, shuffle=True),
        dataset=dataset,
        collate_fn=default_collate,
    )


def batches(number, skipped=0, **kwargs):
    """Batches after some that are skipped, without loading them."""
    built = Runner.build_dataloader(loader(**kwargs), seed=3)
    order = built.sampler.indices
    for _ in range(2 * skipped):
        next(order)
    iterator = iter(built)
    return [next(iterator)['x'] for _ in range(number)]


@pytest.mark.parametrize('kind', DATA)
@pytest.mark.parametrize('num_workers', [0, 2])
def test_what_comes_does_not_depend_on_what_was_drawn(kind, num_workers):
    whole = torch.stack(batches(9, dataset=DATA[kind], num_workers=num_workers))
    assert len(whole.flatten(0, 1).unique(dim=0)) == 18  # no two samples alike, though numbers come again
    random.random(), np.random.random(), torch.rand(())
    rest = torch.stack(batches(5, 4, dataset=DATA[kind], num_workers=2 - num_workers))
    assert torch.equal(whole[4:], rest)


def test_order_is_that_of_mmengine():
    ours, theirs = (
        torch.stack(batches(9, sampler=kind)) for kind in ('mmconvmae.SeededInfiniteSampler', 'InfiniteSampler')
    )
    assert torch.equal(ours[..., 0], theirs[..., 0]) and not torch.equal(ours[..., 1:], theirs[..., 1:])


def test_processes_share_the_samples_of_one(monkeypatch):
    whole = torch.cat(batches(6))
    for rank in range(2):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        assert torch.equal(torch.cat(batches(3)), whole[rank::2])


def run(folder, iterations, seed_hook=True, **kwargs):
    hooks = [dict(type='mmconvmae.IterSeedHook')] if seed_hook else []
    runner = Runner(
        model=dict(type='Dropping'),
        work_dir=str(folder),
        train_dataloader=loader(num_workers=2),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=3)),
        custom_hooks=hooks,
        randomness=dict(seed=0),
        default_scope='mmengine',
        experiment_name=f'{folder.name}-{iterations}',
        **kwargs,
    )
    runner.train()
    return runner.model.state_dict()


@pytest.mark.parametrize('seed_hook', [True, False])
def test_resumed_run_has_the_weights_of_an_uninterrupted_one(tmp_path, seed_hook):
    """And without the hook it has not, for dropout."""
    whole = run(tmp_path / 'whole', 6, seed_hook)
    run(tmp_path / 'stopped', 3, seed_hook)
    resumed = run(tmp_path / 'stopped', 6, seed_hook, resume=True)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items()) == seed_hook
