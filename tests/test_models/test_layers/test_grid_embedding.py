import pytest
import torch
import torch.nn.functional as F

from mmconvmae.models.layers import GridEmbedding


@pytest.fixture
def embedding():
    return GridEmbedding(torch.randn(4 * 3, 8), (4, 3))


def resized(weight, mode='bicubic'):
    maps = weight.detach().view(1, 4, 3, 8).permute(0, 3, 1, 2)
    return F.interpolate(maps, (5, 7), mode=mode, align_corners=False)[0].flatten(1).t()


def test_other_grids_are_resized(embedding):
    torch.testing.assert_close(embedding((5, 7)), resized(embedding.weight))
    assert embedding((4, 3)) is embedding.weight
    linear = GridEmbedding(embedding.weight.detach(), (4, 3), mode='bilinear')
    torch.testing.assert_close(linear((5, 7)), resized(linear.weight, 'bilinear'))


def test_checkpoint_of_another_grid_is_resized(embedding):
    square, line = GridEmbedding(torch.randn(25, 8), (5, 5)), GridEmbedding(torch.randn(7, 8), (7, 1), mode='bilinear')
    embedding.load_state_dict(square.state_dict())
    torch.testing.assert_close(embedding.weight, square((4, 3)))
    other_line = GridEmbedding(torch.randn(9, 8), (9, 1), mode='bilinear')
    other_line.load_state_dict(line.state_dict())
    expected = F.interpolate(line.weight.detach().t()[None], 9, mode='linear')[0].t()
    torch.testing.assert_close(other_line.weight.detach(), expected)


@pytest.mark.parametrize('shape', [(25, 16), (1, 25, 8), (24, 8)])
def test_checkpoint_that_does_not_fit_is_refused(embedding, shape):
    with pytest.raises(RuntimeError, match='size mismatch'):
        embedding.load_state_dict({'weight': torch.zeros(shape)})
