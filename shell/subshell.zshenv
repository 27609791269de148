# The zsh of `tsenv shell` finds this by ZDOTDIR. The user's own .zshenv first, with his own ZDOTDIR.
# Not from ZDOTDIR itself: zsh 5.9 garbles some letters of the one it was started with (😀).
__tsenv_zdotdir=$TSENV_RC
unset TSENV_RC
if [[ -n ${TSENV_OLD_ZDOTDIR+set} ]]; then
    export ZDOTDIR=$TSENV_OLD_ZDOTDIR
else
    unset ZDOTDIR
fi
unset TSENV_OLD_ZDOTDIR
if [[ -r ${ZDOTDIR:-$HOME}/.zshenv ]]; then
    source "${ZDOTDIR:-$HOME}/.zshenv"
fi
# Only an interactive zsh goes on to .zshrc; there ours is read once more, with what the user's .zshenv made of
# ZDOTDIR kept aside. A script (`zsh -c`) is left with the user's.
if [[ -o interactive && -o rcs ]]; then
    __tsenv_user_zdotdir=${ZDOTDIR-}
    __tsenv_user_had_zdotdir=${ZDOTDIR+set}
    export ZDOTDIR=$__tsenv_zdotdir
fi
