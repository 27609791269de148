"""Imitates what Tailscale's control server does and headscale does not: it makes auth keys for OAuth clients and
federated identities. Everything else goes on to a real headscale, byte by byte.

    python3 -I exchange.py ADDRESS UPSTREAM_PORT AUTH_KEY      prints the port, then a line of JSON for each key it makes

The words of a credential say what becomes of it: "revoked", "expired", anything else is good.
"""

import base64
import json
import socket
import socketserver
import sys
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

UPSTREAM, KEY = ("10.77.0.1", int(sys.argv[2])), sys.argv[3]


class Front(socketserver.BaseRequestHandler):
    request: socket.socket

    def handle(self) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := self.request.recv(65536)):
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        words = head.split(b" ", 2)
        path = words[1].decode()
        if not path.startswith(("/api/v2/", "/idtoken")):
            self.pass_on(data)
            return
        lines = (line.decode().partition(": ") for line in head.split(b"\r\n")[1:])
        fields = {name.lower(): value for name, _, value in lines}
        while len(body) < int(fields.get("content-length", 0)):
            body += self.request.recv(65536)
        status, answer = decide(path, body.decode(), fields.get("authorization", ""))
        text = json.dumps(answer).encode()
        kind = b"Content-Type: application/json\r\nConnection: close\r\n"
        self.request.sendall(b"HTTP/1.1 %d x\r\n%sContent-Length: %d\r\n\r\n%s" % (status, kind, len(text), text))

    def pass_on(self, data: bytes) -> None:
        with socket.create_connection(UPSTREAM) as up:
            up.sendall(data)
            threading.Thread(target=pour, args=(up, self.request), daemon=True).start()
            pour(self.request, up)


def pour(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def decide(path: str, body: str, authorization: str) -> tuple[int, Any]:  # noqa: PLR0911
    form = {key: values[0] for key, values in parse_qs(body).items()}
    where = urlsplit(path).path
    if where == "/idtoken":  # as ACTIONS_ID_TOKEN_REQUEST_URL answers
        return 200, {"value": f"token-for-{parse_qs(urlsplit(path).query)['audience'][0]}"}
    if where == "/api/v2/oauth/token":
        if b"revoked" in base64.b64decode(authorization.removeprefix("Basic ")) or "revoked" in form.get(
            "client_secret", ""
        ):
            return 401, {"message": "API token invalid"}
        return 200, {"access_token": "access", "token_type": "Bearer", "expires_in": 3600}
    if where == "/api/v2/oauth/token-exchange":
        say(exchange=form)
        if "expired" in form["jwt"]:
            return 401, {"message": "token is expired"}
        return 200, {"access_token": "access", "token_type": "Bearer", "expires_in": 3600}
    create = json.loads(body)["capabilities"]["devices"]["create"]
    say(create=create)
    if "tag:forbidden" in create["tags"]:
        return 400, {"message": "requested tags [tag:forbidden] are invalid or not permitted"}
    return 200, {"id": "k1", "key": KEY, "capabilities": {}}


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 32


with Server((sys.argv[1], 0), Front) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
