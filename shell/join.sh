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
    __tsenv_started=${20-}
    # One that has ended stays so as a zombie until it is waited for, which a container's init may never do.
    case ${1-} in [ZX]) __tsenv_started= ;; esac
}

# Every variable is __tsenv_*: a plain name would take away a variable that the caller exports.

# A reused pid must never be joined. From outside one look is enough: the anchor has covered this file, which is empty in
# every other mount namespace, so who has its pid and shows it covered is the anchor. From inside nobody may look there;
# then the start time tells, which takes ten times as long: dash reads it byte by byte.
__tsenv_line=
__tsenv_started=seen
if ! [ -s /proc/@ANCHOR@/root@COVERED@ ]; then
    { read -r __tsenv_line </proc/@ANCHOR@/stat; } 2>/dev/null
    # shellcheck disable=SC2086 # the fields are words
    started ${__tsenv_line##*")"}
    if [ "$__tsenv_started" != @STARTED@ ]; then
        refuse @GONE@ @AGAIN@
    fi
fi
if [ "$#" -eq 0 ]; then
    refuse 'no command to run' 'sh join CMD [ARGS…]'
fi

# Secrets, and what an activation exported: tsenv/scrub.py says why.
unset @NOT_INSIDE@
TSENV_SESSION=@NAME@
export TSENV_SESSION

# Inside, no shim may run: the folders of shims leave PATH (a plain loop; an empty entry means the working directory).
__tsenv_rest=$PATH:
__tsenv_clean=
while [ -n "$__tsenv_rest" ]; do
    __tsenv_entry=${__tsenv_rest%%:*}
    __tsenv_rest=${__tsenv_rest#*:}
    case $__tsenv_entry in
        @SHIMS@/*/bin) ;;
        *) __tsenv_clean=$__tsenv_clean:$__tsenv_entry ;;
    esac
done
PATH=${__tsenv_clean#:}
unset __tsenv_line __tsenv_rest __tsenv_clean __tsenv_entry

if [ "$__tsenv_started" != seen ]; then
    unset __tsenv_started
    # Already inside? Then the namespaces are right and cannot be entered again. `inner` can be looked at from there.
    if [ /proc/self/ns/net -ef /proc/@INNER@/ns/net ]; then
        exec "$@"
    fi
    if ! [ -r /proc/@ANCHOR@/ns/user ]; then
        refuse @FOREIGN@ @LEAVE@
    fi
fi
unset __tsenv_started
# nsenter opens the working directory: from one that may not be read, the command starts in / rather than not at all.
if ! [ -r . ] || ! [ -x . ]; then
    cd /
fi
exec @JOIN@ "$@"
