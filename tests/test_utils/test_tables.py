from mmconvmae.utils import markdown_table


def test_cells_become_text():
    table = markdown_table(['', 'epochs'], iter([('base', 1600), ('tiny', None)]))
    assert table.splitlines() == ['|  | epochs |', '| --- | --- |', '| base | 1600 |', '| tiny | None |']
