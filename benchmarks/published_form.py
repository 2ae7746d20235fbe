"""ConvMAE pretraining in the form in which it is published, to measure against and for nothing else.

Stages 1 and 2 compute every position of channels-first maps, LayerNorm goes through two permutes, attention is two
matrix products and a softmax, and the prediction and the loss cover all patches before the mask picks among them.
Parameters have the authors' names, so official checkpoints load.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from mmconvmae.models import ConvMAEMaskGenerator


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()


class PatchEmbed(nn.Module):
    def __init__(self, in_dims: int, dims: int, size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_dims, dims, size, stride=size)
        self.norm = ChannelNorm(dims)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.norm(self.proj(x)))


class Mlp(nn.Module):
    def __init__(self, fc1: nn.Module, fc2: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ConvBlock(nn.Module):
    def __init__(self, dims: int, ratio: float, kernel_size: int) -> None:
        super().__init__()
        hidden = int(dims * ratio)
        self.norm1, self.norm2 = ChannelNorm(dims), ChannelNorm(dims)
        self.conv1, self.conv2 = nn.Conv2d(dims, dims, 1), nn.Conv2d(dims, dims, 1)
        self.attn = nn.Conv2d(dims, dims, kernel_size, padding=kernel_size // 2, groups=dims)
        self.mlp = Mlp(nn.Conv2d(dims, hidden, 1), nn.Conv2d(hidden, dims, 1))

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        x = x + self.conv2(self.attn(visible * self.conv1(self.norm1(x))))
        return x + self.mlp(self.norm2(x))


class Attention(nn.Module):
    def __init__(self, dims: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(dims, dims * 3), nn.Linear(dims, dims)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    def __init__(self, dims: int, num_heads: int, ratio: float) -> None:
        super().__init__()
        hidden = int(dims * ratio)
        self.norm1, self.norm2 = nn.LayerNorm(dims, eps=1e-6), nn.LayerNorm(dims, eps=1e-6)
        self.attn = Attention(dims, num_heads)
        self.mlp = Mlp(nn.Linear(dims, hidden), nn.Linear(hidden, dims))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PublishedConvMAE(nn.Module):
    """The whole pretraining model with strides 4, 8 and 16.

    Args:
        arch (dict): ``embed_dims``, ``depths``, ``num_heads`` and ``mlp_ratios``, as of ``ConvViT``.
        mask_ratio (float): Share of blocks to remove. Defaults to 0.75.
        img_size (int): Edge of the images, in pixels. Defaults to 224.
        kernel_size (int): Edge of the depthwise kernels. Defaults to 5.
        decoder (dict): Width, depth and heads of the decoder.
    """

    def __init__(
        self,
        arch: dict,
        mask_ratio: float = 0.75,
        img_size: int = 224,
        kernel_size: int = 5,
        decoder: dict = dict(embed_dims=512, depth=8, num_heads=16),
    ) -> None:
        super().__init__()
        dims, depths, ratios = arch['embed_dims'], arch['depths'], arch['mlp_ratios']
        width = decoder['embed_dims']
        num_patches = (img_size // 16) ** 2
        self.generate_mask = ConvMAEMaskGenerator(mask_ratio)
        self.patch_embed1 = PatchEmbed(3, dims[0], 4)
        self.patch_embed2 = PatchEmbed(dims[0], dims[1], 2)
        self.patch_embed3 = PatchEmbed(dims[1], dims[2], 2)
        self.patch_embed4 = nn.Linear(dims[2], dims[2])
        self.pos_embed = nn.Parameter(torch.randn(1, num_patches, dims[2]) * 0.02, requires_grad=False)
        self.blocks1 = nn.ModuleList(ConvBlock(dims[0], ratios[0], kernel_size) for _ in range(depths[0]))
        self.blocks2 = nn.ModuleList(ConvBlock(dims[1], ratios[1], kernel_size) for _ in range(depths[1]))
        self.blocks3 = nn.ModuleList(TransformerBlock(dims[2], arch['num_heads'], ratios[2]) for _ in range(depths[2]))
        self.stage1_output_decode = nn.Conv2d(dims[0], dims[2], 4, stride=4)
        self.stage2_output_decode = nn.Conv2d(dims[1], dims[2], 2, stride=2)
        self.norm = nn.LayerNorm(dims[2], eps=1e-6)
        self.decoder_embed = nn.Linear(dims[2], width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.decoder_pos_embed = nn.Parameter(torch.randn(1, num_patches, width) * 0.02, requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            TransformerBlock(width, decoder['num_heads'], 4) for _ in range(decoder['depth'])
        )
        self.decoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder_pred = nn.Linear(width, 16 * 16 * 3)

    def loss(self, images: Tensor, data_samples: None = None) -> dict[str, Tensor]:
        """Compute the pretraining loss of images of shape (B, 3, H, W)."""
        rows, columns = images.shape[2] // 16, images.shape[3] // 16
        mask = self.generate_mask(len(images), (rows, columns), images.device)
        removed = mask.removed.flatten(1).to(images.dtype)  # (B, L), 1 is removed
        visible = 1 - removed.view(-1, 1, rows, columns)

        def pick(x: Tensor, ids: Tensor) -> Tensor:
            return torch.gather(x, 1, ids.unsqueeze(-1).expand(-1, -1, x.shape[-1]))

        x = self.patch_embed1(images)
        visible1 = visible.repeat_interleave(4, 2).repeat_interleave(4, 3)
        for block in self.blocks1:
            x = block(x, visible1)
        stage1 = self.stage1_output_decode(x).flatten(2).transpose(1, 2)
        x = self.patch_embed2(x)
        visible2 = visible.repeat_interleave(2, 2).repeat_interleave(2, 3)
        for block in self.blocks2:
            x = block(x, visible2)
        stage2 = self.stage2_output_decode(x).flatten(2).transpose(1, 2)
        x = self.patch_embed4(self.patch_embed3(x).flatten(2).transpose(1, 2)) + self.pos_embed
        x, stage1, stage2 = (pick(tokens, mask.ids_keep) for tokens in (x, stage1, stage2))
        for block in self.blocks3:
            x = block(x)
        x = self.decoder_embed(self.norm(x + stage1 + stage2))
        mask_tokens = self.mask_token.to(x.dtype).repeat(len(x), rows * columns - x.shape[1], 1)
        x = pick(torch.cat([x, mask_tokens], 1), mask.ids_restore) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        pred = self.decoder_pred(self.decoder_norm(x))

        target = images.unflatten(3, (columns, 16)).unflatten(2, (rows, 16))
        target = target.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # (B, L, 768)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
        loss = ((pred - target) ** 2).mean(-1)
        return dict(loss=(loss * removed).sum() / removed.sum())
