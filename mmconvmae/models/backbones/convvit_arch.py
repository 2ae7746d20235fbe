from mmconvmae.utils import check_choice, check_integer, check_number, check_stages

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
        check_choice('arch', arch, list(ARCH_ZOO))
        return ARCH_ZOO[arch]
    expected = set(ARCH_ZOO['base'])
    if not isinstance(arch, dict) or set(arch) != expected:
        has = f'has the keys {sorted(arch)}' if isinstance(arch, dict) else f'is {arch!r}'
        raise ValueError(f'`arch` {has}; name one of {", ".join(ARCH_ZOO)}, or give a dict with {sorted(expected)}.')
    for key in ('embed_dims', 'depths'):
        check_stages(f'arch.{key}', arch[key], check_integer)
    check_stages('arch.mlp_ratios', arch['mlp_ratios'], check_number, 1e-6)
    check_integer('arch.num_heads', arch['num_heads'])
    if arch['embed_dims'][2] % arch['num_heads']:
        raise ValueError(
            f'The width of stage 3, {arch["embed_dims"][2]}, is not divisible by its {arch["num_heads"]} heads; '
            'change `embed_dims` or `num_heads` in `arch`.'
        )
    return arch
