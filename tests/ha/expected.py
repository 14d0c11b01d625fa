"""What has to appear in Home Assistant, by the configuration of checks.py."""

from dataclasses import dataclass, field

DEVICE = "Front door"


@dataclass(frozen=True)
class Entity:
    domain: str
    # As Home Assistant shows it behind the device's name; empty: the device's name alone.
    name: str
    # Attributes that it must have; None: it must not be there.
    attributes: dict = field(default_factory=dict)
    # The states that it may have while nobody stands there and nothing has happened; None: any that is not `unavailable`.
    states: tuple = None
    # Whether it is there only with `door.backend`.
    of_door: bool = True

    @property
    def friendly(self):
        return f"{DEVICE} {self.name}".strip()


ACCESS_TYPES = {"granted", "denied", "match", "unknown_face", "spoof_suspected", "exit_request", "forced_open", "held_open",
                "held_open_cleared", "tamper", "remote_unlock", "lockdown", "system"}

ENTITIES = {
    "lock": Entity("lock", "", {"code_format": r"^\d{4,8}$"}, ("locked",)),
    "access": Entity("event", "Access", {"event_types": ACCESS_TYPES}, of_door=False),
    "bell": Entity("event", "Doorbell", {"device_class": "doorbell", "event_types": {"ring"}}),
    "person": Entity("sensor", "Last person", of_door=False),
    "door": Entity("binary_sensor", "Door", {"device_class": "door"}, ("off",)),
    "held": Entity("binary_sensor", "Held open", {"device_class": "problem"}, ("off",)),
    "forced": Entity("binary_sensor", "Forced open", {"device_class": "safety"}, ("off",)),
    "tamper": Entity("binary_sensor", "Tamper", {"device_class": "tamper"}, ("off",)),
    "occupancy": Entity("binary_sensor", "Face present", {"device_class": "occupancy"}, ("off",), of_door=False),
    "face": Entity("switch", "Face unlock", {}, ("on",)),
    "mode": Entity("select", "Door mode", {"options": {"normal", "locked", "lockdown"}}, ("normal",)),
    "identify": Entity("button", "Identify", {"device_class": "identify"}, of_door=False),
    "p95": Entity("sensor", "Decision p95", {"unit_of_measurement": "ms", "state_class": "measurement"}, of_door=False),
    "persons": Entity("sensor", "Persons", {"state_class": "measurement"}, ("1",), of_door=False),
}
IMAGE = Entity("image", "Last decision", of_door=False)
