#!/usr/bin/env python3
"""The daemon, a broker and a real Home Assistant: what a user sees and does, check by check.

Everything is asserted through Home Assistant's REST API and by a subscriber of the broker. Nothing
waits a fixed time for something to happen. Started by `run`.
"""

import argparse
import contextlib
import datetime
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import guide
from expected import ENTITIES, IMAGE
from homeassistant import Failure, HomeAssistant, wait_until
from rig import DAEMON_USER, HASS_USER, PASSWORD, STRANGER_USER, Broker, Daemon, Scene, Watcher, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
PIN, WRONG_PIN = "482913", "1111"
PERSON_ID, PERSON_NAME = "p-1", "Alice"
# More wrong PINs than any sensible limit.
WRONG_PINS_MAX = 12
# The lock-out of a minute, and time for a slow machine.
LOCK_OUT_MAX_S = 120

CONFIGURATION = """
[device]
name = "Front door"
[http]
listen = "127.0.0.1:0"
tls = false
[store]
dir = "{run}/store"
[models]
dir = "{models}"
pack = "{pack}"
runtime = "{runtime}"
workers = 1
[liveness]
# The pictures are photographs.
required = false
[mqtt]
url = "mqtt://127.0.0.1:{port}"
username = "{user}"
password_file = "{run}/mqtt-password"
last_image = {last_image}
[[camera]]
name = "front"
source = "replay:{run}/pictures/camera"
fps = 5
collection = "staff"
cooldown_s = 1
[door]
backend = "{backend}"
unlock_s = {unlock_s}
max_energised_s = 600
contact = "nc"
rex = "unlock"
tamper = "nc"
bell = "no"
fail_alarm_n = 0
pin_file = "{run}/pin"
[log]
format = "json"
"""


class Run:
    def __init__(self, options):
        self.options = options
        self.results = []
        self.started = time.monotonic()
        self.dir = options.state
        self.blocks = guide.blocks(options.guide)
        for name in ["config", "pictures", "broker", "store"]:
            shutil.rmtree(os.path.join(self.dir, name), ignore_errors=True)
        os.makedirs(os.path.join(self.dir, "store"), mode=0o700)
        self.write("pin", PIN + "\n")
        self.write("mqtt-password", PASSWORD + "\n")
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(self.dir, "facelatch.log"))
        self.make_pictures(options.pictures)
        self.scene = Scene(os.path.join(self.dir, "pictures"))
        self.scene.show("nobody")
        self.daemon = Daemon(options.daemon, self.dir)
        self.broker = self.watcher = self.hass = None
        self.ids = {}
        # States that differ from those of expected.py, by choice of a check.
        self.kept = {}
        self.device = None
        self.log_lines_before = 0

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o600)

    def make_pictures(self, root):
        """The first two people who have two pictures: one who is enrolled, and a stranger."""
        people = []
        for folder in sorted(os.listdir(root)):
            files = sorted(file for file in os.listdir(os.path.join(root, folder)) if file.endswith((".jpg", ".jpeg", ".png")))
            if len(files) >= 2:
                people.append([os.path.join(root, folder, file) for file in files[:2]])
            if len(people) == 2:
                break
        else:
            raise SystemExit(f"{root} does not hold two people with two pictures each")
        out = os.path.join(self.dir, "pictures")
        os.makedirs(out)
        sources = {"enrolled": people[0][0], "person": people[0][self.options.other_picture], "stranger": people[1][0]}
        for name, picture in sources.items():
            shutil.copy(picture, os.path.join(out, name + ".source"))
        shutil.copy(os.path.join(HERE, "pictures.py"), self.dir)
        subprocess.run([os.path.join(HERE, "python"), "/srv/ha/pictures.py", "/srv/ha/pictures",
                        *(f"{name}=/srv/ha/pictures/{name}.source" for name in sources)], check=True)

    def configure(self, backend="simulated", unlock_s=3, last_image=False):
        text = CONFIGURATION
        values = {"run": self.dir, "models": self.options.models, "pack": self.options.pack, "runtime": self.options.runtime,
                  "port": self.broker.port, "user": DAEMON_USER, "backend": backend, "unlock_s": unlock_s,
                  "last_image": str(last_image).lower()}
        for name, value in values.items():
            text = text.replace("{%s}" % name, str(value))
        self.write("facelatch.toml", text)

    # ------------------------------------------------------------ results

    @contextlib.contextmanager
    def check(self, name):
        began = time.monotonic()
        problem = None
        try:
            yield
        except Exception as error:
            problem = str(error) if isinstance(error, Failure) else f"{where(error)}: {type(error).__name__} {error}"
            # What follows begins as it would after a success.
            self.scene.show("nobody")
        self.results.append((name, problem))
        print(f"{'FAILED' if problem else 'ok    '} [{time.monotonic() - self.started:5.0f} s, {time.monotonic() - began:4.1f} s] {name}"
              + (f"\n         {problem}" if problem else ""), flush=True)

    def summary(self):
        failed = [name for name, problem in self.results if problem]
        print(f"\n{len(self.results) - len(failed)} checks passed, {len(failed)} failed, {time.monotonic() - self.started:.0f} s")
        for name in failed:
            print(f"   FAILED {name}")
        return 1 if failed else 0

    # ------------------------------------------------------------ helpers

    def base(self):
        """`<base>/<device_id>`, from the first status that the daemon published."""
        return next(message["topic"][:-len("/status")] for message in self.watcher.messages
                    if message["topic"].startswith("facelatch/") and message["topic"].endswith("/status"))

    def find(self, entity):
        """The id of an entity, by its domain and the name that people see."""
        for entity_id, state in self.hass.states().items():
            if entity_id.startswith(entity.domain + ".") and state["attributes"].get("friendly_name") == entity.friendly:
                return entity_id
        return None

    def of(self, key):
        return self.ids[key]

    def state(self, key):
        return self.hass.state(self.of(key))

    def wait(self, key, *wanted):
        return self.hass.wait_state(self.of(key), *wanted)

    def wait_event(self, before, *types, wanted=lambda attributes: True):
        """The next event of the access entity that is one of these."""
        def found():
            state = self.state("access")
            attributes = state["attributes"]
            fits = state["state"] not in (before, "unknown", "unavailable") and attributes.get("event_type") in types
            return state if fits and wanted(attributes) else None
        return wait_until(lambda: f"an event {types} after {before}; there is {self.state('access')}", found)

    def came_and_went(self, mark):
        """The lock opened once and closed again, by the broker's messages after the mark."""
        locks = self.watcher.since(mark, "/door/1/lock")
        return "UNLOCKED" in locks and locks[-1] == "LOCKED"

    def no_opening(self, mark):
        locks = self.watcher.since(mark, "/door/1/lock")
        assert not set(locks) & {"UNLOCKED", "OPEN"}, f"the lock showed {locks}"
        self.wait("lock", "locked")

    def command(self, cmd="UNLOCK", seconds=5, **more):
        exp = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
        return {"cmd": cmd, "code": PIN, "exp": exp.isoformat(), "nonce": uuid.uuid4().hex, **more}

    def send(self, payload, **more):
        self.broker.publish(self.base() + "/door/1/lock/set", payload, **more)

    def wait_error(self, mark, *codes):
        """The daemon said on B/error why it refused."""
        self.watcher.wait(mark, "/error", lambda text: json.loads(text)["code"] in codes, f"an error {codes}")

    def refused(self, mark, *codes):
        self.wait_error(mark, *codes)
        self.no_opening(mark)

    def unlock(self, code=PIN):
        return self.hass.call("lock", "unlock", entity_id=self.of("lock"), code=code)

    def visit(self, who):
        """Somebody comes; answers the access entity's state of before."""
        before = self.state("access")["state"]
        self.scene.show(who)
        return before

    def leave(self):
        """Seen to be there and then not to be there: out of sight for longer than the cool-down."""
        self.wait("occupancy", "on")
        self.scene.show("nobody")
        self.wait("occupancy", "off")


    def shown(self):
        """Key -> state, of everything but the events, which are unavailable like the rest but come back as they were."""
        states = self.hass.states()
        return {key: states.get(entity_id, {"state": "absent"})["state"] for key, entity_id in self.ids.items()}

    def expect(self):
        """Every entity is back, with the state that it has to have."""
        def wrong():
            shown = self.shown()
            return {key: shown[key] for key, entity in ENTITIES.items()
                    if shown[key] in ("unavailable", "absent")
                    or (wanted := ({self.kept[key]} if key in self.kept else entity.states)) and shown[key] not in wanted}
        wait_until(lambda: f"the right states; wrong are {wrong()}", lambda: not wrong())

    def rewatch(self):
        """The subscriber does not survive its broker."""
        self.watcher.stop()
        messages, self.watcher = self.watcher.messages, Watcher(self.broker)
        self.watcher.messages[:0] = messages

    def event_topic(self):
        """Where the access entity listens, by the daemon's own announcement."""
        for message in reversed(self.watcher.messages):
            if message["topic"].startswith("homeassistant/device/") and message.get("payload"):
                for part in json.loads(message["payload"])["cmps"].values():
                    if "unknown_face" in part.get("evt_typ", []):
                        return part["stat_t"]
        raise Failure("no announcement names an event entity")

    def event(self, event_type, seconds):
        """An event as the daemon would send it, valid for so long."""
        now = datetime.datetime.now(datetime.timezone.utc)
        return {"v": 1, "event_type": event_type, "id": uuid.uuid4().hex, "seq": 1, "camera": "front",
                "t_decision": now.isoformat(), "exp": (now + datetime.timedelta(seconds=seconds)).isoformat(),
                "person": {"id": PERSON_ID, "name": PERSON_NAME} if event_type == "granted" else None, "similarity_score": 0.9,
                "reason": None}

    def fence(self):
        """Until the broker has handed on everything that it was given so far."""
        mark = self.watcher.mark()
        self.broker.publish("facelatch/fence", uuid.uuid4().hex)
        self.watcher.wait(mark, "facelatch/fence")

    def automations_had_their_turn(self):
        """They run in the order of the events: one that a later event starts runs after those before."""
        ran = self.last_run("automation.facelatch_stranger")
        self.inject(self.event("unknown_face", seconds=5))
        wait_until("the automation to run", lambda: self.last_run("automation.facelatch_stranger") != ran)

    def last_run(self, automation):
        return self.hass.state(automation)["attributes"].get("last_triggered")

    def inject(self, event):
        """Publishes an event in the daemon's place, and waits until Home Assistant has it."""
        self.broker.publish(self.event_topic(), event)
        wait_until("the event", lambda: self.state("access")["attributes"].get("id") == event["id"])


def where(error):
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"


# ---------------------------------------------------------------- the checks, in their order

def start_everything(run):
    broker = run.broker = Broker(os.path.join(run.dir, "broker"), run.blocks["access_rules"])
    broker.start()
    run.watcher = Watcher(broker)
    run.configure()
    packages = {name: text for name, text in run.blocks.items() if name.startswith("automation_")}
    run.hass = HomeAssistant(HERE, os.path.join(run.dir, "config"), free_port(), packages)
    run.hass.start()
    run.daemon.run("collection", "create", "staff")
    run.daemon.run("person", "enrol", "--collection", "staff", "--id", PERSON_ID, "--name", PERSON_NAME,
                   "--store", "none", os.path.join(run.dir, "pictures", "enrolled", "0.jpg"))
    run.hass.wait_running()
    run.hass.add_mqtt(broker.port, HASS_USER, PASSWORD)
    # This automation began before there was an MQTT entry, which a user has beforehand.
    for service in ("turn_off", "turn_on"):
        run.hass.do("automation", service, entity_id="automation.facelatch_pin")
    run.log_lines_before = len(run.hass.log())
    run.daemon.start()


def setting_up(run):
    with run.check("the guide's settings are understood"):
        run.write("guide.toml", run.blocks["device_settings"])
        run.daemon.run("check", config=os.path.join(run.dir, "guide.toml"))


def discovery(run):
    with run.check("the device is discovered without YAML"):
        entity = wait_until("the lock", lambda: run.find(ENTITIES["lock"]))
        device = run.hass.device_of(entity)
        assert device["name"] == "Front door" and device["manufacturer"] == "facelatch", device
        version = run.daemon.run("--version").stdout.split()[-1]
        assert device["sw_version"].split()[0] == version, (device, version)
        run.device = device["id"]
    for key, entity in ENTITIES.items():
        with run.check(f"{entity.domain} {entity.friendly}"):
            run.ids[key] = wait_until(f"{entity.domain} {entity.friendly}; there are {sorted(run.hass.entities())}",
                                      lambda: run.find(entity), 20)
            if entity.states:
                run.wait(key, *entity.states)
            wait_until(lambda: f"{entity.friendly} to be available", lambda: run.state(key)["state"] != "unavailable", 20)
            attributes = run.state(key)["attributes"]
            for name, value in entity.attributes.items():
                there = attributes.get(name)
                assert (set(there or []) if isinstance(value, set) else there) == value, f"{name} is {there}, not {value}"
    with run.check("there is no entity but these"):
        assert run.hass.entities() == set(run.ids.values()), run.hass.entities() ^ set(run.ids.values())
    with run.check("no retained message names a person, and discovery is not retained"):
        retained = run.broker.retained("facelatch/#", "homeassistant/#")
        assert run.base() + "/status" in retained, retained
        assert not [topic for topic in retained if topic.startswith("homeassistant/")], retained
        assert PERSON_ID not in str(retained) and PERSON_NAME not in str(retained), retained


def faces(run):
    seen = []
    for number in (1, 2):
        with run.check(f"a person who comes is an event and opens the door (visit {number})"):
            mark = run.watcher.mark()
            before = run.visit("person")
            event = run.wait_event(before, "granted")
            attributes = event["attributes"]
            assert attributes["person"]["id"] == PERSON_ID and attributes["person"]["name"] == PERSON_NAME, attributes
            assert 0 < attributes["similarity_score"] <= 1, attributes
            run.leave()
            wait_until("the lock to open and close", lambda: run.came_and_went(mark))
            run.wait("lock", "locked")
            seen.append(event)
    with run.check("the second visit of the same person changed the event entity"):
        first, second = seen
        assert first["state"] != second["state"] and first["attributes"]["id"] != second["attributes"]["id"], seen
    with run.check("the sensor of the last person shows who it was"):
        run.wait("person", PERSON_NAME)
    with run.check("a stranger is an event and opens nothing"):
        mark = run.watcher.mark()
        run.wait_event(run.visit("stranger"), "unknown_face")
        run.leave()
        run.no_opening(mark)


def remote(run):
    with run.check("lock.unlock with the PIN opens, and the lock closes by itself"):
        mark, before = run.watcher.mark(), run.state("access")["state"]
        status, text = run.unlock()
        assert status == 200, (status, text)
        run.watcher.wait(mark, "/door/1/lock", lambda state: state == "UNLOCKED")
        run.wait("lock", "unlocked", "locked")
        run.wait_event(before, "remote_unlock")
        wait_until("the lock to close", lambda: run.came_and_went(mark))
        run.wait("lock", "locked")
    with run.check("Home Assistant asks for the PIN before it sends anything"):
        mark = run.watcher.mark()
        for code in ({}, {"code": "12"}, {"code": "letters"}):
            status, text = run.hass.call("lock", "unlock", entity_id=run.of("lock"), **code)
            assert status >= 400, (code, status, text)
        assert not run.watcher.since(mark, "/lock/set")
    with run.check("lock.open opens too"):
        mark = run.watcher.mark()
        run.hass.do("lock", "open", entity_id=run.of("lock"), code=PIN)
        wait_until("the lock to open and close", lambda: run.came_and_went(mark))
        run.wait("lock", "locked")
    with run.check("a wrong PIN opens nothing, and the daemon says so"):
        mark = run.watcher.mark()
        ran = run.last_run("automation.facelatch_pin")
        assert run.unlock(WRONG_PIN)[0] == 200
        run.refused(mark, "wrong_pin")
    with run.check("the guide's automation notifies of a wrong PIN"):
        wait_until("the automation to run", lambda: run.last_run("automation.facelatch_pin") != ran)
    with run.check("after repeated wrong PINs the right one is refused too, and that is told"):
        for _ in range(WRONG_PINS_MAX):
            mark = run.watcher.mark()
            assert run.unlock(WRONG_PIN)[0] == 200
            run.wait_error(mark, "wrong_pin", "pin_locked")
            if any(json.loads(text)["code"] == "pin_locked" for text in run.watcher.since(mark, "/error")):
                break
        else:
            raise Failure(f"{WRONG_PINS_MAX} wrong PINs did not lock it")
        mark = run.watcher.mark()
        assert run.unlock()[0] == 200
        run.refused(mark, "pin_locked")


def lock_out_ends(run):
    with run.check("the lock-out after wrong PINs ends by itself"):
        mark = run.watcher.mark()

        def opened():
            if "UNLOCKED" in run.watcher.since(mark, "/door/1/lock"):
                return True
            sent = run.watcher.mark()
            run.unlock()
            # Of many refusals only one a second is told.
            with contextlib.suppress(Failure):
                wait_until("an answer", lambda: run.watcher.since(sent, "/error") or run.watcher.since(sent, "/door/1/lock"), 3)
            return False
        wait_until("the PIN to open again", opened, LOCK_OUT_MAX_S)
        wait_until("the lock to close", lambda: run.came_and_went(mark))


def hostile(run):
    with run.check("a command that has expired opens nothing"):
        mark = run.watcher.mark()
        run.send(run.command(seconds=-1))
        run.refused(mark, "expired")
    with run.check("a command that expires far ahead opens nothing"):
        mark = run.watcher.mark()
        run.send(run.command(seconds=3600))
        run.refused(mark, "exp_too_far_ahead")
    with run.check("a command without expiry or nonce opens nothing"):
        for payload, code in (("UNLOCK", "bare_command"), ("OPEN", "bare_command"), ({"cmd": "UNLOCK", "code": PIN}, "missing_exp"),
                              ({**run.command(), "nonce": None}, "missing_nonce")):
            mark = run.watcher.mark()
            run.send(payload)
            run.refused(mark, code)
    with run.check("a repeated command opens nothing"):
        command, mark = run.command(), run.watcher.mark()
        run.send(command)
        wait_until("the first one to open and close", lambda: run.came_and_went(mark))
        mark = run.watcher.mark()
        run.send({**run.command(), "nonce": command["nonce"]})
        run.refused(mark, "repeated")
    with run.check("a retained command opens nothing, neither at once nor after the daemon's restart"):
        mark = run.watcher.mark()
        run.send(run.command(seconds=9), retain=True)
        run.refused(mark, "retained")
        mark = run.watcher.mark()
        run.daemon.stop()
        run.send(run.command(seconds=9), retain=True)
        run.daemon.start()
        run.wait("lock", "locked")
        run.refused(mark, "retained")
        run.send("", retain=True)
    with run.check("garbage opens nothing and stops nothing"):
        for payload, code in (("{", "malformed"), ("[]", "malformed"), ('{"cmd":7}', "malformed"), ("x" * 5000, "too_large"),
                              ("AJAR", "unknown_command"), ('{"cmd":"UNLOCK","exp":"never","nonce":{}}', "malformed")):
            mark = run.watcher.mark()
            run.send(payload)
            run.refused(mark, code)


def switches(run):
    with run.check("face unlock can be switched off: the face is recognised, the door stays locked"):
        run.hass.do("switch", "turn_off", entity_id=run.of("face"))
        run.wait("face", "off")
        mark = run.watcher.mark()
        before = run.visit("person")
        run.wait_event(before, "denied", "match", wanted=lambda own: own.get("reason") in ("face_disabled", None))
        run.leave()
        run.no_opening(mark)
        run.hass.do("switch", "turn_on", entity_id=run.of("face"))
        run.wait("face", "on")
    with run.check("in lockdown neither a face nor the PIN opens; normal opens again"):
        run.hass.do("select", "select_option", entity_id=run.of("mode"), option="lockdown")
        run.wait("mode", "lockdown")
        mark, before = run.watcher.mark(), run.state("access")["state"]
        assert run.unlock()[0] == 200
        run.wait_event(before, "denied", wanted=lambda own: own.get("reason") == "lockdown")
        before = run.visit("person")
        run.wait_event(before, "denied", "match", wanted=lambda own: own.get("person"))
        run.leave()
        run.no_opening(mark)
        run.hass.do("select", "select_option", entity_id=run.of("mode"), option="normal")
        run.wait("mode", "normal")
        mark = run.watcher.mark()
        assert run.unlock()[0] == 200
        wait_until("the lock to open and close", lambda: run.came_and_went(mark))
    with run.check("the mode `unlocked` is not to be had without PIN, and can be ended"):
        topic = run.base() + "/door/1/mode/set"
        for payload, code in (("unlocked", "bare_command"), (run.command("unlocked", code=None), "missing_pin")):
            mark = run.watcher.mark()
            run.broker.publish(topic, payload)
            run.refused(mark, code)
        run.broker.publish(topic, run.command("unlocked"))
        run.wait("lock", "unlocked")
        run.hass.do("select", "select_option", entity_id=run.of("mode"), option="normal")
        run.wait("lock", "locked")
        run.wait("mode", "normal")
    with run.check("the button identifies the device"):
        run.hass.do("button", "press", entity_id=run.of("identify"))
        wait_until("a line in the daemon's log", lambda: "identif" in open(run.daemon.log, encoding="utf-8").read().lower())


def automations(run):
    """The guide's own YAML; the gate is a switch of configuration.yaml."""
    with run.check("the guide's automation opens the gate for a granted person"):
        run.hass.do("switch", "turn_off", entity_id="switch.gate")
        run.visit("person")
        run.hass.wait_state("switch.gate", "on")
        run.leave()
        run.wait("lock", "locked")
    with run.check("the guide's automation opens nothing for an event that has expired"):
        run.hass.do("switch", "turn_off", entity_id="switch.gate")
        stale = run.event("granted", seconds=-1)
        run.inject(stale)
        run.automations_had_their_turn()
        assert run.hass.state("switch.gate")["state"] == "off", "it opened"
        run.inject(run.event("granted", seconds=5))
        run.hass.wait_state("switch.gate", "on")
    with run.check("the guide's automation opens nothing for an event that Home Assistant remembers over a restart"):
        last = run.event("granted", seconds=5)
        run.inject(last)
        run.hass.wait_state("switch.gate", "on")
        run.hass.do("switch", "turn_off", entity_id="switch.gate")
        run.hass.stop()
        wait_until("the event to expire", lambda: last["exp"] < run.event("granted", seconds=0)["exp"])
        run.hass.start()
        run.hass.wait_running()
        wait_until("the remembered event", lambda: run.state("access")["attributes"].get("id") == last["id"])
        run.automations_had_their_turn()
        assert run.hass.state("switch.gate")["state"] != "on", "it opened"
    with run.check("the guide's automation notifies of somebody unknown"):
        run.automations_had_their_turn()
    with run.check("the guide's automation notifies of a door forced open, held open or tampered with"):
        for key, topic in (("forced", "/door/1/forced"), ("held", "/door/1/held"), ("tamper", "/tamper")):
            ran = run.last_run("automation.facelatch_alarm")
            run.broker.publish(run.base() + topic, "ON", retain=True)
            run.wait(key, "on")
            wait_until("the automation to run", lambda: run.last_run("automation.facelatch_alarm") != ran)
            run.broker.publish(run.base() + topic, "OFF", retain=True)
            run.wait(key, "off")
    with run.check("a ring of the bell is an event"):
        before = run.state("bell")["state"]
        run.broker.publish(run.base() + "/doorbell", {"event_type": "ring", "id": uuid.uuid4().hex})
        wait_until("the ring", lambda: run.state("bell")["state"] not in (before, "unavailable"))
    with run.check("every automation of the guide is loaded"):
        loaded = {entity for entity, state in run.hass.states().items() if entity.startswith("automation.") and state["state"] == "on"}
        wanted = {f"automation.facelatch_{name[len('automation_'):]}" for name in run.blocks if name.startswith("automation_")}
        assert wanted and loaded == wanted, (loaded, wanted)


def restarts(run):
    with run.check("lock.lock ends an opening"):
        # An opening that would outlast every patience of this program.
        run.daemon.stop()
        run.configure(unlock_s=255)
        run.daemon.start()
        wait_until("the daemon", lambda: run.state("lock")["state"] == "locked")
        assert run.unlock()[0] == 200
        run.wait("lock", "unlocked")
        run.hass.do("lock", "lock", entity_id=run.of("lock"), code=PIN)
        run.wait("lock", "locked")
    with run.check("a daemon that is killed while the door is open: everything is unavailable, then the door is locked"):
        assert run.unlock()[0] == 200
        run.wait("lock", "unlocked")
        run.daemon.kill()
        wait_until(lambda: f"unavailable; there is {run.shown()}", lambda: set(run.shown().values()) == {"unavailable"})
        run.daemon.start()
        run.expect()
    with run.check("mode and face unlock are chosen for what follows"):
        run.hass.do("select", "select_option", entity_id=run.of("mode"), option="locked")
        run.hass.do("switch", "turn_off", entity_id=run.of("face"))
        run.kept = {"mode": "locked", "face": "off"}
        run.expect()
    parts = {"broker": (run.broker.stop, run.broker.start), "daemon": (run.daemon.stop, run.daemon.start),
             "Home Assistant": (run.hass.stop, lambda: (run.hass.start(), run.hass.wait_running()))}
    for name, (stop, start) in parts.items():
        with run.check(f"all states are right after a restart of the {name}".replace("the Home", "Home")):
            stop()
            if name != "Home Assistant":
                wait_until(lambda: f"unavailable; there is {run.shown()}", lambda: set(run.shown().values()) == {"unavailable"})
            start()
            run.rewatch()
            run.expect()
    for order in itertools.permutations(parts):
        with run.check(f"all states are right after a start in the order {', '.join(order)}"):
            for stop, _ in parts.values():
                stop()
            for name in order:
                parts[name][1]()
            run.rewatch()
            run.expect()
    with run.check("mode and face unlock are set back"):
        run.hass.do("select", "select_option", entity_id=run.of("mode"), option="normal")
        run.hass.do("switch", "turn_on", entity_id=run.of("face"))
        run.kept = {}
        run.expect()


def configurations(run):
    with run.check("a picture of the last event appears when it is switched on"):
        run.daemon.stop()
        run.configure(last_image=True)
        run.daemon.start()
        image = wait_until("an image entity", lambda: run.find(IMAGE))
        run.broker.wait_subscribed(run.base() + "/last_image")
        before = run.hass.state(image)["state"]
        run.visit("person")
        wait_until("another picture", lambda: run.hass.state(image)["state"] not in (before, "unknown", "unavailable"))
        status, text = run.hass.request("GET", run.hass.state(image)["attributes"]["entity_picture"], token=False, binary=True)
        assert status == 200 and text.startswith(b"\xff\xd8"), (status, text[:20])
        run.leave()
        run.wait("lock", "locked")
    with run.check("without a door its entities go, and the others stay"):
        run.daemon.stop()
        log_size = run.broker.log_size()
        run.configure(backend="none")
        run.daemon.start()
        staying = {run.ids[key] for key, entity in ENTITIES.items() if not entity.of_door}
        wait_until(lambda: f"{staying}; there are {run.hass.entities()}", lambda: run.hass.entities() == staying)
        run.broker.wait_subscribed(run.event_topic(), log_size)
        before = run.state("access")["state"]
        run.scene.show("person")
        run.wait_event(before, "match")
        run.leave()
    with run.check("with the door they come back"):
        run.daemon.stop()
        run.configure()
        run.daemon.start()
        wait_until(lambda: f"all entities; there are {run.hass.entities()}", lambda: run.hass.entities() == set(run.ids.values()))
        run.expect()


# Home Assistant's own words for a broker that is away, which it is on purpose here.
CONNECTION = re.compile(r"Failed to connect to MQTT server|Disconnected from MQTT server|Error returned from MQTT server|"
                        r"Connected to MQTT server|Connection refused|Unable to connect to MQTT|Not connected to MQTT")


def rights(run):
    with run.check("the guide's rules let nobody else on the broker give a command"):
        mark = run.watcher.mark()
        for topic, payload in (("/door/1/lock/set", run.command()), ("/door/1/mode/set", "lockdown"), ("/face/enabled/set", "OFF")):
            run.broker.publish(run.base() + topic, payload, user=STRANGER_USER)
        run.fence()
        assert not run.watcher.since(mark, "/set"), run.watcher.since(mark, "/set")
        readable = run.broker.retained("facelatch/#", "homeassistant/#", user=STRANGER_USER)
        assert not readable, readable
    with run.check("the guide's rules give daemon and Home Assistant all that they ask for"):
        denied = run.broker.denied()
        others = [line for line in denied if f"from {STRANGER_USER}-" not in line]
        assert denied, "the broker writes down no refusal"
        assert not others, others[:5]


def home_assistant_log(run):
    with run.check("Home Assistant's log holds no complaint about what the daemon publishes"):
        complaints = [line for line in run.hass.log()[run.log_lines_before:]
                      if re.search(r" (WARNING|ERROR|CRITICAL) ", line) and not CONNECTION.search(line)
                      and re.search(r"mqtt|template|automation|facelatch|front_door|lock", line, re.IGNORECASE)]
        assert not complaints, "\n         ".join(complaints[:20])


def purge(run):
    with run.check("`facelatch mqtt purge` removes the device, its entities and every retained message"):
        run.daemon.stop()
        retained = run.broker.retained("facelatch/#", "homeassistant/#")
        assert retained, "there was nothing to remove"
        run.daemon.run("mqtt", "purge")
        wait_until(lambda: f"no entity; there are {run.hass.entities()}", lambda: not run.hass.entities())
        wait_until("the device to go", lambda: not run.hass.device_exists(run.device))
        left = run.broker.retained("facelatch/#", "homeassistant/#")
        assert not left, left
    with run.check("after a restart of Home Assistant they are still gone"):
        run.hass.stop()
        run.hass.start()
        run.hass.wait_running()
        assert not run.hass.entities() and not run.hass.device_exists(run.device)


def main():
    parser = argparse.ArgumentParser()
    for name in ("daemon", "state", "models", "pack", "runtime", "pictures", "guide"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--other-picture", type=int, default=1, choices=[0, 1],
                        help="0: the camera sees the picture of the enrolment")
    parser.add_argument("--only", nargs="*", help="names of groups, besides start and discovery")
    # What was started is stopped also when this program is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    run = Run(parser.parse_args())
    groups = [remote, faces, automations, lock_out_ends, hostile, switches, restarts, configurations, rights, purge, home_assistant_log]
    try:
        with run.check("broker, Home Assistant and daemon start"):
            start_everything(run)
        if run.results[-1][1]:
            return run.summary()
        setting_up(run)
        discovery(run)
        for group in groups:
            if not run.options.only or group.__name__ in run.options.only:
                group(run)
    finally:
        for part in (run.daemon, run.hass, run.watcher, run.broker):
            if part:
                part.stop()
    return run.summary()


if __name__ == "__main__":
    sys.exit(main())
