"""Who is who in a federation: an authority, the server's certificate, the keys that nodes sign with.

Needs the extra ``flower``.
"""

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM, _OPEN = serialization.Encoding.PEM, serialization.NoEncryption()


def make_authority(folder: Path, name: str) -> ec.EllipticCurvePrivateKey:
    """Write a new authority's certificate to ``folder/name.crt``, and return its key, which signs others."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # to sign certificates
    builder = _certificate(subject, subject, key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    _write(folder / f"{name}.crt", builder.sign(key, hashes.SHA256()).public_bytes(_PEM))
    return key


def make_certificate(folder: Path, name: str, authority: str, key: ec.EllipticCurvePrivateKey) -> None:
    """Write ``name.crt`` and ``name.key``, of a server at 127.0.0.1, signed with the authority's `key`."""
    own = ec.generate_private_key(ec.SECP384R1())
    issuer = x509.load_pem_x509_certificate((folder / f"{authority}.crt").read_bytes()).subject
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    where = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    builder = _certificate(subject, issuer, own.public_key())
    builder = builder.add_extension(x509.SubjectAlternativeName(where), critical=False)
    _write(folder / f"{name}.crt", builder.sign(key, hashes.SHA256()).public_bytes(_PEM))
    _write(folder / f"{name}.key", own.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, _OPEN))


def make_node_key(folder: Path, name: str) -> None:
    """Write a node's pair of keys: ``name``, which never leaves it, and ``name.pub``, which is registered."""
    key = ec.generate_private_key(ec.SECP384R1())
    _write(folder / name, key.private_bytes(_PEM, serialization.PrivateFormat.OpenSSH, _OPEN))
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write(folder / f"{name}.pub", public)


def _certificate(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _write(path: Path, content: bytes) -> None:
    """Write a file that nobody but its owner can read."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
