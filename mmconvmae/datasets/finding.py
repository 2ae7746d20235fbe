import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path


def find_files(root: str, suffixes: Collection[str], kind: str) -> tuple[list[str], Counter]:
    """Look for files in a folder and below it, by suffix. Links are followed.

    Args:
        root (str): The folder.
        suffixes (Collection[str]): What is taken, in lower case, with the dot.
        kind (str): What such files are, 'images' or 'videos'.

    Returns:
        tuple[list[str], Counter]: Sorted paths relative to the folder, with ``/``, and how many files are not taken, by
        suffix: those whose name begins with a dot count as 'hidden', those without a suffix as 'no suffix'.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not Path(root).is_dir():
        raise FileNotFoundError(f'There is no folder {root}; give the path of a folder of {kind}.')
    taken, passed_over = [], Counter()
    seen = set()  # of folders: a link may lead back up
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in files:
            path = Path(folder, name)
            suffix = path.suffix.lower()
            if name.startswith('.'):
                passed_over['hidden'] += 1
            elif suffix in suffixes:
                taken.append(path.relative_to(root).as_posix())
            else:
                passed_over[suffix or 'no suffix'] += 1
    return sorted(taken), passed_over


def say_found(paths: Sequence[str], passed_over: Counter, kind: str, root: str) -> str:
    """Say what :func:`find_files` found.

    Args:
        paths (Sequence[str]): What is taken.
        passed_over (Counter): What is not.
        kind (str): What files were looked for, 'images' or 'videos'.
        root (str): The folder.

    Returns:
        str: A sentence without its full stop.
    """
    found = f'{len(paths)} {kind} are in {root}'
    if passed_over:
        counts = ', '.join(f'{suffix}: {number}' for suffix, number in passed_over.most_common())
        found += f'; {passed_over.total()} other files are not taken ({counts})'
    return found
