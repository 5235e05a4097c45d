#!/usr/bin/env python3
"""Cuts the power of a virtual machine, as often as wanted, out of one run of it.

    cuts.py watch PIDFILE ACKS LOG MOMENTS EXPECTED OUT     pauses the machine and notes each moment in OUT
    cuts.py copies DISK BEFORE LOG ACKS MOMENTS IMAGES DIR  writes the disk of each moment into IMAGES, one behind
                                                            the other, and DIR/N.acks, .later, .model

The machine's disk is qemu's blklogwrites: every write and flush of the guest is in LOG, in order and with its
content. At a moment the machine is paused by SIGSTOP: qemu's own `stop` flushes the drive, which no power cut
does. Noted are the acknowledgements that were out and how long the log was, so that what they promise is surely
in it; between the moments the same is noted at each acknowledgement. From the log the disk is made as a power cut may
have left it, by turns:

written   everything the guest had written is there
flushed   nothing is there that was written after its last flush
torn      of what was written after it, every write may be there, or not, or a part of its sectors; here the cut is a
          little after the pause, where most writes were not flushed
"""

import os
import random
import signal
import struct
import sys
import time

SECTOR = 512
FLUSH, FUA, DISCARD = 1, 2, 4
MAGIC = 0x6A736677736872
MODELS = ("written", "flushed", "torn")


def stopped(pid):
    """Every thread of it."""
    try:
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/stat" % (pid, task)) as f:
                if f.read().rpartition(")")[2].split()[0] not in "TtZX":
                    return False
    except FileNotFoundError:
        return False
    return True


def watch(pidfile, acks, log, moments, expected, out):
    """Moments at equal distances in the acknowledgements, the first ones while the container starts."""
    moments, expected = int(moments), int(expected)
    early = max(1, moments // 10)
    chance = random.Random(int(os.environ.get("RLESS_POWER_SEED", "1")))
    lines = lambda: open(acks, "rb").read().count(b"\n")
    while not os.path.exists(pidfile) or lines() < 1:
        time.sleep(0.02)
    pid = int(open(pidfile).read())
    with open(out, "w") as notes:
        last = 0

        def note(paused):
            # In this order: what was acknowledged then is in the log then.
            print(os.path.getsize(acks), os.path.getsize(log), int(paused), file=notes, flush=True)

        for n in range(moments):
            wanted = 1 if n < early else 2 + (n - early) * (expected - 4) // (moments - early)
            until = time.monotonic() + chance.random() * (2 if n < early else 0.03)
            while (now := lines()) < wanted or time.monotonic() < until:
                if not os.path.exists("/proc/%d" % pid):
                    sys.exit("the machine ended at moment %d of %d" % (n, moments))
                if now > last:
                    note(False)
                    last = now
                time.sleep(0.001)
            os.kill(pid, signal.SIGSTOP)
            while not stopped(pid):
                time.sleep(0.001)
            note(True)
            os.kill(pid, signal.SIGCONT)
        note(False)


def entries(path):
    """Each entry of the log: where it ends, its flags, its first sector and its data."""
    with open(path, "rb") as f:
        magic, version, _, size = struct.unpack("<QQQI", f.read(28))
        if magic != MAGIC or version != 1 or size != SECTOR:
            sys.exit("not a log of this kind: %x, version %d, sectors of %d" % (magic, version, size))
        end, at = os.path.getsize(path), SECTOR
        while at + SECTOR <= end:
            f.seek(at)
            sector, count, flags, length = struct.unpack("<QQQQ", f.read(32))
            if flags & DISCARD:
                sys.exit("the guest discards: unforeseen")
            f.seek(at + SECTOR)
            data = b"" if flags & FLUSH and not count else f.read(count * SECTOR)
            at += SECTOR + len(data)
            yield at, flags, sector, data


def torn(pending, chance):
    """What may have reached the disk of writes that nothing flushed."""
    for sector, data in pending:
        fate = chance.random()
        if fate < 0.45:
            yield sector, data
        elif fate < 0.6 and len(data) > SECTOR:
            at = chance.randrange(1, len(data) // SECTOR) * SECTOR
            yield (sector, data[:at]) if chance.random() < 0.5 else (sector + at // SECTOR, data[at:])


class Disk:
    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = bytearray(f.read())
        # The 4 KiB blocks that are not zero, for sparse copies.
        zero = bytes(4096)
        self.used = {at for at in range(0, len(self.data), 4096) if self.data[at : at + 4096] != zero}

    def write(self, sector, data):
        at = sector * SECTOR
        self.data[at : at + len(data)] = data
        self.used.update(range(at // 4096 * 4096, at + len(data), 4096))

    def copy(self, changes, out, offset):
        new = {}
        for sector, data in changes:
            for i in range(0, len(data), SECTOR):
                new[sector * SECTOR + i] = data[i : i + SECTOR]
        for at in sorted(self.used):
            os.pwrite(out, self.data[at : at + 4096], offset + at)
        for at, data in sorted(new.items()):
            os.pwrite(out, data, offset + at)


def plan(notes, log, chance):
    """Where in the log each moment's cut is, after which of its entries, and the model."""
    paused = [size for _, size, at_rest in notes if at_rest]
    waiting, place, chosen = 0, 0, {}
    for n, (end, flags, _, data) in enumerate(entries(log)):
        if flags & FLUSH:
            waiting = 0
        waiting += bool(data)
        while place + 1 < len(paused) and paused[place + 1] < end:
            place += 1
        if paused[place] < end and waiting:
            chosen.setdefault(place, []).append((end, waiting))
    for n, size in enumerate(paused):
        model = MODELS[n % len(MODELS)]
        # The pause seldom meets writes on their way: the nearest places behind it where there are most.
        near = chosen.get(n, [])[:40]
        most = [end for end, count in near if count == max(c for _, c in near)]
        yield (chance.choice(most) if model == "torn" and most else size), model


def copies(disk, before, log, acks, moments, images, directory):
    notes = [tuple(map(int, line.split())) for line in open(moments)]
    said = open(acks, "rb").read()
    chance = random.Random(int(os.environ.get("RLESS_POWER_SEED", "1")))
    todo = list(enumerate(plan(notes, log, chance)))
    now, pending = Disk(before), []
    size = len(now.data)
    out = os.open(images, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.ftruncate(out, size * len(todo))

    def cut(n, place, model):
        kept = {"written": pending, "flushed": [], "torn": list(torn(pending, chance))}[model]
        now.copy(kept, out, n * size)
        known = max((i for i, note in enumerate(notes) if note[1] <= place), default=0)
        acked = notes[known][0]
        with open("%s/%d.acks" % (directory, n), "wb") as f:
            f.write(said[:acked])
        with open("%s/%d.later" % (directory, n), "wb") as f:
            # Behind the last note anything may have been said.
            f.write(said[: notes[known + 2][0]] if known + 2 < len(notes) else said)
        with open("%s/%d.model" % (directory, n), "w") as f:
            f.write("%s, %d acknowledgements, %d of %d writes since the last flush" % (
                model, said[:acked].count(b"\n"), len(kept), len(pending)))

    flushes = writes = 0
    for end, flags, sector, data in entries(log):
        while todo and todo[0][1][0] < end:
            n, at = todo.pop(0)
            cut(n, *at)
        if flags & FLUSH:
            flushes += 1
            for write in pending:
                now.write(*write)
            pending = []
        if data and flags & FUA:
            now.write(sector, data)
        elif data:
            pending.append((sector, data))
        writes += bool(data)
    for n, at in todo:
        cut(n, *at)
    # The log is the truth only if all of it gives the disk that there is.
    for write in pending:
        now.write(*write)
    with open(disk, "rb") as f:
        if f.read() != now.data:
            sys.exit("the log does not give the disk")
    print("%d writes, %d flushes, %d acknowledgements" % (writes, flushes, said.count(b"\n")))


if __name__ == "__main__":
    {"watch": watch, "copies": copies}[sys.argv[1]](*sys.argv[2:])
