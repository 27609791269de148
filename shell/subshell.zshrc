# The zsh of `tsenv shell`: give ZDOTDIR back, read the user's own .zshrc, then the prompt.
# /etc/zsh/zshrc has been read with our ZDOTDIR: a history file it put there belongs to the user's folder.
if [[ -n $__tsenv_user_had_zdotdir ]]; then
    export ZDOTDIR=$__tsenv_user_zdotdir
else
    unset ZDOTDIR
fi
if [[ -n ${HISTFILE-} && ${HISTFILE:h} == "$__tsenv_zdotdir" ]]; then
    HISTFILE=${ZDOTDIR:-$HOME}/${HISTFILE:t}
fi
unset __tsenv_user_zdotdir __tsenv_user_had_zdotdir __tsenv_zdotdir
if [[ -r ${ZDOTDIR:-$HOME}/.zshrc ]]; then
    source "${ZDOTDIR:-$HOME}/.zshrc"
fi
__tsenv_prefix=@PROMPT@
if [[ -n $__tsenv_prefix && ${PS1-} != *"$__tsenv_prefix"* ]]; then
    PS1=$__tsenv_prefix${PS1-}
fi
unset __tsenv_prefix
