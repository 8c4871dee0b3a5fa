"""Parts of ``make_s4former.py``: one module per group of vectors."""
