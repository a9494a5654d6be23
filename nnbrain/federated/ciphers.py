"""The primitives that secure aggregation is made of: those of `cryptography`, with their settings fixed.

Needs the extra ``privacy``.
"""

from hashlib import sha256
from typing import Any

import numpy as np

from nnbrain.federated.fixed_point import Residues
from nnbrain.federated.secret_sharing import Random

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import CTR
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError as error:
    raise ImportError(
        "secure aggregation needs the package cryptography, which comes with the extra privacy: "
        "pip install 'nnbrain[privacy]'"
    ) from error

KEY_BYTES = 32
NONCE_BYTES = 12


def public_key(private: bytes) -> bytes:
    """Return the public key, 32 bytes, of a private one, any 32 random bytes: X25519."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes, purpose: bytes) -> bytes:
    """Return the key, 32 bytes, that only the owners of the two keys can compute: X25519, then HKDF.

    Each side takes its own private and the other's public key. Keys for different purposes are unrelated.

    Raises
    ------
    ValueError
        If `public` is not a point with which one can agree on anything.
    """
    shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(shared)


def fingerprint(secret: bytes) -> bytes:
    """Return 32 bytes by which a secret, 32 random bytes, is known again, and not found: SHA-256."""
    return sha256(secret).digest()


def expand(key: bytes, n: int, dtype: np.dtype[Any]) -> Residues:
    """Return n numbers of `dtype` that look random and follow from the key: AES-256 in counter mode.

    The counter starts at 0, so a key must not be used for two vectors.
    """
    stream = Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(n * dtype.itemsize))
    return np.frombuffer(stream, dtype)


def seal(key: bytes, message: bytes, header: bytes, random: Random) -> bytes:
    """Return the message, encrypted so that whoever opens it knows it and the header unaltered: AES-256-GCM.

    It is 28 bytes longer: 12 of a nonce and 16 of a tag. The header is not in it.
    """
    nonce = random(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, message, header)


def unseal(key: bytes, sealed: bytes, header: bytes) -> bytes:
    """Return the message.

    Raises
    ------
    ValueError
        If the key or the header is another one, or anything was altered.
    """
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], header)
    except InvalidTag as error:
        raise ValueError(
            "sealed must be unaltered, with its own key and header, got something else"
        ) from error
