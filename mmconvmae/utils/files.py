import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def write_whole(path: str | os.PathLike, folder: bool = False) -> Iterator[Path]:
    """Write a file or a folder so that it is either whole or not there.

    What is written goes to a hidden place beside the target, and takes the target's name when the block has ended. If
    the block raises an error nothing stays, and a file that was there before is as it was.

    Args:
        path (str | os.PathLike): The target; the folder that it lies in is made where it is missing.
        folder (bool): Whether the target is a folder, which must not be there yet. Defaults to False: a file, which is
            replaced where it is there.

    Yields:
        Path: Where to write: a file to be made, or an empty folder. It ends in ``.part``, so whoever tells formats by
        the ending has to be told.

    Raises:
        FileExistsError: If the target is a folder and is there already.
        OSError: If it cannot be written.
    """
    path = Path(path)
    if folder and path.exists():
        raise FileExistsError(f'{path} is already there; remove it first, or use it as it is.')
    partial = path.with_name(f'.{path.name}.part')
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(partial)  # of a process that was killed
    if folder:
        partial.mkdir()
    try:
        yield partial
        partial.replace(path)
    finally:
        _remove(partial)
