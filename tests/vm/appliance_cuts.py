"""Power cuts in the middle of enrolment, for appliance.sh. Whatever was answered with 200 before the
power failed must be there afterwards, and the store must open.

Two kinds. A *cut* kills the emulator and boots the machine again: what the guest held in memory is
lost, what it had written is not, flushed or not. A *replay* takes the writes of the first session, which
QEMU noted in their order (blklogwrites), up to a moment of chance, and of those that were written after
the last flush of the guest it keeps some, drops some and tears some: that is a card whose cache is
lost with the power. Its file system is then mended as at a boot (the journal), and the store is opened
by the program of this machine.

Not modelled: a card that says it has flushed when it has not, and one that loses what lay still."""

import json
import os
import random
import shutil
import struct
import subprocess
import threading
import time

from appliance_machine import FOLDER, Machine

CUTS = int(os.environ.get("CUTS", "12"))
REPLAYS = int(os.environ.get("REPLAYS", "200"))
# From the first request of a session; an enrolment takes about 3 s on an emulated core.
CUT_S = (0.3, 9.0)
BOOT_S_MAX = 420
# struct log_write_super and log_write_entry of the kernel's dm-log-writes, which QEMU writes too.
LOG_MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SECTOR = 512
WRITES, DATA, LOG = f"{FOLDER}/writes.img", f"{FOLDER}/data.img", "driver=blklogwrites,node-name=data,file.driver=raw,file.file.driver=file,file.file.filename={data},log.driver=raw,log.file.driver=file,log.file.filename={log}"
SEED = int(os.environ.get("SEED", "1"))


class Session:
    """Enrols people and makes collections, in turns, until the power fails; knows what was answered."""

    def __init__(self, machine, number, pictures):
        self.machine, self.number, self.pictures = machine, number, pictures
        self.answered = []
        self.refused = []
        self.began = threading.Event()
        self.over = False
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._people, self._collections)]

    def run(self):
        for thread in self.threads:
            thread.start()
        self.began.wait(30)
        return self

    def end(self):
        self.over = True
        for thread in self.threads:
            thread.join(30)

    def _people(self):
        for number in range(10_000):
            person = f"cut-{self.number}-{number}"
            picture = self.pictures[(self.number * 7 + number) % len(self.pictures)]
            if not self._did(("person", person), lambda: self.machine.enrol(person, picture, 30)):
                return

    def _collections(self):
        for number in range(10_000):
            name = f"cut-{self.number}-{number}"
            if not self._did(("collection", name), lambda: self.machine.request("POST", "/collection", {"name": name}, 30)):
                return

    def _did(self, what, ask):
        self.began.set()
        try:
            status, answer = ask()
        except (OSError, ValueError, EOFError):
            return False
        except Exception as error:  # whatever a connection that ends in the middle looks like
            print(f"## {what}: {error!r}")
            return False
        if status == 200:
            log = os.stat(WRITES).st_size if os.path.exists(WRITES) else 0
            self.answered.append((*what, log))
        else:
            self.refused.append((*what, status, answer))
            # A picture that shows two faces is refused; that is not what is tested here.
            time.sleep(0.1)
        return not self.over


def there(machine):
    """Everything that the machine has: the set of (kind, name)."""
    found = set()
    status, collections = machine.request("GET", "/collections")
    if status != 200:
        return found
    found |= {("collection", collection["name"]) for collection in collections}
    skip = 0
    while True:
        status, page = machine.request("GET", f"/persons?collection_name=staff&take=1000&skip={skip}")
        if status != 200 or not page["persons"]:
            return found
        found |= {("person", person["person_id"]) for person in page["persons"]}
        skip += 1000


def cuts(broker, check, figure, pictures):
    if not pictures:
        return print("SKIPPED power cuts: there are no pictures to enrol")
    chance = random.Random(SEED)
    answered, survived, began, enrolled = [], 0, time.monotonic(), 0
    moments, log = [], []
    for number in range(CUTS + 1):
        first = number == 0
        disk = None
        if first:
            shutil.copyfile(DATA, f"{FOLDER}/before.img")
            open(WRITES, "wb").close()
            disk = LOG.format(data=DATA, log=WRITES)
        machine = Machine(broker, counted=False, disk=disk).start()
        try:
            machine.ready(BOOT_S_MAX)
            machine.admin_key()
            if first:
                machine.request("POST", "/collection", {"name": "staff"})
            have = there(machine)
            lost = [what for what in answered if what[:2] not in have]
            if not first:
                good = check(f"cut {number}: the store opens and all {len(answered)} answered changes are there", have and not lost, lost)
                survived += good
            if number == CUTS:
                check("no panic", machine.read("journalctl -q -u facelatch.service -g panicked") == "")
                break
            session = Session(machine, number, pictures).run()
            # The first one is long: the replays take their moments from it.
            moment = CUT_S[1] * 3 if first else chance.uniform(*CUT_S)
            time.sleep(moment)
        finally:
            machine.cut()
        session.end()
        if first:
            log = session.answered
            os.replace(WRITES, f"{FOLDER}/session.img")
            shutil.copyfile(DATA, f"{FOLDER}/after.img")
        moments.append(round(moment, 1))
        enrolled += sum(1 for kind, *_ in session.answered if kind == "person")
        answered += [(kind, name) for kind, name, _ in session.answered]
        print(f"## cut {number + 1} after {moment:.1f} s: {len(session.answered)} answered, {len(session.refused)} refused", flush=True)
    figure("power cuts survived", f"{survived} of {CUTS}", f"emulator killed {min(moments)}–{max(moments)} s after the first of parallel enrolments and new collections, booted again; {len(answered)} changes answered, {enrolled} of them people, none lost" if survived == CUTS else f"of {len(answered)} answered changes some were lost")
    print(f"## cuts took {time.monotonic() - began:.0f} s")
    if REPLAYS:
        replays(chance, log, check, figure)


# ---------------------------------------------------------------------- replays


class Writes:
    """The noted writes of a session: (sector on the disk, flags, data, end in the log's file)."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.raw = file.read()
        magic, version, _, sector = struct.unpack_from("<QQQI", self.raw)
        if magic != LOG_MAGIC or version != 1:
            raise ValueError(f"{path} is no log of writes")
        self.entries, at = [], sector
        while at + sector <= len(self.raw):
            where, sectors, flags, _ = struct.unpack_from("<QQQQ", self.raw, at)
            at += sector
            size = 0 if flags & DISCARD else sectors * sector
            if at + size > len(self.raw) or not (sectors or flags):
                break
            self.entries.append((where * sector, flags, at, size, sectors * sector))
            at += size
            # The file may end in the middle of an entry: the power failed there too.

    def end(self, index):
        return self.entries[index][2] + self.entries[index][3]


def lose(writes, count, chance, image):
    """Writes the disk as the power left it after `count` entries: all that was flushed, and of the
    rest what chance keeps. Returns how many writes were dropped or torn."""
    flushed = max((i for i in range(count) if writes.entries[i][1] & FLUSH), default=-1)
    keep = chance.choice((0.0, 0.3, 0.7, 1.0))
    hurt = 0
    with open(image, "r+b") as disk:
        for index, (where, flags, at, size, length) in enumerate(writes.entries[:count]):
            if flags & DISCARD:
                data = b"\0" * length
            else:
                data = writes.raw[at:at + size]
            if index > flushed and not flags & FUA and data:
                if chance.random() > keep:
                    hurt += 1
                    # A third of those that are not there is there in part.
                    if chance.random() > 0.33:
                        continue
                    data = data[:chance.randrange(len(data) // SECTOR) * SECTOR]
            disk.seek(where)
            disk.write(data)
    return hurt


def replays(chance, answered, check, figure):
    writes = Writes(f"{FOLDER}/session.img")
    flushes = sum(1 for entry in writes.entries if entry[1] & FLUSH)
    start = min((log for *_, log in answered), default=0)
    first = next((i for i in range(len(writes.entries)) if writes.end(i) >= start), 0)
    print(f"## {len(writes.entries)} writes noted, {flushes} flushes, {len(writes.entries) - first} since the first answer; {len(answered)} answers")
    if not check("the guest flushes its writes", flushes > 0):
        return
    bad, hurt, moments = [], 0, 0
    for number in range(REPLAYS):
        count = chance.randrange(max(first - 20, 1), len(writes.entries) + 1)
        image = f"{FOLDER}/replay.img"
        shutil.copyfile(f"{FOLDER}/before.img", image)
        lost = lose(writes, count, chance, image)
        hurt += lost
        moments += lost > 0
        due = [(kind, name) for kind, name, log in answered if log <= writes.end(count - 1)]
        problem = opens(image, due)
        if problem:
            bad.append((count, problem))
            print(f"## replay {number}, {count} writes: {problem}")
            os.replace(image, f"{FOLDER}/replay-{number}.img")
    check(f"{REPLAYS} cuts with a card's cache lost: the store opens with all that was answered", not bad, bad[:3])
    figure("cuts with lost cache survived", f"{REPLAYS - len(bad)} of {REPLAYS}", f"writes of one session replayed to a moment of chance; {hurt} unflushed writes dropped or torn, at {moments} of the moments")


def opens(image, due):
    """What is wrong with the store of a disk image, or nothing."""
    mended = subprocess.run(["/sbin/e2fsck", "-E", "journal_only", "-fy", image], capture_output=True, text=True)
    if mended.returncode > 1:
        return f"e2fsck: {mended.stdout}{mended.stderr}"
    out = f"{FOLDER}/replayed"
    shutil.rmtree(out, ignore_errors=True)
    os.mkdir(out)
    subprocess.run(["/sbin/debugfs", "-R", f"rdump / {out}", image], capture_output=True, check=True)
    have = set()
    for kind, words in (("collection", ["collection", "list"]), ("person", ["person", "list", "--collection", "staff"])):
        answer = subprocess.run([os.environ["APPLIANCE_PROGRAM"], *words, "--json"], capture_output=True, text=True, env={
            **os.environ, "FACELATCH_STORE__DIR": out, "FACELATCH_LOG__LEVEL": "error",
            "FACELATCH_MODELS__PACK": "builtin", "FACELATCH_MODELS__RUNTIME": os.environ["APPLIANCE_RUNTIME"]})
        if answer.returncode:
            return f"{' '.join(words)}: {answer.stderr.strip()[-500:]}"
        have |= {(kind, item.get("name") if kind == "collection" else item["person_id"]) for item in json.loads(answer.stdout)}
    missing = [what for what in due if what not in have]
    return f"missing: {missing[:5]} of {len(due)}" if missing else ""
