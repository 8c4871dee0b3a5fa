"""Understanding a folder of images, and writing lists and configs for it: ``python -m allspark_mmseg new``.

The modules in the order in which the command uses them:

* ``layouts``, ``roles``, ``pairs`` and ``listed``: which files are images, masks and pairs
* ``scan`` and ``mask_facts``: what the files contain, read in parallel and cached
* ``mask_forms``, ``colors`` and ``polygons``: how masks of any form become class numbers
* ``convert``: the masks in ``.allspark``
* ``groups`` and ``split``: the validation part
* ``choices`` and ``write``: the config
"""
