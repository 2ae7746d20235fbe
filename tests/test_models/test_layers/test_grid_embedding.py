import copy

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


def test_a_grid_is_resized_once_while_nothing_is_trained(embedding, monkeypatch):
    calls = []
    compute = embedding.compute
    monkeypatch.setattr(embedding, 'compute', lambda grid: calls.append(grid) or compute(grid))
    with torch.no_grad():
        for _ in range(3):
            embedding((5, 7)), embedding((6, 6))
        assert calls == [(5, 7), (6, 6)]
        for edge in range(7, 7 + embedding.KEPT_GRIDS):
            embedding((edge, edge))
        assert len(embedding._kept) == embedding.KEPT_GRIDS
    assert embedding((5, 7)).requires_grad  # while it is trained, nothing old is given


@pytest.mark.parametrize('change', ['in_place', 'load', 'without_a_trace', 'type'])
def test_nothing_old_is_given(embedding, change):
    with torch.no_grad():
        old = embedding((5, 7)).clone()
        if change == 'in_place':
            embedding.weight.add_(1)
        elif change == 'load':
            embedding.load_state_dict({'weight': embedding.weight + 1})
        elif change == 'without_a_trace':
            embedding.weight.data.add_(1)  # as mmengine's EMAHook does before it calls eval()
            embedding.eval()
        else:
            embedding.double()
        new = embedding((5, 7))
        expected = old.double() if change == 'type' else old + 1
        assert new.dtype == expected.dtype
        torch.testing.assert_close(new, expected, rtol=1e-4, atol=1e-4)


def test_type_under_autocast_is_kept_apart(embedding):
    with torch.no_grad():
        plain = embedding((5, 7))
        with torch.autocast('cpu', torch.bfloat16):
            embedding((5, 7))
        assert len(embedding._kept) == 2 and embedding((5, 7)) is plain


def test_a_copy_has_its_own_memory(embedding):
    with torch.no_grad():
        embedding((5, 7))
        other = copy.deepcopy(embedding)
        other.weight.add_(1)
        assert not torch.equal(other((5, 7)), embedding((5, 7)))


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
