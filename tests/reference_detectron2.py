"""The authors' detector in the form of detectron2's ViTDet, plainly: its modules have the names of their checkpoint."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each position of (B, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(1, keepdim=True)
        x = x / (x.square().mean(1, keepdim=True) + self.eps).sqrt()
        return x * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


class NormedConv(nn.Conv2d):
    """A convolution that has its norm inside, and no bias."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = ChannelNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class Attention(nn.Module):
    def __init__(self, dims: int, heads: int, edge: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(dims, 3 * dims), nn.Linear(dims, dims), heads
        self.rel_pos_h, self.rel_pos_w = (nn.Parameter(torch.zeros(2 * edge - 1, dims // heads)) for _ in 'hw')

    def forward(self, x: Tensor) -> Tensor:
        """Attend among all positions of x, (B, h, w, C)."""
        height, width = x.shape[1:3]
        tables = []  # vectors of each pair of rows, and of columns
        for table, edge in ((self.rel_pos_h, height), (self.rel_pos_w, width)):
            if len(table) != 2 * edge - 1:
                table = F.interpolate(table.t()[None], 2 * edge - 1, mode='linear')[0].t()
            tables.append(torch.stack([table[i : i + edge].flip(0) for i in range(edge)]))
        out = []
        for q, k, v in zip(*(part.chunk(self.heads, -1) for part in self.qkv(x.flatten(1, 2)).chunk(3, -1))):
            maps = q.unflatten(1, (height, width))
            rows = torch.einsum('nyxd,ykd->nyxk', maps, tables[0]).repeat_interleave(width, -1)
            columns = torch.einsum('nyxd,xkd->nyxk', maps, tables[1]).repeat(1, 1, 1, height)
            scores = q @ k.mT / math.sqrt(q.shape[-1]) + (rows + columns).flatten(1, 2)
            out.append(scores.softmax(-1) @ v)
        return self.proj(torch.cat(out, -1)).view(x.shape)


class Mlp(nn.Module):
    def __init__(self, dims: int, hidden: int, layer=nn.Linear) -> None:
        super().__init__()
        self.fc1, self.fc2 = layer(dims, hidden), layer(hidden, dims)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def in_windows(x: Tensor, size: int, attend) -> Tensor:
    """Attend in one window after the other of x, (B, H, W, C), with zeros below and to the right of it."""
    height, width = x.shape[1:3]
    rows, columns = math.ceil(height / size), math.ceil(width / size)
    padded = x.new_zeros(len(x), rows * size, columns * size, x.shape[-1])
    padded[:, :height, :width] = x
    lines = [
        torch.cat([attend(window.contiguous()) for window in line.split(size, 2)], 2) for line in padded.split(size, 1)
    ]
    return torch.cat(lines, 1)[:, :height, :width]


class Block(nn.Module):
    def __init__(self, dims: int, heads: int, ratio: float, window: int, edge: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dims, 1e-6), nn.LayerNorm(dims, 1e-6)
        self.attn, self.mlp = Attention(dims, heads, window or edge), Mlp(dims, round(ratio * dims))
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + (in_windows(normed, self.window, self.attn) if self.window else self.attn(normed))
        return x + self.mlp(self.norm2(x))


class ConvBlock(nn.Module):
    def __init__(self, dims: int, ratio: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(dims), ChannelNorm(dims)
        self.conv1, self.conv2 = nn.Conv2d(dims, dims, 1), nn.Conv2d(dims, dims, 1)
        self.attn = nn.Conv2d(dims, dims, 5, padding=2, groups=dims)
        self.mlp = Mlp(dims, round(ratio * dims), lambda *sizes: nn.Conv2d(*sizes, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.conv2(self.attn(self.conv1(self.norm1(x))))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, channels: int, dims: int, size: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(channels, dims, size, size), ChannelNorm(dims, 1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.norm(self.proj(x)))


class ConvViT(nn.Module):
    """The backbone, for an architecture as ours has them; ``edges`` are of the windows and of the usual whole map."""

    def __init__(self, arch: dict, global_blocks: tuple, edges: tuple[int, int], pos_embed_edge: int) -> None:
        super().__init__()
        dims, depths, ratios = arch['embed_dims'], arch['depths'], arch['mlp_ratios']
        for i, (channels, size) in enumerate(zip((3, *dims), (4, 2, 2))):
            setattr(self, f'patch_embed{i + 1}', PatchEmbed(channels, dims[i], size))
        self.patch_embed4 = nn.Linear(dims[2], dims[2])
        self.pos_embed = nn.Parameter(torch.zeros(1, pos_embed_edge**2, dims[2]))
        self.blocks1, self.blocks2 = (
            nn.ModuleList(ConvBlock(dims[i], ratios[i]) for _ in range(depths[i])) for i in range(2)
        )
        self.blocks3 = nn.ModuleList(
            Block(dims[2], arch['num_heads'], ratios[2], 0 if i in global_blocks else edges[0], edges[1])
            for i in range(depths[2])
        )

    def forward(self, x: Tensor) -> Tensor:
        for embed, blocks in ((self.patch_embed1, self.blocks1), (self.patch_embed2, self.blocks2)):
            x = nn.Sequential(embed, *blocks)(x)
        x = self.patch_embed4(self.patch_embed3(x).permute(0, 2, 3, 1))  # (B, H, W, C)
        edge = math.isqrt(self.pos_embed.shape[1])
        maps = self.pos_embed.unflatten(1, (edge, edge)).permute(0, 3, 1, 2)
        x = x + F.interpolate(maps, x.shape[1:3], mode='bicubic').permute(0, 2, 3, 1)
        return nn.Sequential(*self.blocks3)(x).permute(0, 3, 1, 2)


class SimpleFeaturePyramid(nn.Module):
    def __init__(self, net: nn.Module, dims: int, channels: int) -> None:
        super().__init__()
        self.net = net
        up = lambda i: nn.ConvTranspose2d(dims // i, dims // i // 2, 2, 2)  # noqa: E731
        starts = ((up(1), ChannelNorm(dims // 2), nn.GELU(), up(2)), (up(1),), (), (nn.MaxPool2d(2, 2),))
        for level, start, width in zip((2, 3, 4, 5), starts, (dims // 4, dims // 2, dims, dims)):
            convs = NormedConv(width, channels, 1), NormedConv(channels, channels, 3)
            self.add_module(f'simfp_{level}', nn.Sequential(*start, *convs))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.net(images)
        levels = [getattr(self, f'simfp_{level}')(x) for level in (2, 3, 4, 5)]
        return [*levels, levels[-1][..., ::2, ::2]]


class RPNHead(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential()
        for i in range(2):
            self.conv.add_module(f'conv{i}', nn.Conv2d(channels, channels, 3, padding=1))
        self.objectness_logits, self.anchor_deltas = nn.Conv2d(channels, 3, 1), nn.Conv2d(channels, 3 * 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (H, W, 3) and deltas (H, W, 3, 4) of the first image."""
        for conv in self.conv:
            x = F.relu(conv(x))
        scores, deltas = self.objectness_logits(x)[0], self.anchor_deltas(x)[0]
        return scores.permute(1, 2, 0), deltas.unflatten(0, (3, 4)).permute(2, 3, 0, 1)


class BoxHead(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        for i in range(4):
            self.add_module(f'conv{i + 1}', NormedConv(channels, channels, 3))
        self.fc1 = nn.Linear(channels * 7 * 7, hidden)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(4):
            x = F.relu(getattr(self, f'conv{i + 1}')(x))
        return F.relu(self.fc1(x.flatten(1)))


class BoxPredictor(nn.Module):
    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.cls_score, self.bbox_pred = nn.Linear(hidden, classes + 1), nn.Linear(hidden, classes * 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N, classes), without that of the background, and deltas (N, classes, 4)."""
        return self.cls_score(x).softmax(-1)[:, :-1], self.bbox_pred(x).unflatten(1, (-1, 4))


class MaskHead(nn.Module):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        for i in range(4):
            self.add_module(f'mask_fcn{i + 1}', NormedConv(channels, channels, 3))
        self.deconv, self.predictor = nn.ConvTranspose2d(channels, channels, 2, 2), nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(4):
            x = F.relu(getattr(self, f'mask_fcn{i + 1}')(x))
        return self.predictor(F.relu(self.deconv(x)))


class MaskRCNN(nn.Module):
    def __init__(self, net: nn.Module, dims: int, channels: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.backbone = SimpleFeaturePyramid(net, dims, channels)
        self.proposal_generator = nn.ModuleDict(dict(rpn_head=RPNHead(channels)))
        self.roi_heads = nn.ModuleDict(
            dict(
                box_head=BoxHead(channels, hidden),
                box_predictor=BoxPredictor(hidden, classes),
                mask_head=MaskHead(channels, classes),
            )
        )


def anchors(stride: int, height: int, width: int) -> Tensor:
    """Boxes of eight strides' size in three shapes around the corner of each position, (H, W, 3, 4)."""
    boxes = torch.zeros(height, width, 3, 4)
    for i, ratio in enumerate((0.5, 1.0, 2.0)):  # of height to width
        half = torch.tensor([ratio**-0.5, ratio**0.5]) * 8 * stride / 2
        for y in range(height):
            for x in range(width):
                centre = torch.tensor([x, y]) * stride
                boxes[y, x, i] = torch.cat([centre - half, centre + half])
    return boxes


def apply_deltas(boxes: Tensor, deltas: Tensor, weights: tuple) -> Tensor:
    """Boxes (\\*, 4) moved and scaled by deltas (\\*, 4)."""
    size, centre = boxes[..., 2:] - boxes[..., :2], (boxes[..., 2:] + boxes[..., :2]) / 2
    deltas = deltas / torch.tensor(weights)
    centre = centre + deltas[..., :2] * size
    half = deltas[..., 2:].clamp(max=math.log(1000 / 16)).exp() * size / 2
    return torch.cat([centre - half, centre + half], -1)
