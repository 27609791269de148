# Printed by `tsenv activate` after activate.fish.
tsenv_deactivate
if set -q TSENV_SESSION
    set -gx TSENV_OLD_SESSION $TSENV_SESSION
end
set -gx TSENV_SESSION @NAME@
set -gx TSENV_DIR @SESSION@
set -gx TSENV_BIN @BIN@
set -gx TSENV_PROMPT @PROMPT@
set -gx TSENV_AUTO @AUTO@
set -gx PATH @BIN@ $PATH
# A virtualenv that is active already puts its snapshot of PATH back when it is left.
if set -q _OLD_VIRTUAL_PATH
    set -gx _OLD_VIRTUAL_PATH @BIN@ $_OLD_VIRTUAL_PATH
end
set -g __tsenv_path "$PATH"
if status is-interactive; and test -z "$TSENV_DISABLE_PROMPT"
    __tsenv_wrap
end
