import numpy as np
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
