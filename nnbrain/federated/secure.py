"""Secure aggregation: the server learns the sum of the clients' vectors, and of no vector anything else.

The protocol of Bonawitz et al. (2017) against a server that is curious but follows the rules. A client adds
to its vector one mask for each other client, which the other subtracts, and one mask of its own; all masks
are integers modulo 2**bits. Whoever drops out leaves masks in the sum that the others can lift together: the
seeds of all masks are shared out, so that any `threshold` of the clients can give them back.

Rounds: 0, all send public keys, and a fingerprint of their own mask's seed. 1, each sends every other one
shares of its two secrets, sealed. 2, each sends its masked vector. 3, each sends one share for each client:
of the own mask's seed if its vector has arrived, of the key to the pairwise masks if not. Both together would
uncover a vector.

Needs the extra ``privacy``.
"""

import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from nnbrain import checks
from nnbrain.federated.ciphers import KEY_BYTES, agree, expand, fingerprint, public_key, seal, unseal
from nnbrain.federated.fixed_point import Residues
from nnbrain.federated.secret_sharing import PRIME, Random, reconstruct_secret, split_secret

SHARE_BYTES = (PRIME.bit_length() + 7) // 8


class RefusedError(RuntimeError):
    """A client does not do what it was asked, because its vector would no longer be hidden."""


class TooFewClientsError(RuntimeError):
    """Fewer clients than the threshold are left, so that the sum cannot be had."""


class PublicKeys(NamedTuple):
    """What a client sends in round 0: public keys for the seals and for the pairwise masks.

    The third is the fingerprint of its own mask's seed: by it a false one is noticed, as a false key to the
    pairwise masks is by the public one.
    """

    sealing: bytes
    masking: bytes
    own_seed_print: bytes


class Participant:
    """One client's side of one sum; it must not be used for two.

    Parameters
    ----------
    id : int
        At least 0, another one for each.
    vector : array of unsigned integers
        From `FixedPoint.encode`.
    threshold : int
        How many clients must be left in each round, at least 2; it answers for no fewer.
    random : callable
        Gives so many random bytes. The operating system's are the default; seeded ones are for simulations,
        as whoever knows the seed can lift all masks.
    """

    def __init__(self, id: int, vector: Residues, threshold: int, random: Random = os.urandom) -> None:
        self.id = checks.integer("id", id, minimum=0)
        self._vector, self._random = vector, random
        self._threshold = checks.integer("threshold", threshold, minimum=2)
        self._sealing, self._masking, self._own_seed = (random(KEY_BYTES) for _ in range(3))
        self._keys: dict[int, PublicKeys] = {}
        self._held: dict[int, bytes] = {}  # two shares of each client that shared
        self._answered = False

    def advertise(self) -> PublicKeys:
        """Round 0: return the public keys and the fingerprint."""
        return PublicKeys(public_key(self._sealing), public_key(self._masking), fingerprint(self._own_seed))

    def share(self, keys: Mapping[int, PublicKeys]) -> dict[int, bytes]:
        """Round 1: given all public keys, return for each other client its shares, sealed."""
        self._require(len(keys) >= self._threshold, f"only {len(keys)} clients")
        self._require(keys.get(self.id) == self.advertise(), "its own public keys were altered")
        self._require(
            len({key for sent in keys.values() for key in sent}) == 3 * len(keys), "a key came twice"
        )
        self._keys = dict(keys)
        places = [k + 1 for k in keys]
        of_masking, of_own = (
            split_secret(int.from_bytes(secret, "big"), places, self._threshold, self._random)
            for secret in (self._masking, self._own_seed)
        )
        sealed = {}
        for k in keys:
            both = b"".join(shares[k + 1].to_bytes(SHARE_BYTES, "big") for shares in (of_masking, of_own))
            if k == self.id:
                self._held[k] = both
            else:
                sealed[k] = seal(self._sealing_key(k), both, _header(self.id, k), self._random)
        return sealed

    def mask(self, sealed: Mapping[int, bytes]) -> Residues:
        """Round 2: given the sealed shares for this client, by sender, return its vector under all masks."""
        self._require(len(sealed) + 1 >= self._threshold, "too few clients shared")
        self._require(len(self._held) == 1, "it has masked already, or not shared")
        own = expand(self._own_seed, len(self._vector), self._vector.dtype)
        masked: Residues = self._vector + own
        for k, message in sealed.items():
            key, header = self._sealing_key(k), _header(k, self.id)
            self._held[k] = unseal(key, message, header)
            masked += self._mask_with(k)
        return masked

    def reveal(self, arrived: Collection[int]) -> dict[int, bytes]:
        """Round 3: given whose vectors have arrived, return one share for each client that shared.

        Raises
        ------
        RefusedError
            If it was asked before: two answers could have both kinds of shares for one client.
        """
        self._require(not self._answered, "it was asked before")
        self._require(len(arrived) >= self._threshold, "too few vectors arrived")
        named = {self.id} <= set(arrived) <= set(self._held)
        self._require(named, f"it or others are not among {sorted(arrived)}")
        self._answered = True
        revealed = {}
        for k, both in self._held.items():
            of_masking, of_own = both[:SHARE_BYTES], both[SHARE_BYTES:]
            revealed[k] = of_own if k in arrived else of_masking
        return revealed

    def _mask_with(self, other: int) -> Residues:
        return _pair_mask(self.id, other, self._masking, self._keys[other].masking, self._vector)

    def _sealing_key(self, other: int) -> bytes:
        return agree(self._sealing, self._keys[other].sealing, b"seal")

    def _require(self, satisfied: bool, what: str) -> None:
        if not satisfied:
            raise RefusedError(f"client {self.id} refuses: {what} (threshold {self._threshold})")


class ServerView(NamedTuple):
    """All that the server receives in the four rounds, by client.

    Attributes
    ----------
    keys : of PublicKeys
    sealed : of dict of int to bytes
        sealed[k][j] is from k for j.
    masked : of array of unsigned integers
    shares : of dict of int to bytes
        shares[k][j] is k's share of the one secret of j or the other.
    """

    keys: dict[int, PublicKeys]
    sealed: dict[int, dict[int, bytes]]
    masked: dict[int, Residues]
    shares: dict[int, dict[int, bytes]]

    def bytes_sent(self, client: int) -> list[int]:
        """Return how many bytes the client has sent in each round, without addresses."""
        return [
            sum(map(len, self.keys.get(client, ()))),
            sum(map(len, self.sealed.get(client, {}).values())),
            self.masked[client].nbytes if client in self.masked else 0,
            sum(map(len, self.shares.get(client, {}).values())),
        ]


def unmask(view: ServerView, threshold: int) -> Residues:
    """Return the sum of the vectors that arrived: the server's work after round 3.

    Raises
    ------
    TooFewClientsError
        If fewer than `threshold` have sent a vector, or shares, or a share of one of the secrets.
    RuntimeError
        If shares do not fit together: somebody sent another than it was given.
    """
    _enough("sent a vector", view.masked, threshold)
    _enough("sent shares", view.shares, threshold)
    vectors = list(view.masked.values())
    total: Residues = np.add.reduce(vectors, axis=0, dtype=vectors[0].dtype)
    for k in view.sealed:
        if k in view.masked:
            seed = _rebuilt(view, k, "seed", threshold)
            total -= expand(seed, len(total), total.dtype)
        else:
            key = _rebuilt(view, k, "key", threshold)
            for j in view.masked:
                total -= _pair_mask(j, k, key, view.keys[j].masking, total)
    return total


def _rebuilt(view: ServerView, k: int, what: str, threshold: int) -> bytes:
    """Return the secret of client k that its shares give, if it is the one that k announced in round 0."""
    shares = {j + 1: int.from_bytes(given[k], "big") for j, given in view.shares.items() if k in given}
    _enough(f"sent a share of client {k}'s {what}", [place - 1 for place in shares], threshold)
    number = reconstruct_secret(shares, threshold)
    secret: bytes = (number % 2 ** (8 * KEY_BYTES)).to_bytes(KEY_BYTES, "big")
    keys = view.keys[k]
    known, of = (fingerprint, keys.own_seed_print) if what == "seed" else (public_key, keys.masking)
    if known(secret) != of:
        raise RuntimeError(f"the shares of client {k}'s {what} do not fit together: one was altered")
    return secret


def secure_sum(
    vectors: Mapping[int, Residues],
    threshold: int,
    leaves: Mapping[int, int] | None = None,
    random: Random = os.urandom,
) -> tuple[Residues, ServerView]:
    """Return the sum of the vectors of those who sent theirs, and all that the server has seen.

    Parameters
    ----------
    vectors : mapping of int to array of unsigned integers
        Each client's, from `FixedPoint.encode`, all of one shape (n,) and type: two at least, as a sum of one
        hides nothing.
    threshold : int
        t, at least 2: as long as so many answer in each round, the sum can be had; t - 1 who put together all
        they know, with the server, learn of the others only what follows from the sum.
    leaves : mapping of int to int, optional
        Of clients that drop out, the round, 0 to 3, from which on they do not answer.
    random : callable
        For all clients, as for `Participant`.

    Raises
    ------
    TypeError, ValueError
        If the vectors are fewer than two or not of one shape (n,) and one unsigned type, `threshold` is below
        2 or more than there are, or `leaves` names others or other rounds.
    TooFewClientsError
        If in a round fewer than `threshold` answer.
    """
    if len(vectors) < 2:
        raise ValueError(f"vectors must be two or more, as a sum of one hides nothing, got {len(vectors)}")
    kinds = {(v.shape, v.dtype) for v in vectors.values()}
    (shape, dtype), *others = kinds
    if others or len(shape) != 1:
        raise ValueError(f"vectors must be of one shape (n,) and one type, got {sorted(map(str, kinds))}")
    if dtype.kind != "u":
        raise TypeError(f"vectors must be unsigned integers, got {dtype}")
    if checks.integer("threshold", threshold, minimum=2) > len(vectors):
        raise ValueError(f"threshold must be at most the {len(vectors)} clients, got {threshold}")
    leaves = leaves or {}
    if not (set(leaves) <= set(vectors) and set(leaves.values()) <= {0, 1, 2, 3}):
        raise ValueError(f"leaves must give clients a round 0..3, got {dict(leaves)}")
    clients = {k: Participant(k, vector, threshold, random) for k, vector in vectors.items()}

    def present(round: int) -> dict[int, Participant]:
        return {k: client for k, client in clients.items() if leaves.get(k, 4) > round}

    keys = {k: client.advertise() for k, client in present(0).items()}
    _enough("sent keys", keys, threshold)
    sealed = {k: client.share(keys) for k, client in present(1).items()}
    _enough("shared their secrets", sealed, threshold)
    masked = {k: client.mask({j: sealed[j][k] for j in sealed if j != k}) for k, client in present(2).items()}
    _enough("sent a vector", masked, threshold)
    shares = {k: client.reveal(list(masked)) for k, client in present(3).items()}
    view = ServerView(keys, sealed, masked, shares)
    return unmask(view, threshold), view


def _pair_mask(k: int, other: int, private: bytes, public: bytes, like: Residues) -> Residues:
    """Return what client k adds for the other: the mask of the two, negative if k is the higher number."""
    mask = expand(agree(private, public, b"mask"), len(like), like.dtype)
    return mask if k < other else -mask


def _header(sender: int, receiver: int) -> bytes:
    return sender.to_bytes(8, "big") + receiver.to_bytes(8, "big")


def _enough(what: str, clients: Collection[int], threshold: int) -> None:
    if len(clients) < threshold:
        raise TooFewClientsError(
            f"clients that {what} must be at least threshold = {threshold}, got {len(clients)}, "
            f"{sorted(clients)}: this sum cannot be had, start again"
        )
