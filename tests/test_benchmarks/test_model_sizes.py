from helpers import ROOT, run_script


def test_multiply_adds_of_base_and_table_of_the_guide():
    """Blocks alone are 15.2 G dense and 10.3 G visible; with embeddings, attention and projections it is more."""
    result = run_script('benchmarks/model_sizes.py')
    rows = [line for line in result.stdout.splitlines() if line.startswith('|')]
    (base,) = [row for row in rows if row.startswith('| base')]
    *_, with_decoder, dense, visible = base.strip('| ').split(' | ')
    assert with_decoder == '115.04'
    assert 15.2 < float(dense) < 16.5 and 10.3 < float(visible) < 11.4
    assert len(rows) == 7 and '\n'.join(rows) in (ROOT / 'docs' / 'paper.md').read_text()
