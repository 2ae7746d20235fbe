from collections.abc import Iterator


def find_types(config: object, *names: str) -> Iterator[dict]:
    """Find every dict in a config whose type has one of some names, in any scope.

    Args:
        config (object): A config, or a part of one.
        *names (str): Names of classes, without scope.

    Yields:
        dict: Those found, outer ones first.
    """
    if isinstance(config, dict):
        if str(config.get('type')).rsplit('.', 1)[-1] in names:
            yield config
        config = config.values()
    elif not isinstance(config, (list, tuple)):
        return
    for part in config:
        yield from find_types(part, *names)
