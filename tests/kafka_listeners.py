"""A broker with a listener for each way to connect, rights for some users, and the certificates for it all.

Owns what a test needs to meet a broker's refusals: one container, since a broker takes seconds to start. What comes
in by the plain listener of `KafkaContainer` may do everything; of the users, `guest` has the rights that a test grants.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, Final

from kafka_container import HOST, QUICK_START, KafkaContainer, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

USERS: Final = {"trader": "trader-secret", "guest": "guest-secret"}
"""Users of SASL/PLAIN, and their passwords."""

# No name ends with SSL: the official image then wants its own variables for the certificates.
LISTENERS: Final = {
    "PASSWORD": "SASL_PLAINTEXT",
    "TLS": "SSL",
    "BOTH": "SASL_SSL",
    "MUTUAL": "SSL",
    "EXPIRED": "SSL",
    "LOST": "PLAINTEXT",
}
SECRETS: Final = "/etc/kafka/secrets"


class ManyListeners(KafkaContainer):
    """One broker: `server(NAME)` is the address of its listener NAME; LOST advertises an address where nobody is.

    Args:
        folder: where the certificates are made; of the clients' use are `ca.pem`, `other-ca.pem` and `client.pem`.
    """

    def __init__(self, folder: Path) -> None:
        self._listeners = dict(zip(LISTENERS, (free_port() for _ in LISTENERS), strict=True))
        self.lost_address = f"{HOST}:{free_port()}"
        super().__init__(env=QUICK_START)
        make_certificates(folder)
        self.with_volume_mapping(str(folder), SECRETS, "ro")

    # The one port that is set by the base class, and ours.
    @property
    def ports(self) -> dict[str, Any]:
        """The ports that are open on this machine."""
        return self._ports | {f"{port}/tcp": (HOST, port) for port in self._listeners.values()}

    @ports.setter
    def ports(self, ports: Mapping[str, Any]) -> None:
        self._ports = dict(ports)

    def server(self, listener: str) -> str:
        """HOST:PORT of a listener."""
        return f"{HOST}:{self._listeners[listener]}"

    def _broker_env(self) -> dict[str, str]:
        env = super()._broker_env()
        listeners = [env["KAFKA_LISTENERS"], *(f"{name}://0.0.0.0:{port}" for name, port in self._listeners.items())]
        advertised = {name: self.server(name) for name in self._listeners} | {"LOST": self.lost_address}
        addresses = [env["KAFKA_ADVERTISED_LISTENERS"], *(f"{name}://{at}" for name, at in advertised.items())]
        protocols = [env["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"], *(f"{n}:{p}" for n, p in LISTENERS.items())]
        users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
        plain = f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        env |= {
            "KAFKA_LISTENERS": ",".join(listeners),
            "KAFKA_ADVERTISED_LISTENERS": ",".join(addresses),
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": ",".join(protocols),
            "KAFKA_AUTHORIZER_CLASS_NAME": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "KAFKA_SUPER_USERS": "User:ANONYMOUS;User:trader;User:client",
            "KAFKA_SSL_KEYSTORE_TYPE": "PEM",
            "KAFKA_SSL_KEYSTORE_LOCATION": f"{SECRETS}/broker.pem",
            "KAFKA_SSL_TRUSTSTORE_TYPE": "PEM",
            "KAFKA_SSL_TRUSTSTORE_LOCATION": f"{SECRETS}/ca.pem",
            "KAFKA_LISTENER_NAME_MUTUAL_SSL_CLIENT_AUTH": "required",
            "KAFKA_LISTENER_NAME_MUTUAL_SSL_PRINCIPAL_MAPPING_RULES": "RULE:.*CN=([a-z]+).*/$1/",
            "KAFKA_LISTENER_NAME_EXPIRED_SSL_KEYSTORE_LOCATION": f"{SECRETS}/expired.pem",
            "KAFKA_LISTENER_NAME_EXPIRED_SSL_KEYSTORE_TYPE": "PEM",
        }
        for listener in ("PASSWORD", "BOTH"):
            name = f"KAFKA_LISTENER_NAME_{listener}"
            env |= {
                f"{name}_SASL_ENABLED_MECHANISMS": "PLAIN,SCRAM-SHA-512",
                f"{name}_PLAIN_SASL_JAAS_CONFIG": plain,
                f"{name}_SCRAM___SHA___512_SASL_JAAS_CONFIG": scram,
            }
        return env


def make_certificates(folder: Path) -> None:
    """Make two certificate authorities and, signed by the first, keys of broker and client with their certificates."""

    def openssl(*arguments: str) -> None:
        subprocess.run(("openssl", *arguments), cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for ca in ("ca", "other-ca"):
        openssl("req", "-x509", *key, "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-subj", f"/CN={ca}", "-days", "30")
    for name, days in (("broker", "30"), ("client", "30"), ("expired", "-1")):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "extensions").write_text(f"subjectAltName=IP:{HOST}\n")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions", "-days", days)
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signed)
        (folder / f"{name}.pem").write_text((folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text())
    # The broker is another user.
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
