"""The primitives of secure aggregation against published values, and Paillier's cipher."""

import hmac
import importlib
import sys
from itertools import product
from math import gcd

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="the extra privacy is not installed")

from nnbrain.federated import ciphers


def test_key_agreement_gives_the_published_value():
    """RFC 7748, section 6.1, and HKDF (RFC 5869) written out with Python's HMAC."""
    a = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    b = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    of_b = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    agreed = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert ciphers.public_key(b) == of_b
    for purpose in (b"seal", b"mask"):
        extracted = hmac.digest(bytes(32), agreed, "sha256")
        expected = hmac.digest(extracted, purpose + b"\x01", "sha256")
        assert ciphers.agree(a, of_b, purpose) == expected
        assert ciphers.agree(b, ciphers.public_key(a), purpose) == expected


def test_masks_are_encrypted_counters():
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = bytes(range(32))
    blocks = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    expected = b"".join(blocks.update(i.to_bytes(16, "big")) for i in range(3))
    assert ciphers.expand(key, 5, np.dtype("<u8")).tobytes() == expected[:40]


def test_paillier_ciphers_multiply_to_the_cipher_of_the_sum():
    """eq-paillier, for all numbers modulo 5 * 7, and decryption as in the chapter."""
    n, phi = 35, 24
    units = [r for r in range(1, n) if gcd(r, n) == 1]

    def encrypt(a, r):
        return pow(1 + n, a, n * n) * pow(r, n, n * n) % (n * n)  # Paillier's own form, with g = 1 + n

    def decrypt(cipher):
        return (pow(cipher, phi, n * n) - 1) // n * pow(phi, -1, n) % n

    for a, r in product(range(n), units):
        assert encrypt(a, r) == (1 + a * n) * r**n % n**2
        assert decrypt(encrypt(a, r)) == a
    for a, b in product(range(n), repeat=2):
        assert encrypt(a, 2) * encrypt(b, 3) % n**2 == encrypt((a + b) % n, 6)
    assert len({encrypt(a, r) for a, r in product(range(n), units)}) == n * len(units)


def test_without_cryptography_the_error_names_the_extra(monkeypatch):
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "cryptography.exceptions", None)
        context.delitem(sys.modules, "nnbrain.federated.ciphers")
        with pytest.raises(
            ImportError, match=r"comes with the extra privacy: pip install 'nnbrain\[privacy\]'"
        ):
            importlib.import_module("nnbrain.federated.ciphers")
