"""Parts of ``make_splits.py``: published lists, the reference repositories, and new lists."""
