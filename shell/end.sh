#!/bin/sh
# Waits until stdin, the supervisor's lifeline, ends; then nothing of the session may run on: every process in this user
# namespace, or in one made in it, is killed, but this one and those given.
#
#   end.sh [PID…]
#
# The kernel shows a process's namespaces to those that may trace it, and from in here these are the ones to end, whatever
# they made for themselves. Their first id is one that is known in here; no id of the host's own namespace is (4294967295).
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
                [ -e "$proc/ns/user" ] || continue
                read -r _ first _ <"$proc/uid_map" || first=
                if [ "$first" != 4294967295 ] && kill -KILL "$pid"; then left=1; fi
                ;;
        esac
    done
done
