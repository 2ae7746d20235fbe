"""What several processes, or several batches for one step, make of the same images and masks."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import needs_torch

# Tried with 2.10; 2.1 has none for a CPU.
NEEDS_FSDP = needs_torch('2.6', 'this PyTorch may not divide weights among processes without a GPU')
SCRIPT = Path(__file__).parent / 'steps.py'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Runs the steps; gives losses (steps, parts of each) and weights, those of the first process."""
    folder = tmp_path_factory.mktemp('steps')

    def run(processes=1, accumulate=1, wrapper='ddp'):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        outs = [folder / f'{processes}_{accumulate}_{wrapper}_{rank}.pth' for rank in range(processes)]
        running = []
        for rank, out in enumerate(outs):
            place = dict(RANK=rank, WORLD_SIZE=processes, LOCAL_RANK=rank, MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
            env = os.environ | {name: str(value) for name, value in place.items()}
            command = [sys.executable, SCRIPT, out, str(accumulate), wrapper]
            running.append(subprocess.Popen(command, env=env, text=True))
        assert [process.wait(timeout=120) for process in running] == [0] * processes
        results = [torch.load(out, weights_only=True) for out in outs]
        losses = torch.stack([result['losses'].view(-1, accumulate).mean(1) for result in results])
        return losses.mean(0), results[0]['weights']

    return run


@pytest.fixture(scope='module')
def expected(run):
    return run()


@pytest.mark.parametrize(
    'setting',
    [
        dict(processes=2),
        dict(accumulate=2),
        dict(processes=2, accumulate=2),
        pytest.param(dict(processes=2, wrapper='fsdp'), marks=NEEDS_FSDP),
    ],
)
def test_as_one_process_with_one_batch(run, expected, setting):
    losses, weights = run(**setting)
    torch.testing.assert_close(losses, expected[0], rtol=0, atol=1e-6)
    assert expected[0][-1] < expected[0][0]
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[1][name], rtol=0, atol=1e-6, msg=name)
