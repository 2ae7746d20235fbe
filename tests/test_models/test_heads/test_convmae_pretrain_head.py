import pytest
import torch

from mmconvmae.models import ConvMAEMaskGenerator, ConvMAEPretrainHead


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 48)


def test_patches_are_row_by_row_and_channels_last(images):
    head = ConvMAEPretrainHead(16, 3)
    patches = head.patchify(images)
    assert patches.shape == (2, 6, 768)
    row, column, channel = 5, 9, 2
    assert torch.equal(patches[:, 4, (row * 16 + column) * 3 + channel], images[:, channel, 16 + row, 16 + column])
    torch.testing.assert_close(head.unpatchify(patches, (2, 3)), images)


@pytest.mark.parametrize('norm_pix', [False, True])
def test_loss_counts_removed_patches_only(images, norm_pix):
    head = ConvMAEPretrainHead(16, 3, norm_pix=norm_pix)
    mask = ConvMAEMaskGenerator(0.5)(2, (2, 3))
    pred = torch.randn(2, 3, 768)
    losses = []
    for b in range(2):
        for n, i in enumerate(mask.ids_predict[b].tolist()):
            top, left = i // 3 * 16, i % 3 * 16
            target = images[b, :, top : top + 16, left : left + 16].permute(1, 2, 0).flatten()
            if norm_pix:
                target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
            losses.append((pred[b, n] - target).square().mean())
    torch.testing.assert_close(head.loss(pred, images, mask), torch.stack(losses).mean())


def test_loss_counts_removed_cells_only(images):
    head = ConvMAEPretrainHead(16, 3, norm_pix=False)
    mask = ConvMAEMaskGenerator(0.75, cells_per_edge=4)(2, (2, 3))
    pred = torch.randn(2, 6, 768)
    error = (head.unpatchify(pred, (2, 3)) - images).square()
    removed = mask.visible(32, 48).permute(0, 3, 1, 2).expand_as(error) == 0
    torch.testing.assert_close(head.loss(pred, images, mask), error[removed].mean())


@pytest.mark.parametrize('norm_pix', [False, True])
def test_perfect_prediction_reconstructs_the_image(images, norm_pix):
    head = ConvMAEPretrainHead(16, 3, norm_pix=norm_pix)
    torch.testing.assert_close(head.reconstruct(head.construct_target(images), images, (2, 3)), images)
