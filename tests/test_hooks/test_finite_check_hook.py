from types import SimpleNamespace

import pytest
import torch

from mmconvmae.registry import HOOKS


@pytest.fixture
def runner():
    return SimpleNamespace(
        epoch=2,
        iter=119,
        message_hub=SimpleNamespace(runtime_info=dict(last_ckpt='work/epoch_2.pth')),
        optim_wrapper=SimpleNamespace(get_lr=lambda: dict(base_lr=[1.2e-3])),
    )


@pytest.fixture
def hook():
    return HOOKS.build(dict(type='mmconvmae.FiniteCheckHook'))


@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_stops_at_a_loss_that_is_not_finite(hook, runner, value):
    hook.after_train_iter(runner, 18, outputs=dict(loss=torch.tensor(0.5)))
    with pytest.raises(
        FloatingPointError,
        match=rf'loss is {value} in batch 20 of epoch 3 \(iteration 120, learning rate 0\.0012\).*work/epoch_2\.pth',
    ):
        hook.after_train_iter(runner, 19, outputs=dict(loss=torch.tensor(float(value))))


def test_keeps_broken_weights_out_of_checkpoints(hook, runner):
    weights = dict(weight=torch.ones(2), steps=torch.tensor(3))
    hook.before_save_checkpoint(runner, dict(state_dict=weights))
    weights['weight'][0] = float('nan')
    with pytest.raises(FloatingPointError, match='weight is not finite after epoch 3'):
        hook.before_save_checkpoint(runner, dict(state_dict=weights))
