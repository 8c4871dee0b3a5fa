"""Annotations of tools whose files are not read, so that a message can name them."""

import json
from collections.abc import Sequence
from pathlib import Path


def other_annotations(root: Path, files: Sequence[str]) -> str | None:
    """Recognize annotations by the names of files and by the first JSON files.

    Args:
        root (Path): The data.
        files (Sequence[str]): All files below it.

    Returns:
        str, optional: The tool or format, or None.
    """
    names = {path.rpartition('/')[2].lower() for path in files}
    texts = [path for path in files if path.endswith('.txt') and 'labels' in path.split('/')[:-1]]
    if names & {'data.yaml', 'data.yml'} or texts:
        return 'YOLO (labels/*.txt)'
    if 'annotations.xml' in names:
        return 'CVAT for images (annotations.xml)'
    for path in [path for path in files if path.lower().endswith('.json')][:5]:
        try:
            content = json.loads((root / path).read_text(encoding='utf-8-sig'))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and {'objects', 'size'} <= set(content):
            return f'Supervisely ({path})'
        if (
            isinstance(content, list)
            and content
            and isinstance(content[0], dict)
            and 'annotations' in content[0]
        ):
            return f'Label Studio ({path})'
    return None
