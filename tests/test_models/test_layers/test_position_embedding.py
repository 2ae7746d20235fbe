import math

import pytest
import torch
import torch.nn.functional as F

from mmconvmae.models.layers import PositionEmbedding, SinCosPositionEmbedding, sincos_position_embedding


def test_first_half_encodes_the_column_and_second_the_row():
    embedding = sincos_position_embedding((3, 5), 16).view(3, 5, 16)
    row, column, i = 2, 4, 1
    frequency = 1 / 10000 ** (i / 4)
    expected = [f(place * frequency) for place in (column, row) for f in (math.sin, math.cos)]
    torch.testing.assert_close(embedding[row, column, i::4], torch.tensor(expected))


def test_width_not_divisible_by_four():
    with pytest.raises(ValueError, match='divisible by 4, and 30 is not'):
        sincos_position_embedding((3, 5), 30)


def test_equals_the_authors(golden):
    checkpoint = torch.load(golden('official_tiny_pretrain.pth'), weights_only=True)['model']
    assert torch.equal(sincos_position_embedding((14, 14), 96), checkpoint['pos_embed'])
    assert torch.equal(sincos_position_embedding((14, 14), 64), checkpoint['decoder_pos_embed'])


def test_other_grids_are_bicubic():
    embedding = PositionEmbedding((4, 4), 8)
    embedding.init_weights()
    maps = embedding.weight.view(1, 4, 4, 8).permute(0, 3, 1, 2)
    expected = F.interpolate(maps, (6, 3), mode='bicubic', align_corners=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embedding((6, 3)), expected)
    assert embedding((4, 4)) is embedding.weight


def test_checkpoint_of_another_grid_is_resized():
    small, large = (PositionEmbedding((n, n + 2), 8) for n in (4, 6))
    square = PositionEmbedding((5, 5), 8)
    square.init_weights()
    for embedding in (small, large):
        embedding.load_state_dict(square.state_dict())
        torch.testing.assert_close(embedding.weight, square(embedding.grid))


def test_checkpoint_of_another_width_is_refused():
    with pytest.raises(RuntimeError, match='size mismatch'):
        PositionEmbedding((4, 4), 8).load_state_dict(PositionEmbedding((5, 5), 16).state_dict())


def test_a_fixed_embedding_is_exact_on_every_grid():
    """Where images or a checkpoint have another size it is made anew and not resized."""
    embedding, other = SinCosPositionEmbedding((4, 4), 16), SinCosPositionEmbedding((3, 5), 16)
    assert not embedding.weight.requires_grad
    assert torch.equal(embedding((3, 5)), other.weight)
    other.load_state_dict(embedding.state_dict())
    assert torch.equal(other.weight, sincos_position_embedding((3, 5), 16))
    assert embedding.double()((3, 5)).dtype == torch.float64


def test_time_has_the_first_quarter_of_the_channels():
    embedding = sincos_position_embedding((4, 3, 5), 64)
    assert embedding.shape == (1, 4, 15, 64)
    slot, row, column = 3, 2, 4
    vector = embedding[0, slot, row * 5 + column]
    for start, width, place in ((0, 16, slot), (16, 24, column), (40, 24, row)):
        waves = [place / 10000 ** (i / (width // 2)) for i in range(width // 2)]
        expected = torch.tensor([f(wave) for f in (math.sin, math.cos) for wave in waves])
        torch.testing.assert_close(vector[start : start + width], expected)


def test_one_time_slot_has_the_embedding_of_an_image():
    assert torch.equal(sincos_position_embedding((1, 3, 5), 20)[:, 0], sincos_position_embedding((3, 5), 20))


def test_width_that_cannot_be_divided_among_three_axes():
    with pytest.raises(ValueError, match='divisible by 16, and 24 is not'):
        sincos_position_embedding((2, 3, 5), 24)


def test_fixed_embedding_of_clips_is_exact_on_every_grid():
    embedding = SinCosPositionEmbedding((4, 4, 4), 16)
    assert torch.equal(embedding((2, 3, 5)), sincos_position_embedding((2, 3, 5), 16))
