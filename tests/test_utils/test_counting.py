import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from mmconvmae.utils import count_multiply_adds, count_parameters


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_multiply_adds_by_hand(device):
    with torch.device(device):
        conv, linear = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Linear(8, 24)
        images = torch.zeros(1, 3, 16, 24)

    def run(images, scale):
        q, k, v = linear(conv(images).flatten(2).mT).chunk(3, dim=-1)
        assert not torch.is_grad_enabled()
        return F.scaled_dot_product_attention(q, k, v, scale=scale)

    positions = 8 * 12
    expected = positions * 8 * 3 * 9 + positions * 8 * 24 + 2 * positions**2 * 8
    assert count_multiply_adds(run, images, scale=0.5) == expected


def test_parameters_of_several_modules():
    frozen = nn.Conv2d(2, 3, 1).requires_grad_(False)
    assert count_parameters(nn.Linear(4, 5), frozen) == 4 * 5 + 5 + 2 * 3 + 3
