# shellcheck shell=bash
# Completion of tsenv for bash, with and without bash-completion. Held against the parser by
# tests/shells/test_completions.py. Plain COMP_WORDS, builtins; no Python. Peers' names come from a network: they are
# never given to `compgen -W`, which would expand them.

_tsenv_verbs='up exec run shell status list logs tailscale down activate deactivate hook rehash allow deny completion env doctor'
_tsenv_up_options='--login-server --auth-key-file --auth-key --hostname --advertise-tags --ephemeral --persistent
    --client-secret-file --client-id --id-token-file --audience
    --exit-node --accept-routes --no-accept-routes --accept-dns --no-accept-dns --allow-incoming --no-allow-incoming
    --publish --host-port --isolated --no-isolated --underlay --timeout --wait-for --ttl --with-pid'

# Options that take a value in the next word, for finding the end of options.
_tsenv_valued=' -n --name --login-server --auth-key-file --auth-key --client-secret-file --client-id --id-token-file
 --audience --hostname --advertise-tags --exit-node --publish
 --host-port --underlay --timeout --wait-for --ttl --with-pid --shell '

_tsenv_options() {
    case $1 in
    '') REPLY='-n --name -h --help --version' ;;
    up) REPLY="$_tsenv_up_options --github -h --help" ;;
    run) REPLY="$_tsenv_up_options -h --help" ;;
    status | list) REPLY='--json -h --help' ;;
    logs) REPLY='-f --follow --supervisor --tailscaled --pasta -h --help' ;;
    down) REPLY='--all --force -h --help' ;;
    activate | deactivate) REPLY='--shell -h --help' ;;
    env) REPLY='--shell --json --dotenv -h --help' ;;
    doctor) REPLY='--json --login-server --offline -h --help' ;;
    *) REPLY='-h --help' ;;
    esac
}

# Add the words of the list $1 (our own text) that begin with $cur.
_tsenv_add() {
    local word
    local IFS=$' \t\n'
    for word in $1; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done
}

_tsenv_base() {
    REPLY=/tmp/tsenv-$UID
    if [[ ${XDG_RUNTIME_DIR-} == /* ]]; then
        REPLY=$XDG_RUNTIME_DIR/tsenv
    elif [[ -d /run/user/$UID && -w /run/user/$UID ]]; then
        REPLY=/run/user/$UID/tsenv
    fi
}

_tsenv_sessions() {
    local REPLY folder name
    _tsenv_base
    for folder in "$REPLY"/*/; do
        name=${folder%/}
        name=${name##*/}
        if [[ -e ${folder}session.json && $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ && $name == "$cur"* ]]; then
            COMPREPLY+=("$name")
        fi
    done
}

# Peers of the session that is meant; of all, where it is not up. $1 is put behind each (scp: a colon).
_tsenv_peers() {
    local REPLY file peer
    local -a files
    _tsenv_base
    files=("$REPLY/${session:-${TSENV_SESSION:-default}}/peers")
    [[ -r ${files[0]} ]] || files=("$REPLY"/*/peers)
    for file in "${files[@]}"; do
        [[ -r $file ]] || continue
        while read -r peer; do
            # Whatever is no host name stays out of the command line.
            if [[ $peer =~ ^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$ && $peer == "$cur"* ]]; then
                COMPREPLY+=("$peer${1-}")
            fi
        done <"$file"
    done
}

_tsenv_files() {
    compopt -o default 2>/dev/null
}

# The completion of the inner command itself: its words begin at index $1.
_tsenv_inner() {
    local start=$1 command=${COMP_WORDS[$1]} spec function
    if ((COMP_CWORD == start)); then
        local name
        compopt -o filenames 2>/dev/null
        while read -r name; do COMPREPLY+=("$name"); done < <(compgen -c -- "$cur")
        [[ $cur == */* ]] && _tsenv_files
        return 0
    fi
    # The line as if it had been typed without tsenv.
    COMP_WORDS=("${COMP_WORDS[@]:start}")
    COMP_CWORD=$((COMP_CWORD - start))
    local before=${COMP_LINE%%"$command"*}
    COMP_LINE=${COMP_LINE#"$before"}
    COMP_POINT=$((COMP_POINT - ${#before}))
    ((COMP_POINT >= 0)) || COMP_POINT=${#COMP_LINE}
    command=${command##*/}
    spec=$(complete -p -- "$command" 2>/dev/null)
    if [[ -z $spec ]]; then
        # bash-completion, where it is there, loads a command's completion when it is first asked for.
        if declare -F _comp_load >/dev/null; then
            _comp_load -- "$command" >/dev/null 2>&1
        elif declare -F _completion_loader >/dev/null; then
            _completion_loader "$command" >/dev/null 2>&1
        fi
        spec=$(complete -p -- "$command" 2>/dev/null)
    fi
    if [[ $spec =~ \ -F\ ([^ ]+) && ${BASH_REMATCH[1]} != _minimal ]]; then
        function=${BASH_REMATCH[1]}
        [[ $spec == *'-o nospace'* ]] && compopt -o nospace 2>/dev/null
        [[ $spec == *'-o filenames'* ]] && compopt -o filenames 2>/dev/null
        [[ $spec == *'-o default'* || $spec == *'-o bashdefault'* ]] && _tsenv_files
        "$function" "$command" "$cur" "${COMP_WORDS[COMP_CWORD - 1]}"
    elif [[ $spec == *' -W '* || $spec == *' -A '* || $spec == *' -C '* ]]; then
        # The user's own specification, so it may be expanded as the shell itself would.
        local options=${spec#complete }
        options=${options% *}
        while read -r name; do COMPREPLY+=("$name"); done < <(eval "compgen $options -- \"\$cur\"" 2>/dev/null)
    else
        _tsenv_files
    fi
    case $command in
    ssh | ping | ping4 | ping6 | curl | wget | mosh | nc | ncat | netcat | telnet | ftp | host | dig | nslookup | traceroute | tracepath | mtr | ssh-copy-id | ssh-keyscan | iperf3 | http | https | tailscale)
        [[ $cur == -* ]] || _tsenv_peers
        ;;
    scp | sftp | rsync)
        if [[ $cur != -* ]]; then
            _tsenv_peers :
            compopt -o nospace 2>/dev/null
        fi
        ;;
    esac
    return 0
}

_tsenv() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} session='' verb='' word REPLY
    local -i at words=0
    COMPREPLY=()
    # "--exit-node=x" comes as three words.
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for ((at = 1; at < COMP_CWORD; at++)); do
        word=${COMP_WORDS[at]}
        if [[ $word == -n || $word == --name ]]; then
            [[ ${COMP_WORDS[at + 1]} == = ]] && at+=1
            session=${COMP_WORDS[at + 1]-}
            at+=1
        elif [[ $word == -n?* && -z $verb ]]; then
            session=${word#-n}
        elif [[ $word == -- ]]; then
            case $verb in exec | run) _tsenv_inner $((at + 1)) && return 0 ;; esac
            return 0
        elif [[ $_tsenv_valued == *[[:space:]]"$word"[[:space:]]* ]]; then
            [[ ${COMP_WORDS[at + 1]} == = ]] && at+=1
            at+=1
        elif [[ $word == -* ]]; then
            :
        elif [[ -z $verb ]]; then
            verb=$word
            # `tsenv tailscale …` is the tailscale command with its words.
            if [[ $verb == tailscale ]] && ((COMP_CWORD > at)); then
                _tsenv_inner "$at"
                return 0
            fi
        elif [[ $verb == exec ]]; then
            _tsenv_inner "$at"
            return 0
        else
            words+=1
        fi
    done
    case $prev in
    -n | --name) _tsenv_sessions && return 0 ;;
    --auth-key-file | --client-secret-file | --id-token-file) _tsenv_files && return 0 ;;
    --exit-node | --wait-for) _tsenv_peers && return 0 ;;
    --underlay) _tsenv_add 'auto host pasta' && return 0 ;;
    --shell) _tsenv_add 'bash zsh sh fish tcsh xonsh elvish' && return 0 ;;
    esac
    [[ $_tsenv_valued == *[[:space:]]"$prev"[[:space:]]* ]] && return 0
    if [[ $cur == -* ]]; then
        _tsenv_options "$verb"
        _tsenv_add "$REPLY"
        return 0
    fi
    case $verb in
    '') _tsenv_add "$_tsenv_verbs" ;;
    exec) _tsenv_inner "$COMP_CWORD" ;;
    up | shell | status | logs | down | activate) ((words)) || _tsenv_sessions ;;
    hook | completion) ((words)) || _tsenv_add 'bash zsh fish' ;;
    allow | deny) _tsenv_files ;;
    esac
    return 0
}

complete -F _tsenv tsenv
