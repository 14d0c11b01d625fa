"""Home Assistant as a process and its REST API."""

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

USER, PASSWORD = "test", "test1234"
# Longest time for anything that is waited for; a loaded machine is slow, a broken one is worse.
PATIENCE_S = 90
POLL_S = 0.1


class Failure(Exception):
    """Something is not as it has to be."""


def wait_until(what, wanted, patience_s=PATIENCE_S):
    """Looks until `wanted` answers something true; `what` may be a function that says what is there."""
    deadline = time.monotonic() + patience_s
    while True:
        found = wanted()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failure(f"waited {patience_s} s in vain for {what() if callable(what) else what}")
        time.sleep(POLL_S)


class HomeAssistant:
    def __init__(self, here, state_dir, port, packages):
        """`packages`: name of a file -> text, the parts of the guide that Home Assistant runs with."""
        self.hass = os.path.join(here, "hass")
        self.dir = state_dir
        self.base = f"http://127.0.0.1:{port}"
        self.token = None
        self.process = None
        self.starts = 0
        self.logs = []
        shutil.rmtree(state_dir, ignore_errors=True)
        os.makedirs(os.path.join(state_dir, "packages"))
        with open(os.path.join(here, "configuration.yaml"), encoding="utf-8") as file:
            text = file.read().replace("{port}", str(port))
        self.write("configuration.yaml", text)
        for name, package in packages.items():
            self.write(os.path.join("packages", name + ".yaml"), package)
        subprocess.run([self.hass, "--script", "auth", "-c", "/srv/ha/config", "add", USER, PASSWORD],
                       check=True, stdout=subprocess.DEVNULL)

    def write(self, name, text):
        with open(os.path.join(self.dir, name), "w", encoding="utf-8") as file:
            file.write(text)

    # ------------------------------------------------------------ process

    def start(self):
        self.starts += 1
        log = os.path.join(self.dir, f"output-{self.starts}.log")
        self.logs.append(log)
        with open(log, "w", encoding="utf-8") as file:
            # A session of its own, so that Ctrl-C reaches this program alone, which then stops it.
            self.process = subprocess.Popen([self.hass, "-c", "/srv/ha/config", "--skip-pip"], stdout=file,
                                            stderr=subprocess.STDOUT, start_new_session=True)

    def wait_running(self):
        def running():
            if self.process.poll() is not None:
                raise Failure(f"Home Assistant ended, see {self.logs[-1]}")
            try:
                return self.get("/api/config")["state"] == "RUNNING"
            except (OSError, Failure):
                return False
        wait_until("Home Assistant", running, 180)

    def stop(self):
        if self.process is None:
            return
        try:
            self.call("homeassistant", "stop")
            self.process.wait(60)
        except (OSError, Failure, subprocess.TimeoutExpired):
            # The chroot dies with `hass`, which waits for nothing.
            self.process.kill()
            self.process.wait()
        self.process = None

    def log(self):
        lines = []
        for name in self.logs:
            with open(name, encoding="utf-8", errors="replace") as file:
                lines += file.read().splitlines()
        return lines

    # ------------------------------------------------------------ REST

    def request(self, method, path, body=None, form=False, token=True, binary=False):
        data, headers = None, {}
        if body is not None:
            data = (urllib.parse.urlencode(body) if form else json.dumps(body)).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded" if form else "application/json"
        if token:
            if self.token is None:
                self.log_in()
            headers["Authorization"] = "Bearer " + self.token
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(urllib.request.Request(self.base + path, data, headers, method=method), timeout=60) as answer:
                content = answer.read()
                return answer.status, content if binary else content.decode()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code == 401 and token:
                self.token = None
                return self.request(method, path, body, form, token, binary)
            return error.code, text

    def answer(self, method, path, body=None, **more):
        status, text = self.request(method, path, body, **more)
        if status not in (200, 201):
            raise Failure(f"{method} {path}: {status} {text[:300]}")
        return json.loads(text or "null")

    def get(self, path):
        return self.answer("GET", path)

    def log_in(self):
        client = self.base + "/"
        flow = self.answer("POST", "/auth/login_flow", token=False, body={
            "client_id": client, "handler": ["homeassistant", None], "redirect_uri": client})
        flow = self.answer("POST", "/auth/login_flow/" + flow["flow_id"], token=False, body={
            "client_id": client, "username": USER, "password": PASSWORD})
        self.token = self.answer("POST", "/auth/token", form=True, token=False, body={
            "grant_type": "authorization_code", "code": flow["result"], "client_id": client})["access_token"]

    def add_mqtt(self, port, username, password):
        """The steps of the user interface: Settings, Devices & services, Add integration, MQTT."""
        flow = self.answer("POST", "/api/config/config_entries/flow", {"handler": "mqtt"})
        path = "/api/config/config_entries/flow/" + flow["flow_id"]
        if flow["type"] == "menu":
            flow = self.answer("POST", path, {"next_step_id": "broker"})
        flow = self.answer("POST", path, {"broker": "127.0.0.1", "port": port,
                                          "username": username, "password": password})
        if flow["type"] != "create_entry":
            raise Failure(f"the MQTT entry: {flow}")

    def call(self, domain, service, **data):
        """A service call; answers the HTTP status and the text, for some have to be refused."""
        return self.request("POST", f"/api/services/{domain}/{service}", data)

    def do(self, domain, service, **data):
        status, text = self.call(domain, service, **data)
        if status != 200:
            raise Failure(f"{domain}.{service}: {status} {text[:300]}")

    def states(self):
        return {state["entity_id"]: state for state in self.get("/api/states")}

    def state(self, entity):
        """State and attributes; a state of None when there is no such entity."""
        status, text = self.request("GET", "/api/states/" + entity)
        return json.loads(text) if status == 200 else {"state": None, "attributes": {}}

    def wait_state(self, entity, *wanted, patience_s=PATIENCE_S):
        def found():
            state = self.state(entity)
            return state if state["state"] in wanted else None
        return wait_until(lambda: f"{entity} to be {' or '.join(wanted)}; it is {self.state(entity)['state']}",
                          found, patience_s)

    def template(self, text):
        status, answer = self.request("POST", "/api/template", {"template": text})
        if status != 200:
            raise Failure(f"template {text}: {status} {answer[:300]}")
        return answer

    def entities(self):
        """Every entity of the MQTT integration that is switched on."""
        return set(json.loads(self.template("{{ integration_entities('mqtt') | list | to_json }}")))

    def device_of(self, entity):
        """Name, manufacturer and so on of the device, with its id; None without one."""
        fields = ["id", "name", "manufacturer", "model", "sw_version", "serial_number"]
        device = self.template("{{ device_id('%s') }}" % entity)
        if device == "None":
            return None
        return json.loads(self.template("{{ dict(%s) | to_json }}" % ", ".join(
            f"{field}=device_attr('{device}', '{field}')" for field in fields)))

    def device_exists(self, device):
        return self.template("{{ device_attr('%s', 'id') }}" % device) != "None"
