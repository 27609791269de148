"""Can `tsenv up` work on this machine? One Check a question, each with the command that mends it.

Three tiers: `cheap` (files only; `up` runs them before it does anything), `local` (by doing: namespaces, pasta, the
socket swap, the programs' versions) and `network` (control server, clock, UDP). `inside` looks through a session.
Imported on the way of `up`: nothing but os at the top that `up` has not loaded anyway.
"""

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tsenv import paths
from tsenv.daemon import DEFAULT_SERVER
from tsenv.errors import TsenvError
from tsenv.session import Session

OK, WARN, FAIL = "ok", "warn", "fail"
KEY_PATH = "/key?v=130"  # both tailscale.com and headscale answer there, without an account

# pidfd_open(2) came with 5.3; what else is new we fall back from.
OLDEST_KERNEL = (5, 3)
# TS_PARENT_DEATH_FD: without it a daemon could outlive its session.
OLDEST_TAILSCALE = (1, 50)
# Every option of pasta that tsenv passes (namespace.pasta_argv, attach_argv).
PASTA_OPTIONS = ("--config-net", "--quiet", "--no-map-gw", "--dns-forward", "--foreground", "--userns", "--netns")
TRIAL_SECONDS = 10.0
CLOCK_WARN, CLOCK_FAIL = 60, 3600  # seconds; certificates and keys are dated to the hour at best
OCI_FLAGS = {
    "docker": "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined --device /dev/net/tun …",
    "podman": "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL --device /dev/net/tun …",
    "kubernetes": "securityContext: {seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}, "
    "procMount: Unmasked}, and /dev/net/tun by a device plugin",
}

# How a refusal of namespaces or mounts reads: the kernel's words, those of an old pasta that gets no tun, the anchor's.
REFUSALS = ("Operation not permitted", "Permission denied", "open tun socket", "are refused")
MORE_NAMESPACES = "sudo sysctl user.max_user_namespaces=10000"
REINSTALL = "sudo apt install --reinstall passt   brings the profile that exempts pasta"  # only Ubuntu restricts so
WHO_REFUSES = "sudo dmesg | grep -iE 'apparmor|avc|seccomp' | tail   says who refuses"

# How a distribution (ID or ID_LIKE in os-release) installs the two; "" where it packages no Tailscale.
_TAILSCALE = "curl -fsSL https://tailscale.com/install.sh | sh"
INSTALL = {
    "debian": ("sudo apt install {}", ""),
    "ubuntu": ("sudo apt install {}", ""),
    "fedora": ("sudo dnf install {}", "sudo dnf install tailscale"),
    "rhel": ("sudo dnf install {}", ""),
    "arch": ("sudo pacman -S {}", "sudo pacman -S tailscale"),
    "alpine": ("sudo apk add {}", "sudo apk add tailscale"),
    "nixos": ("nix profile install nixpkgs#{}", "nix profile install nixpkgs#tailscale"),
    "opensuse": ("sudo zypper install {}", "sudo zypper install tailscale"),
    "suse": ("sudo zypper install {}", "sudo zypper install tailscale"),
}
PACKAGES = {
    "pasta": "passt",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "nft": "nftables",
    "ip": "iproute2",
}
SBIN = ":/usr/bin:/bin:/usr/sbin:/sbin"  # what shell/anchor.sh adds to PATH


@dataclass(frozen=True)
class Check:
    """One answer: `id` is stable (--json), `says` a sentence, `fix` a command to copy or empty."""

    id: str
    state: str
    says: str
    fix: str = ""

    def error(self) -> TsenvError:
        """The same text, as what ends `up`."""
        return TsenvError(self.says, self.fix or "tsenv doctor")


@dataclass(frozen=True)
class Host:
    """The machine that is looked at. `root` is where its files are: a test puts others there."""

    root: str = "/"

    def read(self, path: str) -> str:
        """A file's text, empty where it cannot be read."""
        try:
            with open(os.path.join(self.root, path.lstrip("/")), encoding="utf-8", errors="replace") as file:
                return file.read().strip()
        except OSError:
            return ""

    def has(self, path: str) -> bool:
        """Whether a file is there."""
        return os.path.exists(os.path.join(self.root, path.lstrip("/")))

    def install(self, program: str) -> str:
        """The distribution's command for the package that has `program`."""
        words = dict(
            line.split("=", 1) for line in self.read("/etc/os-release").splitlines() if "=" in line and line[0] != "#"
        )
        names = f"{words.get('ID', '')} {words.get('ID_LIKE', '')}".replace('"', "").split()
        known = next((INSTALL[n.partition("-")[0]] for n in names if n.partition("-")[0] in INSTALL), None)
        if program in ("tailscale", "tailscaled"):
            return (known and known[1]) or _TAILSCALE
        package = PACKAGES[program]
        if program == "ip" and known and "dnf" in known[0]:
            package = "iproute"
        return known[0].format(package) if known else f"install the package {package}"

    def container(self) -> str:
        """Which kind of container this is: kubernetes, docker, podman or none ("")."""
        if os.environ.get("KUBERNETES_SERVICE_HOST") or self.has("/run/secrets/kubernetes.io"):
            return "kubernetes"
        return "docker" if self.has("/.dockerenv") else "podman" if self.has("/run/.containerenv") else ""

    def opened(self, otherwise: str) -> str:
        """The fix for a gate that a container closes; outside of containers `otherwise`."""
        return OCI_FLAGS.get(self.container(), otherwise)

    def outside(self, fix: str) -> str:
        """A fix that a container cannot apply to itself."""
        return f"{fix}   on the container's host" if self.container() else fix

    def restricted(self) -> bool:
        """Ubuntu's restriction (23.10 on): programs without a profile get user namespaces without capabilities."""
        return self.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"


# --- cheap: files only ------------------------------------------------------------------------------------------------


def cheap(host: Host | None = None) -> Iterator[Check]:
    """What can be known in a millisecond. `up` stops at the first ✗."""
    host = host or Host()
    yield _linux()
    yield user()
    yield _userns_allowed(host)
    yield _tun(host)
    yield from _programs(host)
    yield _directory("runtime", paths.runtime_base(), "XDG_RUNTIME_DIR")
    yield _directory("state", paths.state_base(), "XDG_STATE_HOME")


def _linux() -> Check:
    system, release = os.uname().sysname, os.uname().release
    if system != "Linux":
        return Check("linux", FAIL, f"this is {system}; tsenv needs Linux (namespaces)", "use a Linux machine or VM")
    numbers = [int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit()]
    if tuple(numbers) < OLDEST_KERNEL:
        return Check(
            "kernel",
            FAIL,
            f"kernel {release} is too old: tsenv needs 5.3",
            "uname -r   after a newer kernel was booted",
        )
    return Check("kernel", OK, f"Linux {release}")


def user() -> Check:
    """Not root."""
    if os.geteuid() == 0:
        return Check(
            "user",
            FAIL,
            "tsenv does not run as root: pasta refuses it, and root needs no tsenv",
            "run it as an ordinary user (su - USER, setpriv, USER in CI), or use tailscaled itself",
        )
    return Check("user", OK, f"an ordinary user (uid {os.geteuid()})")


def _userns_allowed(host: Host) -> Check:
    """The two switches that distributions have; whether it works is tried by `_userns` and `_namespace`."""
    switches = {
        "user/max_user_namespaces": ("0", MORE_NAMESPACES),
        "kernel/unprivileged_userns_clone": ("0", "sudo sysctl kernel.unprivileged_userns_clone=1"),
    }
    if not host.has("/proc/self/ns/user"):
        return Check("userns-switch", FAIL, "this kernel has no user namespaces", "boot a kernel with CONFIG_USER_NS=y")
    for name, (closed, fix) in switches.items():
        if host.read(f"/proc/sys/{name}") == closed:
            says = f"user namespaces are switched off ({name.replace('/', '.')}=0)"
            return Check("userns-switch", FAIL, says, host.outside(fix))
    return Check("userns-switch", OK, "user namespaces are switched on")


def _tun(host: Host) -> Check:
    path = os.path.join(host.root, "dev/net/tun")
    made = "sudo modprobe tun; ls -l /dev/net/tun"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return Check("tun", FAIL, "/dev/net/tun is missing", host.opened(made))
    except PermissionError:
        closed = os.access(path, os.R_OK | os.W_OK)  # then it is no mode but a cgroup that refuses
        return Check(
            "tun",
            FAIL,
            f"/dev/net/tun may not be opened{' (a device cgroup refuses)' if closed else ''}",
            host.opened("findmnt -T /dev/net/tun" if closed else "sudo chmod 0666 /dev/net/tun"),
        )
    except OSError as error:
        return Check("tun", FAIL, f"/dev/net/tun does not work: {error.strerror}", host.opened(made))
    os.close(fd)
    return Check("tun", OK, "/dev/net/tun can be opened")


def _programs(host: Host) -> Iterator[Check]:
    from tsenv import tools

    for name in tools.Tools.__dataclass_fields__:
        try:
            path = tools.find(name)
        except TsenvError as error:
            fix = host.install(name) if "not installed" in error.message else error.hint
            yield Check(name, FAIL, error.message, fix)
            continue
        if name in ("nsenter", "unshare") and os.path.basename(os.path.realpath(path)) == "busybox":
            yield Check(name, FAIL, f"{path} is busybox's, which lacks options", host.install(name))
        else:
            yield Check(name, OK, path)


def _directory(what: str, base: str, variable: str) -> Check:
    try:
        paths.private_dir(base, variable)
    except TsenvError as error:
        return Check(what, FAIL, error.message, error.hint)
    if not os.access(base, os.W_OK):
        return Check(what, FAIL, f"{base} is not writable", f"set {variable} to a writable directory of yours")
    return Check(what, OK, base)


def first_failure(checks: Iterable[Check]) -> Check | None:
    """The first ✗, without asking on."""
    return next((check for check in checks if check.state == FAIL), None)


def refuse() -> None:
    """TsenvError with the text of the first cheap ✗, if there is one. Called by `up` before it does anything."""
    if failed := first_failure(cheap()):
        raise failed.error()


def explained(error: TsenvError) -> TsenvError:
    """`error` of an `up` that could not make its namespaces, or what doctor finds to be the reason."""
    if not error.message.startswith(("pasta could not make", "the session's namespaces")):
        return error
    host, why = Host(), f"{error.message} {error.hint}"
    failed = _apparmor(host, why) if host.restricted() else _userns(host)
    if failed is None or failed.state != FAIL:
        return error
    said = last_words(error.hint).removeprefix("tsenv doctor") if error.message.startswith("pasta") else ""
    return TsenvError(f"{failed.says} ({error.message}{said and ': ' + said})", failed.fix)


def refused(why: str) -> bool:
    """Whether a failure reads as the refusal of a kernel or a security module, not as a lack of something."""
    return any(words in why for words in REFUSALS)


def last_words(text: str) -> str:
    """What pasta said last, in one line, without its complaints about a missing syslog."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "to syslog" not in line]
    return "; ".join(lines[-3:])


def _words(error: Exception) -> str:
    """What an exception says, without number, file and hint."""
    return str(getattr(error, "message", "") or getattr(error, "strerror", "") or error)


# --- local: by doing --------------------------------------------------------------------------------------------------


def local(host: Host | None = None) -> Iterator[Check]:
    """What is found by trying it here."""
    host = host or Host()
    yield _container(host)
    userns = _userns(host)
    made = _namespace(host)
    why = made.says if made.state == FAIL else ""
    # On Ubuntu 24.04 the first fails and the second does not: pasta's AppArmor profile is the exception.
    yield userns if why and (refused(why) or not host.restricted()) else _without_need(host, userns)
    if (restricted := _apparmor(host, why)) is not None:
        yield restricted
    yield made
    if (selinux := _selinux(host)) is not None:
        yield selinux
    yield _pasta_options(host)
    yield _versions(host)
    yield _firewall(host)
    yield _iproute(host)
    yield _underlay()
    yield _tmpfs()
    yield _resolvers()


def _without_need(host: Host, check: Check) -> Check:
    """A gate that is closed to others and open to pasta."""
    if check.state != FAIL:
        return check
    if host.restricted():
        return Check(check.id, OK, "user namespaces work for programs that AppArmor exempts")
    return Check(check.id, WARN, f"{check.says}; pasta may all the same")


def _container(host: Host) -> Check:
    kind = host.container()
    return Check("container", OK, f"in a container ({kind})" if kind else "no container")


def _userns(host: Host) -> Check:
    """A child makes a user namespace, maps its user and needs the capability that comes with it."""
    at, number = _userns_trial()
    if at == "ok":
        return Check("userns", OK, "user namespaces work, with capabilities inside")
    says = {
        "unshare": "a user namespace cannot be made",
        "uid_map": "a user namespace can be made but not used: writing its uid_map",
        "capabilities": "a user namespace gives no capabilities",
    }[at]
    fix = host.opened(REINSTALL if host.restricted() else WHO_REFUSES)
    if number == errno.ENOSPC:
        fix = host.outside(MORE_NAMESPACES)
    elif number == errno.EROFS:
        fix = host.opened("findmnt -T /proc/self/uid_map   shows the mount that is read-only")
    return Check("userns", FAIL, f"{says}: {os.strerror(number)}", fix)


def _userns_trial() -> tuple[str, int]:
    """Where a child failed, and errno; ("ok", 0) where it did not."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    uid, (reader, writer) = os.getuid(), os.pipe()
    child = os.fork()
    if child == 0:
        stage = "unshare"
        try:
            if libc.unshare(0x10000000):  # CLONE_NEWUSER
                raise OSError(ctypes.get_errno(), "")  # noqa: TRY301
            stage = "uid_map"
            libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: else its maps are root's (scrub.keep_private)
            with open("/proc/self/uid_map", "w", encoding="ascii") as file:
                file.write(f"0 {uid} 1")
            stage = "capabilities"
            if libc.unshare(0x40000000 | 0x00020000):  # CLONE_NEWNET | CLONE_NEWNS
                raise OSError(ctypes.get_errno(), "")  # noqa: TRY301
            os.write(writer, b"ok 0")
        except OSError as error:
            os.write(writer, f"{stage} {error.errno}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    at, _, number = os.read(reader, 200).decode().partition(" ")
    os.close(reader)
    os.waitpid(child, 0)
    return (at, int(number)) if at else ("unshare", errno.EPERM)  # killed by a filter


def _apparmor(host: Host, why: str) -> Check | None:
    """The restriction, and whether pasta is exempt. `why`: how pasta or the anchor failed, empty where they did not."""
    if not host.restricted() or (why and not refused(why)):
        return None
    says = "AppArmor restricts user namespaces here"
    if not why:
        return Check("apparmor", OK, f"{says}; a profile exempts pasta")
    profiles = ("usr.bin.pasta", "usr.bin.passt", "pasta", "passt")
    if not any(host.has(f"/etc/apparmor.d/{name}") for name in profiles):
        says += ", and pasta has no AppArmor profile that exempts it"
        return Check("apparmor", FAIL, says, host.opened(REINSTALL))
    fix = host.opened("sudo apparmor_parser -r /etc/apparmor.d/usr.bin.p*t*")
    return Check("apparmor", FAIL, f"{says}, and pasta's profile does not help", fix)


def _namespace(host: Host) -> Check:
    """Everything that `up` does up to the daemon: pasta, holder, anchor, a layer over /etc, the inner namespace."""
    import shutil

    from tsenv import supervisor

    if failed := first_failure(_programs(host)):
        return Check("namespace", FAIL, f"not tried: {failed.says}", failed.fix)
    name = f".doctor-{os.getpid()}"  # no session's name begins with a dot
    folder = paths.session_dir(name)
    if failed := _workplace(folder):
        return failed
    try:
        kind, why = _made(folder)
    except OSError as error:  # a program is none
        kind, why = "", f"pasta cannot make a network namespace: {_words(error)}"
    finally:
        supervisor.remove(folder)
        with contextlib.suppress(OSError):
            shutil.rmtree(paths.state_dir(name), ignore_errors=True)
    if why:
        return Check("namespace", FAIL, why, _next_step(host, why))
    if kind == "overlay":
        return Check("namespace", OK, "pasta makes a network namespace; /etc is overlaid")
    how = {
        "disk": "on disk (tmpfs without user xattrs: kernel before 6.6)",
        "copy": "as a copy (no overlay in user namespaces)",
    }
    return Check("namespace", WARN, f"pasta makes a network namespace; the layer over /etc is {how.get(kind, kind)}")


def _workplace(folder: str) -> Check | None:
    """Make the directory of the trial as `up` makes a session's; a Check where that fails."""
    from tsenv import namespace, supervisor

    base = os.path.dirname(folder)
    try:
        paths.private_dir(base)
    except TsenvError as error:
        return Check("namespace", FAIL, f"no directory to work in: {error.message}", error.hint)
    try:
        namespace.prepare(folder, namespace.resolvers())
    except OSError as error:
        supervisor.remove(folder)
        return Check("namespace", FAIL, f"no directory to work in: {base}: {_words(error)}", f"df -h {base}")
    return None


def _next_step(host: Host, why: str) -> str:
    """What to type where pasta or the anchor failed with these words."""
    if "user namespace: No space" in why:
        return host.outside(MORE_NAMESPACES)
    if refused(why):
        return host.opened(REINSTALL if host.restricted() else WHO_REFUSES)
    if "interface" in why:
        return "ip route   must show a default route: pasta takes its interface"
    trial = "pasta --config-net -- true" if why.startswith("pasta") else "unshare -rnm mount -t tmpfs none /mnt"
    return f"{trial}   tries that alone"


def _made(folder: str) -> tuple[str, str]:
    """(the kind of layer over /etc, "") or ("", the reason) of a trial in `folder`."""
    from tsenv import namespace, tools

    found = tools.Tools.find()
    reader, writer = os.pipe()
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    argv = [*namespace.pasta_argv((), (), dns_forward=False, pasta=found.pasta), "--", *namespace.holder_argv()]
    with ours, open(reader, "rb"), open(writer, "wb") as lifeline:
        with theirs:
            # A group of its own: a pasta that fails late leaves a child that waits for ever (seen: 2023-03, no tun).
            pasta = tools.start(argv, stdin=reader, stdout=theirs.fileno(), stderr=-1, cwd="/", start_new_session=True)
        try:
            state = os.path.join(paths.state_base(), os.path.basename(folder))
            if holder := _writer(ours, pasta.pid):
                return _anchored(namespace.anchor_argv(holder, folder, state, found.tailscale, []), reader)
        finally:
            lifeline.close()  # anchor, inner and holder end
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pasta.pid, signal.SIGKILL)
            words = last_words(pasta.communicate()[1].decode(errors="replace"))
    return "", f"pasta cannot make a network namespace{words and ': ' + words}"


def _anchored(argv: list[str], lifeline: int) -> tuple[str, str]:
    from tsenv import tools
    from tsenv.supervisor import line_from

    out, write = os.pipe()
    child = tools.start(argv, stdin=lifeline, stdout=write, stderr=write, cwd="/")
    os.close(write)
    words = line_from(out, TRIAL_SECONDS).split()
    os.close(out)
    if words[:1] != ["ready"]:
        child.kill()
        child.wait()
        return "", "the session's namespaces cannot be set up: " + (
            " ".join(words[1:] if words[:1] == ["failed"] else words) or "no answer"
        )
    return words[2], ""


def _writer(channel: socket.socket, child: int) -> int:
    """The pid, as we see it, of who writes to `channel` first; 0 when `child` ends or time does. The kernel says it."""
    import select

    from tsenv.supervisor import sender

    ended = os.pidfd_open(child)
    select.select([channel.fileno(), ended], [], [], TRIAL_SECONDS)
    os.close(ended)
    return sender(channel)


def _selinux(host: Host) -> Check | None:
    if host.read("/sys/fs/selinux/enforce") != "1":
        return None
    return Check(
        "selinux", OK, "SELinux enforces; if pasta fails, this says why: sudo ausearch -m avc -ts recent -c pasta"
    )


def _output(argv: list[str]) -> str:
    """What a program prints, on a terminal: pasta of 2025 ends without flushing what it wrote into a pipe."""
    import select

    from tsenv import tools

    ours, theirs = os.openpty()
    deadline, data = time.monotonic() + TRIAL_SECONDS, b""
    try:
        child = tools.start(argv, stdin=-3, stdout=theirs, stderr=theirs)
        os.close(theirs)
        with contextlib.suppress(OSError):  # EIO: the last holder of the terminal has closed it
            while select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
                if not (chunk := os.read(ours, 1 << 16)):
                    break
                data += chunk
        child.kill()
        child.wait()
    finally:
        os.close(ours)
    if time.monotonic() > deadline:
        raise TimeoutError(errno.ETIMEDOUT, "no answer in time")
    return data.decode(errors="replace").replace("\r\n", "\n")


def _pasta_options(host: Host) -> Check:
    from tsenv import tools

    try:
        path = tools.find("pasta")
        words, version = _output([path, "--help"]), _output([path, "--version"]).splitlines()
    except (TsenvError, OSError) as error:
        return Check("pasta-options", FAIL, f"pasta cannot be asked: {_words(error)}", host.install("pasta"))
    missing = [option for option in PASTA_OPTIONS if option not in words]
    name = version[0] if version else "pasta"
    if missing:
        return Check("pasta-options", FAIL, f"{name} is too old: it lacks {' '.join(missing)}", host.install("pasta"))
    return Check("pasta-options", OK, f"{name} has every option that tsenv needs")


def _versions(host: Host) -> Check:
    from tsenv import tools

    found = {}
    for name in ("tailscaled", "tailscale"):
        try:
            lines = _output([tools.find(name), "--version"]).split()
        except (TsenvError, OSError) as error:
            says = f"{name} cannot be asked: {_words(error)}"
            return Check("tailscale-version", FAIL, says, host.install(name))
        found[name] = lines[0] if lines else "?"
    numbers = [int(part) if part.isdigit() else 0 for part in found["tailscaled"].split("-")[0].split(".")[:2]]
    if tuple(numbers) < OLDEST_TAILSCALE:
        return Check(
            "tailscale-version",
            FAIL,
            f"tailscaled {found['tailscaled']} is too old: tsenv needs 1.50",
            host.install("tailscaled"),
        )
    if found["tailscaled"] != found["tailscale"]:
        says = f"tailscaled is {found['tailscaled']} but tailscale is {found['tailscale']}"
        return Check("tailscale-version", WARN, says, "which -a tailscale tailscaled")
    return Check("tailscale-version", OK, f"tailscaled and tailscale {found['tailscaled']}")


def _firewall(host: Host) -> Check:
    import shutil

    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin:/usr/local/sbin"
    found = [name for name in ("nft", "iptables") if shutil.which(name, path=path)]
    if found:
        return Check("firewall", OK, " and ".join(found))
    return Check("firewall", WARN, "neither nft nor iptables is installed: --isolated needs one", host.install("nft"))


def _iproute(host: Host) -> Check:
    """Without it the anchor cannot block the tailnet's addresses (shell/anchor.sh)."""
    import shutil

    if path := shutil.which("ip", path=os.environ.get("PATH", os.defpath) + SBIN):
        return Check("iproute", OK, path)
    says = "ip is not installed: packets for a peer may leave by the host's network while tailscaled restarts"
    return Check("iproute", WARN, says, host.install("ip"))


def _underlay() -> Check:
    from tsenv import underlay

    reason = underlay.probe()
    if reason:
        return Check("underlay", WARN, f"sockets cannot be swapped, the tunnel goes through pasta, slower: {reason}")
    return Check("underlay", OK, "sockets can be swapped (seccomp notify, ADDFD): the tunnel goes past pasta")


def _tmpfs() -> Check:
    base = paths.runtime_base()
    mounts = [line.split() for line in Host().read("/proc/self/mounts").splitlines()]
    under = [(len(m[1]), m[2]) for m in mounts if f"{base}/".startswith(m[1].rstrip("/") + "/")]
    kind = max(under, default=(0, "?"))[1]
    if kind in ("tmpfs", "ramfs"):
        return Check("tmpfs", OK, f"{base} is on {kind}")
    return Check(
        "tmpfs",
        WARN,
        f"{base} is on {kind}: node keys of a session touch the disk",
        "set XDG_RUNTIME_DIR to a directory on a tmpfs of yours",
    )


def _resolvers() -> Check:
    from tsenv import namespace

    found = namespace.resolvers()
    servers = " ".join(line.removeprefix("nameserver ") for line in found.lines if line.startswith("nameserver"))
    if not servers:
        return Check(
            "resolver",
            WARN,
            "/etc/resolv.conf names no resolver: only the tailnet's names will resolve inside",
            "cat /etc/resolv.conf",
        )
    if found.forward:
        return Check(
            "resolver", OK, f"the host's resolver listens on loopback only: pasta forwards to it from {servers}"
        )
    return Check("resolver", OK, f"resolvers {servers}")


# --- network ----------------------------------------------------------------------------------------------------------


def network(server: str = "") -> Iterator[Check]:
    """Whether the control server answers, what time it has, and whether UDP leaves."""
    server = server or DEFAULT_SERVER
    if not is_url(server):
        yield Check("control", FAIL, f"'{server}' is not a URL", "--login-server https://headscale.example.com")
        return
    found, date = control(server)
    yield found
    if date:
        yield _clock(date)
    yield _udp(server)


def is_url(text: str) -> bool:
    """Whether a control server could have that address."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        whole = bool(parts.hostname) and parts.port != 0  # either raises where it is none
    except ValueError:
        return False
    return whole and text.startswith(("http://", "https://")) and text.isprintable() and " " not in text


def control(server: str, seconds: float = 5.0) -> tuple[Check, str]:
    """The check of a control server, and its Date header. Proxies of the environment are used, as tailscaled does."""
    import http.client
    import urllib.error
    import urllib.request

    # The resolver's own patience (5 s and more a server) is not ours; glibc reads this at its first lookup.
    os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:2")
    fix = f"is the URL right? curl -v {server}{KEY_PATH}"
    try:
        with urllib.request.urlopen(server + KEY_PATH, timeout=seconds) as answer:  # noqa: S310 - the scheme was checked
            date, good = answer.headers.get("Date", ""), b"publicKey" in answer.read(1 << 16)
    except urllib.error.HTTPError as error:
        says = f"{server} answers, but not as a control server does (HTTP {error.code})"
        return Check("control", FAIL, says, fix), error.headers.get("Date", "")
    except http.client.HTTPException:
        return Check("control", FAIL, f"{server} answers, but not as a control server does (no HTTP)", fix), ""
    except (OSError, ValueError) as error:
        return _unreachable(server, error, fix), ""
    if not good:
        return Check("control", FAIL, f"{server} answers, but not as a control server does (no key)", fix), date
    return Check("control", OK, f"{server} answers"), date


def _unreachable(server: str, error: Exception, fix: str) -> Check:
    """What an exception of urlopen means. Only those of connecting are wrapped: a bare timeout came after that."""
    import ssl
    import urllib.parse

    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError) and "not yet valid" in str(reason):
        says = "the clock of this machine is wrong (certificate is not yet valid)"
        return Check("clock", FAIL, says, "sudo timedatectl set-ntp true")
    if isinstance(reason, socket.gaierror) or isinstance(error, UnicodeError):  # a label over 63 characters
        host = urllib.parse.urlsplit(server).hostname
        return Check("control", FAIL, f"{server} cannot be reached: the name {host} does not resolve", fix)
    if isinstance(error, TimeoutError):
        return Check("control", FAIL, f"{server} takes connections, but answers nothing", fix)
    words = "no answer" if isinstance(reason, TimeoutError) else getattr(reason, "strerror", None) or str(reason)
    return Check("control", FAIL, f"{server} cannot be reached: {words[:1].lower()}{words[1:]}", fix)


def _clock(date: str) -> Check:
    import email.utils

    try:
        off = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return Check("clock", WARN, "the control server tells no time")
    says = f"the clock is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}"
    state = FAIL if abs(off) > CLOCK_FAIL else WARN if abs(off) > CLOCK_WARN else OK
    return Check(
        "clock",
        state,
        says if state != OK else "the clock is right",
        "" if state == OK else "sudo timedatectl set-ntp true",
    )


def _udp(server: str) -> Check:
    """A STUN request (RFC 8489) to a relay of the control server's."""
    host, port = stun_server(server)
    request = _stun_request()
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            sock.settimeout(1.0)
            for _ in range(2):
                sock.send(request)
                with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                    if sock.recv(1500)[8:20] == request[8:20]:
                        return Check("udp", OK, f"UDP leaves ({host}:{port} answers)")
    except UnicodeError:  # a label over 63 characters
        return Check("udp", WARN, f"UDP not tested: {host} is no host name")
    except OSError as error:
        return Check("udp", WARN, f"UDP not tested: {host}: {error.strerror}")
    says = f"no UDP answer from {host}:{port}: peers may be reachable by relays only, slower"
    return Check("udp", WARN, says, "let UDP out, to port 3478 and to peers' port 41641")


def _stun_request() -> bytes:
    """A binding request as Tailscale's clients send it: its relays answer no other (tailscale.com/net/stun)."""
    import struct
    import zlib

    words = struct.pack("!HHI12s", 1, 20, 0x2112A442, os.urandom(12)) + struct.pack("!HH8s", 0x8022, 8, b"tailnode")
    return words + struct.pack("!HHI", 0x8028, 4, zlib.crc32(words) ^ 0x5354554E)


def stun_server(server: str) -> tuple[str, int]:
    """Where STUN is asked: Tailscale's relay, or the host of a headscale, where its built-in relay is."""
    from urllib.parse import urlsplit

    return ("derp1.tailscale.com" if server == DEFAULT_SERVER else urlsplit(server).hostname or server), 3478


# --- through a session ------------------------------------------------------------------------------------------------


def inside(found: Session) -> Iterator[Check]:
    """Through the running session: how it is, its own name, a peer, the tunnel's MTU."""
    import shutil

    from tsenv import bringup, daemon, tools

    name = found.name
    try:
        status = daemon.LocalAPI(found.dir).status()
    except (OSError, ValueError, TsenvError) as error:
        says = f"tailscaled of '{name}' does not answer: {found.degraded or _words(error)}"
        yield Check("session", FAIL, says, f"tsenv -n {name} logs --tailscaled")
        return
    if found.degraded:
        yield Check("session", WARN, f"'{name}' is degraded: {found.degraded}", f"tsenv -n {name} logs")
    else:
        yield Check("session", OK, f"'{name}' is up")
    join = ["/bin/sh", found.file("join")]
    probe = [*join, *bringup.prober()]
    if status.magic_dns and found.options.accept_dns and status.dns_name:
        good = _runs([*probe, "lookup", status.dns_name, "3"])
        yield Check(
            "session-names",
            OK if good else FAIL,
            f"{status.dns_name} {'resolves' if good else 'does not resolve'} in '{name}'",
            "" if good else f"tsenv -n {name} exec cat /etc/resolv.conf",
        )
    peers = [p for p in status.peers if p.online and p.addresses][:8]
    if not peers:
        yield Check("session-ping", WARN, f"no peer is online in '{name}': nothing to ping")
        return
    try:
        tailscale = tools.find("tailscale")
    except TsenvError:  # its own check says so
        return
    quickest = _first_to_succeed([[*probe, "ping", p.addresses[0], tailscale, "4"] for p in peers])
    peer = peers[quickest] if quickest is not None else None
    if peer is None:
        says = f"no peer answers a ping ({', '.join(p.name for p in peers)})"
        yield Check("session-ping", WARN, says, f"tsenv -n {name} tailscale ping {peers[0].name}")
        return
    yield Check("session-ping", OK, f"peer {peer.name} answers a ping")
    if shutil.which("ping"):
        # 1252 and 28 bytes of headers are the tunnel's 1280.
        words = ["ping", "-q", "-c", "1", "-W", "3", "-M", "do", "-s", "1252", peer.addresses[0]]
        if _runs([*join, *words]):
            yield Check("session-mtu", OK, f"packets of 1280 bytes reach {peer.name}")
        else:
            says = f"packets of 1280 bytes do not reach {peer.name}: something between has a smaller MTU"
            yield Check(
                "session-mtu", FAIL, says, "let ICMP 'fragmentation needed' through on the way, or another network"
            )


def _first_to_succeed(argvs: list[list[str]]) -> int | None:
    """Run them at once, until one succeeds: its index. The others are ended."""
    import select

    from tsenv import tools

    children = [tools.start(argv, stdin=-3, stdout=-3, stderr=-3) for argv in argvs]
    running = {os.pidfd_open(child.pid): index for index, child in enumerate(children)}
    deadline, found = time.monotonic() + TRIAL_SECONDS, None
    while found is None and running and (left := deadline - time.monotonic()) > 0:
        for fd in select.select(list(running), [], [], left)[0]:
            index = running.pop(fd)
            os.close(fd)
            found = index if children[index].wait() == 0 else found
    for fd, index in running.items():
        children[index].kill()
        children[index].wait()
        os.close(fd)
    return found


def _runs(argv: list[str]) -> bool:
    return _first_to_succeed([argv]) is not None
