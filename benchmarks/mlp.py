"""Training an MLP: nnbrain beside scikit-learn, the same network, data, batches and precision, one thread."""

import warnings

from common import best_times, peak_flops, record, training_flops  # first: it pins the BLAS threads

import numpy as np
from sklearn.neural_network import MLPClassifier

from nnbrain.data import load_digits
from nnbrain.mlp import MLP, SGD, fit

warnings.simplefilter("ignore")  # scikit-learn warns that it has not converged: it is not meant to

CASES = (((784, 512, 256, 10), 128, 2), ((64, 64, 10), 32, 20))  # sizes, batch, epochs


def data(n_features):
    if n_features == 64:
        return load_digits()[:2]
    rng = np.random.default_rng(0)
    return rng.random((12800, n_features), dtype=np.float32), rng.integers(0, 10, 12800)


def main():
    peak = peak_flops()
    rows = []
    for sizes, batch, epochs in CASES:
        X, y = data(sizes[0])
        mlp = MLP(sizes)
        theta = mlp.init(0)
        ours, theirs = best_times(
            lambda: fit(mlp, theta, X, y, optimizer=SGD(0.01), epochs=epochs, batch_size=batch),
            lambda: MLPClassifier(
                sizes[1:-1], solver="sgd", alpha=0, momentum=0, nesterovs_momentum=False,
                batch_size=batch, learning_rate_init=0.01, max_iter=epochs, n_iter_no_change=epochs + 1,
            ).fit(X, y),
        )  # fmt: skip
        samples = len(X) * epochs
        rows.append(
            {
                "network": "-".join(map(str, sizes)),
                "batch": batch,
                "nnbrain, samples/s": f"{samples / ours:,.0f}",
                "scikit-learn, samples/s": f"{samples / theirs:,.0f}",
                "ratio": f"{theirs / ours:.2f}",
                "share of peak": f"{samples * training_flops(sizes) / ours / peak:.0%}",
            }
        )
        print(rows[-1])
    record("mlp", rows)


if __name__ == "__main__":
    main()
