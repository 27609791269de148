#!/bin/zsh
# As prompt.bash, the prompt only: what zsh runs before one is precmd_functions.
#
#   prompt.zsh NAME COUNT
zmodload zsh/datetime
name=$1 prompts=$(($2 * 20))
PS1='$ '
typeset -ga precmd_functions
nothing() { : }
precmd_functions=(nothing)
prompt() { local each; for each in $precmd_functions; do $each; done }
measure() {
    local turn i start
    prompt
    for ((turn = 0; turn < 5; turn++)); do
        start=$EPOCHREALTIME
        for ((i = 0; i < prompts; i++)); do prompt; done
        printf '%s %.5f\n' $1 $(((EPOCHREALTIME - start) * 1000 / prompts))
    done
}
measure prompt.zsh.plain
eval "$(tsenv hook zsh)"
measure prompt.zsh.hook
tsenv activate $name
measure prompt.zsh.hook.active
