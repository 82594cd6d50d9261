"""Real host names on loopback: a CONNECT proxy, and a certificate authority that lives for one test.

The product's code and the SDKs run unmodified against `https://management.azure.com` and the like: the environment
names the proxy and the authority. A host without a route gets 403 and is written down: nothing leaves the machine.
"""

import fnmatch
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
DAY = timedelta(days=1)


class Authority:
    """Issues certificates; `bundle` is the file that clients are told to trust."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.bundle = folder, folder / "authority.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("Loopback test authority")
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        own = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        )
        self.bundle.write_bytes(_pem(own.sign(self._key, hashes.SHA256())))

    def files(self, *hosts: str) -> tuple[Path, Path]:
        """Certificate and key files for host names; `*` may stand for the first label."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(host) for host in hosts] + [x509.IPAddress(ipaddress.ip_address(HOST))]
        certificate = (
            _builder(_name(hosts[0][:60]), self._name, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        stem = str(len(list(self.folder.glob("*.key"))))
        certificate_file, key_file = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        certificate_file.write_bytes(_pem(certificate))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate_file, key_file

    def context(self, *hosts: str) -> ssl.SSLContext:
        """What a server needs to be these hosts."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.files(*hosts))
        return context


class Proxy:
    """Sends each host name to a port of this machine. `routes`: patterns such as `*.openai.azure.com` to ports."""

    def __init__(self, authority: Authority, routes: Mapping[str, int]) -> None:
        self.authority, self.routes = authority, dict(routes)
        self.refused: list[str] = []
        self._server = _Server((HOST, 0), _handler_of(self))
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """For a process whose traffic goes through here; this machine's own addresses are reached directly."""
        url, bundle = f"http://{HOST}:{self.port}", str(self.authority.bundle)
        proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), url)
        direct = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        trusted = dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"), bundle)
        return proxies | direct | trusted

    def port_of(self, host: str) -> int | None:
        return next((port for pattern, port in self.routes.items() if fnmatch.fnmatch(host, pattern)), None)


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def _handler_of(proxy: Proxy) -> type[StreamRequestHandler]:
    class Handling(StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            method, _, rest = self.rfile.readline().decode("latin-1").partition(" ")
            target = rest.split(" ")[0]
            while self.rfile.readline().strip():
                pass
            port = proxy.port_of(target.partition(":")[0]) if method == "CONNECT" else None
            if port is None:
                proxy.refused.append(target)
                self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            try:
                with socket.create_connection((HOST, port), timeout=10) as onward:
                    onward.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    _pump(self.connection, onward)
            except OSError:
                return

    return Handling


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until either side ends; a reset of one is a reset of the other."""
    pairs = {one: other, other: one}
    while True:
        ready, _, _ = select.select(list(pairs), [], [], 60)
        if not ready:
            return
        for source in ready:
            try:
                data = source.recv(65536)
            except ConnectionResetError:
                pairs[source].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return
            if not data:
                return
            pairs[source].sendall(data)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
