"""A server with TLS before one that has none, and certificates that nobody else believes."""

import asyncio
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import trustme

from sandbox.processes import ChildProcess, free_ports


class Certificates:
    """Of an authority of its own, a server on loopback, and a client, as files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.authority = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.authority)
        self.server = folder / "server.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(self.server)
        client = authority.issue_cert("client@example.org")
        self.client, self.client_key = folder / "client.pem", folder / "client.key"
        client.cert_chain_pems[0].write_to_path(self.client)
        client.private_key_pem.write_to_path(self.client_key)

    @property
    def query(self) -> str:
        """What a client's URL has to say."""
        return (
            f"ssl_cert_reqs=required&ssl_ca_certs={self.authority}"
            f"&ssl_certfile={self.client}&ssl_keyfile={self.client_key}"
        )


class TlsFront:
    """Speaks TLS with clients that have a certificate, and plainly with the server behind it."""

    def __init__(self, certificates: Certificates, port: int, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self.process = ChildProcess(
            [
                *(sys.executable, "-m", __name__, str(self.port), str(port)),
                *(certificates.authority, certificates.server),
            ],
            folder / "tls.log",
        )
        self.process.wait_until(lambda: "serving" in self.process.tail())


async def _front(own_port: int, port: int, authority: str, certificate: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
    context.load_cert_chain(certificate)
    context.verify_mode = ssl.CERT_REQUIRED

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_copy(reader, to_server), _copy(from_server, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", own_port, ssl=context)
    print("serving", flush=True)
    await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(_front(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
