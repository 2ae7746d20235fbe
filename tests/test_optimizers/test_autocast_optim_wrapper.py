import copy
import itertools
import os
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
import torch.nn as nn
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import OPTIM_WRAPPERS

from mmconvmae.optimizers import autocast_optim_wrapper

INPUTS = torch.arange(12.0).view(6, 2) / 10


def make(**config):
    """A wrapper and its model, the same each time."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    config = (
        dict(type='mmconvmae.AutocastOptimWrapper', optimizer=torch.optim.AdamW(model.parameters(), lr=0.1)) | config
    )
    return OPTIM_WRAPPERS.build(config), model


def train(wrapper, model, steps=range(6)):
    for i in steps:
        with wrapper.optim_context(model):
            loss = model(INPUTS[i : i + 1]).square().mean()
        wrapper.update_params(loss)
    return model.state_dict()


def assert_equal(a, b):
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(autocast_optim_wrapper, 'get_device', lambda: 'cpu')


@pytest.fixture
def gpu(monkeypatch):
    """Stands for a GPU of some generation; computing goes on on the CPU, with loss scaling as it is there."""
    if not hasattr(torch.amp, 'GradScaler'):
        pytest.skip('PyTorch before 2.3 has no loss scaling on a CPU')

    def pretend(capability, device='cuda'):
        monkeypatch.setattr(autocast_optim_wrapper, 'get_device', lambda: device)
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: capability)
        monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'Old GPU')
        monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
        monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', partial(torch.amp.GradScaler, device='cpu'))

    return pretend


@pytest.fixture
def log(tmp_path):
    """The lines of the log so far."""
    path = tmp_path / 'log'
    MMLogger.get_instance(f'test_{time.monotonic_ns()}', log_file=str(path))
    return path.read_text


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', None])
@pytest.mark.parametrize('more', [dict(), dict(accumulative_counts=4, clip_grad=dict(max_norm=0.1))])
def test_without_an_accelerator_it_is_plain_float32(no_gpu, log, dtype, more):
    expected = train(*make(type='OptimWrapper', **copy.deepcopy(more)))
    assert_equal(train(*make(dtype=dtype, **copy.deepcopy(more))), expected)
    said = f'Training in float32: autocast to {dtype} needs a GPU, NPU or MLU, and this run is on cpu.'
    assert (said in log()) == (dtype is not None)


def test_gpu_that_does_not_compute_in_bfloat16(gpu, log):
    gpu((7, 5))
    wrapper, _ = make()
    assert wrapper.cast_dtype is None and not wrapper.loss_scaler.is_enabled()
    assert 'Training in float32: Old GPU does not compute in bfloat16.' in log()
    assert make(dtype='float16')[0].cast_dtype == torch.float16


def test_apples_gpu(gpu, log):
    gpu(None, device='mps')
    assert make()[0].cast_dtype is None
    assert 'and this run is on mps' in log()


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_gpu(gpu, log, dtype):
    gpu((8, 0))
    wrapper, model = make(dtype=dtype, clip_grad=dict(max_norm=0.1))
    assert wrapper.cast_dtype == getattr(torch, dtype)
    assert wrapper.loss_scaler.is_enabled() == (dtype == 'float16')
    assert f'Training with autocast to {dtype}.' in log()
    wrapper.cast_dtype = None  # the CPU has no float16 to compare with
    # The scale is a power of two, so that it leaves no trace.
    expected = train(*make(type='OptimWrapper', clip_grad=dict(max_norm=0.1)))
    assert_equal(train(wrapper, model), expected)


def test_gradients_beyond_float16_leave_out_a_step(gpu):
    gpu((8, 0))
    wrapper, model = make(dtype='float16')
    wrapper.cast_dtype = None
    before = copy.deepcopy(model.state_dict())
    wrapper.update_params(model(INPUTS).sum() * 1e38)
    assert_equal(before, model.state_dict())
    assert wrapper.loss_scaler.get_scale() == 2**15


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_precision_on_a_gpu(dtype):
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip('needs a GPU that computes in bfloat16')
    wrapper, model = make(dtype=dtype)
    model.cuda()
    with wrapper.optim_context(model):
        output = model(INPUTS.cuda())
    assert output.dtype == getattr(torch, dtype)
    wrapper.update_params(output.float().square().mean())
    assert all(parameter.isfinite().all() and parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize('dtype', ['float64', 'bf16', torch.bfloat16])
def test_precision_that_there_is_not(dtype):
    with pytest.raises(ValueError, match=r"`optim_wrapper\.dtype` is .*, and can be 'bfloat16', 'float16' or None"):
        make(dtype=dtype)


@pytest.mark.parametrize('value', ['nan', 'inf', '-inf'])
@pytest.mark.parametrize('steps', [0, 3])
def test_loss_that_is_not_finite_changes_nothing(no_gpu, tmp_path, value, steps):
    """Neither weights nor momenta nor gradients: three of four batches of a step are there before the bad one."""
    hub = MessageHub.get_instance(f'test_{time.monotonic_ns()}')
    hub.update_info_dict(dict(epoch=1, iter=11, last_ckpt='work/epoch_1.pth'))
    wrapper, model = make(accumulative_counts=4)
    train(wrapper, model, [0, 1, 2, 3, *range(steps)])
    before = copy.deepcopy((model.state_dict(), wrapper.state_dict(), [p.grad for p in model.parameters()]))
    with pytest.raises(
        FloatingPointError,
        match=rf'^loss is {value} in iteration 12 \(epoch 2, learning rate 0\.1\): training stops here\. Last good '
        r'checkpoint: work/epoch_1\.pth\. Resume from it',
    ):
        wrapper.update_params(model(INPUTS).mean() * 0 + float(value))
    after = (model.state_dict(), wrapper.state_dict(), [p.grad for p in model.parameters()])
    assert_equal(before[0], after[0])
    for i, state in before[1]['state'].items():
        assert_equal(state, after[1]['state'][i])
    assert all(a is None if b is None else torch.equal(a, b) for a, b in zip(after[2], before[2]))
    assert steps == 0 or all(gradient is not None for gradient in after[2])


WRAPPERS = {
    'mmengine in float32': dict(type='OptimWrapper'),
    'mmengine in float16': dict(type='AmpOptimWrapper'),
    'mmengine in bfloat16': dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False)),
    'float32': dict(dtype=None),
    'bfloat16': dict(dtype='bfloat16'),
    'float16': dict(dtype='float16'),
}


@pytest.mark.parametrize(
    'before, after',
    [pair for pair in itertools.permutations(WRAPPERS, 2) if not all('mmengine' in name for name in pair)],
)
def test_goes_on_from_any_other_checkpoint(gpu, before, after):
    gpu((8, 0))
    first, second = (make(**copy.deepcopy(WRAPPERS[name])) for name in (before, after))
    for wrapper, _ in (first, second):
        wrapper.cast_dtype = None
        wrapper.optim_context = lambda model: torch.autocast('cpu', enabled=False)
    train(*first, [0, 1, 2])
    saved = copy.deepcopy(first[0].state_dict())
    second[0].load_state_dict(copy.deepcopy(saved))
    second[1].load_state_dict(first[1].state_dict())
    assert_equal(train(*first, [3, 4, 5]), train(*second, [3, 4, 5]))


def test_float16_goes_on_with_its_scale(gpu):
    gpu((8, 0))
    wrapper, _ = make(dtype='float16')
    wrapper.loss_scaler._scale = torch.tensor(8.0)
    other, _ = make(dtype='float16')
    other.load_state_dict(wrapper.state_dict())
    assert other.loss_scaler.get_scale() == 8


PROCESS = """
import sys
import torch
import torch.nn as nn
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import OPTIM_WRAPPERS
import mmconvmae

rank = int(sys.argv[1])
torch.distributed.init_process_group('gloo', init_method=f'file://{sys.argv[2]}', rank=rank, world_size=2)
torch.manual_seed(0)
model = MMDistributedDataParallel(nn.Linear(2, 1), device_ids=None)
wrapper = OPTIM_WRAPPERS.build(
    dict(type='mmconvmae.AutocastOptimWrapper', optimizer=torch.optim.AdamW(model.parameters(), lr=0.1))
)
for i in range(3):
    before = [parameter.clone() for parameter in model.parameters()]
    inputs = torch.full((1, 2), float('nan') if (rank, i) == (1, 2) else rank + i + 1.0)
    with wrapper.optim_context(model):
        loss = model(inputs).square().mean()
    try:
        wrapper.update_params(loss)
    except FloatingPointError as error:
        assert i == 2 and all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
        assert loss.isfinite() == (rank == 0)
        print(error)
        sys.exit()
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters()))
"""


def test_processes_stop_together(tmp_path):
    script = tmp_path / 'process.py'
    script.write_text(PROCESS)
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), tmp_path / 'store'],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ, CUDA_VISIBLE_DEVICES=''),
        )
        for rank in (0, 1)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    said = [[line for line in out.splitlines() if 'training stops here' in line] for out, _ in outputs]
    assert said[0] == said[1] and len(said[0]) == 1 and said[0][0].startswith('loss is nan in iteration 1 ')
