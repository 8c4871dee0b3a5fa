"""The commands: ``python -m allspark_mmseg VERB`` runs ``main`` of the module VERB of this package.

``tools/VERB.py`` runs the same. A command is imported only when it runs.
"""

import atexit
import gc

# When Python exits, it searches all objects for cycles several times. With the packages of a command, this
# takes 2 s. Frozen objects are not searched.
atexit.register(gc.freeze)
