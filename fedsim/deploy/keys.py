"""Certificates and keys of a deployment: one authority, one server, a key per node."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BACKDATED = dt.timedelta(minutes=5)  # for clocks that are a little late
AUTHORITY_DAYS = 3650


@dataclass(frozen=True)
class Pair:
    """A private key and what is public of it, both as bytes of a file."""

    private: bytes
    public: bytes


def authority(name: str, *, now: dt.datetime) -> Pair:
    """Return the key and self-signed certificate that a deployment trusts, as PEM.

    Args:
        name: Whose it is.
        now: When its ten years begin.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority")])
    usage = _usage(signs=True)
    certificate = (
        _valid(x509.CertificateBuilder(), now, AUTHORITY_DAYS)
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    return Pair(_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def server(issuer: Pair, names: Sequence[str], *, days: int, now: dt.datetime) -> Pair:
    """Return a server's key and certificate, signed by the authority, as PEM.

    Args:
        issuer: The authority.
        names: Host names and addresses that it answers to.
        days: How long it is valid.
        now: From when.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    signing = serialization.load_pem_private_key(issuer.private, None)
    if not isinstance(signing, ec.EllipticCurvePrivateKey):
        raise TypeError(
            f"authority: must be a key on an elliptic curve, got {type(signing).__name__}"
        )
    parent = x509.load_pem_x509_certificate(issuer.public)
    identifier = parent.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _valid(x509.CertificateBuilder(), now, days)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(parent.subject)
        .public_key(key.public_key())
        .add_extension(
            x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(signing, hashes.SHA384())
    )
    return Pair(_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def node(comment: str) -> Pair:
    """Return a SuperNode's key pair in OpenSSH's formats, as Flower reads them."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return Pair(private, public + f" {comment}\n".encode())


def public_of(private: bytes) -> bytes:
    """Return the OpenSSH public key, without comment, of an OpenSSH private key.

    Raises:
        ValueError: It is no private key on an elliptic curve.
    """
    key = serialization.load_ssh_private_key(private, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"must be on an elliptic curve, got {type(key).__name__}")
    return key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )


def names_of(certificate: x509.Certificate) -> set[str]:
    """Return the host names and addresses that a certificate covers."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return {*names.get_values_for_type(x509.DNSName), *addresses}


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _valid(
    builder: x509.CertificateBuilder, now: dt.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
