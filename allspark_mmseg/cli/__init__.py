"""The commands: ``python -m allspark_mmseg VERB`` runs ``main`` of the module VERB of this package.

``tools/VERB.py`` runs the same. A command is imported only when it runs.
"""
