"""Broker, daemon, a subscriber of everything, and what the camera sees."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import uuid

from homeassistant import Failure, wait_until

DAEMON_USER, HASS_USER, TESTER_USER, STRANGER_USER = "facelatch", "homeassistant", "tester", "stranger"
PASSWORD = "broker-password"


# Whatever is started here ends with this program, however that ends.
BOUND = ["setpriv", "--pdeathsig", "KILL"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program(name):
    for folder in os.environ["PATH"].split(":") + ["/usr/sbin"]:
        if os.access(os.path.join(folder, name), os.X_OK):
            return os.path.join(folder, name)
    raise SystemExit(f"{name} is not installed")


class Broker:
    """Mosquitto with the guide's access rules; nothing is kept over a restart, the harder case."""

    def __init__(self, folder, rules):
        self.dir = folder
        self.port = free_port()
        self.process = None
        os.makedirs(folder)
        passwords = os.path.join(folder, "passwords")
        for number, user in enumerate([DAEMON_USER, HASS_USER, TESTER_USER, STRANGER_USER]):
            subprocess.run([program("mosquitto_passwd"), "-b", *(["-c"] if number == 0 else []), passwords, user, PASSWORD],
                           check=True)
        with open(os.path.join(folder, "rules"), "w", encoding="utf-8") as file:
            file.write(f"{rules}\nuser {TESTER_USER}\ntopic readwrite #\n")
        with open(os.path.join(folder, "mosquitto.conf"), "w", encoding="utf-8") as file:
            file.write(f"user root\nlistener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n"
                       f"acl_file {folder}/rules\nlog_type all\n")

    def start(self):
        with open(os.path.join(self.dir, "mosquitto.log"), "a", encoding="utf-8") as log:
            self.process = subprocess.Popen([*BOUND, program("mosquitto"), "-c", os.path.join(self.dir, "mosquitto.conf")],
                                            stdout=log, stderr=log, start_new_session=True)

        def listens():
            if self.process.poll() is not None:
                raise Failure(f"mosquitto ended, see {self.dir}/mosquitto.log")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        wait_until("the broker", listens)

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def log_size(self):
        return os.path.getsize(os.path.join(self.dir, "mosquitto.log"))

    def wait_subscribed(self, topic, since=0):
        """Until somebody subscribed to exactly this topic after the log had this size."""
        def subscribed():
            with open(os.path.join(self.dir, "mosquitto.log"), encoding="utf-8", errors="replace") as log:
                log.seek(since)
                return f"\t{topic} (QoS " in log.read()
        wait_until(f"a subscription to {topic}", subscribed)

    def options(self, user=TESTER_USER):
        return ["-h", "127.0.0.1", "-p", str(self.port), "-u", user, "-P", PASSWORD, "-V", "mqttv5"]

    def publish(self, topic, payload, retain=False, user=TESTER_USER):
        """The broker answers somebody without the right as it answers everybody else."""
        text = payload if isinstance(payload, str) else json.dumps(payload)
        subprocess.run([program("mosquitto_pub"), *self.options(user), "-i", f"{user}-{uuid.uuid4().hex[:8]}", "-q", "1", "-t", topic,
                        "-s" if text else "-n", *(["-r"] if retain else [])], input=text.encode(), check=user == TESTER_USER, capture_output=True)

    def denied(self):
        """The refusals that the broker has written down."""
        with open(os.path.join(self.dir, "mosquitto.log"), encoding="utf-8", errors="replace") as log:
            return [line.strip() for line in log if "Denied" in line]

    def retained(self, *topics, user=TESTER_USER):
        """Topic -> payload of every retained message that this user may read."""
        filters = [word for topic in topics for word in ("-t", topic)]
        # Ends by itself: retained messages come at once, before the one that the broker tells of itself.
        done = subprocess.run([program("mosquitto_sub"), *self.options(user), *filters, "--retained-only", "-F", "%j", "-W", "2"],
                              check=False, capture_output=True, text=True)
        messages = [json.loads(line) for line in done.stdout.splitlines()]
        return {message["topic"]: message.get("payload", "") for message in messages}


class Watcher:
    """Everything that goes over the broker from now on, in order."""

    def __init__(self, broker):
        self.messages = []
        self.process = subprocess.Popen([*BOUND, program("mosquitto_sub"), *broker.options(), "-q", "1", "-F", "%j",
                                         "-t", "facelatch/#", "-t", "homeassistant/#"],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            # A picture is no text; of its message only the topic is of interest.
            with contextlib.suppress(ValueError):
                self.messages.append(json.loads(line.decode(errors="replace"), strict=False))

    def stop(self):
        self.process.kill()
        self.process.wait()

    def mark(self):
        """A place in the stream, to look for what came later."""
        return len(self.messages)

    def since(self, mark, topic_end):
        return [message.get("payload", "") for message in self.messages[mark:] if message["topic"].endswith(topic_end)]

    def wait(self, mark, topic_end, wanted=lambda payload: True, what=None, patience_s=60):
        """The first such message after the mark."""
        def found():
            return next(([payload] for payload in self.since(mark, topic_end) if wanted(payload)), None)
        said = lambda: f"{what or topic_end} among {self.since(mark, topic_end)[-4:]}"
        return wait_until(said, found, patience_s)[0]


class Daemon:
    def __init__(self, binary, folder):
        self.binary = binary
        self.dir = folder
        self.file = os.path.join(folder, "facelatch.toml")
        self.log = os.path.join(folder, "facelatch.log")
        self.process = None

    def environment(self):
        # Nothing of the caller's environment changes the configuration.
        own = {name: value for name, value in os.environ.items()
               if not name.startswith("FACELATCH_") and name not in ("NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY")}
        return {**own, "ORT_DISABLE_TELEMETRY": "1"}

    def run(self, *words, config=None):
        done = subprocess.run([self.binary, *words, "--config", config or self.file], env=self.environment(), check=False,
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"facelatch {' '.join(words)}: {done.returncode} {done.stderr[-500:]}")
        return done

    def start(self):
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen([*BOUND, self.binary, "run", "--config", self.file], env=self.environment(),
                                            stdout=log, stderr=log, start_new_session=True)

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None


class Scene:
    """What the replayed camera sees: a link to a folder of pictures, which is exchanged in one step."""

    def __init__(self, folder):
        self.dir = folder
        self.link = os.path.join(folder, "camera")

    def show(self, name):
        new = self.link + ".new"
        os.symlink(os.path.join(self.dir, name), new)
        os.replace(new, self.link)
