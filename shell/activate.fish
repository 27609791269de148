# Printed by `tsenv activate` for fish, on one line: `eval (tsenv activate)` joins lines by spaces.
# Every builtin is named as such: users shadow source, echo, string (PAINS 2.9).
function tsenv_deactivate
    if set -q TSENV_BIN
        # Not a snapshot of PATH: edits made meanwhile stay.
        set -l kept
        for item in $PATH
            if test "$item" != "$TSENV_BIN"
                set -a kept $item
            end
        end
        set -gx PATH $kept
        # A virtualenv's `deactivate` puts a snapshot back, which is ours to keep clean.
        if set -q _OLD_VIRTUAL_PATH
            set kept
            for item in $_OLD_VIRTUAL_PATH
                if test "$item" != "$TSENV_BIN"
                    set -a kept $item
                end
            end
            set -gx _OLD_VIRTUAL_PATH $kept
        end
        # A name that the user has changed meanwhile is his.
        if test "$TSENV_SESSION" = (builtin string replace -r '.*/' '' -- "$TSENV_DIR")
            set -e TSENV_SESSION
            if set -q TSENV_OLD_SESSION
                set -gx TSENV_SESSION $TSENV_OLD_SESSION
            end
        end
        set -e TSENV_BIN
        set -e TSENV_DIR
        set -e TSENV_OLD_SESSION
        set -e TSENV_PROMPT
        set -e TSENV_AUTO
    end
    # Only where the prompt is still ours: another tool may have wrapped it since, and then ours prints no prefix.
    if functions -q fish_prompt; and builtin string match -q '*__tsenv_show *' -- (functions fish_prompt)
        functions -e fish_prompt
        functions -c __tsenv_prompt_$__tsenv_wraps fish_prompt
    end
    return 0
end
function __tsenv_show
    # The user's prompt runs first: it must see $status and $pipestatus of his command, not of ours.
    set -l lines ($argv[2])
    if test "$__tsenv_wraps" = $argv[1]; and set -q TSENV_PROMPT
        builtin printf %s "$TSENV_PROMPT"
    end
    builtin string join \n -- $lines
end
function __tsenv_wrap
    # A new name for each wrapping: with one name, a prompt that another tool has saved and put back would call itself.
    if not functions -q fish_prompt
        return 0
    end
    if builtin string match -q '*__tsenv_show *' -- (functions fish_prompt)
        return 0
    end
    set -q __tsenv_wraps; or set -g __tsenv_wraps 0
    set -g __tsenv_wraps (builtin math $__tsenv_wraps + 1)
    functions -c fish_prompt __tsenv_prompt_$__tsenv_wraps
    builtin eval "function fish_prompt; __tsenv_show $__tsenv_wraps __tsenv_prompt_$__tsenv_wraps; end"
end
