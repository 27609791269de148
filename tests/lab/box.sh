#!/bin/sh
# Turns the mount and UTS namespace it runs in into a computer of its own, says "ready" and then holds it.
#
#   box.sh STAGE HOSTNAME shared|private
#
# STAGE is a folder of the lab; STAGE/seed holds what replaces files in /etc. "private" also hides /tmp and /run/user.
set -eu
stage=$1 hostname=$2 privacy=$3

hostname "$hostname"

# /etc is a copy, not the host's with some files mounted over: an overlay made inside would not show mounted files.
mkdir -p "$stage/etc" "$stage/run" "$stage/sys"
mount -t tmpfs -o mode=0755 lab-etc "$stage/etc"
cp -a /etc/. "$stage/etc/"
rm -f "$stage/etc/resolv.conf"
cp -a "$stage/seed/etc/." "$stage/etc/"
sed -i "s/^hosts:.*/$(cat "$stage/seed/hosts-line")/" "$stage/etc/nsswitch.conf"
mount --bind "$stage/etc" /etc

# /run without the host's daemons (D-Bus, systemd-resolved, nscd): tailscaled as root would order them about.
mount -t tmpfs -o mode=0755 lab-run "$stage/run"
mkdir -p "$stage/run/user" "$stage/run/sshd" "$stage/run/tsenv-lab" "$stage/run/lock"
chmod 1777 "$stage/run/lock"
cp -a "$stage/seed/run/." "$stage/run/"
for runtime in /run/user/*; do
  [ -d "$runtime" ] || continue
  owner=$(stat -c uid=%u,gid=%g "$runtime")
  mkdir -p "$stage$runtime"
  if [ "$privacy" = private ]; then
    mount -t tmpfs -o "mode=0700,nosuid,nodev,$owner" lab-runtime "$stage$runtime"
  else
    mount --rbind "$runtime" "$stage$runtime"
  fi
done
mount --bind /run/tsenv-lab "$stage/run/tsenv-lab"

# sysfs shows the network namespace it was mounted from.
mount -t sysfs lab-sys "$stage/sys"
mount --rbind /sys/fs/cgroup "$stage/sys/fs/cgroup"
mount --rbind "$stage/sys" /sys

if [ "$privacy" = private ]; then
  mount -t tmpfs -o mode=1777 lab-tmp /tmp
fi
mount --rbind "$stage/run" /run

echo ready
exec sleep infinity >/dev/null 2>&1
