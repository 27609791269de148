"""Times round trips to echo_server.py and prints them as JSON: {"ms": [sorted], "lost": N}.

    python3 -I -S echo_client.py udp|tcp HOST PORT SECONDS

One small message at a time, with a millisecond of rest before each: what a person typing over ssh waits for.
"""

from __future__ import annotations

import json
import socket
import sys
import time

REST = 0.001
LATE = 1.0  # an answer that takes longer is counted as lost
SIZE = 64


def main(kind: str, host: str, port: int, seconds: float) -> None:
    """Measure for so long."""
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    stream.settimeout(10)
    stream.connect((host, port))
    if kind == "tcp":
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        stream.settimeout(LATE)
    took: list[float] = []
    lost = number = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or not took:
        time.sleep(REST)
        number += 1
        message = number.to_bytes(8, "big").ljust(SIZE)
        begin = time.perf_counter()
        stream.send(message)
        try:
            answer = stream.recv(2048)
            while kind == "udp" and answer[:8] != message[:8]:  # the late answer to an earlier one
                answer = stream.recv(2048)
        except TimeoutError:
            lost += 1
            if lost > 20:
                break
            continue
        took.append((time.perf_counter() - begin) * 1000)
    print(json.dumps({"ms": sorted(round(ms, 4) for ms in took), "lost": lost}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
