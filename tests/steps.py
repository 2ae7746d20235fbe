"""Twenty steps of a small ConvMAE on fixed images and masks, in one process or more, or with accumulated gradients.

python steps.py OUT ACCUMULATE, with RANK and WORLD_SIZE in the environment for several processes.
"""

import os
import sys

import torch
import torch.distributed as dist
from conftest import SMALL_MODEL
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

import mmconvmae  # noqa: F401
from mmconvmae.registry import MODELS

STEPS, BATCH = 20, 4


def main(out, accumulate):
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
    optim_wrapper = build_optim_wrapper(model, optim_wrapper)
    optim_wrapper.initialize_count_status(model, 0, STEPS * accumulate)
    images, noise = torch.randn(STEPS, BATCH, 3, 64, 64).double(), torch.rand(STEPS, BATCH, 16)
    parts = []  # each step's images and noise, as this process takes them
    for step in range(STEPS):
        mine = torch.arange(rank, BATCH, world)
        parts += [(images[step, share], noise[step, share]) for share in mine.chunk(accumulate)]
    wrapped = model
    if world > 1:
        dist.init_process_group('gloo')
        wrapped = MMDistributedDataParallel(model, device_ids=None)
    losses = []
    for inputs, values in parts:
        model.generate_mask = lambda inputs, values=values: model.mask_generator.from_noise(values, (4, 4))
        losses.append(wrapped.train_step(dict(inputs=inputs, data_samples=None), optim_wrapper)['loss'].detach())
    torch.save(dict(losses=torch.stack(losses), weights=model.state_dict()), out)


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]))
