#!/bin/sh
# shellcheck shell=sh
# What stands in front of PATH for each program after `tsenv activate`: bin/NAME is a symlink to this file. It finds
# the real NAME on PATH past all shims and joins the session with it. Builtins only until the exec.
# It lies outside the session's directory on purpose: when a session ends, its shims must still be there to say so.
# Without them the shell would silently go on to the real program, outside.
#
# Every variable is __tsenv_*: a plain name would overwrite a variable that the caller exports.
__tsenv_name=${0##*/}
__tsenv_rest=${PATH-}:
__tsenv_kept=
__tsenv_real=
while [ -n "$__tsenv_rest" ]; do
    __tsenv_dir=${__tsenv_rest%%:*}
    __tsenv_rest=${__tsenv_rest#*:}
    # The shims of any session end in /tsenv/NAME/bin below the same folder: none may be found, or two sessions would
    # pass a command to and fro.
    case $__tsenv_dir in
    @ROOT@/*/bin) continue ;;
    esac
    __tsenv_kept=$__tsenv_kept:$__tsenv_dir
    if [ -z "$__tsenv_real" ] && [ -f "${__tsenv_dir:-.}/$__tsenv_name" ] && [ -x "${__tsenv_dir:-.}/$__tsenv_name" ]; then
        # A link of the user's to a shim, or the folder under another spelling, is no real program either.
        [ "${__tsenv_dir:-.}/$__tsenv_name" -ef @SHIM@ ] || __tsenv_real=${__tsenv_dir:-.}/$__tsenv_name
    fi
done
if [ -z "$__tsenv_real" ]; then
    printf 'tsenv: %s: not found on PATH\n  hint: tsenv rehash\n' "$__tsenv_name" >&2
    exit 127
fi
# Below /tmp, when the session is gone, somebody else may have put a folder in its place.
if [ ! -e @SESSION@/ready ] || [ ! -r @SESSION@/join ] ||
    [ -h @BASE@ ] || [ ! -O @BASE@ ] || [ ! -O @SESSION@ ]; then
    printf "tsenv: session '%s' is not up: %s was not run\n  hint: tsenv up %s, or tsenv deactivate\n" \
        @NAME@ "$__tsenv_name" @NAME@ >&2
    exit 125
fi
# Inside there are no shims: the command's children are inside anyway, and find the real programs at once.
PATH=${__tsenv_kept#:}
set -- "$__tsenv_real" "$@"
unset __tsenv_name __tsenv_rest __tsenv_kept __tsenv_real __tsenv_dir
# Read, not started: one process less. It ends in exec.
# shellcheck source=/dev/null
. @SESSION@/join
