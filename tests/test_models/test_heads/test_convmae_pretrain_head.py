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


def test_cubes_of_a_clip():
    head, clips = ConvMAEPretrainHead(16, 3, tubelet_size=2), torch.randn(2, 3, 6, 32, 48)
    cubes = head.patchify(clips)
    assert cubes.shape == (2, 6, 3, 16 * 16 * 2 * 3)
    row, column, frame, channel = 5, 9, 1, 2
    number = ((row * 16 + column) * 2 + frame) * 3 + channel
    assert torch.equal(cubes[:, 4, 2, number], clips[:, channel, 4 + frame, 16 + row, 16 + column])
    torch.testing.assert_close(head.unpatchify(cubes, (2, 3)), clips)


def test_each_channel_of_a_cube_is_normalised():
    """As in VideoMAE, which adds 1e-6 to the standard deviation."""
    head, clips = ConvMAEPretrainHead(16, 3, norm_pix='channel', tubelet_size=2), torch.randn(2, 3, 6, 32, 48)
    clips[0, :, :2] *= 1e-6
    target = head.construct_target(clips)
    for b, slot, number in ((1, 2, 4), (0, 0, 1)):
        top, left = number // 3 * 16, number % 3 * 16
        cube = clips[b, :, 2 * slot : 2 * slot + 2, top : top + 16, left : left + 16].flatten(1)
        expected = (cube - cube.mean(1, keepdim=True)) / (cube.std(1, keepdim=True) + 1e-6)
        expected = expected.view(3, 2, 16, 16).permute(2, 3, 1, 0).flatten()
        torch.testing.assert_close(target[b, number, slot], expected)
    torch.testing.assert_close(head.reconstruct(target, clips, (2, 3)), clips)


def test_loss_of_a_clip_counts_removed_cells_only():
    head, clips = ConvMAEPretrainHead(16, 3, norm_pix=False, tubelet_size=2), torch.randn(2, 3, 4, 32, 48)
    mask = ConvMAEMaskGenerator(0.75, cells_per_edge=4)(2, (2, 3))
    pred = torch.randn(2, 6, 2, 1536)
    error = (head.unpatchify(pred, (2, 3)) - clips).square()
    removed = mask.visible(32, 48).permute(0, 3, 1, 2).unsqueeze(2).expand_as(error) == 0
    torch.testing.assert_close(head.loss(pred, clips, mask), error[removed].mean())


def test_unknown_normalisation():
    with pytest.raises(ValueError, match="`norm_pix` is 'cube'; choose one of True, False, 'channel'"):
        ConvMAEPretrainHead(16, 3, norm_pix='cube')
