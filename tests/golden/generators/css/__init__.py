"""Parts of ``make_css.py``: one module per group of vectors."""
