"""Twenty steps of a small ConvMAE on fixed images and masks, in one process or more, or with accumulated gradients.

python steps.py OUT ACCUMULATE WRAPPER, with RANK and WORLD_SIZE in the environment for several processes. WRAPPER is
ddp, or fsdp for weights and optimiser states that are divided among them.
"""

import os
import sys

import torch
import torch.distributed as dist
from conftest import SMALL_MODEL
from mmengine.model import MMDistributedDataParallel, MMFullyShardedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch.distributed.fsdp import StateDictType

import mmconvmae  # noqa: F401
from mmconvmae.registry import MODELS

STEPS, BATCH = 20, 4


def main(out, accumulate, wrapper):
    rank, world = int(os.environ.get('RANK', 0)), int(os.environ.get('WORLD_SIZE', 1))
    torch.set_num_threads(1)
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(dict(SMALL_MODEL, data_preprocessor=dict(type='mmengine.BaseDataPreprocessor')))
    model.init_weights()
    model.double()  # Adam makes steps of the same size out of rounding errors
    optim_wrapper = dict(
        type='mmconvmae.AutocastOptimWrapper',
        accumulative_counts=accumulate,
        optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    )
    images, noise = torch.randn(STEPS, BATCH, 3, 64, 64).double(), torch.rand(STEPS, BATCH, 16)
    parts = []  # each step's images and noise, as this process takes them
    for step in range(STEPS):
        mine = torch.arange(rank, BATCH, world)
        parts += [(images[step, share], noise[step, share]) for share in mine.chunk(accumulate)]
    wrapped = model
    if world > 1:
        dist.init_process_group('gloo')
        if wrapper == 'ddp':
            wrapped = MMDistributedDataParallel(model, device_ids=None)
        else:
            policy = dict(type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy', min_num_params=5000)
            wrapped = MMFullyShardedDataParallel(model, auto_wrap_policy=policy, device_id=torch.device('cpu'))
    optim_wrapper = build_optim_wrapper(wrapped, optim_wrapper)
    optim_wrapper.initialize_count_status(wrapped, 0, STEPS * accumulate)
    losses = []
    for inputs, values in parts:
        model.generate_mask = lambda inputs, values=values: model.mask_generator.from_noise(values, (4, 4))
        losses.append(wrapped.train_step(dict(inputs=inputs, data_samples=None), optim_wrapper)['loss'].detach())
    if wrapper == 'fsdp':
        wrapped.set_state_dict_type(wrapped, StateDictType.FULL_STATE_DICT)
        model = wrapped
    torch.save(dict(losses=torch.stack(losses), weights=model.state_dict()), out)


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
