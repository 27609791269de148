# shellcheck shell=bash
# Printed by `tsenv hook` for bash and zsh, after deactivate.sh and before hook.bash or hook.zsh.
# Cost: at a prompt builtins only, no fork (tests/shells/test_hook.py counts them). Python starts when an allowed
# folder is entered and when PATH or one of its folders has changed, never while nothing changes.

tsenv() {
    if [ -n "${ZSH_VERSION-}" ]; then \emulate -L sh; fi
    \local __tsenv_verb="${1-}" __tsenv_code
    case ${1-} in
    -n | --name) __tsenv_verb=${3-} ;;
    -n?* | --name=*) __tsenv_verb=${2-} ;;
    esac
    # Help is for reading, not for eval.
    case " $* " in *" -h "* | *" --help "*) __tsenv_verb= ;; esac
    case $__tsenv_verb in
    activate)
        __tsenv_code=$(\command @TSENV@ "$@" --shell @SHELL@) || \return
        \eval "$__tsenv_code"
        ;;
    deactivate)
        # Inside (`tsenv shell`) there is nothing to undo: tsenv says so.
        if [ -n "${TSENV_BIN-}" ]; then tsenv_deactivate; else \command @TSENV@ "$@" >/dev/null; fi
        ;;
    allow | deny)
        \command @TSENV@ "$@" || \return
        # The next prompt looks at the folder anew.
        __tsenv_pwd=
        __tsenv_seen=
        ;;
    *) \command @TSENV@ "$@" ;;
    esac
}

__tsenv_prompt() {
    \local __tsenv_status="$?"
    if [ -n "${ZSH_VERSION-}" ]; then \emulate -L sh; fi
    if [ "$PWD" != "${__tsenv_pwd-}" ]; then
        __tsenv_pwd=$PWD
        __tsenv_moved
    fi
    if [ -n "${__tsenv_wait-}" ]; then __tsenv_waiting; fi
    if [ -n "${TSENV_BIN-}" ]; then __tsenv_keep; fi
    # Also inside (`tsenv shell`, tmux started by a shim), where only the name is known.
    if [ -n "${TSENV_SESSION-}" ] && [ -n "${TSENV_PROMPT-}" ] && [ -z "${TSENV_DISABLE_PROMPT-}" ]; then
        case ${PS1-} in *"$TSENV_PROMPT"*) ;; *) PS1=$TSENV_PROMPT${PS1-} ;; esac
    fi
    \return "$__tsenv_status"
}

# An activation that holds: is its session alive, is its entry the first of PATH, are its shims complete?
__tsenv_keep() {
    if ! __tsenv_alive "${TSENV_DIR-}"; then
        \printf "tsenv: session '%s' has ended: deactivated\n" "${TSENV_DIR##*/}" >&2
        tsenv_deactivate
        \return 0
    fi
    case $PATH in "$TSENV_BIN":*) ;; *)
        # A virtualenv activated since has put itself in front, or somebody has set PATH anew.
        __tsenv_without "$PATH" "$TSENV_BIN"
        # shellcheck disable=SC2154 # set by __tsenv_without, in deactivate.sh
        \export PATH="$TSENV_BIN:$__tsenv_kept"
        ;;
    esac
    if [ "$PATH" != "${__tsenv_path-}" ] || __tsenv_stale; then
        __tsenv_path=$PATH
        \command @TSENV@ rehash </dev/null || \:
        \hash -r 2>/dev/null || \:
    fi
}

# Is one of PATH's folders newer than the shims?
__tsenv_stale() {
    \local __tsenv_rest="$PATH:" __tsenv_item
    while [ -n "$__tsenv_rest" ]; do
        __tsenv_item=${__tsenv_rest%%:*}
        __tsenv_rest=${__tsenv_rest#*:}
        case $__tsenv_item in
        @ROOT@/*/bin) ;;
        /*) if [ "$__tsenv_item" -nt "$TSENV_BIN.stamp" ]; then \return 0; fi ;;
        esac
    done
    \return 1
}

# Is the session in this folder ready, and its anchor still the process it was (a pid may be reused)?
__tsenv_alive() {
    \local IFS=' ' __tsenv_pid='' __tsenv_line='' __tsenv_text=''
    if [ ! -e "$1/ready" ]; then \return 1; fi
    { \read -r __tsenv_pid <"$1/anchor.pid"; } 2>/dev/null || \return 1
    { \read -r __tsenv_line <"/proc/$__tsenv_pid/stat"; } 2>/dev/null || \return 1
    # Field 22 is the start time; the fields are counted after the ')' that ends the command's name.
    # shellcheck disable=SC2086 # the fields are words
    \set -- "$1" ${__tsenv_line##*)}
    if [ "${2-}" = Z ]; then \return 1; fi
    if [ "$__tsenv_pid ${21-}" = "${__tsenv_anchor-}" ]; then \return 0; fi
    { IFS='' \read -r -d '' __tsenv_text <"$1/session.json"; } 2>/dev/null || \:
    case $__tsenv_text in *'"start": '"${21-}"[!0-9]*)
        __tsenv_anchor="$__tsenv_pid ${21-}"
        \return 0
        ;;
    esac
    \return 1
}

# Another folder: which .tsenv.toml is nearest now?
__tsenv_moved() {
    \local __tsenv_at="$PWD" __tsenv_file=''
    if [ "$__tsenv_at" = / ]; then __tsenv_at=; fi
    while :; do
        if [ -e "$__tsenv_at/.tsenv.toml" ] || [ -L "$__tsenv_at/.tsenv.toml" ]; then
            __tsenv_file=$__tsenv_at/.tsenv.toml
            \break
        fi
        if [ -z "$__tsenv_at" ]; then \break; fi
        __tsenv_at=${__tsenv_at%/*}
    done
    if [ "$__tsenv_file" = "${__tsenv_seen-}" ]; then \return 0; fi
    __tsenv_seen=$__tsenv_file
    __tsenv_wait=
    if [ -n "${TSENV_AUTO-}" ] && [ "$TSENV_AUTO" != "$__tsenv_file" ]; then tsenv_deactivate; fi
    # A session that was chosen by hand, or that this shell is inside of, stays.
    if [ -z "$__tsenv_file" ] || [ -n "${TSENV_SESSION-}" ]; then \return 0; fi
    if __tsenv_trusted "$__tsenv_file"; then __tsenv_enter "$__tsenv_file"; fi
}

# Is this exactly the content that `tsenv allow` has kept? tsenv checks it once more before it uses the file.
__tsenv_trusted() {
    \local __tsenv_now='' __tsenv_then=''
    if [ -L "$1" ] || [ ! -f "$1" ] || [ ! -O "$1" ]; then
        \printf 'tsenv: %s is refused: it is a symlink, no file, or not yours\n' "$1" >&2
        \return 1
    fi
    if [ -e @ALLOW@"${1%/*}/denied" ]; then \return 1; fi
    if [ -r "$1" ] && [ -r @ALLOW@"$1" ]; then
        IFS='' \read -r -d '' __tsenv_now <"$1" || \:
        IFS='' \read -r -d '' __tsenv_then <@ALLOW@"$1" || \:
        if [ "$__tsenv_now" = "$__tsenv_then" ]; then \return 0; fi
        \printf 'tsenv: %s has changed since it was allowed\n  hint: tsenv allow\n' "$1" >&2
        \return 1
    fi
    \printf 'tsenv: %s is not allowed yet\n  hint: tsenv allow\n' "$1" >&2
    \return 1
}

__tsenv_enter() {
    \local __tsenv_code
    __tsenv_code=$(\command @TSENV@ activate --shell @SHELL@ --auto "$1" </dev/null) || \return 0
    \eval "$__tsenv_code"
}

# Called by the code of `tsenv activate --auto`: NAME DIRECTORY LOG. Wait for the session; with a LOG bring it up.
__tsenv_pending() {
    __tsenv_wait=$2
    __tsenv_log=$3
    if [ -n "$3" ]; then
        \printf "tsenv: bringing up '%s' in the background (%s)\n" "$1" "$3" >&2
        # Two subshells: no job of the user's, no notice when it ends, nothing of his terminal held.
        ( ({ \command @TSENV@ -n "$1" up </dev/null >|"$3" 2>&1; } || : >|"$3.failed") &)
    fi
}

__tsenv_waiting() {
    if [ -n "${TSENV_SESSION-}" ]; then
        __tsenv_wait=
    elif [ -e "$__tsenv_wait/ready" ] && __tsenv_alive "$__tsenv_wait"; then
        __tsenv_wait=
        if __tsenv_trusted "$__tsenv_seen"; then __tsenv_enter "$__tsenv_seen"; fi
    elif [ -n "${__tsenv_log-}" ] && [ -e "$__tsenv_log.failed" ]; then
        \printf 'tsenv: the session of this folder did not come up\n  hint: see %s\n' "$__tsenv_log" >&2
        __tsenv_log=
    fi
}
