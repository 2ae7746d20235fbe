from .clips import draw_clips
from .reconstruction import draw_reconstructions, with_neighbours_statistics

__all__ = ['draw_clips', 'draw_reconstructions', 'with_neighbours_statistics']
