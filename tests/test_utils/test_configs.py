from mmengine.config import ConfigDict

from mmconvmae.utils import find_types


def test_types_of_any_scope_and_depth():
    config = ConfigDict(
        a=[dict(type='x.One', part=dict(type='Two'))], b=dict(type='One', n=1), c=dict(kind='One'), d='One'
    )
    assert [found.get('n') for found in find_types(config, 'One')] == [None, 1]
    assert list(find_types(config, 'Two', 'Three')) == [dict(type='Two')]
