def first_line(error: Exception) -> str:
    """What an error of a library says, in one line.

    Args:
        error (Exception): The error.

    Returns:
        str: Its type, and the first line of its message.
    """
    return f'{type(error).__name__}: {next(iter(str(error).strip().splitlines()), "")}'
