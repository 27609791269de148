#!/bin/sh
# Waits until stdin, the supervisor's lifeline, ends; then nothing of the session may run on: every process in this
# network or mount namespace is killed, but this one and those given.
#
#   end.sh [PID…]
#
# The anchor becomes this, and so does the inner process, which spares the anchor: one of them is enough.
exec >/dev/null 2>&1
read -r _ || true

# Again until there is none, for some may be forking; not for ever, for one that is stuck in the kernel ends later.
rounds=0 left=1
while [ "$left" ] && [ "$rounds" -lt 50 ]; do
    rounds=$((rounds + 1)) left=
    for proc in /proc/[0-9]*; do
        pid=${proc#/proc/}
        case " $$ $* " in
            *" $pid "*) ;;
            *)
                if [ "$proc/ns/net" -ef "/proc/$$/ns/net" ] || [ "$proc/ns/mnt" -ef "/proc/$$/ns/mnt" ]; then
                    kill -KILL "$pid" && left=1
                fi
                ;;
        esac
    done
done
