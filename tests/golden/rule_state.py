"""Network states made by a rule, so that a large state dict needs no file.

``rule_tensor(key, shape)`` depends on the key and the shape only; ``rule_state(spec)`` fills a state dict.
The vectors of whole networks hold what the reference networks return for such a state and the image
``rule_tensor('image', shape)``. The random stream is NumPy's ``RandomState``, which NumPy keeps frozen
(NEP 19), seeded by the SHA-256 of the key.

Every folder of vectors holds this file with the ``PREFIX`` of its networks.
"""

import hashlib
import math

import numpy as np

PREFIX = ''
COUNTERS = ('num_batches_tracked', 'queue_ptr', 'relative_position_index')


def rule_tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array for a key: int64 zeros for counters, float32 values of ``shape`` otherwise."""
    if key.endswith(COUNTERS):
        return np.zeros(shape, np.int64)
    name = key if key == 'image' else PREFIX + key
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], 'little')
    values = np.random.RandomState(seed).standard_normal(shape)
    if key == 'image' or key.endswith('kv_queue'):
        pass
    elif key.endswith('running_var'):
        values = 1 + 0.1 * np.abs(values)
    elif len(shape) >= 2:  # weights are scaled by their fan-in, so that activations keep their size
        values = values / math.sqrt(math.prod(shape[1:]))
    elif key.endswith(('bias', 'running_mean')):
        values = 0.1 * values
    elif key.endswith('gamma'):  # layer scale
        values = 0.5 + 0.1 * values
    else:  # scale of a normalization layer
        values = 1 + 0.1 * values
    return values.astype(np.float32)


def rule_state(spec: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return a state dict for a mapping from key to shape."""
    return {key: rule_tensor(key, tuple(shape)) for key, shape in spec.items()}
