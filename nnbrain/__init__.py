"""nnbrain: the code behind a book on brains, neural networks and learning on many machines.

One idea carries the package: a network is a pure function of one flat parameter vector θ. Training
moves θ, data-parallel training sums its gradient over machines, federated averaging averages it over
owners.

The four subpackages are the four parts of the book: `brain`, `mlp`, `distributed`, `federated`.
"""

__version__ = "0.1.0"
