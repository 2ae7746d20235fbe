import torch

from mmconvmae.models.layers import ConvBlock


def test_visible_positions_do_not_see_masked_ones():
    torch.manual_seed(0)
    block = ConvBlock(8, kernel_size=3)
    visible = (torch.rand(2, 6, 6, 1) > 0.5).float()
    x = torch.randn(2, 6, 6, 8)
    other = torch.where(visible.bool(), x, torch.randn_like(x))
    shown = visible.bool().expand_as(x)
    torch.testing.assert_close(block(x, visible)[shown], block(other, visible)[shown])
    assert not torch.allclose(block(x)[shown], block(other)[shown])
