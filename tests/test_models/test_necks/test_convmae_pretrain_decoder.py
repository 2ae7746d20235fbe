import pytest
import torch

from mmconvmae.models import ConvMAEMaskGenerator, ConvMAEPretrainDecoder
from mmconvmae.models.layers import MultiScaleFusion

ENCODER = dict(encoder_dims=(8, 12, 16), patch_sizes=(4, 2, 2), img_size=64, in_channels=3)


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return ConvMAEPretrainDecoder(**ENCODER, embed_dims=16, depth=1, num_heads=2).eval()


def make_feats(num_tokens):
    return torch.randn(2, num_tokens, 4, 4, 8), torch.randn(2, num_tokens, 2, 2, 12), torch.randn(2, num_tokens, 16)


def test_prediction_of_removed_patches_is_part_of_all(decoder):
    mask = ConvMAEMaskGenerator(0.75)(2, (4, 4))
    feats = make_feats(4)
    everything = decoder(feats, mask, all_patches=True)
    assert everything.shape == (2, 16, 16 * 16 * 3)
    removed = torch.stack([patches[ids] for patches, ids in zip(everything, mask.ids_predict)])
    torch.testing.assert_close(decoder(feats, mask), removed)


def test_single_scale_uses_stage_three_alone():
    fusion = MultiScaleFusion((8, 12, 16), (4, 2, 2), multi_scale=False)
    feats = make_feats(4)
    assert [name for name, _ in fusion.named_parameters()] == ['norm.weight', 'norm.bias']
    torch.testing.assert_close(fusion(feats), torch.nn.functional.layer_norm(feats[2], (16,), eps=1e-6))


def test_scales_are_added_after_convolutions():
    fusion = MultiScaleFusion((8, 12, 16), (4, 2, 2))
    stage1, stage2, tokens = feats = make_feats(4)
    for projection, tiles in zip(fusion.projections, (stage1, stage2)):
        flat = tiles.flatten(0, 1).permute(0, 3, 1, 2)  # each tile an image, to become one position
        tokens = tokens + torch.nn.functional.conv2d(flat, projection.weight, projection.bias).view(2, 4, 16)
    torch.testing.assert_close(fusion(feats), torch.nn.functional.layer_norm(tokens, (16,), eps=1e-6))


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match='decoder width of 512 is not divisible by its 10 heads'):
        ConvMAEPretrainDecoder(**ENCODER, num_heads=10)


def test_decoder_without_blocks():
    with pytest.raises(ValueError, match='`depth of the neck` is 0; give a whole number of 1 or more'):
        ConvMAEPretrainDecoder(**ENCODER, depth=0)


@pytest.mark.parametrize('ratio', [0, -0.5, 1.5])
def test_share_that_cannot_be_predicted(ratio):
    with pytest.raises(ValueError, match=f'`predict_ratio` of the neck is {ratio}; it must be above 0 and at most 1'):
        ConvMAEPretrainDecoder(**ENCODER, predict_ratio=ratio)
