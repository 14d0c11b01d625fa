"""The story of the appliance, told by appliance.sh: `appliance_story.py [PART...]`, by default all
parts, in this order. Each check prints `CHECK NAME ok` or `CHECK NAME FAIL`; the summary is written as
a table to $APPLIANCE_SUMMARY, and the exit code is 1 when a check failed.

boot, face, camera run in counted time (see appliance_machine.py), watchdog, upgrade, readonly, offline,
cuts in real time; replays need no machine: they are in appliance_cuts.py."""

import datetime
import glob
import json
import os
import re
import subprocess
import sys
import time
import traceback

import appliance_cuts
from appliance_machine import FOLDER, Broker, Failed, Machine, until

PARTS = ["boot", "face", "camera", "watchdog", "upgrade", "readonly", "offline", "cuts"]
BOOT_S_MAX = 420
EXPOSURE_MAX = 2.0
UNLOCK_S, ENERGISED_S_MAX = 2.0, 3.1
# After the watchdog or a kill: ExecStopPost, and from there RestartSec and the start itself, all emulated.
RELEASE_S_MAX, RESTART_S_MAX = 15, 60
# The relay is written, then the message's time is taken: far below this, scheduling included.
T_RELAY_S_OFF = 0.1
PERSON = f"{FOLDER}/people/person.jpg"

summary, failures, checks = [], 0, 0


def note(text):
    print(f"## {text}", flush=True)


def check(name, good, detail=""):
    global failures, checks
    checks += 1
    failures += not good
    print(f"CHECK {name} ok" if good else f"CHECK {name} FAIL: {str(detail)[-1500:]}", flush=True)
    return good


def figure(what, value, how):
    summary.append((what, value, how))
    print(f"## {what}: {value} ({how})", flush=True)


# ---------------------------------------------------------------------- what several parts use


def scene(machine, name):
    machine.sh(f"ln -sfn /opt/scenes/{name} /run/scene.new && mv -T /run/scene.new /run/scene")


def topic(broker):
    """`facelatch/<device>`, learnt from the retained status."""
    for _, _, name, payload in broker.messages("/status"):
        if payload == "online":
            return name.removesuffix("/status")
    raise Failed("the device never said `online`")


def online(broker, since, seconds):
    return until(seconds, lambda: any(m[3] == "online" for m in broker.messages("/status", since)))


def unlock(machine, broker, nonce):
    """A good command from the broker; its times are the guest's."""
    expiry = machine.read("date -u -d '+5 seconds' +%Y-%m-%dT%H:%M:%SZ")
    command = {"cmd": "UNLOCK", "exp": expiry, "nonce": nonce, "code": "4711"}
    broker.tell(f"{topic(broker)}/door/1/lock/set", json.dumps(command))


def watch_line_inside(machine):
    """The kernel of the guest notes each value that it gives a line, with its monotonic time."""
    machine.sh("cd /sys/kernel/tracing && echo mono >trace_clock && echo >trace && echo 1 >events/gpio/gpio_value/enable")


def line_inside(machine):
    """(UTC seconds, level) of each change of an output, in the guest's time."""
    text = machine.read("python3 -c 'import time; print(time.time() - time.monotonic())'; grep 'gpio_value: .* set ' /sys/kernel/tracing/trace")
    boot, *rows = text.splitlines()
    found, last = [], None
    for row in rows:
        match = re.search(r" (\d+\.\d+): gpio_value: \d+ set ([01])", row)
        if match and match[2] != last:
            last = match[2]
            found.append((float(boot) + float(match[1]), int(last)))
    return found


def opening(machine, name, mark):
    """Checks one rise and one fall since the mark, in the guest's time; returns the time of the rise."""
    changes = [change for change in line_inside(machine) if change[0] > mark]
    rises, falls = [c[0] for c in changes if c[1]], [c[0] for c in changes if not c[1]]
    held = falls[-1] - rises[0] if rises and falls else None
    good = len(rises) == 1 and held is not None and UNLOCK_S * 0.9 <= held <= ENERGISED_S_MAX
    check(f"{name}: one opening, {held and round(held, 3)} s in the guest's time", good, changes)
    return rises[0] if rises else None


def guest_now(machine):
    return float(machine.read("date +%s.%N"))


def denied_calls(machine):
    """What the kernel says of system calls that end a process."""
    return machine.read("journalctl --no-pager -q -k -g 'type=1326'")


def journal(machine, pattern):
    return machine.read(f"journalctl --no-pager -q -o cat -u facelatch.service -g '{pattern}'")


# ---------------------------------------------------------------------- counted time


def boot(machine, broker):
    note("cold boot, first start")
    wall = machine.ready(BOOT_S_MAX)
    unit = machine.unit("ActiveState", "SubState", "NRestarts", "ActiveEnterTimestampMonotonic",
                        "ExecMainStartTimestampMonotonic", "WatchdogUSec", "StatusText")
    check("the unit is active", unit["ActiveState"] == "active" and unit["SubState"] == "running", unit)
    check("it never had to be restarted", unit["NRestarts"] == "0", unit)
    started, ready = (int(unit[f"{name}Monotonic"]) / 1e6 for name in ("ExecMainStartTimestamp", "ActiveEnterTimestamp"))
    figure("cold boot to READY", f"{ready:.1f} s", "kernel's clock of the emulated machine, 1 ns an instruction, first start with key and certificate made")
    figure("of that, the daemon's own start", f"{ready - started:.1f} s", "ExecStart to READY=1")
    figure("cold boot to READY by the clock on the wall", f"{wall:.0f} s", "one emulated core on this machine")
    print(machine.read("systemd-analyze time; systemd-analyze blame --no-pager | head -n 8"))
    check("systemd is the first process", machine.read("cat /proc/1/comm") == "systemd")

    note("sandbox")
    text = machine.read("systemd-analyze security --no-pager facelatch.service | tail -n 1")
    exposure = re.search(r"(\d+\.\d+)", text)
    exposure = float(exposure[1]) if exposure else 10.0
    check(f"exposure {exposure} is below {EXPOSURE_MAX}", exposure < EXPOSURE_MAX, text)
    figure("exposure", exposure, "systemd-analyze security, on the running unit")
    status = machine.read("cat /proc/$(systemctl show -p MainPID --value facelatch.service)/status")
    field = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    check("a filter of system calls is on", field.get("Seccomp", "").strip() == "2", status)
    check("it has no capability and can get none", field["CapEff"] == field["CapBnd"] == "0" * 16 and field["NoNewPrivs"] == "1", status)
    check("it is not root", field["Uid"].split()[0] != "0", status)
    check("no system call ended a process", denied_calls(machine) == "", denied_calls(machine))
    key = machine.read("stat -c '%a %U' /var/lib/facelatch/store.key")
    check("the store's key is the daemon's alone", key == "600 facelatch", key)
    check("no warning about the unit", journal(machine, "Unknown key|Failed to|denied") == "")

    wrong = machine.read("journalctl --no-pager -q -u facelatch.service -p err -o json --output-fields=MESSAGE,F_ERROR")
    check("a boot logs no error", wrong == "", wrong)
    machine.admin_key()
    machine.trust()
    check("TLS with the certificate of the disk", machine.request("GET", "/ready")[0] == 200)
    check("it is online at the broker", online(broker, 0, 120))
    print(machine.read("setpriv --reuid facelatch --regid facelatch --init-groups facelatch doctor --config /etc/facelatch/facelatch.toml"))


def face(machine, broker):
    note("enrolment and a face")
    watch_line_inside(machine)
    status, answer = machine.request("POST", "/collection", {"name": "staff"})
    check("a collection is made over HTTPS", status == 200, answer)
    if not os.path.exists(PERSON):
        return print("SKIPPED a face: there are no pictures")
    status, answer = machine.enrol("one", PERSON)
    check("a person is enrolled over HTTPS", status == 200, answer)
    check("until now the relay did not move", machine.level() == 0 and not any(level for _, level in machine.line()), machine.line())
    face_opens(machine, broker, "a known face")
    note("a stranger")
    mark, seen = guest_now(machine), broker.count()
    scene(machine, "stranger")
    decided = lambda: [m for m in broker.messages("/match", seen) if '"unknown_face"' in m[3] or '"denied"' in m[3]]
    check("a stranger is reported", until(300, decided), broker.messages("/match", seen))
    scene(machine, "nobody")
    time.sleep(5)
    check("a stranger does not open", not [c for c in line_inside(machine) if c[0] > mark and c[1]])
    resident(machine)


def face_opens(machine, broker, name):
    """A face at the camera opens; seen at the line, in the kernel of the guest, and at the broker."""
    mark, seen, changes = guest_now(machine), broker.count(), len(machine.line())
    scene(machine, "person")
    rose = check(f"{name}: the emulated controller's line rises", until(300, lambda: machine.level() == 1),
                 journal(machine, "face|grant|stale") + str(broker.messages("/match", seen)))
    scene(machine, "nobody")
    check(f"{name}: the line falls again", until(120, lambda: machine.level() == 0))
    if not rose:
        return
    outside = machine.line()[changes:]
    check(f"{name}: from outside one rise and one fall", [level for _, level in outside] == [1, 0], outside)
    time.sleep(3)
    at = opening(machine, name, mark)
    granted = lambda: [m for m in broker.messages("/match", seen) if '"event_type":"granted"' in m[3]]
    if check(f"{name}: granted is at the broker on this machine", until(120, granted), broker.messages("/match", seen)):
        arrived, _, _, payload = granted()[0]
        event = json.loads(payload)
        relay = datetime.datetime.fromisoformat(event["t_relay"].replace("Z", "+00:00")).timestamp()
        check(f"{name}: its time of the relay is the kernel's ({(relay - at) * 1000:+.0f} ms)", abs(relay - at) < T_RELAY_S_OFF, event)
        check(f"{name}: the message came after the line rose", arrived >= outside[0][0], (arrived, outside))
        figure("capture to relay", f"{event['latency_ms']} ms", f"{name}; counted time: 1 ns an instruction, no statement about a board")


def resident(machine):
    text = machine.read("grep -E 'VmRSS|VmHWM|Threads' /proc/$(systemctl show -p MainPID --value facelatch.service)/status")
    memory = {name: int(value) / 1024 for name, value in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", text)}
    figure("resident memory on arm64", f"{memory['VmRSS']:.0f} MB, at most {memory['VmHWM']:.0f} MB", "VmRSS and VmHWM after an enrolment and faces, pack " + os.environ["APPLIANCE_PACK"])


def camera(machine, broker):
    note("the camera's module goes and comes back")
    seen = broker.count()
    machine.sh("systemctl stop appliance-camera.service")
    check("a silent camera is lost, says the log", until(120, lambda: journal(machine, "camera is lost")))
    status, output = machine.sh("for i in $(seq 600); do rmmod v4l2loopback 2>/dev/null && exit 0; sleep 0.1; done; lsmod; exit 1")
    check("the module can be removed: the device was closed", status == 0, output)
    check("the broker hears of the problem", until(120, lambda: any('"problem":"' in m[3] for m in broker.messages("/state", seen))), broker.messages("/state", seen)[-2:])
    check("the daemon still serves", machine.request("GET", "/health")[0] == 200)
    before = machine.read("journalctl -q -o cat -u facelatch.service -g 'camera is streaming' | wc -l")
    machine.sh("modprobe v4l2loopback && systemctl start appliance-camera.service")
    check("the camera streams again", until(300, lambda: machine.read("journalctl -q -o cat -u facelatch.service -g 'camera is streaming' | wc -l") > before))
    check("the broker hears that it is over", until(180, lambda: '"problem":null' in broker.messages("/state", seen)[-1][3]), broker.messages("/state", seen)[-1:])
    if os.path.exists(PERSON):
        face_opens(machine, broker, "after the camera came back")
    status, output = machine.sh("modprobe vivid && sleep 1 && for d in /dev/video?; do "
                                "grep -q vivid /sys/class/video4linux/${d#/dev/}/name && facelatch camera snapshot -o /run/vivid.ppm --size 640x480 --source v4l2:$d; done; rmmod vivid")
    check("vivid is read as YUYV", "YUYV 640x480" in output, output)
    check("no system call ended a process", denied_calls(machine) == "", denied_calls(machine))


# ---------------------------------------------------------------------- real time


def at_the_rise(machine, broker, nonce, what):
    """Lets a command open, and does something to the daemon as soon as its line is up."""
    machine.sh("echo >/sys/kernel/tracing/trace")
    script = f"""pid=$(systemctl show -p MainPID --value facelatch.service)
touch /run/armed
for i in $(seq 3000); do
    grep -q 'set 1' /sys/kernel/tracing/trace && {{ kill -{what} $pid; exit; }}
    sleep 0.01
done"""
    machine.sh(f"cat >/run/hit <<'SCRIPT'\n{script}\nSCRIPT\nsystemd-run -q bash /run/hit; until [ -e /run/armed ]; do sleep 0.05; done; rm /run/armed")
    unlock(machine, broker, nonce)
    rose = check(f"{what}: a command opens", until(30, lambda: machine.level() == 1), journal(machine, "unlock|refused"))
    return rose and machine.line()[-1][0]


def watchdog(machine, broker):
    note("a stopped and a killed daemon")
    watch_line_inside(machine)
    limit = re.fullmatch(r"(\d+)s", machine.unit("WatchdogUSec")["WatchdogUSec"])
    if not check("the watchdog is a matter of seconds", limit):
        return
    figure("WatchdogSec", f"{limit[1]} s", "the longest that a daemon that hangs keeps the relay")
    for what, most in (("STOP", int(limit[1]) + RELEASE_S_MAX), ("KILL", RELEASE_S_MAX)):
        since = broker.count()
        before = machine.unit("MainPID", "NRestarts")
        rose = at_the_rise(machine, broker, f"at-{what}", what)
        if not rose:
            continue
        fell = until(most + 30, lambda: machine.level() == 0)
        fell = machine.line()[-1][0] - rose if fell else None
        check(f"{what}: the line falls, after {fell and round(fell, 1)} s", fell is not None and fell <= most, machine.line())
        restarted = until(RESTART_S_MAX, lambda: (lambda now: now["ActiveState"] == "active" and now["MainPID"] != before["MainPID"] and now)(machine.unit("ActiveState", "MainPID", "NRestarts")))
        took = time.time() - rose
        check(f"{what}: systemd starts it again, active after {took:.0f} s", restarted, machine.unit("ActiveState", "Result", "NRestarts"))
        start = float(machine.read("python3 -c 'import time; print(time.time() - time.monotonic())'"))
        start += int(machine.unit("ExecMainStartTimestampMonotonic")["ExecMainStartTimestampMonotonic"]) / 1e6
        low = [at for at, level in line_inside(machine) if not level]
        check(f"{what}: ExecStopPost released it, before the next daemon began", low and low[0] < start, (low, start))
        check(f"{what}: it serves again", until(60, lambda: machine.request("GET", "/ready")[0] == 200))
        check(f"{what}: it is online again", online(broker, since, 60))
        moved = [change for change in machine.line() if change[0] > rose + (fell or 0) + 0.01]
        check(f"{what}: the new start does not energise", not any(level for _, level in moved), moved)
        figure(f"relay released after SIG{what}", f"{fell:.1f} s" if fell is not None else "never", "energised at that moment; PL061 keeps its level when its holder ends; real time, emulated")
        figure(f"serving again after SIG{what}", f"{took:.0f} s", "to the unit's `active`; real time, emulated")


def upgrade(machine, broker):
    note("upgrade in place")
    people = persons(machine)
    before = machine.unit("MainPID")["MainPID"]
    status, output = machine.sh("sha256sum </etc/facelatch/facelatch.toml; DEBIAN_FRONTEND=noninteractive dpkg --install /opt/next.deb; e=$?; sha256sum </etc/facelatch/facelatch.toml; exit $e", 600)
    check("dpkg installs the next version", status == 0, output)
    sums = re.findall(r"[0-9a-f]{64}", output)
    check("the changed configuration stays", len(sums) == 2 and sums[0] == sums[1], output)
    check("the version is the next one", "+next" in machine.read("dpkg-query -W -f '${Version}' facelatch"))
    check("the daemon was restarted", until(90, lambda: (lambda now: now["ActiveState"] == "active" and now["MainPID"] != before)(machine.unit("ActiveState", "MainPID"))), machine.unit("ActiveState", "MainPID"))
    check("it serves", until(60, lambda: machine.request("GET", "/ready")[0] == 200))
    check("the people are there", persons(machine) == people, people)
    check("the line did not move", machine.level() == 0)


def persons(machine):
    status, answer = machine.request("GET", "/persons?collection_name=staff&take=1000")
    return sorted(person["person_id"] for person in answer["persons"]) if status == 200 else (status, answer)


def readonly(machine, broker, people):
    note("root file system read-only")
    wall = machine.ready(BOOT_S_MAX)
    figure("boot to READY, real time", f"{wall:.0f} s", "two emulated cores, read-only root, by the clock on the wall")
    mounts = machine.read("findmnt -n -o OPTIONS /; findmnt -n -o OPTIONS /var/lib/facelatch; touch /etc/written 2>&1; touch /var/written 2>&1")
    check("the root cannot be written", "Read-only file system" in mounts and mounts.startswith("ro"), mounts)
    check("the unit is active", machine.unit("ActiveState")["ActiveState"] == "active", machine.unit("ActiveState", "Result"))
    machine.admin_key()
    check("the people are there", persons(machine) == people, (persons(machine), people))
    status, answer = machine.enrol("read-only", others()[0])
    check("a person is enrolled", status == 200, answer)
    watch_line_inside(machine)
    check("it is online", online(broker, 0, 120))
    mark = guest_now(machine)
    unlock(machine, broker, "read-only")
    check("a command opens", until(30, lambda: machine.level() == 1), journal(machine, "unlock|refused"))
    until(30, lambda: machine.level() == 0)
    opening(machine, "with a read-only root", mark)
    wrong = machine.read("journalctl --no-pager -q -o cat -u facelatch.service -p warning")
    print(wrong)
    check("nothing complains about the file system", not re.search("[Rr]ead-only", wrong), wrong)
    machine.off("reboot")


def others():
    return sorted(glob.glob(f"{FOLDER}/people/other-*"))


def offline(broker):
    note("the broker and its network are away at boot")
    broker.stop()
    machine = Machine(broker, counted=False).start()
    try:
        check("it starts all the same", machine.ready(BOOT_S_MAX))
        check("the unit is active", machine.unit("ActiveState")["ActiveState"] == "active")
        since = broker.count()
        broker.start()
        check("it is online as soon as the broker is back", online(broker, since, 180))
    finally:
        machine.cut()


# ---------------------------------------------------------------------- all of it


def tell(parts, broker):
    if set(parts) & {"boot", "face", "camera"}:
        machine = Machine(broker, counted=True).start()
        try:
            boot(machine, broker)
            if {"face", "camera"} & set(parts):
                face(machine, broker)
            if "camera" in parts:
                camera(machine, broker)
            check("no panic", journal(machine, "panicked") == "")
            machine.off()
        finally:
            machine.cut()
    if set(parts) & {"watchdog", "upgrade", "readonly"}:
        machine = Machine(broker, counted=False).start()
        try:
            machine.ready(BOOT_S_MAX)
            machine.admin_key()
            machine.request("POST", "/collection", {"name": "staff"})
            people = persons(machine)
            if "watchdog" in parts:
                watchdog(machine, broker)
            if "upgrade" in parts:
                upgrade(machine, broker)
            check("no panic", journal(machine, "panicked") == "")
            machine.off("reboot")
            if "readonly" in parts:
                machine = Machine(broker, counted=False, root="ro").start()
                readonly(machine, broker, people)
        finally:
            machine.cut()
    if "offline" in parts:
        offline(broker)
    if "cuts" in parts:
        appliance_cuts.cuts(broker, check, figure, others())


def main():
    parts = sys.argv[1:] or PARTS
    began = time.monotonic()
    broker = Broker()
    broker.start()
    try:
        tell(parts, broker)
    except (Failed, OSError, subprocess.SubprocessError, KeyError, ValueError, IndexError) as error:
        traceback.print_exc()
        check(f"the story reaches its end ({' '.join(parts)})", False, error)
    finally:
        broker.stop()
    figure("package, installed", f"{int(os.environ['APPLIANCE_DEB_KB']) / 1024:.1f} MB, {int(os.environ['APPLIANCE_INSTALLED_KB']) / 1024:.1f} MB", "files of the package, without models but the embedded ones")
    took = time.monotonic() - began
    with open(os.environ["APPLIANCE_SUMMARY"], "w") as file:
        file.write(f"# The appliance: {checks - failures} checks passed, {failures} failed, {took:.0f} s\n\n| what | figure | how |\n|---|---|---|\n")
        file.writelines(f"| {what} | {value} | {how} |\n" for what, value, how in summary)
    print(f"== {checks - failures} passed, {failures} failed in {took:.0f} s; {os.environ['APPLIANCE_SUMMARY']}")
    sys.exit(1 if failures or not checks else 0)


main()
