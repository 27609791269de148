# Completion of tsenv for fish. Held against the parser by tests/shells/test_completions.py. Builtins only, no Python.

function __tsenv_words
    # The words before the cursor: verb first, global options and their values left out; `-n NAME` goes to a variable.
    set -l words (commandline -opc)
    set -e words[1]
    set -g __tsenv_session
    while set -q words[1]
        switch $words[1]
            case -n --name
                set -g __tsenv_session $words[2]
                set -e words[1]
                set -e words[1]
            case '-n?*'
                set -g __tsenv_session (string sub -s 3 -- $words[1])
                set -e words[1]
            case '--name=*'
                set -g __tsenv_session (string sub -s 8 -- $words[1])
                set -e words[1]
            case '-*'
                set -e words[1]
            case '*'
                break
        end
    end
    string join \n -- $words
    # string join is false where there was nothing to join.
    return 0
end

function __tsenv_needs_verb
    set -l words (__tsenv_words)
    test (count $words) -eq 0
end

function __tsenv_verb
    set -l words (__tsenv_words)
    set -q words[1]; and contains -- $words[1] $argv; and not __tsenv_is_inner
end

function __tsenv_no_argument_yet
    set -l words (__tsenv_words)
    test (count $words) -eq 1
end

function __tsenv_inner_words
    # The inner command's words before the cursor; nothing, and status 1, where it has not begun.
    set -l words (__tsenv_words)
    set -q words[1]; or return 1
    switch $words[1]
        case tailscale
        case exec
            set -e words[1]
            if test "$words[1]" = --
                set -e words[1]
            end
        case run
            set -l at (contains -i -- -- $words)
            or return 1
            set words $words[(math $at + 1)..]
        case '*'
            return 1
    end
    string join \n -- $words
    # string join is false where there was nothing to join.
    return 0
end

function __tsenv_is_inner
    __tsenv_inner_words >/dev/null
end

function __tsenv_complete_inner
    set -l words (__tsenv_inner_words)
    set -l current (commandline -ct)
    complete -C (string join ' ' -- (string escape -- $words) $current)
    if not set -q words[1]; or string match -q -- '-*' $current
        return
    end
    switch (string replace -r '.*/' '' -- $words[1])
        case ssh ping ping4 ping6 curl wget mosh nc ncat netcat telnet ftp host dig nslookup traceroute tracepath mtr ssh-copy-id ssh-keyscan iperf3 http https tailscale
            __tsenv_peers
        case scp sftp rsync
            __tsenv_peers :
    end
end

function __tsenv_base
    if string match -q -- '/*' "$XDG_RUNTIME_DIR"
        echo $XDG_RUNTIME_DIR/tsenv
        return
    end
    # fish has no $UID; the owner of our own /proc entry is in its status.
    set -l uid
    while read -l line
        if string match -q 'Uid:*' -- $line
            set uid (string split \t -- $line)[2]
            break
        end
    end </proc/self/status
    if test -d /run/user/$uid; and test -w /run/user/$uid
        echo /run/user/$uid/tsenv
    else
        echo /tmp/tsenv-$uid
    end
end

function __tsenv_sessions
    set -l base (__tsenv_base)
    for file in $base/*/session.json
        set -l name (string replace -r '.*/([^/]+)/session.json$' '$1' -- $file)
        if string match -qr '^[A-Za-z0-9][A-Za-z0-9._-]*$' -- $name
            printf '%s\tsession\n' $name
        end
    end
end

function __tsenv_peers
    set -l base (__tsenv_base)
    set -l name $__tsenv_session $TSENV_SESSION default
    set -l files $base/$name[1]/peers
    if not test -r $files
        set files $base/*/peers
    end
    for file in $files
        while read -l peer
            # Names come from a network: whatever is no host name stays out of the command line.
            if string match -qr '^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$' -- $peer
                printf '%s%s\tpeer\n' $peer "$argv[1]"
            end
        end <$file
    end
end

complete -c tsenv -f
complete -c tsenv -n __tsenv_needs_verb -s n -l name -x -a '(__tsenv_sessions)' -d 'The session'
complete -c tsenv -n __tsenv_needs_verb -l version -d Version
complete -c tsenv -n 'not __tsenv_is_inner' -s h -l help -d Help

complete -c tsenv -n __tsenv_needs_verb -a up -d 'Bring a session up'
complete -c tsenv -n __tsenv_needs_verb -a exec -d 'Run a command in the session'
complete -c tsenv -n __tsenv_needs_verb -a run -d 'One command in a session of its own'
complete -c tsenv -n __tsenv_needs_verb -a shell -d 'Your shell, wholly inside the session'
complete -c tsenv -n __tsenv_needs_verb -a status -d 'State, addresses, peers, processes inside'
complete -c tsenv -n __tsenv_needs_verb -a list -d 'All your sessions'
complete -c tsenv -n __tsenv_needs_verb -a logs -d 'The logs of a session'
complete -c tsenv -n __tsenv_needs_verb -a tailscale -d 'The tailscale command on its daemon'
complete -c tsenv -n __tsenv_needs_verb -a down -d 'End a session'
complete -c tsenv -n __tsenv_needs_verb -a activate -d 'Lead every command of this shell into the session'
complete -c tsenv -n __tsenv_needs_verb -a deactivate -d 'Undo activate'
complete -c tsenv -n __tsenv_needs_verb -a hook -d 'Code for the rc file'
complete -c tsenv -n __tsenv_needs_verb -a rehash -d 'Renew the shims'
complete -c tsenv -n __tsenv_needs_verb -a allow -d 'Trust .tsenv.toml as it is now'
complete -c tsenv -n __tsenv_needs_verb -a deny -d 'Trust .tsenv.toml no longer'
complete -c tsenv -n __tsenv_needs_verb -a completion -d 'Print the completion'
complete -c tsenv -n __tsenv_needs_verb -a env -d 'The variables of a session'
complete -c tsenv -n __tsenv_needs_verb -a doctor -d 'Can tsenv work here?'

complete -c tsenv -n __tsenv_is_inner -a '(__tsenv_complete_inner)'
complete -c tsenv -n '__tsenv_verb up shell status logs down activate; and __tsenv_no_argument_yet' -a '(__tsenv_sessions)'
complete -c tsenv -n '__tsenv_verb hook completion; and __tsenv_no_argument_yet' -a 'bash zsh fish'
complete -c tsenv -n '__tsenv_verb allow deny' -F

complete -c tsenv -n '__tsenv_verb up run' -l login-server -x -d 'Control server, for headscale'
complete -c tsenv -n '__tsenv_verb up run' -l auth-key-file -r -F -d 'File that holds the auth key'
complete -c tsenv -n '__tsenv_verb up run' -l auth-key -x -d 'The key itself (better a file)'
complete -c tsenv -n '__tsenv_verb up run' -l client-secret-file -r -F -d 'File that holds an OAuth secret'
complete -c tsenv -n '__tsenv_verb up run' -l client-id -x -d 'OAuth client'
complete -c tsenv -n '__tsenv_verb up run' -l id-token-file -r -F -d 'File that holds an OIDC token'
complete -c tsenv -n '__tsenv_verb up run' -l audience -x -d 'Audience of the OIDC token'
complete -c tsenv -n '__tsenv_verb up' -l github -d 'Share the session with the later steps of a GitHub job'
complete -c tsenv -n '__tsenv_verb up run' -l hostname -x -d 'Name of the node'
complete -c tsenv -n '__tsenv_verb up run' -l advertise-tags -x -d 'Tags of the node'
complete -c tsenv -n '__tsenv_verb up run' -l ephemeral -d 'Log out at the end'
complete -c tsenv -n '__tsenv_verb up run' -l persistent -d 'Keep the node'
complete -c tsenv -n '__tsenv_verb up run' -l exit-node -x -a '(__tsenv_peers)' -d 'Peer by which all other traffic leaves'
complete -c tsenv -n '__tsenv_verb up run' -l accept-routes -d 'Use subnets that peers advertise'
complete -c tsenv -n '__tsenv_verb up run' -l no-accept-routes -d 'Do not (the default)'
complete -c tsenv -n '__tsenv_verb up run' -l accept-dns -d 'Use the names of the tailnet (the default)'
complete -c tsenv -n '__tsenv_verb up run' -l no-accept-dns -d 'Do not'
complete -c tsenv -n '__tsenv_verb up run' -l allow-incoming -d 'Let peers connect in'
complete -c tsenv -n '__tsenv_verb up run' -l no-allow-incoming -d 'Do not (the default)'
complete -c tsenv -n '__tsenv_verb up run' -l publish -x -d 'Open a port of the session on this host'
complete -c tsenv -n '__tsenv_verb up run' -l host-port -x -d 'Let the session reach this loopback port'
complete -c tsenv -n '__tsenv_verb up run' -l isolated -d 'Tailnet only'
complete -c tsenv -n '__tsenv_verb up run' -l no-isolated -d 'The internet, too (the default)'
complete -c tsenv -n '__tsenv_verb up run' -l underlay -x -a 'auto host pasta' -d 'How tailscaled reaches the network'
complete -c tsenv -n '__tsenv_verb up run' -l timeout -x -d Seconds
complete -c tsenv -n '__tsenv_verb up run' -l wait-for -x -a '(__tsenv_peers)' -d 'Ready only when this peer answers'
complete -c tsenv -n '__tsenv_verb up run' -l ttl -x -d 'End the session after this time'
complete -c tsenv -n '__tsenv_verb up run' -l with-pid -x -a '(__fish_complete_pids)' -d 'End with this process'

complete -c tsenv -n '__tsenv_verb status list env doctor' -l json -d 'As JSON'
complete -c tsenv -n '__tsenv_verb logs' -s f -l follow -d 'Go on as more comes'
complete -c tsenv -n '__tsenv_verb logs' -l supervisor -d 'The log of the supervisor'
complete -c tsenv -n '__tsenv_verb logs' -l tailscaled -d 'The log of tailscaled'
complete -c tsenv -n '__tsenv_verb logs' -l pasta -d 'The log of pasta'
complete -c tsenv -n '__tsenv_verb down' -l all -d 'All sessions'
complete -c tsenv -n '__tsenv_verb down' -l force -d 'Also with processes inside'
complete -c tsenv -n '__tsenv_verb activate deactivate env' -l shell -x -a 'bash zsh sh fish tcsh xonsh elvish' -d 'The shell to print code for'
complete -c tsenv -n '__tsenv_verb env' -l dotenv -d 'As a .env file'
complete -c tsenv -n '__tsenv_verb doctor' -l login-server -x -d 'The control server to try'
complete -c tsenv -n '__tsenv_verb doctor' -l offline -d 'Leave out what needs the network'
