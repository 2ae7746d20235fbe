def test_multiply_adds_of_base(run_tool):
    """Blocks alone are 15.2 G dense and 10.3 G visible; with embeddings, attention and projections it is more."""
    result = run_tool('analysis_tools/model_sizes.py')
    (row,) = [line for line in result.stdout.splitlines() if line.startswith('| base')]
    *_, with_decoder, dense, visible = row.strip('| ').split(' | ')
    assert with_decoder == '115.04'
    assert 15.2 < float(dense) < 16.5 and 10.3 < float(visible) < 11.4
