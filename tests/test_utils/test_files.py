import pytest

from mmconvmae.utils import write_whole


@pytest.mark.parametrize('folder', [False, True])
def test_target_appears_when_the_block_ends(tmp_path, folder):
    target = tmp_path / 'new' / 'target.txt'
    with write_whole(target, folder) as partial:
        (partial / 'inside' if folder else partial).write_text('whole')
        assert partial.parent == target.parent and partial.name == '.target.txt.part' and not target.exists()
    assert list(target.parent.iterdir()) == [target]
    assert (target / 'inside' if folder else target).read_text() == 'whole'


@pytest.mark.parametrize('folder', [False, True])
def test_an_error_leaves_nothing(tmp_path, folder):
    target = tmp_path / 'target'
    with pytest.raises(KeyboardInterrupt), write_whole(target, folder) as partial:
        (partial / 'inside' if folder else partial).write_text('half')
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_and_a_folder_is_not(tmp_path):
    target = tmp_path / 'target'
    target.write_text('old')
    with pytest.raises(ZeroDivisionError), write_whole(target) as partial:
        partial.write_text('half')
        1 / 0  # noqa: B018
    assert target.read_text() == 'old'
    with pytest.raises(FileExistsError, match=r'target is already there; remove it first, or use it as it is\.'):
        write_whole(target, folder=True).__enter__()
    with write_whole(target) as partial:
        partial.write_text('new')
    assert target.read_text() == 'new' and list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path):
    (tmp_path / '.target.part' / 'old').mkdir(parents=True)
    with write_whole(tmp_path / 'target', folder=True) as partial:
        assert not list(partial.iterdir())
