import time
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import OPTIM_WRAPPERS

from mmconvmae.registry import HOOKS


@pytest.fixture
def make_runner():
    """What the hook sees of a runner, with a kind of optimiser wrapper."""

    def make(kind='OptimWrapper'):
        hub = MessageHub.get_instance(f'test_{time.monotonic_ns()}')
        hub.update_info_dict(dict(epoch=2, iter=119, last_ckpt='work/epoch_2.pth'))
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.2e-3)
        return SimpleNamespace(optim_wrapper=OPTIM_WRAPPERS.build(dict(type=kind, optimizer=optimizer)))

    return make


@pytest.fixture
def hook():
    return HOOKS.build(dict(type='mmconvmae.FiniteCheckHook'))


@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_stops_at_a_loss_that_is_not_finite(hook, make_runner, value):
    runner = make_runner()
    hook.after_train_iter(runner, 18, outputs=dict(loss=torch.tensor(0.5)))
    with pytest.raises(
        FloatingPointError,
        match=rf'loss is {value} in iteration 120 \(epoch 3, learning rate 0\.0012\).*work/epoch_2\.pth',
    ):
        hook.after_train_iter(runner, 19, outputs=dict(loss=torch.tensor(float(value))))


def test_leaves_losses_to_a_wrapper_that_looks_before_the_step(hook, make_runner):
    hook.after_train_iter(make_runner('mmconvmae.AutocastOptimWrapper'), 0, outputs=dict(acc=torch.tensor(torch.nan)))


@pytest.mark.parametrize('kind', ['OptimWrapper', 'mmconvmae.AutocastOptimWrapper'])
def test_keeps_broken_weights_out_of_checkpoints(hook, make_runner, kind):
    runner = make_runner(kind)
    weights = dict(weight=torch.ones(2), steps=torch.tensor(3))
    hook.before_save_checkpoint(runner, dict(state_dict=weights))
    weights['weight'][0] = float('nan')
    with pytest.raises(FloatingPointError, match=r'weight is not finite after iteration 120 \(epoch 3'):
        hook.before_save_checkpoint(runner, dict(state_dict=weights))
