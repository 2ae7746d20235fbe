from collections.abc import Iterable


def markdown_table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Write a table in Markdown.

    Args:
        header (Iterable[object]): Names of the columns.
        rows (Iterable[Iterable[object]]): Cells of each row, as many as there are columns; ``str`` makes text of them.

    Returns:
        str: The table, without a line break at its end.
    """
    header = list(header)
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)
