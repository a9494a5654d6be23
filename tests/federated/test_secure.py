"""Secure aggregation: exact sums for all dropouts, and what the server and a liar get to see."""

import re
from functools import cache
from itertools import combinations_with_replacement, product
from math import comb

import numpy as np
import pytest
from scipy import stats

from nnbrain.federated import FixedPoint

pytest.importorskip("cryptography", reason="the extra privacy is not installed")

from nnbrain.federated import ciphers, secure
from nnbrain.federated.secure import Participant, RefusedError, TooFewClientsError, secure_sum

code = FixedPoint(32, 16)


def seeded(seed=0):
    return np.random.default_rng(seed).bytes


def encoded(n_clients, size, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    return {k: code.encode(spread * rng.normal(size=size), n_clients) for k in range(n_clients)}


def leaving(leaves):
    return {k: round for k, round in enumerate(leaves) if round < 4}


def plain_sum(vectors, clients):
    return np.sum([vectors[k] for k in clients], axis=0, dtype=code.dtype)


@pytest.fixture
def quick_keys(monkeypatch):
    """Compute a key once: with one seed, the clients draw the same keys in every run."""
    for name in ("agree", "public_key"):
        monkeypatch.setattr(secure, name, cache(getattr(ciphers, name)))


def started(vectors, threshold, seed=0):
    """Return participants after round 2, and what they sent the server."""
    clients = {k: Participant(k, v, threshold, seeded([seed, k])) for k, v in vectors.items()}
    keys = {k: client.advertise() for k, client in clients.items()}
    sealed = {k: client.share(keys) for k, client in clients.items()}
    masked = {k: client.mask({j: sealed[j][k] for j in sealed if j != k}) for k, client in clients.items()}
    return clients, secure.ServerView(keys, sealed, masked, {})


# ---- the sum ----


@pytest.mark.parametrize(("n", "threshold"), [(5, 3), (6, 4)])
def test_the_sum_is_exact_for_every_pattern_of_dropouts(quick_keys, n, threshold):
    """eq-double-masks: each client leaves before round 0, 1, 2 or 3, or never."""
    vectors, succeeded = encoded(n, 3), 0
    for leaves in product(range(5), repeat=n):
        if leaves.count(4) < threshold:
            continue
        total, view = secure_sum(vectors, threshold, leaving(leaves), seeded())
        arrived = [k for k in range(n) if leaves[k] >= 3]
        assert total.tobytes() == plain_sum(vectors, arrived).tobytes()
        assert sorted(view.masked) == arrived
        succeeded += 1
    assert succeeded == sum(comb(n, away) * 4**away for away in range(n - threshold + 1))


def test_beyond_the_threshold_there_is_no_sum_but_an_error(quick_keys):
    """All patterns again, up to who is who; the error says in which round, and who was left."""
    says = ("sent keys", "shared their secrets", "sent a vector", "sent shares")
    failed = 0
    for leaves in combinations_with_replacement(range(5), 5):
        if leaves.count(4) < 3:
            last = sorted(leaves, reverse=True)[2]  # before this round the third of them leaves
            left = [k for k in range(5) if leaves[k] > last]
            message = f"clients that {says[last]} must be at least threshold = 3, got {len(left)}, {left}"
            with pytest.raises(TooFewClientsError, match=re.escape(message)):
                secure_sum(encoded(5, 3), 3, leaving(leaves), seeded())
            failed += 1
    assert failed == 126 - 15


@pytest.mark.parametrize("threshold", [2, 4, 6])
def test_any_threshold_and_any_clients_ids(threshold):
    vectors = dict(zip([7, 2, 1000, 0, 31, 8], encoded(6, 50).values(), strict=True))
    total, _ = secure_sum(vectors, threshold)  # with the operating system's randomness
    np.testing.assert_array_equal(total, plain_sum(vectors, vectors))


@pytest.mark.parametrize("bits", [8, 16, 64])
def test_any_width(bits):
    rng = np.random.default_rng(0)
    other = FixedPoint(bits, 4)
    vectors = {k: other.encode(rng.uniform(-1, 1, 9), 4) for k in range(4)}
    total, _ = secure_sum(vectors, 3, {2: 2}, seeded())
    np.testing.assert_array_equal(total, vectors[0] + vectors[1] + vectors[3])


def test_pairwise_masks_cancel_and_own_masks_do_not():
    """eq-pair-masks: what is left in the sum of all masked vectors is the sum of the own masks."""
    vectors = encoded(4, 20)
    clients, view = started(vectors, 3)
    own = [ciphers.expand(client._own_seed, 20, code.dtype) for client in clients.values()]
    left = np.sum(list(view.masked.values()), axis=0, dtype=code.dtype) - plain_sum(vectors, vectors)
    np.testing.assert_array_equal(left, np.sum(own, axis=0, dtype=code.dtype))


def test_without_the_own_masks_a_late_vector_would_be_uncovered():
    """Why two masks: taken for dropped out, client 2's pairwise masks are lifted; its own mask remains."""
    vectors = encoded(4, 20)
    clients, view = started(vectors, 3)
    shares = {k: clients[k].reveal([0, 1, 3]) for k in (0, 1, 3)}
    assert np.array_equal(
        secure.unmask(view._replace(masked={k: view.masked[k] for k in shares}, shares=shares), 3),
        plain_sum(vectors, shares),
    )
    late = view.masked[2].copy()
    for j in shares:
        late -= secure._pair_mask(2, j, clients[2]._masking, view.keys[j].masking, late)
    np.testing.assert_array_equal(late - ciphers.expand(clients[2]._own_seed, 20, code.dtype), vectors[2])
    assert np.mean(late == vectors[2]) < 0.2


# ---- what the server sees ----


def test_masked_vectors_look_uniform_and_unlike_the_plain_ones():
    """Each test cries wolf once in ten thousand; for the plain vectors, all do."""
    vectors = encoded(3, 20_000, spread=0.1)
    _, view = secure_sum(vectors, 2, random=seeded(3))
    for k, masked in view.masked.items():
        for residues, looks_uniform in ((masked, True), (vectors[k], False)):
            of_bytes = np.bincount(residues.view(np.uint8), minlength=256)
            assert (stats.chisquare(of_bytes).pvalue > 1e-4) == looks_uniform
            assert (stats.kstest(residues / 2**32, "uniform").pvalue > 1e-4) == looks_uniform
        correlation = stats.pearsonr(code.decode(masked), code.decode(vectors[k]))
        assert correlation.pvalue > 1e-4
        assert abs(correlation.statistic) < 4 / np.sqrt(20_000)


def test_the_same_vector_looks_different_under_other_keys():
    vectors = encoded(3, 1000)
    one, other = (secure_sum(vectors, 2, random=seeded(s))[1].masked[0] for s in (0, 1))
    assert np.mean(one == other) < 0.01


def test_the_servers_view_has_neither_secrets_nor_shares_in_the_open():
    vectors = encoded(4, 5)
    clients, view = started(vectors, 3)
    seen = repr(view).encode() + b"".join(m for sent in view.sealed.values() for m in sent.values())
    for client in clients.values():
        for secret in (client._masking, client._sealing, client._own_seed, *client._held.values()):
            assert repr(secret).encode() not in seen
            assert secret not in seen
    assert repr(view.keys[0].masking).encode() in seen  # what is there would be found


def test_bytes_are_what_the_formula_says():
    """eq-secure-cost: 96 + 94 (K - 1) + d w/8 + 33 K from each client that stays."""
    for n, d, bits in ((2, 10, 32), (5, 100, 16), (9, 7, 64)):
        vectors = {k: np.zeros(d, f"<u{bits // 8}") for k in range(n)}
        _, view = secure_sum(vectors, n // 2 + 1, random=seeded())
        for k in range(n):
            assert view.bytes_sent(k) == [96, 94 * (n - 1), d * bits // 8, 33 * n]
    assert 94 == len(ciphers.seal(bytes(32), bytes(2 * secure.SHARE_BYTES), b"", seeded()))


# ---- clients that refuse ----


def test_honest_clients_do_not_give_both_kinds_of_shares():
    clients, _ = started(encoded(5, 3), 3)
    clients[0].reveal([0, 1, 2, 3, 4])
    with pytest.raises(RefusedError, match="client 0 refuses: it was asked before"):
        clients[0].reveal([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("n", "threshold", "works"), [(6, 3, True), (6, 4, False), (5, 3, False), (4, 2, True)]
)
def test_a_server_that_lies_needs_twice_the_threshold(n, threshold, works):
    """eq-accomplices: it tells one half that client 0 has arrived, and the other half that it has not."""
    vectors = encoded(n, 10)
    clients, view = started(vectors, threshold)
    half = [*range(n)][: n // 2]
    own, masking = {}, {}
    for k, client in clients.items():
        if k in half:
            own[k + 1] = int.from_bytes(client.reveal(range(n))[0], "big")
        elif k:
            masking[k + 1] = int.from_bytes(client.reveal(range(1, n))[0], "big")
    assert (len(own) >= threshold and len(masking) >= threshold) == works
    if works:
        seed, key = (
            secure.reconstruct_secret(shares, threshold).to_bytes(32, "big") for shares in (own, masking)
        )
        vector = view.masked[0] - ciphers.expand(seed, 10, code.dtype)
        for j in range(1, n):
            vector -= secure._pair_mask(0, j, key, view.keys[j].masking, vector)
        np.testing.assert_array_equal(vector, vectors[0])


def test_clients_refuse_what_would_leave_them_alone():
    vectors = encoded(4, 3)
    clients, view = started(vectors, 3)
    fresh = Participant(0, vectors[0], 3, seeded([0, 0]))
    for keys, reason in (
        ({0: view.keys[0], 1: view.keys[1]}, "only 2 clients"),
        ({**view.keys, 0: view.keys[1]}, "its own public keys were altered"),
        ({**view.keys, 3: view.keys[2]}, "a key came twice"),
    ):
        with pytest.raises(RefusedError, match=f"client 0 refuses: {reason}"):
            fresh.share(keys)
    fresh.share(view.keys)
    with pytest.raises(RefusedError, match="too few clients shared"):
        fresh.mask({1: view.sealed[1][0]})
    for arrived, reason in (([0, 1], "too few vectors"), ([1, 2, 3], "not among"), ([0, 1, 9], "not among")):
        with pytest.raises(RefusedError, match=reason):
            clients[0].reveal(arrived)
    with pytest.raises(RefusedError, match="it has masked already"):
        clients[0].mask({k: view.sealed[k][0] for k in (1, 2, 3)})


def test_altered_or_exchanged_shares_are_noticed():
    vectors = encoded(4, 3)
    _, view = started(vectors, 3)
    for change in (
        {1: view.sealed[1][0][:-1] + b"x"},  # altered
        {1: view.sealed[2][0]},  # from another sender
        {1: view.sealed[1][2]},  # for another receiver
    ):
        client = Participant(0, vectors[0], 3, seeded([0, 0]))
        client.share(view.keys)
        with pytest.raises(ValueError, match="sealed must be unaltered"):
            client.mask({k: view.sealed[k][0] for k in (1, 2, 3)} | change)


def test_a_false_share_of_a_masking_key_is_noticed():
    clients, view = started(encoded(4, 3), 3)
    shares = {k: clients[k].reveal([0, 1, 2]) for k in (0, 1, 2)}
    shares[1][3] = bytes(33)
    masked = {k: view.masked[k] for k in (0, 1, 2)}
    with pytest.raises(RuntimeError, match="shares of client 3's key do not fit together"):
        secure.unmask(view._replace(masked=masked, shares=shares), 3)


def test_a_false_share_of_an_own_seed_is_noticed_with_no_share_to_spare():
    """With 4 of 4 every polynomial fits. A number may come out that is too large for a seed, too."""
    for false in (bytes(33), (secure.PRIME - 1).to_bytes(33, "big")):
        clients, view = started(encoded(4, 3), 4)
        shares = {k: clients[k].reveal(range(4)) for k in range(4)}
        assert np.array_equal(
            secure.unmask(view._replace(shares=shares), 4), plain_sum(encoded(4, 3), range(4))
        )
        shares[1][2] = false
        with pytest.raises(RuntimeError, match="shares of client 2's seed do not fit together"):
            secure.unmask(view._replace(shares=shares), 4)


def test_a_share_that_is_missing_is_done_without_or_named():
    vectors = encoded(4, 3)
    clients, view = started(vectors, 3)
    shares = {k: clients[k].reveal(range(4)) for k in range(4)}
    del shares[1][2]
    total = secure.unmask(view._replace(shares=shares), 3)
    np.testing.assert_array_equal(total, plain_sum(vectors, range(4)))
    del shares[3][2]
    with pytest.raises(TooFewClientsError, match=r"share of client 2's seed must .* 3, got 2, \[0, 2\]"):
        secure.unmask(view._replace(shares=shares), 3)
    with pytest.raises(TooFewClientsError, match=r"sent a vector must be at least threshold = 3, got 0"):
        secure.unmask(view._replace(shares=shares, masked={}), 3)


def test_nobody_is_summed_alone():
    """A sum of one is no secret, so two must be left: one vector, or a threshold of one, is refused."""
    with pytest.raises(ValueError, match="vectors must be two or more, as a sum of one hides nothing, got 1"):
        secure_sum(encoded(1, 3), 1)
    with pytest.raises(ValueError, match=r"threshold must be .* >= 2, got 1"):
        secure_sum(encoded(3, 3), 1, {0: 2, 1: 2})
    with pytest.raises(ValueError, match=r"threshold must be .* >= 2, got 1"):
        Participant(0, encoded(3, 3)[0], 1)


# ---- bad input ----


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: secure_sum({}, 2), ValueError, "vectors must be two or more"),
        (lambda: secure_sum({0: np.zeros(2, "u4"), 1: np.zeros(3, "u4")}, 2), ValueError, "of one shape"),
        (lambda: secure_sum({0: np.zeros(2), 1: np.ones(2)}, 2), TypeError, "unsigned integers, got float64"),
        (lambda: secure_sum(encoded(3, 2), 4), ValueError, "threshold must be at most the 3 clients, got 4"),
        (lambda: secure_sum(encoded(3, 2), 2, {5: 1}), ValueError, r"leaves must .* got \{5: 1\}"),
        (lambda: secure_sum(encoded(3, 2), 2, {1: 4}), ValueError, r"leaves must .* round 0..3"),
        (lambda: Participant(-1, encoded(1, 2)[0], 1), ValueError, "id must be .* got -1"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
