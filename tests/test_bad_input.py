"""Bad input: each call below must fail with an error that names the argument and what was given."""

import numpy as np
import pytest

from nnbrain.brain import LIF, HodgkinHuxley
from nnbrain.data import load_digits
from nnbrain.distributed import ring_allreduce, run_ranks, train
from nnbrain.federated import (
    Client,
    FedAvg,
    FedSGD,
    local_sgd,
    make_clients,
    partition_iid,
    partition_shards,
    simulate,
    weighted_mean,
)
from nnbrain.mlp import (
    MLP,
    SGD,
    Adam,
    AdamW,
    Cosine,
    RMSprop,
    StepDecay,
    TimeDecay,
    WarmUp,
    check_gradient,
    fit,
    numerical_gradient,
)

mlp = MLP((2, 3, 2))
theta = mlp.init(0)
X = np.ones((4, 2))
y = np.array([0, 1, 0, 1])
nan = np.array([[np.nan, 1.0]] * 4)
clients = make_clients(X, y, [np.array([0, 1]), np.array([2, 3])])


def start(rank_function, n=1):
    return run_ranks(n, rank_function)


BAD = {
    # the network
    "sizes, too few": (lambda: MLP((3,)), ValueError, r"sizes .* got \(3,\)"),
    "sizes, zero": (lambda: MLP((3, 0, 2)), ValueError, r"sizes\[1\] .* >= 1, got 0"),
    "sizes, negative": (lambda: MLP((3, -4, 2)), ValueError, r"sizes\[1\] .* got -4"),
    "sizes, fraction": (lambda: MLP((3, 2.5)), TypeError, r"sizes\[1\] .* integer, got 2.5"),
    "sizes, text": (lambda: MLP("64"), ValueError, "sizes .* got '64'"),
    "activation": (lambda: MLP((2, 2), "relyou"), ValueError, r"activation .*'relu'.* got 'relyou'"),
    "loss": (lambda: MLP((2, 2), loss="l2"), ValueError, r"loss .*'mse'.* got 'l2'"),
    "one class": (lambda: MLP((2, 1)), ValueError, r"sizes\[-1\] .* got 1; .*'binary_cross_entropy'"),
    "init dtype": (lambda: mlp.init(0, np.int32), TypeError, "dtype .* float64, got int32"),
    "init seed": (lambda: mlp.init(-1), ValueError, "rng .* got -1"),
    "init seed type": (lambda: mlp.init("0"), TypeError, "rng .* got '0'"),
    "nesterov, text": (lambda: SGD(momentum=0.9, nesterov="no"), TypeError, "nesterov .* got 'no'"),
    "X, complex": (lambda: mlp.forward(theta, X + 1j), TypeError, "X .* real numbers, got complex"),
    "X, ragged": (lambda: mlp.forward(theta, [[1, 2], [3]]), TypeError, "X must be an array of numbers"),
    "X, digits as text": (lambda: mlp.forward(theta, [["1", "2"]]), TypeError, "X .* real numbers"),
    "matrix to differentiate": (
        lambda: numerical_gradient(lambda t: 0.0, np.zeros((2, 2))),
        ValueError,
        r"theta must be a vector, got shape \(2, 2\)",
    ),
    # θ
    "theta, length": (lambda: mlp.forward(theta[:-1], X), ValueError, r"theta .* \(17,\), got \(16,\)"),
    "theta, dtype": (lambda: mlp.forward(theta.astype(int), X), TypeError, "theta .* got int64"),
    "theta, list": (lambda: mlp.forward(list(theta), X), TypeError, "theta .* got list"),
    "theta, strided": (lambda: mlp.forward(np.zeros(34)[::2], X), ValueError, "theta must be contiguous"),
    "theta, NaN": (lambda: mlp.forward(theta * np.nan, X), ValueError, "theta must be finite"),
    # data
    "X, features": (lambda: mlp.forward(theta, np.ones((4, 3))), ValueError, r"X .*\(n, 2\), got \(4, 3\)"),
    "X, one row flat": (lambda: mlp.forward(theta, np.ones(2)), ValueError, r"X .* got \(2,\)"),
    "X, empty": (lambda: mlp.forward(theta, np.ones((0, 2))), ValueError, "X must have at least one row"),
    "X, NaN": (lambda: mlp.forward(theta, nan), ValueError, "X must be finite, got 4 NaN"),
    "X, infinite": (lambda: mlp.forward(theta, X * np.inf), ValueError, "X must be finite, got 8"),
    "X, text": (lambda: mlp.forward(theta, [["a", "b"]]), TypeError, "X must be an array of real numbers"),
    "y, too large": (
        lambda: mlp.loss_and_grad(theta, X, y + 1),
        ValueError,
        r"y must be in 0\.\.1, .* 1 to 2",
    ),
    "y, negative": (lambda: mlp.loss_and_grad(theta, X, y - 1), ValueError, "y must be .* -1 to 0"),
    "y, floats": (
        lambda: mlp.loss_and_grad(theta, X, y * 1.0),
        TypeError,
        "y .* integer .* got dtype float64",
    ),
    "y, too short": (lambda: mlp.loss_and_grad(theta, X, y[:3]), ValueError, r"y .* \(4,\).* got \(3,\)"),
    "y, one-hot": (
        lambda: mlp.loss_and_grad(theta, X, np.eye(2, dtype=int)[y]),
        ValueError,
        r"y .* \(4, 2\)",
    ),
    "y, ten classes on one sigmoid": (
        lambda: MLP((2, 1), loss="binary_cross_entropy").loss_and_grad(np.zeros(3), X, [0, 1, 2, 9]),
        ValueError,
        "y must be 0 or 1 .* 0 to 9; for more classes",
    ),
    "y, mse shape": (
        lambda: MLP((2, 3), loss="mse").loss_and_grad(np.zeros(9), X, y),
        ValueError,
        r"y .* \(4, 3\), got \(4,\)",
    ),
    "y, NaN": (
        lambda: MLP((2, 1), loss="mse").loss_and_grad(np.zeros(3), X, nan[:, 0]),
        ValueError,
        "y must be finite",
    ),
    "accuracy of mse": (
        lambda: MLP((2, 1), loss="mse").accuracy(np.zeros(3), X, y),
        ValueError,
        "loss .* got 'mse'",
    ),
    "scheme": (lambda: mlp.init(0, scheme="xavier"), ValueError, r"scheme .*'glorot', 'he'.* got 'xavier'"),
    "weights, length": (
        lambda: mlp.loss_and_grad(theta, X, y, [1, 2]),
        ValueError,
        r"weights .* \(4,\).* got \(2,\)",
    ),
    "weights, negative": (lambda: mlp.mean_loss(theta, X, y, [1, 1, 1, -1]), ValueError, "weights .* -1"),
    "weights, zero": (lambda: mlp.mean_loss(theta, X, y, np.zeros(4)), ValueError, "weights .* not all 0"),
    # optimisers and training
    "learning_rate": (lambda: SGD(0), ValueError, r"learning_rate .* > 0\.?0?, got 0"),
    "learning_rate, text": (lambda: SGD("0.1"), TypeError, "learning_rate .* got '0.1'"),
    "learning_rate, NaN": (lambda: SGD(np.nan), ValueError, "learning_rate must be finite"),
    "momentum": (lambda: SGD(momentum=1.0), ValueError, "momentum .* < 1, got 1.0"),
    "nesterov": (lambda: SGD(nesterov=True), ValueError, "momentum .* nesterov"),
    "decay": (lambda: TimeDecay(0.1, -1), ValueError, "decay .* >= 0, got -1"),
    "every": (lambda: StepDecay(0.1, 0.5, 0), ValueError, "every .* >= 1, got 0"),
    "factor": (lambda: StepDecay(0.1, 1.5, 2), ValueError, "factor .* <= 1, got 1.5"),
    "final": (lambda: Cosine(0.1, 5, 0.2), ValueError, "final .* <= 0.1, got 0.2"),
    "warm-up": (lambda: WarmUp(0.1, 0), ValueError, "steps .* >= 1, got 0"),
    "warm-up rate": (lambda: WarmUp(-0.1, 2), ValueError, "learning_rate .* > 0, got -0.1"),
    "schedule below 0": (lambda: SGD(lambda t: -1.0), ValueError, r"learning_rate\(0\) .* got -1.0"),
    "rho": (lambda: RMSprop(rho=1), ValueError, "rho .* < 1, got 1"),
    "beta_1": (lambda: Adam(beta_1=-0.1), ValueError, "beta_1 .* >= 0 and < 1, got -0.1"),
    "beta_2": (lambda: Adam(beta_2=1.0), ValueError, "beta_2 .* < 1, got 1.0"),
    "epsilon": (lambda: Adam(epsilon=0), ValueError, "epsilon .* > 0, got 0"),
    "weight_decay": (lambda: AdamW(weight_decay=-1), ValueError, "weight_decay .* got -1"),
    "epochs": (lambda: fit(mlp, theta, X, y, epochs=-1, batch_size=2), ValueError, "epochs .* >= 0, got -1"),
    "batch_size, zero": (lambda: fit(mlp, theta, X, y, batch_size=0), ValueError, "batch_size .* got 0"),
    "batch_size, large": (lambda: fit(mlp, theta, X, y), ValueError, "batch_size .* 4 samples .* got 32"),
    "validation": (
        lambda: fit(mlp, theta, X, y, batch_size=2, validation=(X[:, :1], y)),
        ValueError,
        r"X .* got \(4, 1\)",
    ),
    "l1": (lambda: fit(mlp, theta, X, y, batch_size=2, l1=-1), ValueError, "l1 .* >= 0, got -1"),
    "l2": (lambda: fit(mlp, theta, X, y, batch_size=2, l2=-1), ValueError, "l2 .* >= 0, got -1"),
    "dropout": (
        lambda: fit(mlp, theta, X, y, batch_size=2, dropout=1.0),
        ValueError,
        "dropout .* < 1, got 1",
    ),
    "patience alone": (
        lambda: fit(mlp, theta, X, y, batch_size=2, patience=3),
        ValueError,
        "validation must be given where patience is",
    ),
    "patience": (
        lambda: fit(mlp, theta, X, y, batch_size=2, patience=0, validation=(X, y)),
        ValueError,
        "patience .* >= 1, got 0",
    ),
    "gradient check in float32": (
        lambda: check_gradient(lambda t: mlp.loss_and_grad(t, X, y), theta),
        TypeError,
        "theta .* float64 .* got float32",
    ),
    "difference step": (
        lambda: numerical_gradient(lambda t: 0.0, np.zeros(1), step=0),
        ValueError,
        "step .* > 0, got 0",
    ),
    "test_fraction": (lambda: load_digits(1.0), ValueError, "test_fraction .* < 1, got 1.0"),
    # neurons
    "tau": (lambda: LIF(tau=0), ValueError, "tau .* > 0, got 0"),
    "threshold under rest": (lambda: LIF(V_theta=-70), ValueError, "E_L .* < -70, got -65"),
    "reset over threshold": (lambda: LIF(V_reset=-40), ValueError, "V_reset .* got -40"),
    "threshold, infinite": (lambda: LIF(V_theta=np.inf), ValueError, "V_theta must be finite"),
    "reversal, NaN": (lambda: HodgkinHuxley(E_Na=np.nan), ValueError, "E_Na must be finite"),
    "refractory": (lambda: LIF(t_ref=-1), ValueError, "t_ref .* got -1"),
    "capacitance": (lambda: HodgkinHuxley(C=0), ValueError, "C .* > 0, got 0"),
    "conductance": (lambda: HodgkinHuxley(g_Na=-1), ValueError, "g_Na .* got -1"),
    "dt, unstable": (lambda: HodgkinHuxley().simulate(10, 10, dt=0.2), ValueError, "dt .* <= 0.05, got 0.2"),
    "dt, zero": (lambda: LIF().simulate(1, 10, dt=0), ValueError, "dt .* > 0, got 0"),
    "duration": (lambda: LIF().simulate(1, -5), ValueError, "duration .* got -5"),
    "duration under dt": (lambda: LIF().simulate(1, 0.01), ValueError, "duration .* one step .* got 0.01"),
    "current, shape": (lambda: LIF().simulate(np.ones((7, 2)), 1.0), ValueError, r"current .* \(7, 2\)"),
    "current, NaN": (lambda: LIF().simulate(np.nan, 10), ValueError, "current must be finite"),
    "rate, NaN": (lambda: LIF().rate([1.0, np.nan]), ValueError, "current must be finite"),
    # ranks
    "no ranks": (lambda: start(lambda comm: None, 0), ValueError, "n must be .* >= 1, got 0"),
    "unknown rank": (lambda: start(lambda c: c.Send(X, dest=3)), ValueError, r"dest .* 0\.\.0, got 3"),
    "unknown root": (lambda: start(lambda c: c.Bcast(X, root=2)), ValueError, r"root .* 0\.\.0, got 2"),
    "matrix to sum": (
        lambda: start(lambda c: ring_allreduce(c, X)),
        ValueError,
        r"vector .* got shape \(4, 2\)",
    ),
    "no receive buffer": (lambda: start(lambda c: c.Sendrecv(X, dest=0)), TypeError, "recvbuf .* got None"),
    "parallel batch": (
        lambda: start(lambda c: train(c, mlp, theta, X, y, batch_size=9)),
        ValueError,
        "batch_size .* got 9",
    ),
    # clients
    "no clients": (lambda: partition_iid(10, 0, 0), ValueError, "n_clients .* >= 1, got 0"),
    "too many clients": (lambda: partition_iid(3, 4, 0), ValueError, "n_clients .* 3 samples .* got 4"),
    "too many shards": (lambda: partition_shards(y, 4, 0), ValueError, "shards_per_client .* 4 .* got 8"),
    "shards of floats": (lambda: partition_shards(y * 1.0, 2, 0), TypeError, "y .* integer"),
    "no parts": (lambda: make_clients(X, y, []), ValueError, "parts .* got none"),
    "client without data": (lambda: make_clients(X, y, [[0], []]), ValueError, r"parts\[1\] .* got none"),
    "stranger's row": (lambda: make_clients(X, y, [[0, 4]]), ValueError, r"parts\[0\] .* 0\.\.3, got 0\.\.4"),
    "row owned twice": (
        lambda: make_clients(X, y, [[0, 1], [1]]),
        ValueError,
        r"parts\[1\] .* already owned",
    ),
    "row twice": (lambda: make_clients(X, y, [[0, 0]]), ValueError, r"parts\[0\]"),
    "y shorter than X": (lambda: make_clients(X, y[:2], [[0]]), ValueError, r"X .* \(4, 2\) and \(2,\)"),
    "client's NaN": (lambda: make_clients(nan, y, [[0]]), ValueError, "X must be finite"),
    # federated training
    "E": (lambda: FedAvg(mlp, epochs=0), ValueError, "epochs .* got 0"),
    "B": (lambda: FedAvg(mlp, batch_size=0), ValueError, "batch_size .* got 0"),
    "eta": (lambda: FedSGD(mlp, learning_rate=-1), ValueError, "learning_rate .* got -1"),
    "nobody": (lambda: simulate(FedAvg(mlp), [], theta, rounds=1), ValueError, "clients .* got none"),
    "an empty client": (
        lambda: simulate(FedAvg(mlp), [Client(7, X, y, np.array([], int))], theta, rounds=1),
        ValueError,
        r"clients .* got none for clients \[7\]",
    ),
    "C, zero": (
        lambda: simulate(FedAvg(mlp), clients, theta, rounds=1, client_fraction=0),
        ValueError,
        "client_fraction .* > 0 and <= 1, got 0",
    ),
    "C, above one": (
        lambda: simulate(FedAvg(mlp), clients, theta, rounds=1, client_fraction=1.5),
        ValueError,
        "client_fraction .* got 1.5",
    ),
    "workers": (
        lambda: simulate(FedAvg(mlp), clients, theta, rounds=1, workers=0),
        ValueError,
        "workers .* got 0",
    ),
    "rounds": (lambda: simulate(FedAvg(mlp), clients, theta, rounds=-1), ValueError, "rounds .* got -1"),
    "federated theta": (
        lambda: simulate(FedAvg(mlp), clients, theta[1:], rounds=1),
        ValueError,
        r"theta .* got \(16,\)",
    ),
    "clients of other features": (
        lambda: simulate(FedAvg(MLP((5, 2))), clients, np.zeros(12), rounds=1),
        ValueError,
        r"X .* \(n, 5\), got \(4, 2\)",
    ),
    "clients with one id": (
        lambda: simulate(FedAvg(mlp), [clients[0], clients[0]], theta, rounds=1),
        ValueError,
        "clients must have ids of their own, got 1",
    ),
    "client with a stranger's row": (
        lambda: simulate(FedAvg(mlp), [Client(0, X, y, np.array([-1, 2]))], theta, rounds=1),
        ValueError,
        r"clients must index rows 0\.\.3 .* client 0",
    ),
    "local epochs": (
        lambda: local_sgd(mlp, theta, clients[0], epochs=0, batch_size=1, learning_rate=0.1, rng=0),
        ValueError,
        "epochs .* got 0",
    ),
    "client's mask": (
        lambda: make_clients(X, y, [np.array([True, False, True, False])]),
        TypeError,
        r"parts\[0\] must hold integer indices, got dtype bool",
    ),
    "means of unlike vectors": (
        lambda: weighted_mean([theta, theta[1:]], [1, 1]),
        ValueError,
        "vectors .* one shape",
    ),
    "mean of nothing": (lambda: weighted_mean([], []), ValueError, "vectors .* got none"),
    "weights missing": (lambda: weighted_mean([theta], []), ValueError, "weights .* 1 vectors, got 0"),
    "weights zero": (lambda: weighted_mean([theta], [0]), ValueError, r"weights .* got \[0\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_a_clear_message(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()
