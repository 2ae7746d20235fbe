import torch

from mmconvmae.models.layers import unpadded_sizes


def test_sizes_are_those_before_padding():
    batch = torch.full((4, 3, 64, 96), 0.5)
    batch[0] = torch.randn(3, 64, 96)
    batch[1, :, :20, :33] = torch.randn(3, 20, 33)
    batch[2, 1, 31, 0] = 2.0  # all else of this image has the value of padding
    assert unpadded_sizes(batch, 0.5, 16) == [(64, 96), (32, 48), (32, 16), (64, 96)]


def test_sizes_stay_within_the_batch():
    assert unpadded_sizes(torch.ones(1, 3, 48, 80), 0.0, 32) == [(48, 80)]
