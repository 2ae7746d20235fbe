"""The templates for own images and annotations, changed as a user changes them: a line of the first screen each."""

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / 'configs' / 'own_images'


def copy_template(name: str, path: Path, **settings) -> Path:
    """Copy a template and change settings where they stand.

    Args:
        name (str): Of a file in configs/own_images, without its suffix.
        path (Path): Config to write.
        **settings: Values of the settings to change.

    Returns:
        Path: The config.

    Raises:
        ValueError: If the template has no line for a setting, or several.
    """
    text = (FOLDER / f'{name}.py').read_text(encoding='utf-8')
    for setting, value in settings.items():
        line = f'{setting} = {value!r}'
        text, found = re.subn(rf'(?m)^{setting} = .*$', lambda _, line=line: line, text)
        if found != 1:
            raise ValueError(f'{name}.py has {found} lines that begin with "{setting} = ", where one was expected.')
    path.write_text(text, encoding='utf-8')
    return path
