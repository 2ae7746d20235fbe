from mmcv.transforms import LoadImageFromFile

from mmconvmae.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadWholeImage(LoadImageFromFile):
    """Load an image, and stop with its path where it is damaged.

    mmcv's default decoder fills the missing part of a truncated file with grey and goes on; Pillow's, which is used
    here, does not.

    Args:
        **kwargs: Arguments of mmcv's ``LoadImageFromFile``. ``imdecode_backend`` defaults to 'pillow'.

    Raises:
        OSError: If the file cannot be read or decoded to its end.
    """

    def __init__(self, *, imdecode_backend: str = 'pillow', **kwargs) -> None:
        super().__init__(imdecode_backend=imdecode_backend, **kwargs)

    def transform(self, results: dict) -> dict | None:
        """Load the image.

        Args:
            results (dict): Has the path under ``img_path``.

        Returns:
            dict: The same with ``img`` (H, W, 3), BGR, uint8, and its shapes.
        """
        try:
            return super().transform(results)
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise OSError(
                f'The image {results["img_path"]} is unreadable or truncated ({reason}); replace it or take it out of '
                'the data set.'
            ) from error
