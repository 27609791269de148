# The fish of `tsenv shell` runs this after the user's config (fish -C).
set -g __tsenv_prefix @PROMPT@
if test -n "$__tsenv_prefix"; and functions -q fish_prompt; and not functions -q __tsenv_fish_prompt
    functions -c fish_prompt __tsenv_fish_prompt
    function fish_prompt
        # The user's prompt runs first: it must see $status and $pipestatus of his command, not of ours.
        set -l lines (__tsenv_fish_prompt)
        builtin printf %s $__tsenv_prefix
        builtin string join \n -- $lines
    end
end
