"""Sends back what it gets over UDP and TCP on one port, and prints "ready" once both are open.

    python3 -I -S echo_server.py PORT

No threads: an echo that waits for a lock would be measured, too.
"""

from __future__ import annotations

import select
import socket
import sys


def main(port: int) -> None:
    """Serve until killed."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("", port))
    listener = socket.create_server(("", port))
    poll = select.poll()
    streams = {listener.fileno(): listener}
    for one in (datagrams, listener):
        poll.register(one, select.POLLIN)
    print("ready", flush=True)
    while True:
        for fd, _ in poll.poll():
            if fd == datagrams.fileno():
                data, sender = datagrams.recvfrom(2048)
                datagrams.sendto(data, sender)
            elif fd == listener.fileno():
                stream, _ = listener.accept()
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                streams[stream.fileno()] = stream
                poll.register(stream, select.POLLIN)
            elif data := _read(streams[fd]):
                streams[fd].sendall(data)
            else:
                poll.unregister(fd)
                streams.pop(fd).close()


def _read(stream: socket.socket) -> bytes:
    try:
        return stream.recv(2048)
    except OSError:
        return b""


if __name__ == "__main__":
    main(int(sys.argv[1]))
