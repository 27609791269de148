# shellcheck shell=sh
# Printed by `tsenv activate` after deactivate.sh. A second activation, of this or another session, first undoes the
# first: PATH gets our entry once (PAINS 2.7, 2.16).
tsenv_deactivate
if [ -n "${TSENV_SESSION+set}" ]; then \export TSENV_OLD_SESSION="$TSENV_SESSION"; fi
\export TSENV_SESSION=@NAME@
\export TSENV_DIR=@SESSION@
\export TSENV_BIN=@BIN@
\export TSENV_PROMPT=@PROMPT@
\export TSENV_AUTO=@AUTO@
\export PATH=@BIN@":${PATH-}"
# A virtualenv that is active already puts its snapshot of PATH back when it is left, without us: silently outside.
if [ -n "${_OLD_VIRTUAL_PATH+set}" ]; then _OLD_VIRTUAL_PATH=@BIN@":$_OLD_VIRTUAL_PATH"; fi
# For the hook: these shims fit this PATH.
__tsenv_path=$PATH
case $- in *i*)
    # Never exported (PAINS 2.4).
    if [ -z "${TSENV_DISABLE_PROMPT-}" ]; then PS1=$TSENV_PROMPT${PS1-}; fi
    ;;
esac
\hash -r 2>/dev/null || :
