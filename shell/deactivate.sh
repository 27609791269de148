# shellcheck shell=sh
# Printed by `tsenv activate` and `tsenv deactivate` for bash, zsh and POSIX sh. It works from the environment alone,
# so that a subshell which only inherited the variables can use it, and removes only what is ours (STYLE 8).
__tsenv_without() { # PATH FOLDER: sets __tsenv_kept to PATH without the folder
    __tsenv_rest=$1:
    __tsenv_kept=
    while [ -n "$__tsenv_rest" ]; do
        __tsenv_item=${__tsenv_rest%%:*}
        __tsenv_rest=${__tsenv_rest#*:}
        [ "$__tsenv_item" = "$2" ] || __tsenv_kept=$__tsenv_kept:$__tsenv_item
    done
    __tsenv_kept=${__tsenv_kept#:}
}
tsenv_deactivate() {
    # Whatever options the user's zsh has (KSH_ARRAYS, WARN_CREATE_GLOBAL, ERR_RETURN, …), this function is sh.
    if [ -n "${ZSH_VERSION-}" ]; then \emulate -L sh; fi
    if [ -n "${TSENV_BIN-}" ]; then
        # Not a snapshot of PATH: edits made meanwhile stay (PAINS 2.6).
        __tsenv_without "${PATH-}" "$TSENV_BIN"
        PATH=$__tsenv_kept
        # A virtualenv's `deactivate` puts a snapshot back, which is ours to keep clean.
        if [ -n "${_OLD_VIRTUAL_PATH+set}" ]; then
            __tsenv_without "$_OLD_VIRTUAL_PATH" "$TSENV_BIN"
            _OLD_VIRTUAL_PATH=$__tsenv_kept
        fi
        # A name that the user has changed meanwhile is his.
        __tsenv_item=${TSENV_DIR-}
        if [ "${TSENV_SESSION-}" = "${__tsenv_item##*/}" ]; then
            if [ -n "${TSENV_OLD_SESSION+set}" ]; then TSENV_SESSION=$TSENV_OLD_SESSION; else \unset TSENV_SESSION; fi
        fi
        if [ -n "${TSENV_PROMPT-}" ] && [ -z "${TSENV_DISABLE_PROMPT-}" ]; then
            case ${PS1-} in *"$TSENV_PROMPT"*)
                PS1=${PS1%%"$TSENV_PROMPT"*}${PS1#*"$TSENV_PROMPT"}
                ;;
            esac
            case ${_OLD_VIRTUAL_PS1-} in *"$TSENV_PROMPT"*)
                _OLD_VIRTUAL_PS1=${_OLD_VIRTUAL_PS1%%"$TSENV_PROMPT"*}${_OLD_VIRTUAL_PS1#*"$TSENV_PROMPT"}
                ;;
            esac
        fi
        \unset TSENV_BIN TSENV_DIR TSENV_OLD_SESSION TSENV_PROMPT TSENV_AUTO __tsenv_path __tsenv_rest __tsenv_kept __tsenv_item
        # Fails where hashing is off (PAINS 2.3).
        \hash -r 2>/dev/null || :
    fi
}
