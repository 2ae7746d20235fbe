from .reconstruction import draw_reconstructions, with_neighbours_statistics

__all__ = ['draw_reconstructions', 'with_neighbours_statistics']
