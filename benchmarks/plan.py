"""How much is measured: the full form (under 12 minutes on 2 cores), and --quick (under a minute)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Numbers of repetitions, and seconds."""

    rounds: int = 5
    seconds: float = 2  # of a TCP transfer, after one second that does not count
    udp_rounds: int = 3
    udp_seconds: float = 1
    rates: tuple[str, ...] = ("100M", "500M", "1G")
    trip_rounds: int = 3
    trip_seconds: float = 1
    internet_seconds: float = 2
    starts: int = 100
    lives: int = 7
    crowds: tuple[int, ...] = (1, 4, 16)
    settle_seconds: float = 6
    idle_seconds: float = 6
    tuning: bool = False


FULL = Plan()
QUICK = Plan(
    rounds=1,
    seconds=1,
    udp_rounds=1,
    rates=("100M",),
    trip_rounds=1,
    trip_seconds=0.3,
    internet_seconds=1,
    starts=5,
    lives=1,
    crowds=(1,),
    settle_seconds=1,
    idle_seconds=2,
)
