"""Part I: brain and network."""

from nnbrain.brain.neurons import LIF, HodgkinHuxley, Recording

__all__ = ["LIF", "HodgkinHuxley", "Recording"]
