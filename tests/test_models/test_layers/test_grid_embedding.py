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


def test_time_is_resized_linearly_and_space_as_ever():
    """A row of a matrix for each axis says what becomes of it."""
    embedding = GridEmbedding(torch.randn(1, 3, 4 * 2, 8), (3, 4, 2))
    resized = embedding((5, 6, 3)).detach()
    assert resized.shape == (1, 5, 6 * 3, 8)
    in_space = [
        F.interpolate(maps.view(1, 4, 2, 8).permute(0, 3, 1, 2), (6, 3), mode='bicubic') for maps in embedding.weight[0]
    ]
    in_space = torch.cat(in_space).detach().permute(0, 2, 3, 1).flatten(1, 2)  # (3, 18, 8)
    for slot in range(5):
        place = min(max((slot + 0.5) * 3 / 5 - 0.5, 0), 2)
        before, share = min(int(place), 1), place - min(int(place), 1)
        expected = in_space[before] * (1 - share) + in_space[before + 1] * share
        torch.testing.assert_close(resized[0, slot], expected)
    assert embedding((3, 4, 2)) is embedding.weight


def test_checkpoint_of_another_length_is_resized():
    embedding, other = (
        GridEmbedding(torch.randn(1, 4, 6, 8), (4, 2, 3)),
        GridEmbedding(torch.randn(1, 8, 9, 8), (8, 3, 3)),
    )
    embedding.load_state_dict(other.state_dict())
    torch.testing.assert_close(embedding.weight, other((4, 2, 3)))


def test_checkpoint_without_time_is_refused():
    embedding = GridEmbedding(torch.randn(1, 4, 6, 8), (4, 2, 3))
    with pytest.raises(RuntimeError, match='size mismatch'):
        embedding.load_state_dict({'weight': torch.zeros(1, 6, 8)})
