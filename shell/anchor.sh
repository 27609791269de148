#!/bin/sh
# The anchor of a session: everything hangs on this process's namespaces.
#
#   anchor.sh SESSION_DIR STATE_DIR UID GID TAILSCALE [nft NFT RULES | iptables IPTABLES IP6TABLES]
#
# Runs as fake root in the user and network namespace that pasta made and in a mount namespace of its own. Does the
# mounts, makes the inner user namespace, says "ready INNER_PID ETC_KIND" on stdout, then holds until stdin ends: that
# is the supervisor's lifeline. Whatever it cannot do it says as "failed REASON".
set -eu
exec 3<&0 </dev/null
session=$1 state=$2 uid=$3 gid=$4 tailscale=$5
shift 5
PATH=$PATH:/usr/bin:/bin:/usr/sbin:/sbin # of a user's PATH these need not be part
newline='
'
cd "$session"

fail() {
    echo "failed $*"
    exit 1
}

# --isolated: the same rules as isolated.nft's, for hosts without nft. The policy comes first: no hole meanwhile.
isolate_by() { # PROGRAM ICMP
    # mangle: in the filter table tailscaled's own rules would come before the policy
    "$1" -w -P OUTPUT DROP && "$1" -w -t mangle -P FORWARD DROP &&
        "$1" -w -A OUTPUT -o lo -j ACCEPT &&
        "$1" -w -A OUTPUT -o tailscale0 -j ACCEPT &&
        "$1" -w -A OUTPUT -m mark --mark 0x80000/0xff0000 -j ACCEPT || return 1
    if [ "$2" = icmp6-adm-prohibited ]; then
        "$1" -w -A OUTPUT -p icmpv6 --icmpv6-type neighbour-solicitation -j ACCEPT &&
            "$1" -w -A OUTPUT -p icmpv6 --icmpv6-type neighbour-advertisement -j ACCEPT || return 1
    fi
    "$1" -w -A OUTPUT -p tcp -j REJECT --reject-with tcp-reset &&
        "$1" -w -A OUTPUT -j REJECT --reject-with "$2"
}

# Before anything else runs in here, so that there is no first moment without it.
case ${1-} in
    nft) said=$("$2" -f "$3" 2>&1) || fail "--isolated: nft refused the rules: ${said%%"$newline"*}" ;;
    iptables)
        said=$( { isolate_by "$2" icmp-admin-prohibited && isolate_by "$3" icmp6-adm-prohibited; } 2>&1) ||
            fail "--isolated: iptables refused the rules: ${said%%"$newline"*}"
        ;;
esac

# A layer over /etc, of which DESIGN 2 tells. Relative paths: a ',' or ':' in the directory's name would end an option.
# userxattr: a user namespace may not write trusted.* attributes.
overlay() { # FOLDER
    (cd "$1" && mount -t overlay -o userxattr,lowerdir=/etc,upperdir=etc/upper,workdir=etc/work overlay /etc) 2>/dev/null
}

# The same on a disk, for kernels before 6.6 whose tmpfs has no user xattrs.
on_disk() {
    mkdir -p "$state/etc/upper" "$state/etc/work" && cp -R etc/upper/. "$state/etc/upper/" && overlay "$state"
}

# The last resort, for kernels before 5.11: a copy. What the user cannot read is not in it.
copy() {
    mkdir -p etc/copy && mount -t tmpfs -o mode=0755 tmpfs etc/copy || return 1
    cp -R -L /etc/. etc/copy/ 2>/dev/null || true
    cp -R etc/upper/. etc/copy/ && mount --bind etc/copy /etc
}

if overlay .; then
    kind=overlay
elif on_disk; then
    kind=disk
elif copy; then
    kind=copy
else
    fail "no layer over /etc: overlay and tmpfs are refused"
fi

# Daemons of the host that resolve names, or would set them there: the session must not reach them (PAINS 1.10, 4.2).
# The sockets only: /etc/resolv.conf may point into these folders. A bound /dev/null refuses connections.
for socket in /run/dbus/system_bus_socket /run/systemd/resolve/io.systemd.Resolve \
    /run/systemd/resolve/io.systemd.Resolve.Monitor /run/nscd/socket /run/avahi-daemon/socket; do
    if [ -S "$socket" ]; then
        mount --bind /dev/null "$socket" || fail "cannot hide $socket"
    fi
done

# An unmodified tailscale talks to the session's daemon. Where the host has a daemon of its own, its socket's folder is
# covered; the binary is covered by a wrapper too, since a folder in /run that is not there cannot be made.
if [ -d /run/tailscale ]; then
    mount -t tmpfs -o mode=0700 tmpfs /run/tailscale || fail "cannot hide /run/tailscale"
    ln -s "$session/tailscaled.sock" /run/tailscale/tailscaled.sock
fi
: >tailscale.real
if ! { mount --bind "$tailscale" tailscale.real && mount --bind tailscale "$tailscale"; }; then
    fail "cannot cover $tailscale"
fi

# The inner user namespace turns fake root back into the user. Its maps are written from here, not from inside: there
# the maker may have lost its capabilities (Ubuntu 24.04).
# shellcheck disable=SC2016 # its own $0 and $1
unshare --user /bin/sh -c ': >inner.made; exec /bin/sh "$0" "$1"' "${0%/*}/end.sh" $$ <&3 3<&- &
inner=$!
: <inner.made
{
    echo deny >"/proc/$inner/setgroups"
    echo "$uid 0 1" >"/proc/$inner/uid_map"
    echo "$gid 0 1" >"/proc/$inner/gid_map"
} 2>/dev/null || fail "cannot map the user in the inner user namespace"

echo "ready $inner $kind"
exec >/dev/null 2>&1

# Nobody waits for this.
/bin/sh "${0%/*}/uplink.sh" || true

# While the daemon is away, until it is started again, what is for the tailnet waits. By pasta it would go out to the
# uplink's network, and a pasta of 2025 resets connections that it does not know: ssh broke when tailscaled was
# terminated. The daemon's own rules are 5210 to 5270; whatever these lead somewhere does not get here.
ip -4 rule add pref 5290 to 100.64.0.0/10 unreachable || true
ip -6 rule add pref 5290 to fd7a:115c:a1e0::/48 unreachable || true
exec /bin/sh "${0%/*}/end.sh" <&3 3<&-
