"""What a lab host serves: HTTP that says who it is, and a TCP and a UDP echo. Prints "ready" once all are open.

``GET /`` answers the body given, ``/ip`` the client's address as the server sees it, ``/bytes/N`` N bytes.
``CONNECT`` makes it a proxy (each target is logged), and ``GET http://…`` through it is refused.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

BUFFER = 65536


class Pages(BaseHTTPRequestHandler):
    """The pages of a lab host, and its CONNECT proxy."""

    body: ClassVar[bytes] = b""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the body, the caller's address or a given number of bytes."""
        if self.path == "/ip":
            self._answer(self.client_address[0].removeprefix("::ffff:").encode() + b"\n")
        elif self.path.startswith("/bytes/"):
            self._answer(b"x" * int(self.path.removeprefix("/bytes/")))
        elif self.path == "/":
            self._answer(self.body)
        else:
            self.send_error(404)

    def do_CONNECT(self) -> None:
        """Join the caller to HOST:PORT until either side ends."""
        host, _, port = self.path.rpartition(":")
        try:
            target = socket.create_connection((host.strip("[]"), int(port)), timeout=10)
        except OSError as error:
            self.send_error(502, str(error))
            return
        self.send_response(200, "Connection established")
        self.end_headers()
        self.close_connection = True
        with target:
            target.settimeout(None)
            back = threading.Thread(target=_pour, args=(target, self.connection), daemon=True)
            back.start()
            _pour(self.connection, target)
            back.join()

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _pour(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(BUFFER):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


class TcpEcho(socketserver.BaseRequestHandler):
    """Sends back what it gets."""

    request: socket.socket

    def handle(self) -> None:
        """Echo until the caller ends."""
        _pour(self.request, self.request)


class UdpEcho(socketserver.BaseRequestHandler):
    """Sends each datagram back."""

    request: tuple[bytes, socket.socket]

    def handle(self) -> None:
        """Echo one datagram."""
        data, sender = self.request
        sender.sendto(data, self.client_address)


class HttpServer(ThreadingHTTPServer):
    """Listens on IPv4 and IPv6."""

    address_family = socket.AF_INET6
    daemon_threads = True


class TcpServer(socketserver.ThreadingTCPServer):
    """Listens on IPv4 and IPv6."""

    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


class UdpServer(socketserver.ThreadingUDPServer):
    """Listens on IPv4 and IPv6."""

    address_family = socket.AF_INET6
    daemon_threads = True


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--body", required=True, help="the page at / (a newline is added)")
    parser.add_argument("--http", type=int, default=80, metavar="PORT")
    parser.add_argument("--echo", type=int, default=7, metavar="PORT")
    options = parser.parse_args()
    Pages.body = f"{options.body}\n".encode()
    servers: list[socketserver.BaseServer] = [
        HttpServer(("::", options.http), Pages),
        TcpServer(("::", options.echo), TcpEcho),
        UdpServer(("::", options.echo), UdpEcho),
    ]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
