"""Scan a folder of images before training: what it holds, what cannot be used and why, copies, mean and deviation.

python tools/analysis_tools/scan_images.py FOLDER [--out good.txt] [--json report.json]

Every image is decoded to its end, by the loader that training uses and in several processes, so what this finds usable
does not stop a run. --out writes the list of usable files, which a config reads as `ann_file`.

Mean and standard deviation are those of all pixels of all usable images, so a large image counts for more than a small
one. They are in the units of the files and in the order in which channels lie there, red first.

Two files are copies of each other if they give the same pixels, whatever their format. A grey picture that is stored in
colour is the same as one stored in grey.

Exit status: 0 if every image can be used, 1 if some cannot, 2 if none can or the command line is wrong.
"""

import argparse
import hashlib
import json
import os
import signal
import statistics
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NoReturn

import numpy as np
from mmengine.utils import ProgressBar
from PIL import Image

from mmconvmae.datasets import ImageFile, ImageFileError, find_images
from mmconvmae.utils import write_whole

SIZE = 224  # that the configs train at
SIZE_BOUNDS = (32, 64, 128, SIZE, 384, 512, 1024, 2048, 4096)
LONG = 4  # times as long as wide
BLOCK = 2**19  # values that are summed at a time: as float64 they fit into a processor's cache
AHEAD = 4  # images that wait at each process, so that none is idle while results travel
MAX_FAULTS = 20
MAX_COPIES = 10
# Forking is quick. A spawned process would import everything anew, but elsewhere it is what works.
CONTEXT = get_context('fork' if sys.platform == 'linux' else 'spawn')


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='folder of images, with sub-folders or without')
    parser.add_argument(
        '--in-channels',
        type=positive,
        metavar='N',
        help='channels to train with (default: 1 if all images are grey, 3 if they are grey and in colour, the number '
        'of bands if that is what most have)',
    )
    parser.add_argument(
        '--full-scale',
        type=float,
        metavar='X',
        help="as the loader's `full_scale`: integers without sign are scaled so that the largest of their type is X, "
        'which makes depths comparable (255 for 8 and 16 bits in one folder)',
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='list of the usable images to write, a path on a line')
    parser.add_argument(
        '--drop-duplicates', action='store_true', help='leave out of list, mean and deviation all copies but the first'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='report to write with every fault and every copy')
    parser.add_argument(
        '--header-only',
        action='store_true',
        help='decode nothing: a quick look, which finds no damage and gives no mean; copies are files of equal bytes',
    )
    parser.add_argument('--workers', type=positive, default=count_cores(), metavar='N', help='default: one a core')
    return parser.parse_args()


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


@dataclass(slots=True)
class Moments:
    """Number of pixels with mean, sum of squared deviations, smallest and largest value of each channel."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def measure(cls, image: np.ndarray, scale: float = 1) -> 'Moments':
        """Measure an image, in float64.

        Args:
            image (np.ndarray): Shape (H, W, C).
            scale (float): What to multiply values with. Defaults to 1.

        Returns:
            Moments: Its moments.
        """
        height, width, channels = image.shape
        rows = max(1, BLOCK // (width * channels))
        whole = None
        for start in range(0, height, rows):
            values = np.ascontiguousarray(image[start : start + rows].reshape(-1, channels).T, np.float64)
            if scale != 1:
                values *= scale
            mean, low, high = values.mean(1), values.min(1), values.max(1)
            values -= mean[:, None]
            part = cls(values.shape[1], mean, np.square(values, out=values).sum(1), low, high)
            whole = part if whole is None else whole + part
        return whole

    def __add__(self, other: 'Moments') -> 'Moments':
        """Moments of both together, by Chan's formula, which loses no digits as differences of large sums would."""
        count = self.count + other.count
        shift = other.mean - self.mean
        return Moments(
            count,
            self.mean + shift * (other.count / count),
            self.squares + other.squares + shift**2 * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def expand(self, channels: int) -> 'Moments':
        """Moments of a grey image repeated for that many channels."""
        arrays = (self.mean, self.squares, self.low, self.high)
        return Moments(self.count, *(np.broadcast_to(array, channels) for array in arrays))

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(self.squares / self.count)


@dataclass(slots=True)
class Scan:
    """What is known of a file; of a damaged one what was known before the damage."""

    path: str
    fault: str | None = None  # a sentence
    num_bytes: int = 0
    format: str | None = None  # None if not even the header can be read, and so are those below
    size: tuple[int, int] | None = None
    channels: int | None = None
    depth: str | None = None
    orientation: int = 1
    num_frames: int = 1
    has_alpha: bool = False
    in_channels: int | None = None  # that it was read with
    num_not_finite: int = 0
    content_hash: bytes = b''
    pixel_hash: bytes = b''
    moments: Moments | None = None


def digest(*parts: bytes | np.ndarray) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.digest()


def hash_pixels(image: np.ndarray) -> bytes:
    """Hash the picture, which is the same for grey in one channel and in three."""
    if image.shape[2] == 3:
        for rows in (image[:1], image):  # most colours are seen in the first row
            if (rows[..., :2] != rows[..., 1:]).any():
                break
        else:
            image = image[..., :1]
    return digest(f'{image.shape} {image.dtype}'.encode(), np.ascontiguousarray(image))


def read_fitting(image: ImageFile) -> np.ndarray:
    """Read an image with the channels that suit it best: 1 for grey, 3 for colour, and else its own number."""
    if image.channels - image.has_alpha == 1:
        return image.read(1)
    if image.channels in (3, 4):
        try:
            return image.read(3)
        except ImageFileError:  # four bands that are no colours; if it is damaged the next line says so again
            pass
    return image.read()


def scan_file(path: str, in_channels: int | None, full_scale: float | None, header_only: bool) -> Scan:
    """Find out everything about a file.

    Args:
        path (str): Where it is.
        in_channels (int, optional): Channels to read it with; None for what suits it best.
        full_scale (float, optional): What the largest value of an unsigned type becomes; None to leave values.
        header_only (bool): Whether to leave the pixels alone.

    Returns:
        Scan: What was found. An image that cannot be used has a ``fault``.
    """
    scan = Scan(path)
    try:
        content = Path(path).read_bytes()
        scan.num_bytes, scan.content_hash = len(content), digest(content)
        image = ImageFile(path, content)
        scan.format, scan.size, scan.channels = image.format, image.size, image.channels
        scan.orientation, scan.num_frames, scan.has_alpha = image.orientation, image.num_frames, image.has_alpha
        scan.depth = image.dtype.name
        if image.full_scale and image.full_scale != np.iinfo(image.dtype).max:
            scan.depth += f' up to {image.full_scale}'
        if header_only:
            return scan
        pixels = read_fitting(image) if in_channels is None else image.read(in_channels)
        scan.in_channels, scan.num_not_finite = pixels.shape[2], image.num_not_finite
        scan.pixel_hash = hash_pixels(pixels)
        scale = full_scale / image.full_scale if full_scale and image.full_scale else 1
        scan.moments = Moments.measure(pixels, scale)
    except ImageFileError as error:
        scan.fault = str(error)
    except OSError as error:
        scan.fault = f'The image {path} cannot be opened ({error.strerror or error}); change that or take it out.'
    except MemoryError:
        scan.fault = f'The image {path} needs more memory than there is; use fewer --workers or take it out.'
    return scan


def serve(tasks: Connection, other_end: Connection, scan: Callable[[str], Scan]) -> None:
    """Answer each path that comes through a pipe with its scan, or with an error, until the pipe is closed."""
    other_end.close()  # else this process would keep its own pipe open after the main process is gone
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends the others
    while True:
        try:
            path = tasks.recv()
        except EOFError:
            return
        try:
            tasks.send(scan(path))
        except Exception as error:
            tasks.send(error)


class Worker:
    """A process that scans files. If a decoder brings it down, it is known which file it was at."""

    def __init__(self, scan: Callable[[str], Scan]) -> None:
        self.pipe, other_end = CONTEXT.Pipe()
        self.paths: deque[str] = deque()  # sent and not answered yet
        self.process = CONTEXT.Process(target=serve, args=(other_end, self.pipe, scan), daemon=True)
        self.process.start()
        other_end.close()

    def send(self, path: str) -> None:
        self.paths.append(path)
        try:
            self.pipe.send(path)
        except OSError:  # it has ended, which receive() tells
            pass

    def receive(self) -> Scan:
        """Wait for the next scan. EOFError says that the process ended in the midst of ``paths[0]``."""
        try:
            answer = self.pipe.recv()
        except OSError as error:
            raise EOFError from error
        if isinstance(answer, Exception):
            raise answer
        self.paths.popleft()
        return answer

    def wait(self) -> str:
        """Wait for the end of the process, and say how it ended."""
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode
        return signal.Signals(-code).name if code < 0 else f'exit status {code}'


def scan_in_processes(paths: Iterable[str], scan: Callable[[str], Scan], num_workers: int) -> Iterator[Scan]:
    """Scan files in several processes.

    A file at which a process died is scanned again at the end, by itself in a new process: the first may have died of
    something else, such as a lack of memory.

    Args:
        paths (Iterable[str]): Paths that ``scan`` takes.
        scan (Callable[[str], Scan]): The function. With spawned processes it must be picklable.
        num_workers (int): Number of processes.

    Yields:
        Scan: One for each path, in any order.
    """
    waiting, suspects = deque(paths), []
    workers = []
    try:
        workers += [Worker(scan) for _ in range(min(num_workers, len(waiting)))]
        while waiting or any(worker.paths for worker in workers):
            for worker in workers:
                while waiting and len(worker.paths) < AHEAD:
                    worker.send(waiting.popleft())
            ready = wait([worker.pipe for worker in workers if worker.paths])
            for i, worker in enumerate(workers):
                if worker.pipe in ready:
                    try:
                        yield worker.receive()
                    except EOFError:
                        worker.wait()
                        suspects.append(worker.paths.popleft())
                        waiting.extendleft(reversed(worker.paths))
                        workers[i] = Worker(scan)
        for path in suspects:
            workers.append(Worker(scan))
            workers[-1].send(path)
            try:
                yield workers[-1].receive()
            except EOFError:
                yield Scan(
                    path,
                    f'The image {path} brings down the process that reads it ({workers[-1].wait()}), by damage or for '
                    'lack of memory; replace it or take it out of the data set.',
                )
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.wait()


def scan_with_progress(paths: list[str], scan: Callable[[str], Scan], num_workers: int) -> list[Scan]:
    """As :func:`scan_in_processes`, with a bar on stderr; sorted by path, so that sums do not depend on the order."""
    bar = ProgressBar(len(paths), file=sys.stderr)
    interval = 0.2 if sys.stderr.isatty() else 10  # in a log file each update is a line
    scans, shown, last = [], 0, time.monotonic()
    for result in scan_in_processes(paths, scan, num_workers):
        scans.append(result)
        if len(scans) == len(paths) or time.monotonic() - last > interval:
            bar.update(len(scans) - shown)
            shown, last = len(scans), time.monotonic()
    sys.stderr.write('\n')
    return sorted(scans, key=lambda scan: scan.path)


def choose_channels(scans: list[Scan]) -> int | None:
    """Find the number of channels with which the most images can be used; of equals the smaller number.

    Args:
        scans (list[Scan]): Images that were read with what suits each best.

    Returns:
        int | None: 1 if there is no colour, 3 if there is (grey is repeated for it), or a number of bands. None if no
        image could be read.
    """
    usable = Counter(scan.in_channels for scan in scans if scan.in_channels)
    if 3 in usable:
        usable[3] += usable.pop(1, 0)
    return min(usable, key=lambda channels: (-usable[channels], channels), default=None)


def scan_folder(paths: list[str], args: argparse.Namespace) -> tuple[list[Scan], int | None]:
    """Scan files, with the channels that the command line asks for or else those which fit the folder.

    Args:
        paths (list[str]): Where they are.
        args (argparse.Namespace): Command line.

    Returns:
        tuple[list[Scan], int | None]: What was found of each, sorted by path, and the number of channels.
    """
    scan = partial(scan_file, full_scale=args.full_scale, header_only=args.header_only)
    print(f'Reading {len(paths)} files in {args.workers} processes', file=sys.stderr)
    scans = scan_with_progress(paths, partial(scan, in_channels=args.in_channels), args.workers)
    if args.in_channels is not None or args.header_only:
        return scans, args.in_channels
    in_channels = choose_channels(scans)
    others = {}
    for result in scans:
        if result.in_channels == 1 and in_channels == 3:
            result.in_channels, result.moments = 3, result.moments.expand(3)
        elif result.in_channels not in (None, in_channels):
            others[result.path] = result
    if others:
        # The loader says best why it does not take them.
        print(f'Reading {len(others)} files again, with {in_channels} channels', file=sys.stderr)
        again = scan_with_progress(list(others), partial(scan, in_channels=in_channels), args.workers)
        others = {result.path: result for result in again}
        scans = [others.get(result.path, result) for result in scans]
    return scans, in_channels


def find_copies(scans: Iterable[Scan]) -> list[tuple[str, list[str]]]:
    """Group images that are the same.

    Args:
        scans (Iterable[Scan]): Usable images.

    Returns:
        list[tuple[str, list[str]]]: What is the same, 'bytes' or 'pixels', and the paths, for each group.
    """
    groups = defaultdict(list)
    for scan in scans:
        groups[scan.pixel_hash or scan.content_hash].append(scan)
    return [
        (
            'bytes' if len({scan.content_hash for scan in group}) == 1 else 'pixels',
            [scan.path for scan in group],
        )
        for group in groups.values()
        if len(group) > 1
    ]


def check_name(path: str) -> str | None:
    """Say in a sentence why a path cannot stand in a list, if it cannot."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return f'The name {path!r} is not UTF-8, so no list can hold it; rename the file.'
    if len(path.splitlines()) > 1 or path != path.strip():
        return f'The name {path!r} has a line break or white space at its end, so no list can hold it; rename the file.'
    return None


def is_misnamed(scan: Scan) -> bool:
    alike = dict(MPO='JPEG')  # a JPEG with more pictures behind the first
    named = Image.registered_extensions().get(Path(scan.path).suffix.lower())
    return named is not None and alike.get(named, named) != alike.get(scan.format, scan.format)


def count(values: Iterable) -> dict:
    """Count values, the most frequent first."""
    return dict(Counter(values).most_common())


def count_edges(edges: Iterable[int]) -> dict[str, int]:
    """Count lengths in bins, without the empty ones at both ends."""
    bounds = (1, *SIZE_BOUNDS)
    names = [f'{low} to {high - 1}' for low, high in pairwise(bounds)] + [f'{bounds[-1]} or more']
    counts = np.bincount(np.searchsorted(bounds, edges, side='right') - 1, minlength=len(names))
    filled = np.flatnonzero(counts)
    return {names[i]: int(counts[i]) for i in range(filled[0], filled[-1] + 1)}


def summarize(
    args: argparse.Namespace, scans: list[Scan], not_taken: Counter, in_channels: int | None
) -> tuple[dict, list[str]]:
    """Put together what is printed and written.

    Args:
        args (argparse.Namespace): Command line.
        scans (list[Scan]): What was found of each file, sorted by path.
        not_taken (Counter): Other files, by suffix.
        in_channels (int | None): Channels to train with.

    Returns:
        tuple[dict, list[str]]: The report, which JSON can hold, and the relative paths of the images to train with.
    """
    names = {scan.path: os.path.relpath(scan.path, args.folder) for scan in scans}
    if args.out:
        for scan in scans:
            scan.fault = scan.fault or check_name(names[scan.path])
    known = [scan for scan in scans if scan.format is not None]
    usable = kept = [scan for scan in scans if scan.fault is None]
    copies = find_copies(usable)
    if args.drop_duplicates:
        later = {path for _, paths in copies for path in paths[1:]}
        kept = [scan for scan in usable if scan.path not in later]
    report = dict(
        folder=args.folder,
        taken=len(scans),
        bytes=sum(scan.num_bytes for scan in scans),
        not_taken=dict(not_taken.most_common()),
        usable=len(usable),
        kept=len(kept),
        formats=count(scan.format for scan in known),
        depths=count(scan.depth for scan in known),
        channels=count(scan.channels for scan in known),
        sizes=None,
        turned_by_exif=sum(scan.orientation != 1 for scan in known),
        with_transparency=sum(scan.has_alpha for scan in known),
        with_several_frames=sum(scan.num_frames > 1 for scan in known),
        with_another_suffix=sum(is_misnamed(scan) for scan in known),
        with_values_not_finite=sum(scan.num_not_finite > 0 for scan in usable),
        values_not_finite=sum(scan.num_not_finite for scan in usable),
        unusable=[dict(path=names[scan.path], reason=scan.fault) for scan in scans if scan.fault],
        copies=[dict(same=same, paths=[names[path] for path in paths]) for same, paths in copies],
        in_channels=in_channels,
        full_scale=args.full_scale,
        usable_depths=count(scan.depth for scan in usable),
        # The first image of each depth, to look at.
        depth_examples={scan.depth: names[scan.path] for scan in reversed(usable)},
        pixels=None,
    )
    if known:
        widths, heights = zip(*(scan.size for scan in known))
        edges = [sorted(scan.size) for scan in known]
        report['sizes'] = dict(
            width=[min(widths), statistics.median_low(widths), max(widths)],
            height=[min(heights), statistics.median_low(heights), max(heights)],
            shorter_edge=count_edges([short for short, _ in edges]),
            small=sum(short < SIZE for short, _ in edges),
            long=sum(long > LONG * short for short, long in edges),
        )
    moments = [scan.moments for scan in kept if scan.moments is not None]
    if moments:
        whole = reduce(Moments.__add__, moments)
        report.update(pixels=whole.count)
        report.update((name, getattr(whole, name).tolist()) for name in ('mean', 'std', 'low', 'high'))
    return report, [names[scan.path] for scan in kept]


def table(title: str, rows: Iterable[tuple[object, object, str]]) -> list[str]:
    """Lines of a section: names, right-aligned numbers and remarks, all in columns."""
    rows = [(str(name), str(number), remark) for name, number, remark in rows]
    left = max([24, *(len(name) for name, _, _ in rows)])
    right = max([8, *(len(number) for _, number, _ in rows)])
    return ['', title, *(f'  {name:{left}} {number:>{right}}  {remark}'.rstrip() for name, number, remark in rows)]


def counts(numbers: dict) -> list[tuple[object, int, str]]:
    return [(name, number, '') for name, number in numbers.items()]


def at_most(lines: list[str], number: int, what: str) -> list[str]:
    if len(lines) <= number:
        return lines
    return [*lines[:number], f'  and {len(lines) - number} more {what}; --json FILE writes all of them']


def describe_files(report: dict) -> list[str]:
    """What the folder holds."""
    not_taken = sum(report['not_taken'].values())
    rows = [('taken as images', report['taken'], f'{report["bytes"] / 1e6:.1f} MB')]
    rows.append(('not taken', not_taken, 'by suffix:' if not_taken else ''))
    rows += [(f'  {name}', number, '') for name, number in report['not_taken'].items()]
    lines = table(f'Files in {report["folder"]}', rows)
    if not report['formats']:
        return lines
    lines += table('Formats, whatever the suffix says', counts(report['formats']))
    lines += table('Depths, as stored', counts(report['depths']))
    lines += table('Channels, as stored', counts(report['channels']))
    sizes = report['sizes']
    lines += ['', 'Sizes in pixels, as looked at', f'  {"":24} {"smallest":>8} {"median":>8} {"largest":>8}']
    lines += [f'  {name:24} {"".join(f"{edge:>8} " for edge in sizes[name])}'.rstrip() for name in ('width', 'height')]
    bins = sizes['shorter_edge']
    widest = max(bins.values())
    rows = [(f'  {name}', number, '#' * -(-32 * number // widest)) for name, number in bins.items()]
    lines += table('', [('shorter edge', '', ''), *rows])[2:]
    rows = [
        ('turned by EXIF', 'turned_by_exif', 'loaded as they are looked at'),
        ('transparency', 'with_transparency', 'left out, unless --in-channels asks for it'),
        ('several frames or pages', 'with_several_frames', 'the first is used'),
        ('suffix of another format', 'with_another_suffix', 'loaded for what they are'),
        ('NaN, infinite or missing', 'with_values_not_finite', f'{report["values_not_finite"]} values take the mean'),
    ]
    rows = [(name, report[key], remark) for name, key, remark in rows]
    rows.append((f'an edge below {SIZE}', sizes['small'], 'crops of them are enlarged'))
    rows.append((f'longer than {LONG} to 1', sizes['long'], 'a crop shows little of them'))
    rows = [row for row in rows if row[1]]
    return lines + (table('Of these images', rows) if rows else [])


def describe_faults(report: dict, header_only: bool) -> list[str]:
    """What cannot be used, and what is there twice."""
    faults = [f'  {fault["reason"]}' for fault in report['unusable']]
    lines = ['', f'Not usable: {len(faults) or "none"}', *at_most(faults, MAX_FAULTS, 'of them')]
    groups = report['copies']
    surplus = sum(len(group['paths']) - 1 for group in groups)
    same = 'bytes' if header_only else 'bytes or pixels'
    title = f'Copies (same {same}): {surplus or "none"}'
    if groups:
        title += f' beyond the first of {len(groups)}; '
        title += 'left out' if report['kept'] < report['usable'] else '--drop-duplicates leaves them out'
    texts = [f'  same {group["same"]}: {" = ".join(group["paths"])}' for group in groups]
    return [*lines, '', title, *at_most(texts, MAX_COPIES, 'groups')]


def describe_pixels(report: dict) -> list[str]:
    """Mean and deviation, as a config has them, and what is to be said of them."""
    full_scale = report['full_scale']
    unit = "the files' own units" if full_scale is None else f'units of full_scale={full_scale:g}'
    if report['in_channels'] == 3:
        unit += ', red first'
    lines = ['', f'Of {report["pixels"]:,} pixels in {report["kept"]} images, in {unit}:']
    mean, std, low, high = ([float(f'{x:.6g}') for x in report[name]] for name in ('mean', 'std', 'low', 'high'))
    constant = [i for i, (a, b) in enumerate(zip(report['low'], report['high'])) if a == b]
    for i in constant:
        std[i] = 1.0
    lines += [f'  in_channels = {report["in_channels"]}', f'  mean = {mean}', f'  std = {std}']
    if full_scale is not None:
        lines.append(f'  full_scale = {full_scale:g}')
    lines.append(f'  (smallest values {low}, largest {high})')
    if constant:
        which = ', '.join(map(str, constant))
        lines.append(f'  Channel {which}, counted from 0, is the same everywhere: its std is given as 1, to divide by.')
    depths = report['usable_depths']
    unsigned = all(name.startswith('uint') for name in depths)
    if len(depths) > 1 and (full_scale is None or not unsigned):
        if unsigned:
            advice = 'Load them with full_scale=255, and scan with --full-scale 255 for the mean that goes with it.'
        else:
            advice = 'full_scale changes no floats and no integers with a sign: convert them, or use one depth alone.'
        lines += ['', 'Warning: depths are mixed, which one mean cannot fit.', advice]
        lines += [f'  {number} {name}, such as {report["depth_examples"][name]}' for name, number in depths.items()]
    return lines


def write_text(path: Path, text: str) -> None:
    with write_whole(path) as partial_file:
        partial_file.write_text(text, encoding='utf-8')


def fail(message: str) -> NoReturn:
    print(f'Error: {message}', file=sys.stderr)
    sys.exit(2)


def main() -> None:
    args = parse_args()
    sys.stdout.reconfigure(errors='backslashreplace')  # names of files may hold anything
    sys.stderr.reconfigure(errors='backslashreplace')
    if not os.path.isdir(args.folder):
        fail(f'{args.folder} is not a folder.')
    try:
        names, not_taken = find_images(args.folder)
        if not names:
            others = ', '.join(f'{number} {name}' for name, number in not_taken.most_common(5)) or 'nothing at all'
            fail(f'{args.folder} holds no images, but {others}.')
        scans, in_channels = scan_folder([os.path.join(args.folder, name) for name in names], args)
        report, good = summarize(args, scans, not_taken, in_channels)
        report['exit_status'] = 2 if not good else 1 if report['unusable'] else 0
        lines = describe_files(report) + describe_faults(report, args.header_only)
        if report['pixels']:
            lines += describe_pixels(report)
        verdict = 'have a header that can be read; nothing was decoded' if args.header_only else 'can be used'
        lines += ['', f'{report["usable"]} of {report["taken"]} images {verdict}.']
        print('\n'.join(lines[1:]))
        if args.json:
            write_text(args.json, json.dumps(report, indent=2) + '\n')
        if not good:
            fail(f'none of the {len(names)} images in {args.folder} can be used.')
        if args.out:
            write_text(args.out, ''.join(f'{name}\n' for name in good))
            print(f'The list of {len(good)} is {args.out}; give the config its whole path as `ann_file`.')
    except KeyboardInterrupt:
        print('\nInterrupted: nothing was written.', file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        fail(str(error))
    sys.exit(report['exit_status'])


if __name__ == '__main__':
    main()
