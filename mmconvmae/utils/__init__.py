from .configs import find_types
from .counting import count_multiply_adds, count_parameters
from .errors import first_line
from .files import write_whole
from .not_finite import not_finite_error
from .tables import markdown_table

__all__ = [
    'count_multiply_adds',
    'count_parameters',
    'find_types',
    'first_line',
    'markdown_table',
    'not_finite_error',
    'write_whole',
]
