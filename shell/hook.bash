# shellcheck shell=bash
# The end of `tsenv hook bash`: the prompt. Last, so that the hooks before it see the user's PIPESTATUS.
__tsenv_hook=1
case $'\n'"${PROMPT_COMMAND[*]-}" in *__tsenv_prompt*) ;; *)
    # An array's elements run one by one from bash 5.1 on; before, only the first does (PAINS 2.10).
    if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501)) && [[ $(\declare -p PROMPT_COMMAND 2>/dev/null) == 'declare -a'* ]]; then
        PROMPT_COMMAND+=(__tsenv_prompt)
    else
        # A newline, not a ';': the user's may end in one, or in a comment.
        # shellcheck disable=SC2128,SC2178
        PROMPT_COMMAND="${PROMPT_COMMAND:+$PROMPT_COMMAND$'\n'}__tsenv_prompt"
    fi
    ;;
esac
