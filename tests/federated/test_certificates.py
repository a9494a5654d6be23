"""Certificates and keys: believed by those who should believe them, and by no others."""

import ssl
from itertools import product

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nnbrain.federated.certificates import make_authority, make_certificate, make_node_key


def handshake(server, client):
    """Run a TLS handshake in memory, until both sides agree or one raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for side in sides * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return sides[0].version()


def test_a_certificate_is_believed_by_those_who_know_its_authority_and_by_no_others(tmp_path):
    key = make_authority(tmp_path, "ours")
    make_authority(tmp_path, "foreign")
    make_certificate(tmp_path, "server", "ours", key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    believer = ssl.create_default_context(cafile=tmp_path / "ours.crt")
    assert handshake(server, believer) == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        handshake(server, ssl.create_default_context(cafile=tmp_path / "foreign.crt"))
    assert all((tmp_path / name).stat().st_mode & 0o077 == 0 for name in ("server.key", "server.crt"))


def test_a_signature_of_the_time_is_accepted_as_flower_accepts_it(tmp_path):
    """eq-signed: our keys and Flower's own verification, against the library's primitive."""
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
    from flwr.supercore.primitives.asymmetric import sign_message, verify_signature

    assert 60 < TIMESTAMP_TOLERANCE < 600  # seconds: the window, which the chapter calls a few minutes
    assert SYSTEM_TIME_TOLERANCE < 30
    make_node_key(tmp_path, "node")
    make_node_key(tmp_path, "other")
    private = serialization.load_ssh_private_key((tmp_path / "node").read_bytes(), None)
    publics = [
        serialization.load_ssh_public_key((tmp_path / f"{n}.pub").read_bytes()) for n in ("node", "other")
    ]
    time = b"2026-01-01T00:00:00+00:00"
    signature = sign_message(private, time)
    for public, message in product(publics, (time, time.replace(b"2026", b"2027"))):
        try:
            public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            expected = True
        except InvalidSignature:
            expected = False
        assert verify_signature(public, message, signature) == expected
        assert expected == (public is publics[0] and message == time)
