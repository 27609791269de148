# The end of `tsenv hook zsh`: the prompt.
__tsenv_hook=1
() {
    \emulate -L zsh
    \typeset -ga precmd_functions
    if (( ! ${precmd_functions[(Ie)__tsenv_prompt]} )); then
        precmd_functions+=(__tsenv_prompt)
    fi
}
