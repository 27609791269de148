# shellcheck shell=sh
# Read by the sh of `tsenv shell` by $ENV: give $ENV back, read the user's, then the prompt.
if [ -n "${TSENV_OLD_ENV+set}" ]; then
    ENV=$TSENV_OLD_ENV
    \unset TSENV_OLD_ENV
    # Like the shell itself, which expands $ENV.
    \eval "__tsenv_prefix=\"$ENV\""
    # shellcheck disable=SC2154 # assigned by the eval
    if [ -r "$__tsenv_prefix" ]; then
        # shellcheck disable=SC1090 # the user's own file
        . "$__tsenv_prefix"
    fi
else
    \unset ENV
fi
\unset TSENV_RC
__tsenv_prefix=@PROMPT@
case ${PS1-} in
*"$__tsenv_prefix"*) ;;
*) PS1=$__tsenv_prefix${PS1-} ;;
esac
\unset __tsenv_prefix
