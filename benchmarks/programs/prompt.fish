# As prompt.bash, the prompt only: what fish runs before one listens to the event fish_prompt.
#
#   fish prompt.fish NAME COUNT
set name $argv[1]
set prompts (math $argv[2] x 20)
function nothing --on-event fish_prompt
end
function measure
    emit fish_prompt
    for turn in 1 2 3 4 5
        set -l start (date +%s%N)
        for i in (seq $prompts)
            emit fish_prompt
        end
        set -l stop (date +%s%N)
        printf '%s %.5f\n' $argv[1] (math "($stop - $start) / 1000000 / $prompts")
    end
end
measure prompt.fish.plain
tsenv hook fish | source
measure prompt.fish.hook
tsenv activate $name
measure prompt.fish.hook.active
