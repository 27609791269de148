# Printed by `tsenv hook fish`, after activate.fish. At a prompt builtins only; see hook.sh for the same in sh.
function tsenv
    set -l verb "$argv[1]"
    switch "$argv[1]"
        case -n --name
            set verb "$argv[3]"
        case '-n?*' '--name=*'
            set verb "$argv[2]"
    end
    if contains -- -h $argv; or contains -- --help $argv
        set verb
    end
    switch "$verb"
        case activate
            set -l code (command @TSENV@ $argv --shell fish)
            or return
            builtin eval $code
        case deactivate
            if set -q TSENV_BIN
                tsenv_deactivate
            else
                command @TSENV@ $argv >/dev/null
            end
        case allow deny
            command @TSENV@ $argv
            or return
            set -g __tsenv_pwd
            set -g __tsenv_seen
        case '*'
            command @TSENV@ $argv
    end
end
function __tsenv_on_prompt --on-event fish_prompt
    if test "$PWD" != "$__tsenv_pwd"
        set -g __tsenv_pwd $PWD
        __tsenv_moved
    end
    if test -n "$__tsenv_wait"
        __tsenv_waiting
    end
    if set -q TSENV_BIN
        __tsenv_keep
    end
    if set -q TSENV_SESSION; and set -q TSENV_PROMPT; and test -z "$TSENV_DISABLE_PROMPT"
        __tsenv_wrap
    end
end
function __tsenv_keep
    if not __tsenv_alive "$TSENV_DIR"
        builtin printf "tsenv: session '%s' has ended: deactivated\n" (builtin string replace -r '.*/' '' -- "$TSENV_DIR") >&2
        tsenv_deactivate
        return 0
    end
    if test "$PATH[1]" != "$TSENV_BIN"
        set -l kept
        for item in $PATH
            if test "$item" != "$TSENV_BIN"
                set -a kept $item
            end
        end
        set -gx PATH $TSENV_BIN $kept
    end
    if test "$PATH" != "$__tsenv_path"; or __tsenv_stale
        set -g __tsenv_path "$PATH"
        command @TSENV@ rehash </dev/null
    end
    return 0
end
function __tsenv_stale
    for item in $PATH
        if builtin string match -q -- @ROOT@'/*/bin' $item
            continue
        end
        if builtin string match -q -- '/*' $item; and test $item -nt $TSENV_BIN.stamp
            return 0
        end
    end
    return 1
end
function __tsenv_alive
    if not test -e $argv[1]/ready; or not test -r $argv[1]/anchor.pid
        return 1
    end
    read -l pid <$argv[1]/anchor.pid
    if not test -r /proc/$pid/stat
        return 1
    end
    read -l line </proc/$pid/stat
    set -l fields (builtin string split ' ' -- (builtin string replace -r '.*\) ' '' -- $line))
    if test "$fields[1]" = Z
        return 1
    end
    if test "$pid $fields[20]" = "$__tsenv_anchor"
        return 0
    end
    read -lz text <$argv[1]/session.json
    if builtin string match -qr '"start": '"$fields[20]"'[^0-9]' -- "$text"
        set -g __tsenv_anchor "$pid $fields[20]"
        return 0
    end
    return 1
end
function __tsenv_moved
    set -l at $PWD
    set -l file ''
    if test "$at" = /
        set at ''
    end
    while true
        if test -e "$at/.tsenv.toml"; or test -L "$at/.tsenv.toml"
            set file "$at/.tsenv.toml"
            break
        end
        if test -z "$at"
            break
        end
        set at (builtin string replace -r '/[^/]*$' '' -- $at)
    end
    if test "$file" = "$__tsenv_seen"
        return 0
    end
    set -g __tsenv_seen $file
    set -g __tsenv_wait
    if test -n "$TSENV_AUTO"; and test "$TSENV_AUTO" != "$file"
        tsenv_deactivate
    end
    if test -z "$file"; or test -n "$TSENV_SESSION"
        return 0
    end
    if __tsenv_trusted $file
        __tsenv_enter $file
    end
    return 0
end
function __tsenv_trusted
    if test -L $argv[1]; or not test -f $argv[1]; or not test -O $argv[1]
        builtin printf 'tsenv: %s is refused: it is a symlink, no file, or not yours\n' $argv[1] >&2
        return 1
    end
    set -l kept @ALLOW@$argv[1]
    if test -e (builtin string replace -r '/[^/]*$' '/denied' -- $kept)
        return 1
    end
    if test -r $argv[1]; and test -r $kept
        read -lz now <$argv[1]
        read -lz then <$kept
        if test "$now" = "$then"
            return 0
        end
        builtin printf 'tsenv: %s has changed since it was allowed\n  hint: tsenv allow\n' $argv[1] >&2
        return 1
    end
    builtin printf 'tsenv: %s is not allowed yet\n  hint: tsenv allow\n' $argv[1] >&2
    return 1
end
function __tsenv_enter
    set -l code (command @TSENV@ activate --shell fish --auto $argv[1] </dev/null)
    or return 0
    builtin eval $code
end
function __tsenv_pending
    set -g __tsenv_wait $argv[2]
    set -g __tsenv_log $argv[3]
    if test -n "$argv[3]"
        builtin printf "tsenv: bringing up '%s' in the background (%s)\n" $argv[1] $argv[3] >&2
        # A shell of its own: fish has no subshells, and a job of the user's it must not be.
        command sh -c '({ "$1" -n "$2" up </dev/null >"$3" 2>&1; } || : >"$3.failed") &' sh @TSENV@ $argv[1] $argv[3]
    end
end
function __tsenv_waiting
    if test -n "$TSENV_SESSION"
        set -g __tsenv_wait
    else if test -e "$__tsenv_wait/ready"; and __tsenv_alive $__tsenv_wait
        set -g __tsenv_wait
        if __tsenv_trusted $__tsenv_seen
            __tsenv_enter $__tsenv_seen
        end
    else if test -n "$__tsenv_log"; and test -e $__tsenv_log.failed
        builtin printf 'tsenv: the session of this folder did not come up\n  hint: see %s\n' $__tsenv_log >&2
        set -g __tsenv_log
    end
end
