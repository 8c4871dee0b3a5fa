"""Lines of a list of images: ``image`` or ``image mask``."""

import re

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.ppm', '.webp')
_FIRST_IMAGE = re.compile(rf'(.*?(?:{"|".join(map(re.escape, IMAGE_SUFFIXES))}))\s+(\S.*)', re.IGNORECASE)


def parse_list_line(line: str) -> tuple[str, str | None]:
    """Split one line of a list into the path of the image and the path of the mask.

    A tab separates the two columns. In a line without a tab, the first column ends with the first image
    suffix (``IMAGE_SUFFIXES``) before white space, so both paths may contain spaces. A line without such a
    suffix is split at white space.

    Args:
        line (str): The line, not blank.

    Returns:
        tuple[str, str | None]: The image, and the mask or None.

    Raises:
        ValueError: The line has more than two columns.

    Examples:
        >>> parse_list_line('images/my photo.jpg masks/my photo.png')
        ('images/my photo.jpg', 'masks/my photo.png')
        >>> parse_list_line('images/my photo.jpg')
        ('images/my photo.jpg', None)
    """
    line = line.lstrip(' \t').rstrip(' \r\n')  # a tab at the end has a meaning
    if '\t' in line:
        columns = [column.strip() for column in line.rstrip().split('\t')]
    elif _FIRST_IMAGE.fullmatch(line):
        columns = []
        while match := _FIRST_IMAGE.fullmatch(line):
            column, line = match.groups()
            columns.append(column)
        columns.append(line)
    else:
        columns = [line] if line.lower().endswith(IMAGE_SUFFIXES) else line.split()
    if len(columns) > 2:
        raise ValueError(
            f"expected 'image' or 'image mask', found {len(columns)} columns: {columns}. If names contain "
            'spaces, separate the two columns with a tab, and end a line without mask with a tab.'
        )
    return columns[0], columns[1] if len(columns) == 2 else None


def format_list_line(image: str, mask: str | None = None) -> str:
    """Write one line of a list, the inverse of :func:`parse_list_line`.

    Args:
        image (str): Path of the image, without tabs, line breaks, and spaces at its ends.
        mask (str, optional): Path of the mask, with the same restrictions.

    Returns:
        str: The line, without a line break. It has a tab if spaces alone do not separate the columns. A tab
        at its end means that the line is one path.
    """
    line = image if mask is None else f'{image} {mask}'
    if mask is not None and re.search(r'\s', image + mask):
        return f'{image}\t{mask}'
    try:
        if parse_list_line(line) == (image, mask):
            return line
    except ValueError:
        pass  # the path has spaces but no image suffix
    return f'{image}\t{mask or ""}'
