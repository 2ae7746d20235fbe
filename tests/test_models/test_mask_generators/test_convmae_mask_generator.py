import pytest
import torch
from reference import kept_blocks

from mmconvmae.models import ComplementaryMaskGenerator, ConvMAEMask, ConvMAEMaskGenerator


@pytest.mark.parametrize('ratio', [0.1, 0.5, 0.6, 0.75, 0.9])
@pytest.mark.parametrize('grid', [(4, 4), (3, 7)])
def test_smallest_numbers_stay_visible(ratio, grid):
    noise = torch.rand(3, grid[0] * grid[1])
    mask = ConvMAEMaskGenerator(ratio).from_noise(noise, grid)
    kept = kept_blocks(noise, ratio)
    assert torch.equal(mask.ids_keep, kept)
    removed = torch.ones(3, grid[0] * grid[1], dtype=torch.bool).scatter(1, kept, False)
    assert torch.equal(mask.removed, removed.view(3, *grid))
    assert all(set(a.tolist()) | set(b.tolist()) == set(range(noise.shape[1])) for a, b in zip(kept, mask.ids_predict))
    order = torch.cat([mask.ids_keep, mask.ids_predict], 1)
    assert torch.equal(order.gather(1, mask.ids_restore), torch.arange(noise.shape[1]).expand(3, -1))


def test_equals_the_authors(golden):
    outputs = golden('official_tiny_pretrain_outputs.npz')
    mask = ConvMAEMaskGenerator(0.75).from_noise(outputs['noise'], (14, 14))
    assert torch.equal(mask.removed.flatten(1), outputs['mask'].bool())
    assert torch.equal(mask.ids_restore, outputs['ids_restore'])


def test_one_rand_a_batch():
    torch.manual_seed(3)
    noise = torch.rand(2, 16)
    torch.manual_seed(3)
    mask = ConvMAEMaskGenerator()(2, (4, 4))
    assert torch.equal(mask.removed, ConvMAEMaskGenerator().from_noise(noise, (4, 4)).removed)


def test_visible_on_finer_and_coarser_grids():
    mask = ConvMAEMaskGenerator(0.5)(2, (2, 3))
    fine = mask.visible(4, 6)
    assert fine.shape == (2, 4, 6, 1)
    for row in range(4):
        for column in range(6):
            assert torch.equal(fine[:, row, column, 0] == 0, mask.removed[:, row // 2, column // 2])
    cells = ConvMAEMaskGenerator(0.75, cells_per_edge=4)(2, (2, 3))
    assert not cells.is_block_wise and mask.is_block_wise
    assert torch.equal(cells.visible(8, 12)[..., 0] == 0, cells.removed)
    expected = (~cells.removed[:, 2:4, 4:6]).any(2).any(1)
    assert torch.equal(cells.visible(4, 6)[:, 1, 2, 0].bool(), expected)


def test_cells_are_counted_over_the_image():
    mask = ConvMAEMaskGenerator(0.75, cells_per_edge=4)(2, (2, 3))
    assert mask.removed.shape == (2, 8, 12)
    assert mask.removed.flatten(1).sum(1).tolist() == [72, 72]
    assert torch.equal(mask.ids_keep, torch.arange(6).expand(2, -1))


@pytest.mark.parametrize('ratio', [0, 1, -0.5, 1.5])
def test_ratio_outside_zero_and_one(ratio):
    with pytest.raises(ValueError, match=f'`mask_ratio` is {ratio}; it must lie between 0 and 1'):
        ConvMAEMaskGenerator(ratio)


def test_no_block_left_visible():
    with pytest.raises(ValueError, match=r'0\.9 on 4 patches \(2 x 2 blocks\) leaves none of them visible'):
        ConvMAEMaskGenerator(0.9)(2, (2, 2))


def test_no_block_removed():
    with pytest.raises(ValueError, match='removes none'):
        ConvMAEMaskGenerator(1e-20)(2, (2, 2))


def test_mask_of_ones_own():
    removed = torch.tensor([[[True, False, True]], [[False, True, True]]])
    mask = ConvMAEMask.from_removed(removed)
    assert mask.grid == (1, 3) and torch.equal(mask.removed, removed)
    assert mask.ids_keep.tolist() == [[1], [0]]
    assert mask.ids_predict.tolist() == [[0, 2], [1, 2]]


@pytest.mark.parametrize('removed', [[[1, 0, 1], [0, 0, 1]], [[0, 0, 0]] * 2, [[1, 1, 1]] * 2])
def test_masks_of_different_size(removed):
    with pytest.raises(ValueError, match='of 3 blocks removed; remove the same number of each, neither none nor all'):
        ConvMAEMask.from_removed(torch.tensor(removed).bool().unsqueeze(1))


@pytest.mark.parametrize('ratio', [0.5, 2 / 3, 0.75, 0.8])
def test_complementary_masks_show_every_block_once(ratio):
    num_views, grid = round(1 / (1 - ratio)), (6, 10)
    noise = torch.rand(2, 60)
    mask = ComplementaryMaskGenerator(ratio).from_noise(noise, grid)
    runs = noise.argsort(1).view(2, num_views, -1)
    assert torch.equal(mask.ids_keep, runs.flatten(0, 1))
    visible = ~mask.removed.view(2, num_views, *grid)
    assert torch.equal(visible.sum(1), torch.ones(2, *grid, dtype=torch.long))
    for kept, predicted, restore, removed in zip(mask.ids_keep, mask.ids_predict, mask.ids_restore, mask.removed):
        assert sorted([*kept.tolist(), *predicted.tolist()]) == list(range(60))
        assert removed.flatten().nonzero().flatten().tolist() == sorted(predicted.tolist())
        assert torch.equal(torch.cat([kept, predicted])[restore], torch.arange(60))


def test_first_of_complementary_masks_is_the_usual_one():
    noise = torch.rand(3, 16)
    first = ComplementaryMaskGenerator().from_noise(noise, (4, 4)).first_view(3)
    usual = ConvMAEMaskGenerator().from_noise(noise, (4, 4))
    for name in ('removed', 'ids_keep', 'ids_restore', 'ids_predict'):
        assert torch.equal(getattr(first, name), getattr(usual, name)), name


@pytest.mark.parametrize('ratio', [0.6, 0.4, 0.9 - 1e-3])
def test_visible_share_that_does_not_go_into_the_image(ratio):
    with pytest.raises(ValueError, match=f'`mask_ratio` is {ratio}, .* need 1/2, 2/3, 3/4'):
        ComplementaryMaskGenerator(ratio)


def test_blocks_that_cannot_be_divided_into_equal_views():
    with pytest.raises(ValueError, match=r'4 complementary masks .* an image has 15 \(3 x 5\); use images of another'):
        ComplementaryMaskGenerator()(2, (3, 5))


@pytest.mark.parametrize(('ratio', 'number'), [(1, 12), (0.5, 6), (0.3, 4), (0.01, 1)])
def test_a_share_to_predict(ratio, number):
    mask = ConvMAEMaskGenerator()(2, (4, 4))
    some = mask.predict_share(ratio)
    assert torch.equal(some.ids_predict, mask.ids_predict[:, :number])
    assert torch.equal(some.removed, mask.removed) and torch.equal(some.ids_keep, mask.ids_keep)
    assert some.predicts_all == (ratio == 1)


def test_the_share_is_random():
    """Each removed block is in it as often as any other."""
    mask = ConvMAEMaskGenerator()(20000, (4, 4)).predict_share(0.5)
    counts = torch.zeros(20000, 16).scatter(1, mask.ids_predict, 1.0)
    share = counts.sum(0) / mask.removed.flatten(1).sum(0)
    torch.testing.assert_close(share, torch.full((16,), 0.5), atol=0.02, rtol=0)


@pytest.mark.parametrize(('ratio', 'down', 'up'), [(0.9, 19, 20), (0.75, 49, 49), (0.6, 78, 79)])
def test_rounding_of_the_visible_blocks(ratio, down, up):
    """VideoMAE keeps 20 tubes of 196, what ``int`` leaves of the removed ones."""
    noise = torch.rand(2, 196)
    for round_up, number in ((False, down), (True, up)):
        mask = ConvMAEMaskGenerator(ratio, round_up=round_up).from_noise(noise, (14, 14))
        assert torch.equal(mask.ids_keep, noise.argsort(1)[:, :number])
