"""Part II: the mathematics of a multilayer perceptron."""

from nnbrain.mlp.gradient_check import check_gradient, numerical_gradient, relative_error
from nnbrain.mlp.network import MLP, Workspace
from nnbrain.mlp.optimizers import SGD, Optimizer
from nnbrain.mlp.training import History, fit, run_epoch

__all__ = [
    "MLP",
    "SGD",
    "History",
    "Optimizer",
    "Workspace",
    "check_gradient",
    "fit",
    "numerical_gradient",
    "relative_error",
    "run_epoch",
]
