#!/bin/sh
# Joins the tsenv session @NAME@ and becomes the command:   sh join CMD [ARGS…]
#
# Written by `tsenv up`. POSIX sh, builtins only, no fork before the exec; every file it needs is in /proc.
# Exit status: 125 the session cannot be joined, 126 CMD cannot run, 127 CMD is not found, else CMD's own.

refuse() {
    printf 'tsenv: %s\n  hint: %s\n' "$1" "$2" >&2
    exit 125
}

# Field 22 of /proc/PID/stat is the start time. The fields are counted after the ')' that ends the command's name.
started() {
    started=${20-}
}

IFS=' '
line=
{ read -r line </proc/@ANCHOR@/stat; } 2>/dev/null
# shellcheck disable=SC2086 # the fields are words
started ${line##*)}
# A reused pid must never be joined.
if [ "$started" != @STARTED@ ]; then
    refuse @GONE@ @AGAIN@
fi
if [ "$#" -eq 0 ]; then
    refuse 'no command to run' 'sh join CMD [ARGS…]'
fi

unset @SECRETS@
TSENV_SESSION=@NAME@
export TSENV_SESSION

# Inside, no shim may run: the folders of shims leave PATH (a plain loop; an empty entry means the working directory).
rest=$PATH:
clean=
while [ -n "$rest" ]; do
    entry=${rest%%:*}
    rest=${rest#*:}
    case $entry in
        @SHIMS@/*/bin) ;;
        *) clean=$clean:$entry ;;
    esac
done
PATH=${clean#:}
unset IFS line started rest clean entry

# Already inside? Then the namespaces are right and cannot be entered again. `inner` can be looked at from both sides.
if [ /proc/self/ns/net -ef /proc/@INNER@/ns/net ]; then
    exec "$@"
fi
if ! [ -r /proc/@ANCHOR@/ns/user ]; then
    refuse @FOREIGN@ @LEAVE@
fi
exec @JOIN@ "$@"
