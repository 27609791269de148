#!/bin/sh
# Fits the routes of pasta's interface to pasta. Runs as fake root in the session's network: by the anchor, and again
# after each pasta that took the place of one that died.
#
# What commands send to the internet goes through pasta's tap, and Debian 12's pasta tells a sender of a loss by no sign
# but a timeout: a burst that overflows something stops an upload for seconds (on the lab 0 to 4 Gbit/s, anything can
# happen). So the queue is long, packets are of a middling size, and cubic, whatever the host has, sends: about 2 Gbit/s
# on a busy machine, without gaps. What comes in may be as large as before (advmss): 10 Gbit/s, with pasta's --mtu 1500
# it would be 1. See benchmarks/README.md. Without iproute2 it is only slower.
PATH=$PATH:/usr/sbin:/sbin
{ ip -4 route; ip -6 route; } | while read -r route; do
    device=${route##* dev }
    device=${device%% *}
    [ "$device" != tailscale0 ] || continue
    echo "link set dev $device txqueuelen 10000"
    echo "route change $route mtu 4096 advmss 65460 congctl cubic"
done | ip -force -batch -
