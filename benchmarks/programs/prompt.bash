#!/bin/bash
# What tsenv costs in a shell: milliseconds an `eval "$(tsenv activate)"`, a `join` typed and the two nsenter calls
# typed ($JOIN, $TYPED), and a prompt with and without the hook.
#
#   prompt.bash NAME COUNT        prints lines: WHAT MILLISECONDS
set -eu
name=$1 count=$2
prompts=$((count * 20))

# report WHAT START: the time since START (EPOCHREALTIME) as milliseconds, divided by $3.
report() {
    local now=$EPOCHREALTIME
    awk -v what="$1" -v a="$2" -v b="$now" -v n="${3-1}" 'BEGIN { printf "%s %.5f\n", what, (b - a) * 1000 / n }'
}

# What bash does before a prompt, in a shell that is not interactive: the commands of PROMPT_COMMAND, string or array.
prompt() {
    local command
    for command in "${PROMPT_COMMAND[@]}"; do eval "$command"; done
}

PS1='$ '
PROMPT_COMMAND=('[[ 1 ]]')
for ((turn = 0; turn < count; turn++)); do
    start=$EPOCHREALTIME
    $TYPED
    report typed "$start"
    start=$EPOCHREALTIME
    $JOIN
    report join "$start"
    start=$EPOCHREALTIME
    ignored=$("$TSENV_PYTHON" -c pass)
    report python "$start"
    start=$EPOCHREALTIME
    code=$(tsenv activate "$name" --shell bash)
    eval "$code"
    report activate "$start"
    eval "$(tsenv deactivate --shell bash)"
done
for ((turn = 0; turn < 5; turn++)); do
    start=$EPOCHREALTIME
    for ((i = 0; i < prompts; i++)); do prompt; done
    report prompt.bash.plain "$start" "$prompts"
done
eval "$(tsenv hook bash)"
for state in hook hook.active; do
    prompt
    for ((turn = 0; turn < 5; turn++)); do
        start=$EPOCHREALTIME
        for ((i = 0; i < prompts; i++)); do prompt; done
        report "prompt.bash.$state" "$start" "$prompts"
    done
    tsenv activate "$name"
done
: "$ignored"
