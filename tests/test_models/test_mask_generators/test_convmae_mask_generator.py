import pytest
import torch
from reference import kept_blocks

from mmconvmae.models import ConvMAEMask, ConvMAEMaskGenerator


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
