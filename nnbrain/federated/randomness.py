"""Random numbers of a federation: a stream of its own for every purpose, round and client."""

import numpy as np

SELECTION, UPDATE, NOISE = 0, 1, 2  # the purposes: who takes part, a client's work, the server's noise


def generator(seed: int, *key: int) -> np.random.Generator:
    """Return the generator for one purpose, round and client: independent of all others' of the seed."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
