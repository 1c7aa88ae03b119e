"""Commands to a running server: each waits, and its status is the truth."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import AS_NOBODY, PATIENCE_S, Server, children, is_alive, wait_for, works

from prefork.cli.main import main

CONFIG = """
app: myapp:app
listen: 127.0.0.1:0
workers: 2
control: ./ctl
log: {access: off, to: ./events.log}
"""

GATED = """
import os, time

while not os.path.exists("gate"):
    time.sleep(0.01)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        open("entered", "w").close()
        while not os.path.exists("leave"):
            time.sleep(0.01)
    if environ["PATH_INFO"] == "/c":
        sum(range(10**11))
    start_response("200 OK", [])
    return [b"hello"]
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(server: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in this process: returns its exit status, and what it prints on stdout and stderr."""
    monkeypatch.chdir(server.folder)

    def run_here(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main([*arguments, "--control", "ctl"])
        return status, *capfd.readouterr()

    return run_here


def start(server: Server, *arguments: str) -> subprocess.Popen[str]:
    """Start the command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "prefork", *arguments, "-c", "app.yaml"],
        cwd=server.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    told, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, told


def serve(server: Server, config: str = CONFIG, app: str = GATED) -> None:
    """Serve with the log in a file, which is that of the harness."""
    server.log_path = server.folder / "events.log"
    server.log_path.touch()
    server.write("gate", "")
    server.serve(config, app)


def test_a_reload_shows_progress_and_tells_what_has_changed(server: Server, run: Run) -> None:
    serve(server, CONFIG + "env: {DB_PASSWORD: hunter2, DEBUG: '0'}\n")
    server.write("app.yaml", CONFIG.replace("workers: 2", "workers: 3") + "env: {DB_PASSWORD: hunter3}\n")
    status, out, err = run("reload")
    assert status == 0, err
    assert server.workers("gen 1") == []
    assert len(server.workers("gen 2")) == 3
    assert out.startswith("generation 2 serves, ")
    assert out.splitlines()[1:] == [
        "  workers: 2 -> 3",
        "  env.DB_PASSWORD: *** -> *** (a secret, which differs)",
        "  env.DEBUG: 0 -> (unset)",
    ]
    for line in ("myapp: loading the application", "myapp: workers ready 0/3"):
        assert line in err, err

    server.write("app.yaml", CONFIG.replace("./ctl", "./other") + "pidfile: x.pid\n")
    told = json.loads(run("reload", "--json")[1])
    assert (told["status"], told["generation"], told["pools"]) == (0, 3, {"myapp": "replaced"})
    late = {each["key"]: each["new"] for each in told["changes"] if each["applies"] == "restart"}
    assert late == {"pidfile": "x.pid", "control": "./other"}
    assert len(told["notes"]) == 2
    assert "hunter" not in json.dumps(told) + out + err
    assert server.stop() == 0


@pytest.mark.measured
def test_a_reload_that_fails_says_why_and_with_which_status(
    server: Server, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    serve(server)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server.write("app.yaml", CONFIG.replace(":0", f":{taken.getsockname()[1]}"))
        assert run("reload")[0] == 4
    server.write("app.yaml", CONFIG + "wrkers: 2\n")
    status, _, err = run("reload")
    assert status == 2
    assert err.startswith('app.yaml:7:1: wrkers: unknown key; did you mean "workers"?\n'), err
    assert "the generation before serves on" in err
    assert run("diff")[0] == 2
    assert main(["reload", "-c", "app.yaml"]) == 2  # who finds the server by the file is told the same
    err = capfd.readouterr().err
    assert err.startswith("app.yaml:7:1: wrkers: unknown key"), err
    assert "the generation before serves on" in err
    server.write("app.yaml", CONFIG + "{\n")  # so nobody can know where it is
    assert main(["reload", "-c", "app.yaml"]) == 2
    err = capfd.readouterr().err
    assert err.startswith("app.yaml:8:1: not YAML: "), err
    server.write("app.yaml", CONFIG)
    server.write("myapp.py", "import absent\n")
    status, out, err = run("reload", "--json")
    assert (status, json.loads(out)["status"]) == (3, 3)
    assert 'myapp.py", line 1' in json.loads(out)["traceback"]
    assert "No module named 'absent'" in err
    assert server.get() == (200, "hello")
    assert json.loads(run("status", "--json")[1])["last_reload"]["result"] == "failed"
    assert server.stop() == 0


@pytest.mark.measured
def test_who_waits_while_reloads_queue_and_a_stop_comes_in_the_middle(server: Server, run: Run) -> None:
    """One that begins at once, two that are for the next, of which one goes away; then a stop in the middle."""
    serve(server)
    (server.folder / "gate").unlink()
    first = start(server, "reload")
    server.wait_for_log("reload to generation 2")
    mark = server.mark()
    goes, stays = start(server, "reload"), start(server, "reload")
    server.wait_for_log(r"(?s)the reload waits.*the reload waits", mark)
    assert run("upgrade", "--no-wait")[0] == 0
    goes.kill()
    goes.communicate()
    assert json.loads(run("status", "--json")[1])["state"] == "reloading"
    assert run("reload", "--timeout", "0.2")[0] == 6
    server.write("gate", "")
    status, told = ended(first)
    assert (status, "generation 2 serves" in told) == (0, True), told
    status, told = ended(stays)
    assert (status, "generation 3 serves" in told) == (0, True), told
    assert "the reload waits: the server is reloading" in told
    server.wait_for_log("generation 4 serves", mark)  # that which follows the upgrade
    assert "reload to generation 5" not in server.log

    (server.folder / "gate").unlink()
    mark = server.mark()
    last = start(server, "reload")
    server.wait_for_log("reload to generation 5", mark)
    status, out, _ = run("stop")
    assert (status, out) == (0, "the server has stopped\n")
    status, told = ended(last)
    assert (status, "the server stops: there is no reload" in told) == (1, True), told
    assert server.wait() == 0
    status, _, err = run("status")
    assert (status, err) == (5, "prefork: no server listens at ctl: is it running?\n")


@pytest.mark.measured
def test_a_stop_waits_until_the_process_is_gone(server: Server, run: Run) -> None:
    serve(server)
    client = threading.Thread(target=server.get, args=("/slow",))
    client.start()
    wait_for((server.folder / "entered").exists, "the request")
    status, _, err = run("stop", "--timeout", "1")
    assert status == 6
    assert "timed out, the server goes on with it: no answer to stop yet" in err
    assert is_alive(server.pid)
    assert run("reload")[0] == run("scale", "3")[0] == 1
    status, out, _ = run("stop", "--no-wait", "--json")
    assert (status, json.loads(out)["message"]) == (0, "the server stops")
    stop = start(server, "stop")
    assert stop.stdout is not None
    assert "1 worker has not left yet\n" in iter(stop.stdout.readline, "")
    server.write("leave", "")
    status, told = ended(stop)
    assert (status, told.splitlines()[-1]) == (0, "the server has stopped")
    assert server.process is not None
    assert server.process.poll() == 0
    client.join(PATIENCE_S)
    assert not (server.folder / "ctl").exists()


@pytest.mark.measured
def test_scale_and_recycle(server: Server, run: Run) -> None:
    serve(server)
    assert run("scale", "3")[1] == "myapp: 3 workers, until the next reload\n"
    before = server.workers()
    assert len(before) == 3
    status, out, _ = run("recycle", "0")
    assert (status, out) == (0, "1 worker is replaced: myapp.0\n")
    assert len(set(server.workers()) & set(before)) == 2
    assert "gone: exit status 0" in server.wait_for_log(r".*it was replaced by prefork recycle")[0]
    before = server.workers()
    status, _, err = run("recycle", "--all")
    assert status == 0
    assert "workers replaced 0/3" in err
    assert not set(server.workers()) & set(before)
    assert run("scale", "myapp=1")[0] == 0
    assert len(server.workers()) == 1
    for arguments, told in {
        ("scale", "0"): "myapp: with 0 workers nobody would be served; prefork stop ends the server",
        ("scale", "999"): "myapp: expected at most ",
        ("scale", "web=2"): "there is no pool 'web'; there is myapp",
        ("recycle", "myapp.7"): "there is no slot myapp.7; slots go from myapp.0 to myapp.0",
        ("recycle", "myapp"): "expected a slot such as myapp.0, got 'myapp'",
        ("stacks", "web.0"): "there is no pool 'web'; there is myapp",
    }.items():
        status, _, err = run(*arguments)
        assert (status, told in err) == (2, True), err
    server.log_path.rename(server.folder / "old.log")
    assert run("reopen-logs")[1] == "1 log file opened again\n"
    assert server.log_path.exists()
    server.write("app.yaml", CONFIG.replace("workers: 2", "workers: {min: 2, max: 4}"))
    assert run("reload")[0] == 0
    assert "expected at least 2 workers (workers.min), got 1" in run("scale", "1")[2]
    assert "myapp: 3 workers, as the lower end, up to 4, until the next reload" in run("scale", "3")[1]
    assert json.loads(run("status", "--json")[1])["pools"]["myapp"]["bounds"] == {"min": 3, "max": 4}
    assert server.stop() == 0


@pytest.mark.measured
def test_stacks_and_status_of_what_runs(server: Server, run: Run) -> None:
    """Python code, C code that holds the interpreter lock, a worker that is stopped, one that is idle."""
    serve(server, CONFIG.replace("workers: 2", "workers: 4"))
    clients = [threading.Thread(target=_get, args=(server, path)) for path in ("/slow?a=1", "/c")]
    for client in clients:
        client.start()

    def workers() -> dict[str, dict[str, object]]:
        return {each["slot"]: each for each in json.loads(run("stacks", "--json")[1])["workers"]}

    def busy() -> list[str]:
        return [str(each["running"][0]["request"]) for each in workers().values() if each["running"]]  # type: ignore[index]

    wait_for(lambda: len(busy()) == 2, "two requests")
    idle = [each for each in workers().values() if not each["running"]]
    assert [each["note"] for each in idle] == ["it waits for requests"] * 2
    stopped = idle[0]
    os.kill(int(str(stopped["pid"])), signal.SIGSTOP)
    found = workers()
    assert found[str(stopped["slot"])]["note"] == "it is stopped (SIGSTOP, or a debugger)"
    os.kill(int(str(stopped["pid"])), signal.SIGCONT)
    of_request = {each["running"][0]["request"]: each for each in found.values() if each["running"]}  # type: ignore[index]
    assert set(of_request) == {"GET /slow?a=1 HTTP/1.1", "GET /c HTTP/1.1"}
    for request, line in {"GET /slow?a=1 HTTP/1.1": 11, "GET /c HTTP/1.1": 13}.items():
        assert f'> File "{server.folder}/myapp.py", line {line} in app' in str(of_request[request]["stack"])

    slot = str(of_request["GET /c HTTP/1.1"]["slot"])
    out = run("stacks", slot)[1]
    assert (
        f"{slot} gen 1 pid {of_request['GET /c HTTP/1.1']['pid']}: busy\n  runs GET /c HTTP/1.1 for " in out
    )
    status, out, _ = run("status")
    assert status == 0
    assert out.startswith(f"myapp is serving: generation 1, pid {server.pid}, up ")
    assert "myapp: 4 workers wanted: 2 idle, 2 busy" in out
    assert "    GET /slow?a=1 for " in out
    assert max(map(len, out.splitlines())) <= 80
    os.kill(int(str(of_request["GET /c HTTP/1.1"]["pid"])), signal.SIGKILL)
    server.write("leave", "")
    for client in clients:
        client.join(PATIENCE_S)
    server.wait_for_log("killed by SIGKILL")
    assert "last deaths, not expected:\n  " + slot in run("status")[1]
    assert server.stop() == 0


def _get(server: Server, path: str) -> None:
    try:
        server.get(path)
    except OSError:
        pass  # its worker was killed


@pytest.mark.measured
def test_diff_tells_what_a_reload_would_change(server: Server, run: Run) -> None:
    serve(server, CONFIG + "env: {TOKEN: a}\n")
    assert run("diff")[1] == "the config has not changed\npools replaced: myapp; code is read anew\n"
    server.write("secret", "b")
    server.write(
        "app.yaml",
        """
        name: shop
        control: ./ctl
        log: {access: off, to: ./events.log, level: debug}
        pools:
          myapp: {app: "myapp:app", listen: ["127.0.0.1:0", "unix:x.sock"], env: {TOKEN: "${file:secret}"}}
          api: {app: "myapp:app", listen: "unix:api.sock"}
        """,
    )
    status, out, _ = run("diff")
    assert status == 0
    told = json.loads(run("diff", "--json")[1])
    changed = {each["key"]: (each["old"], each["new"], each["applies"]) for each in told["changes"]}
    assert changed["name"] == ("myapp", "shop", "restart")
    assert changed["log.level"] == ("info", "debug", "restart")
    assert changed["pools.myapp.workers"] == (2, "auto", "reload")
    assert changed["pools.myapp.env.TOKEN"] == ("***", "***", "reload")
    assert changed["pools.api"] == (None, "myapp:app", "reload")
    assert any(key.startswith("pools.myapp.listen[unix:x.sock]") for key in changed)
    assert told["pools"] == {"myapp": "replaced", "api": "new"}
    assert told["needs_restart"] == ["name", "log.level"]
    assert "pools new: api" in out
    assert "needs a restart: name, log.level" in out
    assert server.get() == (200, "hello")  # nothing has happened
    assert server.stop() == 0


def test_who_may_not_is_told_who_may(public_server: Server) -> None:
    public_server.serve(CONFIG.replace(", to: ./events.log", ""))
    name = subprocess.run(
        [*AS_NOBODY, sys.executable, "-m", "prefork", "reload", "-c", "app.yaml"],
        cwd=public_server.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert name.returncode == 5
    assert "not permitted to speak to the server" in name.stderr
    assert "only root may" in name.stderr
    # An abstract address lets everybody connect, and the kernel tells who that is.
    public_server.write("app.yaml", CONFIG.replace("./ctl", "auto").replace(", to: ./events.log", ""))
    assert public_server.stop() == 0
    public_server.start(env={"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": ""})
    public_server.wait_for_log(r"(?s)stopped.*serving on ")
    refused = subprocess.run(
        [*AS_NOBODY, sys.executable, "-c", ASK, str(public_server.pid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert '"status":5' in refused.stdout
    assert "only root may command this server, and you are uid 65534" in refused.stdout
    public_server.wait_for_log("a command of uid 65534 is refused")
    assert public_server.stop() == 0


ASK = r"""
import socket, struct, sys
for line in open("/proc/net/unix"):
    name = line.split()[-1]
    if name.startswith("@prefork-myapp"):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect("\0" + name[1:])
        except OSError:
            continue  # of another test, and gone or stopped
        sock.setblocking(True)
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if pid == int(sys.argv[1]):
            print(sock.recv(4096).decode())
"""


CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--net")


def test_in_a_container_with_a_read_only_root(server: Server) -> None:
    """``kubectl exec … prefork status``: no options, no directory to write to, PID 1; then two servers."""
    (server.folder / "run").mkdir()
    read_only = 'mount -t tmpfs run "$0/run" && mount -o remount,bind,ro / && cd "$0" && exec "$@"'
    prefix = (*CONTAINER, "sh", "-c", read_only, str(server.folder))
    if not works(*prefix, "true"):
        pytest.skip("needs unshare, and the permission to mount")
    server.configure("app: myapp:app\nlisten: unix:run/app.sock\nworkers: 1\n")
    server.write("other.yaml", "app: myapp:app\nlisten: unix:run/other.sock\nworkers: 1\n")
    server.start(prefix=prefix, env={"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": ""})
    server.wait_for_log("serving on ")
    [master] = children(server.pid)

    enter = ["nsenter", "-t", str(master), "-p", "-m", "-n", "sh", "-c", 'cd "$0" && exec "$@"']
    enter.append(str(server.folder))

    def inside(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*enter, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    script = Path(sys.executable).with_name("prefork")
    module = [sys.executable, "-m", "prefork"]
    for command in [module, [str(script)]] if script.exists() else [module]:
        told = inside(*command, "status")
        assert told.returncode == 0, told.stderr
        assert told.stdout.startswith("myapp is serving: generation 1, pid 1, ")
    other = subprocess.Popen(
        [*enter, sys.executable, "-m", "prefork", "-c", "other.yaml"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        socket_file = Path(f"/proc/{master}/root{server.folder}/run/other.sock")
        wait_for(socket_file.exists, "the other server")  # its control socket came before
        told = inside(*module, "status")
        assert told.returncode == 5
        assert "2 servers run here; say which, by -c FILE or one of:" in told.stderr
        assert "  --control @prefork-myapp-2  myapp (pid " in told.stderr
        server.write("other.yaml", "nonsense\n")  # it is found all the same
        told = inside(*module, "stop", "-c", "other.yaml")
        assert (told.returncode, told.stdout) == (0, "the server has stopped\n"), told.stderr
    finally:
        other.kill()
        other.wait(PATIENCE_S)
    told = inside(*module, "stop", "-c", "other.yaml")
    assert told.returncode == 2  # who can tell whether it runs
    assert "started with -c other.yaml: is it running?" in told.stderr
    assert "There is:\n  --control @prefork-myapp  myapp (pid 1, " in told.stderr
    os.kill(master, signal.SIGTERM)
    assert server.wait() == 0
