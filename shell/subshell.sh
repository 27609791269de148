# shellcheck shell=sh
# Read by the sh of `tsenv shell` by $ENV: give $ENV back, read the user's, then the prompt.
if [ -n "${TSENV_OLD_ENV+set}" ]; then
    ENV=$TSENV_OLD_ENV
    \unset TSENV_OLD_ENV
    if [ -r "$ENV" ]; then
        # shellcheck disable=SC1090 # the user's own file
        . "$ENV"
    fi
else
    \unset ENV
fi
__tsenv_prefix=@PROMPT@
case ${PS1-} in
*"$__tsenv_prefix"*) ;;
*) PS1=$__tsenv_prefix${PS1-} ;;
esac
\unset __tsenv_prefix
