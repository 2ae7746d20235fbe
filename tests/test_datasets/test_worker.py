import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mmconvmae.registry import FUNCTIONS


class Draws(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.random.randint(2**31)


def test_workers_draw_what_the_main_process_says():
    loader = DataLoader(Draws(), num_workers=2, worker_init_fn=FUNCTIONS.get('mmconvmae.worker_init_fn'))

    def epoch(seed):
        torch.manual_seed(seed)
        return torch.cat(list(loader)).tolist()

    assert epoch(0) == epoch(0) != epoch(1)
    assert len(set(epoch(0))) == 4


KILLED = """
import time
import numpy as np
from torch.utils.data import Dataset
from mmengine.registry import DATASETS, init_default_scope
from mmconvmae.runner import ScheduleRunner

@DATASETS.register_module()
class Large(Dataset):
    def __len__(self):
        return 100
    def __getitem__(self, index):
        return np.zeros(10**6)  # more than a pipe holds

init_default_scope('mmengine')
loader = dict(
    dataset=dict(type='Large'), batch_size=1, num_workers=2, sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
)
batches = iter(ScheduleRunner.build_dataloader(loader))
next(batches)
print('began', flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(shutil.which('pgrep') is None, reason='pgrep, which finds the workers, is not installed')
def test_workers_end_with_a_main_process_that_is_killed():
    """While they have samples that nobody has read, more than a pipe holds."""
    process = subprocess.Popen(
        [sys.executable, '-c', KILLED], stdout=subprocess.PIPE, text=True, start_new_session=True
    )

    def alive():
        return subprocess.run(['pgrep', '-s', str(process.pid)], capture_output=True, text=True).stdout.split()

    try:
        assert any('began' in line for line in iter(process.stdout.readline, ''))
        assert len(alive()) >= 3
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        end = time.monotonic() + 30
        while alive() and time.monotonic() < end:
            time.sleep(0.2)
        assert not alive()
    finally:
        for pid in alive():
            os.kill(int(pid), signal.SIGKILL)
