from torch import Tensor


def unpadded_sizes(images: Tensor, pad_value: float, unit: int) -> list[tuple[int, int]]:
    """Find how large the images of a batch are that was padded to one size on the right and below.

    Args:
        images (Tensor): Shape (B, C, H, W).
        pad_value (float): The value of all channels in the padding.
        unit (int): Sizes are rounded up to multiples of it, in pixels, as far as H and W allow.

    Returns:
        list[tuple[int, int]]: Height and width of each image, in pixels.
    """
    is_image = (images != pad_value).any(dim=1)  # (B, H, W)
    sizes = []
    for axis, length in ((2, images.shape[2]), (1, images.shape[3])):
        padding = is_image.any(dim=axis).flip(1).long().argmax(dim=1)  # (B,)
        sizes.append([min(-(-edge // unit) * unit, length) for edge in (length - padding).tolist()])
    return list(zip(*sizes))
