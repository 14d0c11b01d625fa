"""The virtual machine of appliance.sh, and what is beside it on this machine: broker, HTTP client,
the level of the relay's line as the emulator drives it.

Two kinds of time. `counted`: one core, and time in the guest is counted in instructions, one a
nanosecond, so that what has a limit (a grant is good for 800 ms) is not late because of emulation;
while the guest waits, time passes as outside. Otherwise two cores in real time: three to ten times
slower than a board, and boots in half the time."""

import base64
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time

FOLDER = os.environ["APPLIANCE"]
GUEST_BROKER = "10.0.2.2"
RELAY_LINE = 0
# PL061's line as QEMU traces it, with -msg timestamp=on.
TRACED = re.compile(rb"^\d+@(\d+\.\d+):pl061_set_output \S+ setting output (\d+) to ([01])", re.MULTILINE)


class Failed(Exception):
    """A step without which the story cannot go on."""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until(seconds, condition, step=0.2):
    """Whether the condition holds within so many seconds; its value if it does."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(step)


class Broker:
    """mosquitto with all messages of facelatch in a file. Behind a counted machine, which answers late
    by this clock, stands a relay of bytes that sets the keep-alive of each connection to none."""

    def __init__(self):
        self.port, self.patient_port = free_port(), free_port()
        self.messages_file = f"{FOLDER}/messages.log"
        open(self.messages_file, "w").close()
        self.processes = []
        door = socket.create_server(("127.0.0.1", self.patient_port))
        threading.Thread(target=self._be_patient, args=(door,), daemon=True).start()

    def start(self):
        with open(f"{FOLDER}/mosquitto.conf", "w") as file:
            file.write(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        log = open(f"{FOLDER}/mosquitto.log", "a")
        self.processes = [subprocess.Popen(["mosquitto", "-c", file.name], stdout=log, stderr=log)]
        if not until(10, self._answers):
            raise Failed("the broker does not start")
        out = open(self.messages_file, "a")
        self.processes.append(subprocess.Popen(
            ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(self.port), "-V", "mqttv5", "-t", "facelatch/#",
             "-F", "%U %r %t %p"], stdout=out))

    def stop(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        self.processes = []

    def tell(self, topic, payload):
        subprocess.run(["mosquitto_pub", "-h", "127.0.0.1", "-p", str(self.port), "-V", "mqttv5", "-q", "1",
                        "-t", topic, "-m", payload], check=True)

    def messages(self, topic, since=0):
        """(time, retained, topic, payload) of each message whose topic ends so."""
        found = []
        with open(self.messages_file, errors="replace") as file:
            for line in file.read().splitlines()[since:]:
                at, retained, name, payload = (line.split(" ", 3) + [""])[:4]
                if name.endswith(topic):
                    found.append((float(at), retained == "1", name, payload))
        return found

    def count(self):
        with open(self.messages_file) as file:
            return len(file.read().splitlines())

    def _answers(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def _be_patient(self, door):
        while True:
            client, _ = door.accept()
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client):
        try:
            broker = socket.create_connection(("127.0.0.1", self.port))
        except OSError:
            return client.close()
        threading.Thread(target=self._pump, args=(broker, client, False), daemon=True).start()
        self._pump(client, broker, True)

    @staticmethod
    def _pump(source, sink, first):
        try:
            while data := source.recv(65536):
                if first and data[:1] == b"\x10":
                    # CONNECT: name and version of the protocol, flags, then two bytes of keep-alive.
                    at = data.index(b"MQTT") + 6
                    data, first = data[:at] + b"\0\0" + data[at + 2:], False
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Machine:
    def __init__(self, broker, counted, root="rw", disk=None):
        self.counted, self.root = counted, root
        self.https, self.key, self.tls = free_port(), None, None
        self.agent, self.busy = None, threading.Lock()
        for stale in ("agent", "monitor"):
            if os.path.exists(f"{FOLDER}/{stale}"):
                os.remove(f"{FOLDER}/{stale}")
        port = broker.patient_port if counted else broker.port
        # No cache setting: a flush of the guest reaches the file, and what it did not flush is not lost
        # when the emulator is killed. What that leaves out, appliance_cuts.py replays.
        disk = disk or f"driver=raw,node-name=data,file.driver=file,file.filename={FOLDER}/data.img"
        words = ["console=ttyAMA0", "quiet", "panic=-1", self.root,
                 f"systemd.setenv=FACELATCH_MQTT__URL=mqtt://{GUEST_BROKER}:{port}"]
        self.command = [
            "qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-m", "1024", "-display", "none", "-no-reboot",
            *(["-smp", "1", "-accel", "tcg,thread=single", "-icount", "shift=0", "-rtc", "clock=vm"] if counted
              else ["-smp", "2", "-accel", "tcg,thread=multi"]),
            "-kernel", os.environ["APPLIANCE_KERNEL"], "-initrd", f"{FOLDER}/start.cpio.gz", "-append", " ".join(words),
            "-drive", f"if=none,id=root,format=raw,cache=writeback,file={FOLDER}/root.img",
            "-device", "virtio-blk-device,drive=data", "-device", "virtio-blk-device,drive=root",
            "-blockdev", disk,
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.https}-:8443", "-device", "virtio-net-device,netdev=net",
            "-device", "virtio-serial-device", "-chardev", f"socket,id=agent,path={FOLDER}/agent,server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=appliance",
            "-qmp", f"unix:{FOLDER}/monitor,server=on,wait=off", "-serial", f"file:{FOLDER}/console.log",
            "-msg", "timestamp=on", "-trace", "pl061_set_output", "-D", f"{FOLDER}/line.log",
        ]

    # ------------------------------------------------------------------ on and off

    def start(self):
        self.started = time.monotonic()
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        return self

    def ready(self, seconds):
        """Seconds from power-on until GET /ready answers 200."""
        def asked():
            if self.process.poll() is not None:
                raise Failed(f"QEMU ended with {self.process.returncode}, see {FOLDER}/console.log")
            try:
                return self.request("GET", "/ready", timeout=20)[0] == 200
            except (OSError, http.client.HTTPException):
                return False
        if not until(seconds, asked, 0.5):
            raise Failed(f"not ready after {seconds} s, see {FOLDER}/console.log")
        return time.monotonic() - self.started

    def cut(self):
        """The power fails: no signal that could be handled, no flush."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.agent = None

    def off(self, word="poweroff"):
        try:
            self.sh(f"systemctl --no-block {word}")
        except (Failed, OSError):
            pass  # it may end before it answers
        try:
            self.process.wait(180)
        except subprocess.TimeoutExpired:
            self.cut()
            raise Failed(f"the machine does not end after `systemctl {word}`") from None
        self.agent = None

    # ------------------------------------------------------------------ inside

    def sh(self, script, seconds=300):
        """(status, output) of a script that runs in the guest as root."""
        with self.busy:
            if self.agent is None:
                self.agent = socket.socket(socket.AF_UNIX)
                self.agent.connect(f"{FOLDER}/agent")
            self.agent.settimeout(seconds)
            self.agent.sendall(base64.b64encode(script.encode()) + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                piece = self.agent.recv(65536)
                if not piece:
                    raise Failed("the guest's agent is gone")
                answer += piece
        status, output = answer.decode().strip().partition(" ")[::2]
        return int(status), base64.b64decode(output).decode(errors="replace")

    def read(self, script):
        return self.sh(script)[1].strip()

    def unit(self, *names):
        """Properties of the daemon's unit."""
        text = self.read("systemctl show facelatch.service " + " ".join(f"-p {name}" for name in names))
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def admin_key(self):
        status, self.key = self.sh("facelatch key add --config /etc/facelatch/facelatch.toml --name test --scope admin 2>/run/key.log")
        self.key = self.key.strip()
        if status or not self.key:
            raise Failed("no key: " + self.read("cat /run/key.log"))

    def trust(self):
        """From now on only the certificate that lies on the guest's disk is accepted."""
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.check_hostname = False
        self.tls.load_verify_locations(cadata=self.read("cat /var/lib/facelatch/tls/cert.pem"))

    # ------------------------------------------------------------------ outside

    def request(self, method, path, body=None, timeout=120):
        tls = self.tls
        if tls is None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", self.https, timeout=timeout, context=tls)
        try:
            headers = {"content-type": "application/json", **({"x-api-key": self.key} if self.key else {})}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text[:1] in b"{[" and text else text
        finally:
            connection.close()

    def enrol(self, person, picture, timeout=120):
        with open(picture, "rb") as file:
            face = base64.b64encode(file.read()).decode()
        return self.request("PUT", "/person", {
            "collection_name": "staff", "person_id": person, "person_name": person,
            "face_storage_type": "StoreThumbnails", "face_base_64": face}, timeout)

    def line(self):
        """(time, level) of each change of the relay's line, as the emulated controller drives it."""
        try:
            with open(f"{FOLDER}/line.log", "rb") as file:
                found = TRACED.findall(file.read())
        except FileNotFoundError:
            return []
        return [(float(at), int(level)) for at, line, level in found if int(line) == RELAY_LINE]

    def level(self):
        changes = self.line()
        return changes[-1][1] if changes else 0
