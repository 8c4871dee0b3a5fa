"""Which unlabeled images to label next: scores, a diverse selection, and masks to start from.

``python -m allspark_mmseg suggest`` uses this package.
"""
