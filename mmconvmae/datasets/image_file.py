"""Images as they lie in people's folders: any depth, any number of channels, damaged or not."""

import io
import struct
import warnings
from importlib import import_module
from types import ModuleType

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageMode

# From a file to the picture, by EXIF orientation: whether to swap rows and columns, then flip rows, flip columns.
ORIENTATIONS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
# Pillow's modes of at most 8 bits with what they become where a file's own channels are asked for.
OWN_MODES = {
    '1': 'L',
    'L': 'L',
    'LA': 'LA',
    'La': 'LA',
    'P': 'RGB',
    'PA': 'RGBA',
    'RGB': 'RGB',
    'RGBA': 'RGBA',
    'RGBa': 'RGBA',
    'CMYK': 'CMYK',
    'YCbCr': 'RGB',
    'LAB': 'RGB',
    'HSV': 'RGB',
}
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, which Pillow uses


class MediaFileError(OSError):
    """A file of a data set that cannot be used."""


class ImageFileError(MediaFileError):
    """An image that cannot be used. The message says which, why and what to do."""


class ImageFile:
    """An image in a file. The header is read at once, pixels when they are asked for.

    Values keep the file's own units: 16 bits stay 16 bits, and floats floats. Of several pages or frames the first
    counts. Pillow reads what has at most 8 bits, tifffile other TIFFs, OpenCV other PNG, PNM and JPEG 2000 files.

    Args:
        path (str): Where the file is, for messages.
        content (bytes): What is in it.

    Attributes:
        format (str): Such as 'JPEG', 'PNG' or 'TIFF'.
        size (tuple[int, int]): Width and height, as the picture is looked at.
        channels (int): A palette counts as the colours that it stands for, CMYK as 4.
        has_alpha (bool): Whether the last channel is transparency.
        dtype (np.dtype): Of the values that :meth:`read` gives; 1-bit images are uint8 with 0 and 255.
        full_scale (int | None): The largest value that the file's depth allows, None for signed values and floats.
        orientation (int): EXIF orientation, 1 to 8.
        num_not_finite (int): After :meth:`read`: values that are NaN, infinite or declared as missing. They have the
            mean of the others in their channel.

    Raises:
        ImageFileError: If this is not an image, or one too large.
    """

    def __init__(self, path: str, content: bytes) -> None:
        self.path = path
        self.content = content
        self.orientation = 1
        self.num_not_finite = 0
        self.has_alpha = False
        self._mode: str | None = None  # of Pillow, for what has 8 bits
        self._turned = False  # whether a decoder has followed the orientation itself
        self._decode = self._decode_pillow
        if not content:
            raise unreadable(path, 'the file is empty')
        try:
            with warnings.catch_warnings():
                # What Pillow warns of is refused by name where it matters, and there may be thousands of files.
                warnings.simplefilter('ignore')
                self._read_header()
        except ImageFileError:
            raise
        except Image.DecompressionBombError as error:
            raise self._too_large() from error
        except Exception as error:  # decoders raise whatever they like for damaged files
            raise unreadable(self.path, reason(error)) from error

    @property
    def num_frames(self) -> int:
        """int: Pages or frames in the file. Counting may take as long as reading it."""
        if self._decode == self._decode_tiff:
            with need('tifffile').TiffFile(io.BytesIO(self.content)) as tiff:
                return 1 if self._series else len(tiff.pages)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return getattr(Image.open(io.BytesIO(self.content)), 'n_frames', 1)

    def read(self, in_channels: int | None = None, reduce: int = 1) -> np.ndarray:
        """Decode the pixels.

        Grey is repeated for three channels and colours are mixed for one, as Pillow does; transparency is left out
        where it is not asked for. Other numbers of channels have to be the file's own.

        Args:
            in_channels (int, optional): Number of channels. Defaults to None, the file's own.
            reduce (int): 1, 2, 4 or 8: the edges of a JPEG become that much shorter, which is faster. Other formats
                take 1 alone. Defaults to 1.

        Returns:
            np.ndarray: Shape (H, W, C), red first, in the file's own units.

        Raises:
            ImageFileError: If the file is damaged, has other channels, or has no finite value.
        """
        if in_channels is None:
            in_channels = self.channels
        self._check_channels(in_channels)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                image = self._decode(in_channels, reduce)
        except Image.DecompressionBombError as error:
            raise self._too_large() from error
        except Exception as error:
            raise unreadable(self.path, reason(error)) from error
        if np.issubdtype(image.dtype, np.floating):
            image = self._replace_not_finite(image)
        swap, flip_rows, flip_columns = ORIENTATIONS[1 if self._turned else self.orientation]
        if swap:
            image = image.swapaxes(0, 1)
        return image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]

    def _error(self, fault: str, remedy: str = 'replace it or take it out of the data set') -> ImageFileError:
        return ImageFileError(f'The image {self.path} {fault}; {remedy}.')

    def _too_large(self) -> ImageFileError:
        return self._error(
            f'claims more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels',
            'take it out, or raise PIL.Image.MAX_IMAGE_PIXELS',
        )

    def _read_header(self) -> None:
        is_tiff = self.content[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
        try:
            image = Image.open(io.BytesIO(self.content))
        except Image.UnidentifiedImageError as error:
            if is_tiff:  # six bands, or floats in colour
                return self._read_tiff_header()
            raise unreadable(self.path, 'it is not an image') from error
        self.format = image.format
        if is_tiff and (max(image.tag_v2.get(258, (1,))) > 8 or image.tag_v2.get(277, 1) > len(image.getbands())):
            return self._read_tiff_header()  # deep, or with bands beside the colours
        self.size = image.size
        self.orientation = self._read_orientation(image)
        deep = self._read_depth(image)
        if deep is not None:
            self.full_scale, self.channels, self.has_alpha = deep
            self.dtype = np.dtype(np.uint8 if self.full_scale < 256 else np.uint16)
            self._decode = self._decode_opencv
        elif image.mode in OWN_MODES:
            transparent_palette = image.mode == 'P' and 'transparency' in image.info
            self._mode = 'RGBA' if transparent_palette else OWN_MODES[image.mode]
            self.channels = len(ImageMode.getmode(self._mode).bands)
            self.has_alpha = self._mode in ('LA', 'RGBA')
            self.dtype, self.full_scale = np.dtype(np.uint8), 255
        else:  # one channel: 16 bits, 32 bits or floats
            array = np.asarray(Image.new(image.mode, (1, 1)))
            self._mode, self.channels, self.dtype = image.mode, 1, array.dtype
            self.full_scale = int(np.iinfo(array.dtype).max) if array.dtype.kind == 'u' else None
        if is_tiff:
            self.size = image.tag_v2[256], image.tag_v2[257]  # newer versions of Pillow have turned `image.size`
        if ORIENTATIONS[self.orientation][0]:
            self.size = self.size[::-1]

    def _read_orientation(self, image: Image.Image) -> int:
        try:
            orientation = image.getexif().get(0x0112, 1)
        except Exception:  # a damaged EXIF block says nothing of the pixels; other readers ignore it too
            return 1
        return orientation if orientation in ORIENTATIONS else 1

    def _read_depth(self, image: Image.Image) -> tuple[int, int, bool] | None:
        """Full scale, channels and alpha where Pillow would lose depth, else None."""
        content = self.content
        if image.format == 'PNG' and content[24] == 16:  # IHDR: depth, then colour type
            channels = {0: 1, 2: 3, 4: 2, 6: 4}[content[25]]
            return 65535, channels, channels in (2, 4)
        if image.format == 'PPM' and content[:2] in (b'P2', b'P3', b'P5', b'P6') and image.tile:
            args = image.tile[0][3]  # of Pillow's decoder: a raw mode, or one with the largest value
            full_scale = args[1] if isinstance(args, tuple) else 65535 if args == 'I;16B' else 255
            return (full_scale, len(image.getbands()), False) if full_scale != 255 else None
        if image.format == 'JPEG2000':
            start = content.find(b'\xff\x51')  # SIZ: the number of components, then the depth of the first
            channels, depth = struct.unpack('>HB', content[start + 38 : start + 41])
            if depth & 0x80:
                raise self._error('has signed values, which no reader here gives for JPEG 2000', 'convert it to TIFF')
            if depth + 1 > 8:
                return 2 ** (depth + 1) - 1, channels, channels in (2, 4)
        return None

    def _read_tiff_header(self) -> None:
        tifffile = need('tifffile')
        with tifffile.TiffFile(io.BytesIO(self.content)) as tiff:
            page = tiff.pages[0]
            self._series = self._channels_are_pages(tiff)
            source = tiff.series[0] if self._series else page
            shape = dict(zip(source.axes, source.shape))
            if set(source.axes) - set('YXSC') or not {'Y', 'X'} <= set(source.axes):
                raise self._error(f'has axes {source.axes}, which are no picture', 'save one plane')
            self.channels = shape.get('S', 1) * shape.get('C', 1)
            # Samples that are declared to be transparency; others are channels of their own.
            self.has_alpha = page.extrasamples[-1:] in ((1,), (2,))
            self.dtype = np.dtype(np.uint8 if source.dtype == bool else source.dtype)
            bits = page.bitspersample
            self.full_scale = 2**bits - 1 if self.dtype.kind == 'u' and bits > 1 else None
            tag = page.tags.get(274)
            self.orientation = tag.value if tag is not None and tag.value in ORIENTATIONS else 1
            missing = page.tags.get(42113)  # GDAL's value for pixels without data
            self._missing = float(missing.value.strip('\0 ')) if missing is not None else None
        if shape['X'] * shape['Y'] > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
            raise self._too_large()
        self.format = 'TIFF'
        self.size = (shape['X'], shape['Y'])
        if ORIENTATIONS[self.orientation][0]:
            self.size = self.size[::-1]
        self._decode = self._decode_tiff

    @staticmethod
    def _channels_are_pages(tiff) -> bool:
        """Whether each channel is a page of its own, as microscopes save them."""
        return bool(tiff.series) and 'C' in tiff.series[0].axes and not set(tiff.series[0].axes) - set('CYXS')

    def _check_channels(self, in_channels: int) -> None:
        colours = self.channels - self.has_alpha
        if in_channels == self.channels or in_channels == colours:
            return
        if in_channels in (1, 3) and (colours in (1, 3) or self._mode == 'CMYK'):
            return
        raise self._error(
            f'has {self.channels} channel{"s" * (self.channels > 1)} where in_channels is {in_channels}',
            f'set in_channels={self.channels} for a data set of such images, or take it out',
        )

    def _decode_pillow(self, in_channels: int, reduce: int) -> np.ndarray:
        image = Image.open(io.BytesIO(self.content))
        if reduce > 1:
            image.draft(image.mode, (image.width // reduce, image.height // reduce))
        image.load()
        # Newer versions of Pillow turn TIFFs as they load them, and forget the orientation.
        self._turned = self.format == 'TIFF' and self._read_orientation(image) != self.orientation
        if self.dtype != np.uint8:
            return fit_channels(np.asarray(image)[..., None], in_channels, has_alpha=False)
        if image.mode == 'LAB':
            lab, srgb = ImageCms.createProfile('LAB'), ImageCms.createProfile('sRGB')
            image = ImageCms.profileToProfile(image, lab, srgb, outputMode='RGB')
        mode = self._mode if in_channels == self.channels else {1: 'L', 3: 'RGB'}[in_channels]
        if image.mode != mode:
            image = image.convert(mode)
        array = np.asarray(image)
        return array[..., None] if array.ndim == 2 else array

    def _decode_opencv(self, in_channels: int, reduce: int) -> np.ndarray:
        array = cv2.imdecode(np.frombuffer(self.content, np.uint8), cv2.IMREAD_UNCHANGED)
        if array is None:
            raise ValueError('OpenCV gives no image')
        if array.ndim == 2:
            array = array[..., None]
        elif self.channels == 2:  # grey and alpha come as four
            array = array[..., [0, 3]]
        else:
            array = array[..., [2, 1, 0, 3][: self.channels]]
        return fit_channels(array, in_channels, self.has_alpha)

    def _decode_tiff(self, in_channels: int, reduce: int) -> np.ndarray:
        tifffile = need('tifffile')
        with tifffile.TiffFile(io.BytesIO(self.content)) as tiff:
            source = tiff.series[0] if self._series else tiff.pages[0]
            try:
                array, axes = source.asarray(), source.axes
            except ValueError as error:
                if 'imagecodecs' in str(error):
                    need('imagecodecs')
                raise
        order = [axes.index(axis) for axis in 'YXCS' if axis in axes]
        array = array.transpose(order).reshape(array.shape[order[0]], array.shape[order[1]], self.channels)
        if array.dtype == bool:
            array = array.astype(np.uint8) * 255
        if self._missing is not None and array.dtype.kind == 'f':
            array = np.where(array == array.dtype.type(self._missing), np.nan, array)
        return fit_channels(array, in_channels, self.has_alpha)

    def _replace_not_finite(self, image: np.ndarray) -> np.ndarray:
        finite = np.isfinite(image)
        self.num_not_finite = int(finite.size - finite.sum())
        if not self.num_not_finite:
            return image
        if not finite.any(axis=(0, 1)).all():
            raise self._error('has a channel without a single finite value')
        mean = np.mean(image, axis=(0, 1), where=finite, dtype=np.float64)
        return np.where(finite, image, mean.astype(image.dtype))


def unreadable(path: str, fault: str) -> ImageFileError:
    """The error of a file of which no picture can be made.

    Args:
        path (str): The file.
        fault (str): What is wrong with it.

    Returns:
        ImageFileError: The error.
    """
    return ImageFileError(
        f'The image {path} is unreadable or truncated ({fault}); replace it or take it out of the data set.'
    )


def fit_channels(image: np.ndarray, in_channels: int, has_alpha: bool) -> np.ndarray:
    """Leave out transparency, repeat grey or mix colours, until an image has the channels that are asked for.

    Args:
        image (np.ndarray): Shape (H, W, C).
        in_channels (int): Number of channels that fits, see :meth:`ImageFile.read`.
        has_alpha (bool): Whether the last channel is transparency.

    Returns:
        np.ndarray: Shape (H, W, in_channels), of the same type.
    """
    if image.shape[-1] == in_channels:
        return image
    if has_alpha:
        image = image[..., :-1]
    if image.shape[-1] == 1:
        return image.repeat(in_channels, axis=-1)
    if in_channels == 1:
        grey = image @ np.array(LUMA)
        return (grey if image.dtype.kind == 'f' else grey.round()).astype(image.dtype)[..., None]
    return image


def need(name: str) -> ModuleType:
    """Import a package that few images need.

    Args:
        name (str): Its name.

    Returns:
        ModuleType: The package.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f'this kind of TIFF needs another package: pip install {name}') from error


def reason(error: Exception) -> str:
    """What an error says, in one line.

    Args:
        error (Exception): Of a decoder.

    Returns:
        str: Its message, or its type where it has none.
    """
    return ' '.join(str(error).split()) or type(error).__name__
