import pytest
import torch
import torch.nn.functional as F

from mmconvmae.models.layers import PatchConv2d, cut_tiles, from_maps, join_tiles, take_blocks, to_maps


@pytest.mark.parametrize('kernel_size', [1, 2, 4])
def test_patch_conv_equals_conv2d(kernel_size):
    conv = PatchConv2d(3, 8, kernel_size)
    x = torch.randn(2, 8, 12, 3)
    expected = F.conv2d(x.permute(0, 3, 1, 2), conv.weight, conv.bias, stride=kernel_size).permute(0, 2, 3, 1)
    torch.testing.assert_close(conv(x), expected)


def test_patch_conv_takes_leading_axes():
    conv = PatchConv2d(3, 8, 2)
    x = torch.randn(2, 5, 4, 4, 3)
    torch.testing.assert_close(conv(x)[1, 3], conv(x[1, 3]))


def test_cut_tiles_takes_tiles_row_by_row():
    x = torch.randn(2, 6, 9, 5)
    tiles = cut_tiles(x, 3)
    assert tiles.shape == (2, 6, 3, 3, 5)
    torch.testing.assert_close(tiles[:, 4], x[:, 3:6, 3:6])
    torch.testing.assert_close(join_tiles(tiles, (2, 3)), x)


def test_tubes_are_tiles_with_a_time_axis():
    x = torch.randn(2, 4, 6, 9, 5)
    tubes = cut_tiles(x, 3)
    assert tubes.shape == (2, 6, 4, 3, 3, 5)
    for slot in range(4):
        torch.testing.assert_close(tubes[:, :, slot], cut_tiles(x[:, slot], 3))
    torch.testing.assert_close(join_tiles(tubes, (2, 3)), x)


def test_frames_go_into_the_channels():
    clips = torch.randn(2, 3, 6, 4, 5)
    maps = to_maps(clips, 2)
    assert maps.shape == (2, 3, 4, 5, 6)
    assert torch.equal(maps[1, 2, 3, 4, 3 + 1], clips[1, 1, 2 * 2 + 1, 3, 4])  # second frame, second channel
    assert torch.equal(from_maps(maps, 2), clips)
    images = clips[:, :, 0]
    assert torch.equal(to_maps(images), images.permute(0, 2, 3, 1))
    assert torch.equal(from_maps(to_maps(images)), images)


def test_blocks_are_taken_once_for_each_mask():
    x, ids = torch.randn(2, 5, 3, 4), torch.tensor([[4, 0], [1, 1], [2, 3], [0, 4]])
    expected = torch.stack([x[0, [4, 0]], x[0, [1, 1]], x[1, [2, 3]], x[1, [0, 4]]])
    assert torch.equal(take_blocks(x, ids), expected)
