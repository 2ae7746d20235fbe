from collections.abc import Sequence

ARCH_ZOO = {
    # For a CPU; not in the paper.
    'tiny': dict(embed_dims=(48, 96, 192), depths=(2, 2, 6), num_heads=6, mlp_ratios=(4, 4, 4)),
    'small': dict(embed_dims=(128, 256, 384), depths=(2, 2, 11), num_heads=6, mlp_ratios=(4, 4, 4)),
    'base': dict(embed_dims=(256, 384, 768), depths=(2, 2, 11), num_heads=12, mlp_ratios=(4, 4, 4)),
    # The MLP ratios are those of the released checkpoints; the paper's text has others.
    'large': dict(embed_dims=(384, 768, 1024), depths=(2, 2, 23), num_heads=16, mlp_ratios=(8, 8, 4)),
    'huge': dict(embed_dims=(768, 1024, 1280), depths=(2, 2, 31), num_heads=16, mlp_ratios=(8, 8, 4)),
}


def parse_arch(arch: str | dict) -> dict:
    """Look an architecture up, or check one that is given whole.

    Args:
        arch (str | dict): A name in ``ARCH_ZOO``, or a dict with the keys of its entries.

    Returns:
        dict: ``embed_dims``, ``depths``, ``num_heads`` and ``mlp_ratios``.

    Raises:
        ValueError: If the name is unknown, or if the dict does not describe three stages.
    """
    if isinstance(arch, str):
        if arch not in ARCH_ZOO:
            raise ValueError(f'`arch` is {arch!r}; choose one of {", ".join(ARCH_ZOO)} or give a dict.')
        return ARCH_ZOO[arch]
    expected = set(ARCH_ZOO['base'])
    if set(arch) != expected:
        raise ValueError(f'`arch` has the keys {sorted(arch)}; it needs {sorted(expected)}.')
    for key in ('embed_dims', 'depths', 'mlp_ratios'):
        check_stages(f'`arch` has {key}', arch[key])
    if arch['embed_dims'][2] % arch['num_heads']:
        raise ValueError(
            f'The width of stage 3, {arch["embed_dims"][2]}, is not divisible by its {arch["num_heads"]} heads; '
            'change `embed_dims` or `num_heads` in `arch`.'
        )
    return arch


def check_stages(what: str, values: Sequence) -> None:
    """Check that there is a value for each stage.

    Args:
        what (str): Where the values stand, as the sentence of the error begins.
        values (Sequence): The values.

    Raises:
        ValueError: If there are not three.
    """
    if len(values) != 3:
        raise ValueError(f'{what}={values}; give one value for each of the three stages.')


def check_choice(name: str, value: object, choices: Sequence) -> None:
    """Check that an argument is one of those that there are.

    Args:
        name (str): Name of the argument.
        value (object): Its value.
        choices (Sequence): What it may be.

    Raises:
        ValueError: If it is something else.
    """
    if value not in choices:
        raise ValueError(f'`{name}` is {value!r}; choose one of {", ".join(map(str, choices))}.')
