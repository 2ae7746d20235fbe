from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from mmengine.dataset import Compose
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import TRANSFORMS
from mmengine.runner import Runner
from torch import Tensor

from mmconvmae.apis.images import load_center_crop
from mmconvmae.datasets import find_images
from mmconvmae.models.heads import ConvMAEPretrainHead
from mmconvmae.models.mask_generators import ConvMAEMask
from mmconvmae.models.selfsup import ConvMAE
from mmconvmae.registry import HOOKS
from mmconvmae.visualization import draw_reconstructions


@HOOKS.register_module()
class ReconstructionHook(Hook):
    """Show what the model makes of images that it is not trained on: a picture, the loss, and what the loss is worth.

    The images and their masks are the same each time, and the run's random numbers are left alone. Beside the loss
    stand two baselines: predicting zero, and predicting for each patch its own mean colour, which a model cannot know.

    Args:
        data_root (str): Folder of held-out images.
        loader (dict): Config of the transform that loads them, :class:`LoadWholeImage`. Defaults to
            ``dict(type='mmconvmae.LoadWholeImage')``.
        interval (int): Epochs from one time to the next. Defaults to 10.
        num_images (int): How many images have a loss. Defaults to 64.
        num_drawn (int): How many of these are drawn. Defaults to 6.
        batch_size (int): How many are computed at once. Defaults to 16.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no image in it, or one of the last three is less than 1.
    """

    def __init__(
        self,
        data_root: str,
        loader: dict = dict(type='mmconvmae.LoadWholeImage'),
        interval: int = 10,
        num_images: int = 64,
        num_drawn: int = 6,
        batch_size: int = 16,
    ) -> None:
        for name, number in dict(num_images=num_images, num_drawn=num_drawn, batch_size=batch_size).items():
            if number < 1:
                raise ValueError(f'{name} is {number}; give 1 or more.')
        paths, _ = find_images(data_root)
        if not paths:
            raise ValueError(f'There is no image in {data_root}; give a folder of held-out images.')
        # Spread over the folder, whose sub-folders are often classes; those that are drawn too, and they come first.
        paths = spread(paths, num_images)
        drawn = spread(paths, num_drawn)
        chosen = set(drawn)
        paths = drawn + [path for path in paths if path not in chosen]
        self.paths = [str(Path(data_root, path)) for path in paths]
        self.loader = loader
        self.interval = interval
        self.num_drawn = num_drawn
        self.batch_size = batch_size

    def before_train(self, runner: Runner) -> None:
        """Load the images, so that one that cannot be used stops the run now, and not after the first interval.

        Args:
            runner (Runner): The runner.

        Raises:
            ImageFileError: If an image cannot be used.
            TypeError: If the model is another than a :class:`ConvMAE`.
            ValueError: If images have different depths, or the data preprocessor does not fit them.
        """
        if not is_main_process():
            return
        model = unwrap(runner.model)
        if not isinstance(model, ConvMAE):
            raise TypeError(
                f'ReconstructionHook shows what a ConvMAE reconstructs, and the model is a {type(model).__name__}; '
                'leave the hook out.'
            )
        size = model.backbone.img_size
        loader = Compose([TRANSFORMS.build(self.loader)])
        images = [load_center_crop(path, loader, size, max(size)) for path in self.paths]
        for path, image in zip(self.paths, images):
            if image.dtype != images[0].dtype:
                raise ValueError(
                    f'The held-out images {self.paths[0]} and {path} have different depths (one has 8 bits, the other '
                    'more), which one mean and std cannot fit; load them with full_scale=255, or take those of one '
                    'depth out.'
                )
        self.images = torch.stack(images)
        for batch in self.images.split(self.batch_size):
            model.data_preprocessor(dict(inputs=batch, data_samples=None))

    def after_train_epoch(self, runner: Runner) -> None:
        """Log the losses and draw.

        Args:
            runner (Runner): The runner.
        """
        if is_main_process() and (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            model = unwrap(runner.model)
            training = model.training
            model.eval()
            # Masks are drawn by the generator of the device; it and the one of the CPU are put back.
            device = next(model.parameters()).device
            with torch.random.fork_rng([device] if device.type == 'cuda' else []):
                self._show(runner, model)
            model.train(training)

    @torch.no_grad()
    def _show(self, runner: Runner, model: ConvMAE) -> None:
        torch.manual_seed(0)
        sums, drawn = torch.zeros(3), []
        for images in self.images.split(self.batch_size):
            data = model.data_preprocessor(dict(inputs=images, data_samples=None))
            images = data['inputs']  # (B, C, H, W), normalised
            mask = model.generate_mask(images).first_view(len(images))
            pred = model.neck(model.backbone(images, mask), mask)
            losses = [model.head.loss(guess, images, mask) for guess in (pred, *baselines(model.head, images, mask))]
            sums += torch.stack(losses).float().cpu() * len(images)
            if sum(len(rows[0]) for rows in drawn) < self.num_drawn:
                drawn.append((images, *model.reconstruct(images, mask)))
        names = ('held_out/loss', 'held_out/loss_of_zero', 'held_out/loss_of_own_colour')
        scalars = dict(zip(names, (sums / len(self.images)).tolist()))
        runner.visualizer.add_scalars(scalars, step=runner.iter)
        loss, zero, colour = scalars.values()
        runner.logger.info(
            f'Epoch {runner.epoch + 1}, {len(self.images)} held-out images: loss {loss:.4f}; predicting zero would '
            f"cost {zero:.4f}, and each patch's own mean colour {colour:.4f}."
        )
        images, reconstructions, removed = (torch.cat(parts)[: self.num_drawn] for parts in zip(*drawn))
        out = Path(runner.work_dir, 'reconstructions', f'epoch_{runner.epoch + 1}.png')
        picture = draw_reconstructions(model, images, reconstructions, removed, out)
        runner.visualizer.add_image('held_out', picture, step=runner.epoch + 1)


def baselines(head: ConvMAEPretrainHead, images: Tensor, mask: ConvMAEMask) -> tuple[Tensor, Tensor]:
    """Predictions that need no model.

    Args:
        head (ConvMAEPretrainHead): Has the targets.
        images (Tensor): Shape (B, C, H, W).
        mask (ConvMAEMask): What is removed.

    Returns:
        tuple[Tensor, Tensor]: Zero, and each patch's own mean of every channel, shape (B, M, P) both.
    """
    target = head.construct_target(images).take_along_dim(mask.ids_predict[..., None], 1)
    pixels = target.unflatten(-1, (-1, head.in_channels))
    return torch.zeros_like(target), pixels.mean(-2, keepdim=True).expand_as(pixels).flatten(-2)


def spread(items: list, number: int) -> list:
    """Take some of a list, from the first to the last, with equal distances.

    Args:
        items (list): What there is, at least one.
        number (int): How many to take, or all if they are not more.

    Returns:
        list: Those taken, in their order.
    """
    places = np.linspace(0, len(items) - 1, min(number, len(items))).round().astype(int)
    return [items[place] for place in places]


def unwrap(model: nn.Module) -> ConvMAE:
    """Take a model out of what distributes it.

    Args:
        model (nn.Module): A model, or one in a wrapper.

    Returns:
        ConvMAE: The model.
    """
    return model.module if is_model_wrapper(model) else model
