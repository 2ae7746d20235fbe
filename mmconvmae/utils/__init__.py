from .arguments import check_choice, check_config, check_integer, check_number, check_stages
from .configs import find_types
from .counting import count_multiply_adds, count_parameters
from .errors import first_line
from .files import write_whole
from .not_finite import not_finite_error
from .tables import markdown_table

__all__ = [
    'check_choice',
    'check_config',
    'check_integer',
    'check_number',
    'check_stages',
    'count_multiply_adds',
    'count_parameters',
    'find_types',
    'first_line',
    'markdown_table',
    'not_finite_error',
    'write_whole',
]
