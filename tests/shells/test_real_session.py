"""After activate in a real session: what the user types runs on the tailnet."""

import shutil

import pytest

ON = {
    "bash": 'eval "$(tsenv activate NAME)"',
    "zsh": 'eval "$(tsenv activate NAME)"',
    "dash": 'eval "$(tsenv activate NAME)"',
    "fish": "tsenv activate NAME | source",
}


@pytest.mark.parametrize("shell", ON)
def test_commands_of_an_activated_shell_are_on_the_tailnet(up, machine, session_name, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    up()
    script = f"""{ON[shell].replace("NAME", session_name)}
        curl -fsS -o /dev/null -w '%{{http_code}}\\n' http://my-server/
        ping -c 1 -W 5 my-server >/dev/null; and_status
        ssh my-server echo by-ssh
        echo my-server | xargs -I X curl -fsS -o /dev/null -w 'xargs %{{http_code}}\\n' http://X/
        python3 -c 'import urllib.request; print(urllib.request.urlopen("http://my-server/").status)'
        tsenv_deactivate
        curl -fsS --max-time 3 http://my-server/ 2>/dev/null || echo outside
        """.replace("and_status", "and echo ping" if shell == "fish" else '[ "$?" = 0 ] && echo ping')
    done = machine.run([shell, "-c", script])
    assert done.stdout.splitlines() == ["200", "ping", "by-ssh", "xargs 200", "200", "outside"], done


def test_the_shims_of_a_session_that_went_down_refuse(up, machine, session_name):
    up()
    script = f'eval "$(tsenv activate {session_name})"; tsenv -n {session_name} down; curl -fsS http://my-server/; echo $?'
    done = machine.run(["bash", "-c", script])
    assert done.stdout.splitlines()[-1] == "125", done
    assert f"session '{session_name}' is not up: curl was not run" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_hook_keeps_a_live_session_and_drops_a_dead_one(up, machine, session_name, shell):
    up()
    call = "__tsenv_on_prompt" if shell == "fish" else "__tsenv_prompt"
    hook = "tsenv hook fish | source" if shell == "fish" else f'eval "$(tsenv hook {shell})"'
    stop = "kill -9 (cat $TSENV_DIR/anchor.pid)" if shell == "fish" else 'kill -9 "$(cat "$TSENV_DIR/anchor.pid")"'
    script = f"{hook}\ntsenv activate {session_name}\n{call}\n{call}\necho <$TSENV_SESSION>\n{stop}\nsleep 0.3\n{call}\necho <$TSENV_SESSION>\n"
    done = machine.run([shell, "-c", script.replace("<$TSENV_SESSION>", '"<$TSENV_SESSION>"')])
    assert done.stdout.splitlines()[-2:] == [f"<{session_name}>", "<>"], done
    assert f"tsenv: session '{session_name}' has ended: deactivated" in done.stderr
