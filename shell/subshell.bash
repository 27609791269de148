# shellcheck shell=bash
# Read by the bash of `tsenv shell` instead of ~/.bashrc (bash --rcfile): the user's own file, then the prompt.
if [[ -r ~/.bashrc ]]; then
    # shellcheck disable=SC1090 # the user's own file
    source ~/.bashrc
fi
__tsenv_prefix=@PROMPT@
if [[ -n $__tsenv_prefix && ${PS1-} != *"$__tsenv_prefix"* ]]; then
    # Never exported (PAINS 2.4).
    PS1=$__tsenv_prefix${PS1-}
fi
# Set by the last command of the file, so that the first prompt shows success.
\unset __tsenv_prefix
