#!/usr/bin/env python3
"""A history of file-system changes that is the same wherever it is made: performed, acknowledged, checked.

    history.py lower DIR                  makes what the image holds before the history begins
    history.py write LENGTH OPS           draws LENGTH operations a worker; prints how many are acknowledged
    history.py perform ROOT DIR OPS       performs them in ROOT, a thread a worker; acknowledges through the fifo
                                          DIR/said and goes on when DIR/heard has answered
    history.py relay DIR PORT             the other end of these: hands what is said on to PORT
    history.py check ROOT ACKS LATER OPS  compares ROOT with what the acknowledgements promise; LATER are those that
                                          were out a little after the cut

Each worker has directories of its own and a list of operations, so that the tree after any of them is known. Whoever returns from an fsync says so in one line `WORKER OPERATION DONE...`: the numbers of the
operations that it and all workers had completed when the fsync began. What is promised then (DESIGN section 3):

- Metadata is a prefix of the history: each worker's tree is the one after some operation that is not before the
  last one known to be complete at an acknowledged fsync of anybody, and not behind what it can have begun.
- A file has the content of its last acknowledged fsync, but for what was written later: each of those sectors
  may hold the old or a new content. So may its size.
- A file that was renamed over another was durable before the rename.
- Never another file's content: every sector names its file, its place and the operation that wrote it.

Only what python3-minimal has is used: this runs inside the guest.
"""

import json
import os
import sys
import threading

SECTOR = 512
WORKERS = 3
# A sector of a file holds the number of the operation that wrote it, or one of:
IMAGE = 0  # as the image has it
ZERO = -1
# Operations that are acknowledged.
SYNCS = ("fsync", "fdatasync", "fsyncdir")


def content(ident, sector, op):
    if op == ZERO:
        return bytes(SECTOR)
    tag = b"%d/%d/%d;" % (ident, sector, op)
    return (tag * (SECTOR // len(tag) + 1))[:SECTOR]


class Random:
    """Knuth's MMIX generator: python3-minimal's own may differ."""

    def __init__(self, seed):
        self.state = seed * 7919 + 12345
        for _ in range(8):
            self.below(2)

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self.state >> 33) % n

    def pick(self, things):
        return things[self.below(len(things))]


class Node:
    def __init__(self, kind, ident, mode, target=None):
        self.kind, self.ident, self.mode, self.target = kind, ident, mode, target
        self.children = {} if kind == "d" else None
        self.sectors = []
        self.mark = None
        # What happened to the content, oldest first: (operation, what, sectors afterwards); what is `write`,
        # `cut`, `sync`, or `over` (renamed over another file).
        self.events = []

    def happened(self, op, what):
        self.events.append((op, what, tuple(self.sectors)))


class Tree:
    """A worker's tree after the operations that were applied to it."""

    def __init__(self, worker):
        self.root = Node("d", 0, 0o755)
        lower = Node("d", 0, 0o755)
        self.root.children["lower"] = lower
        for name, node in image(worker).items():
            lower.children[name] = node

    def at(self, path):
        node = self.root
        for part in path.split("/"):
            node = node.children[part]
        return node

    def place(self, path):
        parent, _, name = path.rpartition("/")
        return (self.at(parent) if parent else self.root), name

    def apply(self, number, op):
        what, path = op[0], op[1]
        if what in ("create", "mkdir", "symlink"):
            parent, name = self.place(path)
            kind = {"create": "f", "mkdir": "d", "symlink": "l"}[what]
            parent.children[name] = Node(kind, number, op[2] if kind != "l" else 0o777, op[2])
        elif what in ("unlink", "rmdir"):
            parent, name = self.place(path)
            del parent.children[name]
        elif what == "link":
            parent, name = self.place(op[2])
            parent.children[name] = self.at(path)
        elif what == "rename":
            (old, name), (new, newname) = self.place(path), self.place(op[2])
            node = old.children.pop(name)
            if node.kind == "f" and newname in new.children:
                node.happened(number, "over")
            new.children[newname] = node
        elif what == "write":
            node, first, count = self.at(path), op[2], op[3]
            node.sectors += [ZERO] * (first + count - len(node.sectors))
            node.sectors[first : first + count] = [number] * count
            node.happened(number, "write")
        elif what == "truncate":
            node = self.at(path)
            node.sectors = node.sectors[: op[2]] + [ZERO] * (op[2] - len(node.sectors))
            node.happened(number, "cut")
        elif what == "chmod":
            self.at(path).mode = op[2]
        elif what == "mark":
            self.at(path).mark = op[2]
        elif what in ("fsync", "fdatasync"):
            self.at(path).happened(number, "sync")

    def paths(self, kind):
        found = []

        def walk(prefix, node):
            for name, child in sorted(node.children.items()):
                path = prefix + name
                if child.kind == kind:
                    found.append((path, child))
                if child.kind == "d":
                    walk(path + "/", child)

        walk("", self.root)
        return found


def image(worker):
    """What the worker finds in the image: files long enough for partial copies, and a directory to move."""
    made = {}
    for i in range(4):
        node = Node("f", 1000000 + worker * 1000 + i, 0o644)
        node.sectors = [IMAGE] * (256 if i < 2 else 13)
        made["big%d" % i] = node
    made["moved"] = Node("d", 0, 0o755)
    made["moved"].children["deep"] = Node("d", 0, 0o755)
    for i in range(3):
        node = Node("f", 1000000 + worker * 1000 + 10 + i, 0o644)
        node.sectors = [IMAGE] * 5
        made["moved"].children["deep"].children["f%d" % i] = node
    for node in made.values():
        node.happened(0, "sync")
    for node in made["moved"].children["deep"].children.values():
        node.happened(0, "sync")
    return made


def history(worker, length):
    """The worker's operations; number n is the element n - 1."""
    random, tree, ops = Random(worker + 1), Tree(worker), []

    def do(*op):
        ops.append(op)
        tree.apply(len(ops), op)

    def name():
        path, _ = random.pick([("", None)] + tree.paths("d"))
        return (path + "/" if path else "") + "n%d" % len(ops)

    def some_file():
        files = tree.paths("f")
        return random.pick(files[-12:] if random.below(2) else files) if files else (None, None)

    while len(ops) < length:
        path, node = some_file()
        die = random.below(100)
        if path is None or (die < 18 and len(tree.paths("f")) < 60):
            new = name()
            do("create", new, random.pick([0o644, 0o600, 0o755]))
            if random.below(8):
                do("write", new, 0, 1 + random.below(40))
            if random.below(2):
                do("fsync", new)
        elif die < 34:  # in place, and beyond the end with a hole now and then
            first = random.below(len(node.sectors) + 1 + (12 if not random.below(6) else 0))
            do("write", path, first, 1 + random.below(12))
            if not random.below(2):
                do(random.pick(["fsync", "fdatasync"]), path)
        elif die < 40:
            do("truncate", path, random.below(len(node.sectors) + 6))
        elif die < 54:  # the way to replace a file, sometimes without its fsync
            new = name()
            do("create", new, 0o640)
            do("write", new, 0, 1 + random.below(30))
            if random.below(3):
                do("fsync", new)
            if tree.at(new) is not node:
                do("rename", new, path)
            if random.below(2):
                do("fsyncdir", path.rpartition("/")[0])
        elif die < 62:
            do("rename", path, name())
        elif die < 66:
            dirs = [p for p, _ in tree.paths("d") if p != "lower"]
            if dirs:
                moved, new = random.pick(dirs), name()
                if not new.startswith(moved + "/"):
                    do("rename", moved, new)
        elif die < 70:
            do("link", path, name())
        elif die < 72:
            do("symlink", name(), "to/%d" % len(ops))
        elif die < 80:
            do("unlink", path)
        elif die < 84:
            if len(tree.paths("d")) < 8:
                do("mkdir", name(), random.pick([0o755, 0o700]))
        elif die < 86:
            empty = [p for p, n in tree.paths("d") if not n.children and p != "lower"]
            if empty:
                do("rmdir", random.pick(empty))
        elif die < 90:
            do("chmod", path, random.pick([0o644, 0o400, 0o777, 0o640]))
        elif die < 93:
            do("mark", path, len(ops))
        else:
            do("fsyncdir", random.pick([""] + [p for p, _ in tree.paths("d")]))
    return ops[:length]


def real(root, worker, path):
    """Where a path of the worker's tree lies: the lower part has a place of its own in the image."""
    first, _, rest = path.partition("/")
    if first == "lower":
        return os.path.join(root, "lower/w%d" % worker, rest)
    return os.path.join(root, "w%d" % worker, path)


def perform_one(root, worker, number, op, tree):
    what, path = op[0], real(root, worker, op[1])
    if what in ("create", "write"):
        new = what == "create"
        fd = os.open(path, os.O_WRONLY | (os.O_CREAT | os.O_EXCL if new else 0), op[2] if new else 0)
        if not new:
            ident = tree.at(op[1]).ident
            data = b"".join(content(ident, s, number) for s in range(op[2], op[2] + op[3]))
            os.pwrite(fd, data, op[2] * SECTOR)
        os.close(fd)
    elif what in SYNCS:
        fd = os.open(path, os.O_RDONLY)
        (os.fdatasync if what == "fdatasync" else os.fsync)(fd)
        os.close(fd)
    elif what == "mkdir":
        os.mkdir(path, op[2])
    elif what == "symlink":
        os.symlink(op[2], path)
    elif what == "unlink":
        os.unlink(path)
    elif what == "rmdir":
        os.rmdir(path)
    elif what == "link":
        os.link(path, real(root, worker, op[2]))
    elif what == "rename":
        os.rename(path, real(root, worker, op[2]))
    elif what == "truncate":
        os.truncate(path, op[2] * SECTOR)
    elif what == "chmod":
        os.chmod(path, op[2])
    elif what == "mark":
        os.setxattr(path, "user.mark", b"%d" % op[2])


def perform(root, acks, histories):
    os.umask(0)
    done = [0] * WORKERS
    said, heard = os.open(acks + "/said", os.O_WRONLY), os.open(acks + "/heard", os.O_RDONLY)
    turn = threading.Lock()
    failed = []

    def say(line):
        with turn:
            os.write(said, line)
            os.read(heard, 1)

    def work(worker):
        tree = Tree(worker)
        try:
            os.mkdir(os.path.join(root, "w%d" % worker))
            for number, op in enumerate(histories[worker], 1):
                before = tuple(done)
                perform_one(root, worker, number, op, tree)
                done[worker] = number
                tree.apply(number, op)
                if op[0] in SYNCS:
                    say(b"%d %d %s\n" % (worker, number, b" ".join(b"%d" % d for d in before)))
        except OSError as e:
            failed.append("worker %d, operation %d %s: %s" % (worker, done[worker] + 1, op, e))

    threads = [threading.Thread(target=work, args=(w,)) for w in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(b"end\n")
    for line in failed:
        print(line)
    return 1 if failed else 0


def relay(acks, port):
    said, heard = os.open(acks + "/said", os.O_RDONLY), os.open(acks + "/heard", os.O_WRONLY)
    port = os.open(port, os.O_WRONLY)
    while line := os.read(said, 4096):
        os.write(port, line)
        os.write(heard, b".")


def lower(directory):
    for worker in range(WORKERS):
        tree = Tree(worker)
        os.makedirs(real(directory, worker, "lower"))
        for path, _ in tree.paths("d"):
            if path != "lower":
                os.mkdir(real(directory, worker, path))
        for path, node in tree.paths("f"):
            with open(real(directory, worker, path), "wb") as f:
                f.write(b"".join(content(node.ident, s, IMAGE) for s in range(len(node.sectors))))


def shape(tree):
    """The metadata of a tree: path -> kind, mode, and what tells files and links apart."""
    names = {}
    for path, node in tree.paths("f"):
        names.setdefault(id(node), []).append(path)
    out = {path: ("d", node.mode) for path, node in tree.paths("d")}
    out.update({path: ("l", node.target) for path, node in tree.paths("l")})
    for path, node in tree.paths("f"):
        out[path] = ("f", node.mode, tuple(names[id(node)]), node.mark)
    return out


def seen(root, worker):
    """The same of what is really there, and the content of each file."""
    out, files, names = {}, {}, {}

    def walk(prefix, place):
        for name in sorted(os.listdir(place)):
            path, there = prefix + name, os.path.join(place, name)
            st = os.lstat(there)
            kind, mode = st.st_mode >> 12, st.st_mode & 0o7777
            if kind == 4:
                out[path] = ("d", mode)
                walk(path + "/", there)
            elif kind == 10:
                out[path] = ("l", os.readlink(there))
            else:
                names.setdefault(st.st_ino, []).append(path)
                try:
                    mark = int(os.getxattr(there, "user.mark"))
                except OSError:
                    mark = None
                out[path] = ["f", mode, st.st_ino, mark]
                with open(there, "rb") as f:
                    files[path] = f.read()
                if len(files[path]) != st.st_size:
                    raise ValueError("%s: %d bytes of %d" % (path, len(files[path]), st.st_size))
                if st.st_nlink < 1:
                    raise ValueError("%s: nlink %d" % (path, st.st_nlink))

    place = os.path.join(root, "w%d" % worker)
    if os.path.isdir(place):
        walk("", place)
    out["lower"] = ("d", 0o755)
    walk("lower/", os.path.join(root, "lower/w%d" % worker))
    for path, what in out.items():
        if what[0] == "f":
            out[path] = ("f", what[1], tuple(sorted(names[what[2]])), what[3])
    return out, files


def wrong_content(node, data, durable, last, now):
    """What is wrong with the content of a file, or None. Events up to `durable` were completed before the cut, those
    behind `last` had not begun; `now` is the state that the metadata is in."""
    base, old, later = 0, (), []
    for op, what, sectors in node.events:
        if (what == "sync" and op <= durable) or (what == "over" and op <= now):
            base, old = op, sectors
    for op, what, sectors in node.events:
        if base < op <= last and what in ("write", "cut"):
            later.append((what, sectors))
    if len(data) % SECTOR:
        return "%d bytes, no whole number of sectors" % len(data)
    count = len(data) // SECTOR
    sizes = {len(old)} | {len(sectors) for _, sectors in later}
    if count not in sizes:
        return "%d sectors, not one of %s (synced at %d)" % (count, sorted(sizes), base)
    cut = any(what == "cut" for what, _ in later)
    for sector in range(count):
        allowed = {sectors[sector] for _, sectors in later if sector < len(sectors)}
        if sector < len(old):
            allowed.add(old[sector])
        elif cut:
            allowed.add(ZERO)
        block = data[sector * SECTOR : (sector + 1) * SECTOR]
        if not any(block == content(node.ident, sector, op) for op in allowed):
            return "sector %d of %d: %r, not of operations %s (synced at %d)" % (
                sector, count, block[:24], sorted(allowed), base)
    return None


def read_acks(path):
    """Per worker the last operation that is certainly durable."""
    durable = [0] * WORKERS
    with open(path) as f:
        for line in f:
            words = line.split()
            if not line.endswith("\n") or len(words) != 2 + WORKERS:
                continue
            done = [int(word) for word in words[2:]]
            done[int(words[0])] = int(words[1])
            durable = [max(pair) for pair in zip(durable, done)]
    return durable


def files_until(worker, ops, last):
    """Every file by its number, with what may have happened to it until operation `last`."""
    tree = Tree(worker)
    files = {node.ident: node for _, node in tree.paths("f")}
    for number, op in enumerate(ops[:last], 1):
        tree.apply(number, op)
        if op[0] == "create":
            files[number] = tree.at(op[1])
    return files


def check_worker(root, worker, durable, later, ops):
    there, files = seen(root, worker)
    # It goes on only when its acknowledgement is out: it is at most at the next one, one more for safety.
    ahead = [n for n, op in enumerate(ops, 1) if n > max(durable, later) and op[0] in SYNCS]
    last = ahead[1] if len(ahead) > 1 else len(ops)
    files_later, tree = files_until(worker, ops, last), Tree(worker)
    closest, problems = None, []
    for number in range(last + 1):
        if number:
            tree.apply(number, ops[number - 1])
        if number < durable:
            continue
        wanted = shape(tree)
        if wanted != there:
            odd = sorted(p for p in set(wanted) | set(there) if wanted.get(p) != there.get(p))
            if closest is None or len(odd) < len(closest[1]):
                closest = (number, odd, {p: (wanted.get(p), there.get(p)) for p in odd[:4]})
            continue
        if not files.keys() <= {p for p, _ in tree.paths("f")}:
            raise ValueError("files without metadata")
        bad = []
        for path, node in tree.paths("f"):
            why = wrong_content(files_later[node.ident], files[path], durable, last, number)
            if why:
                bad.append("%s (file %d): %s" % (path, node.ident, why))
        if not bad:
            return number, durable, last, len(files)
        problems.append("as after operation %d, but %s" % (number, "; ".join(bad[:4])))
    if problems:
        raise ValueError(problems[0])
    raise ValueError("no state from %d to %d; after %d %d paths differ: %s" % (
        durable, last, closest[0], len(closest[1]), closest[2]))


def check(root, acks, later, histories):
    durable, later = read_acks(acks), read_acks(later)
    failed = 0
    for worker in range(WORKERS):
        try:
            state = check_worker(root, worker, durable[worker], later[worker], histories[worker])
            print("worker %d: after operation %d, promised %d, possible %d, %d files" % (worker, *state))
        except (ValueError, OSError, KeyError) as e:
            print("worker %d: WRONG %s" % (worker, e))
            failed = 1
    return failed


def main():
    what, *args = sys.argv[1:]
    if what == "lower":
        lower(args[0])
    elif what == "relay":
        relay(*args)
    elif what == "write":
        histories = [history(worker, int(args[0])) for worker in range(WORKERS)]
        with open(args[1], "w") as f:
            json.dump(histories, f)
        print(sum(op[0] in SYNCS for ops in histories for op in ops))
    else:
        *args, ops = args
        with open(ops) as f:
            histories = json.load(f)
        return {"perform": perform, "check": check}[what](*args, histories)
    return 0


if __name__ == "__main__":
    sys.exit(main())
