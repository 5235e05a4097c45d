"""Drives tests/bench/fs: mounts, measures, compares. Runs as the root of the bench user's namespace.

Outside of it only `--list` and `--trees` (which lower trees the chosen workloads need).
"""

import argparse
import json
import math
import os
import re
import resource
import secrets
import shutil
import statistics
import subprocess
import sys
import time

import fs_workloads

SYSTEMS = {"ours": "rless", "overlay": "kernel overlayfs", "fo-c": "fuse-overlayfs in C",
           "fo-rust": "fuse-overlayfs in Rust", "native": "ext4"}
HOME, STORE = "/bench/user", "/inputs/user"
PATIENCE = 900
STATFS_CALLS = 4000
# Requests that nobody waits for.
ONE_WAY = {"FORGET", "BATCH_FORGET"}
INSIDE = ("m=$1; shift; mount --rbind /proc $m/proc; mount --rbind /dev $m/dev; exec chroot $m env DEBIAN_FRONTEND=noninteractive "
          "PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c \"$@\"")


class Failed(Exception):
    pass


def quiet(args, **more):
    done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, **more)
    if done.returncode:
        raise Failed(f"{' '.join(args)[:120]}: status {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}")
    return done.stdout


def drop_caches():
    with open(f"{HOME}/ask", "w") as f:
        f.write("cold\n")
    with open(f"{HOME}/answer") as f:
        return f.read().strip() == "dropped"


class View:
    """One mounted file system, or a plain directory with copies of what will be changed."""

    def __init__(self, system, work, quick):
        self.system, self.work, self.quick = system, work, quick
        self.dir = f"{HOME}/{system}-{secrets.token_hex(4)}"  # see chattr in tests/bench/fs: the name chooses the group
        self.lower = f"{STORE}/lower-{work.tree}"
        self.mount = f"{self.dir}/mnt"
        self.server = None
        self.stats = f"{self.dir}/stats"

    def __enter__(self):
        os.mkdir(self.dir)
        for name in ("mnt", "upper", "work"):
            os.mkdir(f"{self.dir}/{name}")
        try:
            self.start()
            self.top = f"{self.mount}/bench.top"
            os.makedirs(self.top)
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        layers = f"lowerdir={self.lower},upperdir={self.dir}/upper,workdir={self.dir}/work"
        if self.system == "native":
            for path in self.work.changes(self.quick):
                to = os.path.normpath(f"{self.mount}/{path}")
                os.makedirs(os.path.dirname(to), exist_ok=True)
                quiet(["cp", "-aT", os.path.normpath(f"{self.lower}/{path}"), to])
        elif self.system == "overlay":
            quiet(["mount", "-t", "overlay", "-o", "userxattr," + layers, "overlay", self.mount])
        elif self.system == "ours":
            index, packs = image(self.work.tree)
            self.serve(["rless", "mount-cow", "--index", index, "--packs", packs, "--upper", f"{self.dir}/upper", self.mount])
        else:
            name = "fuse-overlayfs" if self.system == "fo-c" else "fuse-overlayfs-rust"
            self.serve([name, "-f", "-o", layers, self.mount])

    def serve(self, args):
        self.log = open(f"{self.dir}/log", "w+")
        self.server = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                       env={**os.environ, "RLESS_FUSE_STATS": self.stats})
        until = time.monotonic() + 20
        while f" {self.mount} " not in open("/proc/self/mountinfo").read():
            if self.server.poll() is not None or time.monotonic() > until:
                self.log.seek(0)
                raise Failed(f"{' '.join(args)}: did not mount: {self.log.read()[-500:]}")
            time.sleep(0.002)
        os.stat(self.mount)

    def __exit__(self, *_):
        while subprocess.run(["mountpoint", "-q", self.mount]).returncode == 0:
            until = time.monotonic() + 10
            while subprocess.run(["umount", self.mount], capture_output=True).returncode:
                if time.monotonic() > until:
                    subprocess.run(["umount", "-l", self.mount])
                    break
                time.sleep(0.02)
        if self.server:
            try:
                self.server.wait(60)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()
            self.log.close()
            self.counts = counters(self.stats) if self.system == "ours" else {}
        subprocess.run(["rm", "-rf", self.dir], check=True)

    def at(self, path):
        changed = path in self.work.changes(self.quick)
        return f"{self.lower if self.system == 'native' and not changed else self.mount}/{path}"

    def sh(self, script, *args):
        quiet(["sh", "-c", script, "sh", *args])

    def inside(self, script, *args):
        try:
            return quiet(["unshare", "--mount", "--propagation", "private", "sh", "-ec", INSIDE, "sh", self.mount, script, "sh", *args])
        except Failed as e:
            raise Failed("inside: status" + str(e).partition(": status")[2]) from e

    def child(self, function, *args):
        pid = os.fork()
        if pid == 0:
            try:
                function(*args)
                os._exit(0)
            except BaseException as e:  # noqa: BLE001: it is a process of its own
                print(f"{function.__name__}: {e!r}", file=sys.stderr, flush=True)
                os._exit(1)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise Failed(f"{function.__name__} failed")

    def cpu(self):
        """Milliseconds of the workload's processes that have ended and of the server's threads so far."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = (used.ru_utime + used.ru_stime) * 1000
        if self.server:
            for task in os.listdir(f"/proc/{self.server.pid}/task"):
                with open(f"/proc/{self.server.pid}/task/{task}/schedstat") as f:
                    total += int(f.read().split()[0]) / 1e6
        return total

    def memory(self):
        """Of the server, KiB: the peak, anonymous and private now."""
        if not self.server:
            return {}
        found = {}
        for path in ("status", "smaps_rollup"):
            try:
                with open(f"/proc/{self.server.pid}/{path}") as f:
                    for line in f:
                        name, _, rest = line.partition(":")
                        if name in ("VmHWM", "RssAnon", "Private_Clean", "Private_Dirty"):
                            found[name] = int(rest.split()[0])
            except OSError:
                pass
        return found


def counters(path):
    try:
        with open(path) as f:
            return {name: int(n) for name, n in (line.split() for line in f)}
    except OSError:
        return {}


def image(tree):
    index = [f for f in os.listdir(f"{STORE}/store-{tree}/index/images") if f.endswith(".idx")]
    if len(index) != 1:
        raise Failed(f"{len(index)} images in the store of {tree}")
    return f"{STORE}/store-{tree}/index/images/{index[0]}", f"{STORE}/store-{tree}/packs"


def prepare(tree, systems):
    """The lower tree as a directory and in a store of ours; a store that this rless does not mount is made again."""
    lower, store, tar = f"{STORE}/lower-{tree}", f"{STORE}/store-{tree}", f"/inputs/{tree}.tar"
    if not os.path.isdir(lower):
        say(f"unpacking {tree}")
        subprocess.run(["rm", "-rf", lower + ".part"], check=True)
        os.mkdir(lower + ".part")
        # Devices cannot be made in a user namespace; they are not looked at.
        quiet(["tar", "-xpf", tar, "-C", lower + ".part", "--numeric-owner", "--exclude=./dev/*"])
        os.rename(lower + ".part", lower)
    if "ours" not in systems:
        return
    probe = fs_workloads.Workload("probe", "", None, tree=tree)
    for again in (False, True):
        try:
            with View("ours", probe, True):
                return
        except (Failed, OSError) as e:
            if again:
                raise
            if os.path.isdir(store):
                say(f"the cached store does not mount, making it again: {e}")
        say(f"importing {tree} with rless")
        subprocess.run(["rm", "-rf", store], check=True)
        layout = f"{HOME}/layout"
        quiet(["python3", "/bench/pack.py", "--layer", tar, "--compression", "none", layout])
        quiet(["rless", "pull", "-q", f"oci:{layout}"], env={**os.environ, "RLESS_STORE": store, "XDG_RUNTIME_DIR": "/tmp"})
        shutil.rmtree(layout)


def say(text):
    print(f"== {text}", file=sys.stderr, flush=True)


def measure(system, work, quick, state):
    with View(system, work, quick) as view:
        if work.setup:
            work.setup(view)
        os.sync()
        if work.cold:
            state["cold"] = drop_caches()
        before = view.cpu()
        took, answer = fs_workloads.timed(work, view)
        result = {"ms": took, "cpu": view.cpu() - before, "answer": answer, **view.memory()}
    if view.server:
        result["requests"] = view.counts
    return result


def base_counts(work, quick):
    """Requests of mounting, setting up and unmounting alone."""
    with View("ours", work, quick) as view:
        if work.setup:
            work.setup(view)
    return view.counts


def round_trip(systems, tree):
    """{system: microseconds that a program waits for the cheapest request}: statfs, which no kernel caches."""
    found = {}
    for system in [s for s in systems if s not in ("overlay", "native")]:
        with View(system, fs_workloads.Workload("round-trip", "", None, tree=tree), True) as view:
            took = []
            for _ in range(5):
                began = time.perf_counter()
                view.child(statfs_many, view.mount, STATFS_CALLS)
                took.append((time.perf_counter() - began) / STATFS_CALLS * 1e6)
            found[system] = statistics.median(took)
    return found


def statfs_many(path, count):
    for _ in range(count):
        os.statvfs(path)


def preread(work, systems, quick):
    """The machine's cache gets what a workload that is not a cold one reads of the lower trees and archives."""
    read = "find \"$@\" -xdev -type f -print0 2>/dev/null | xargs -0 cat >/dev/null"
    quiet(["sh", "-c", read, "sh", *(f"/inputs/{name}.tar" for name in ("part", "quick"))])
    parts = work.changes(quick) + work.reads(quick)
    if not parts:
        return
    if set(systems) - {"ours"}:
        quiet(["sh", "-c", read, "sh", *(f"{STORE}/lower-{work.tree}/{p}" for p in parts)])
    if "ours" in systems:
        with View("ours", work, quick) as view:
            view.sh(read, *(f"{view.mount}/{p}" for p in parts))


def bench(work, systems, runs, quick, state):
    """{system: {"ms": [...], ...}}"""
    if not work.cold:
        preread(work, systems, quick)
    out, errors = {}, {}
    for number in range(runs):
        for system in systems[number % len(systems):] + systems[:number % len(systems)]:
            if system in errors:
                continue
            try:
                one = measure(system, work, quick, state)
            except (Failed, OSError, ValueError, subprocess.SubprocessError) as e:
                errors[system] = str(e)
                say(f"{work.name} on {SYSTEMS[system]} failed: {e}")
                continue
            mine = out.setdefault(system, {"ms": [], "cpu": []})
            for name in ("ms", "cpu"):
                mine[name].append(one[name])
            for name in ("VmHWM", "RssAnon", "Private_Clean", "Private_Dirty"):
                if name in one:
                    mine[name] = max(mine.get(name, 0), one[name])
            mine["answer"] = one["answer"]
            mine["requests"] = one.get("requests", {})
    if "ours" in out and out["ours"]["requests"]:
        base = base_counts(work, quick)
        out["ours"]["requests"] = {k: n - base.get(k, 0) for k, n in out["ours"]["requests"].items() if n > base.get(k, 0)}
    answers = {str(r["answer"]): s for s, r in out.items()}
    if len(answers) > 1:
        errors["answers"] = f"they differ: {answers}"
        say(f"{work.name}: answers differ: {answers}")
    for system in errors.keys() & out.keys():
        del out[system]  # fewer runs than the others
    return out, errors


def ratios(row, what="ms"):
    """Medians; ours against the overlay and against the better fuse-overlayfs."""
    med = {s: statistics.median(r[what]) for s, r in row.items()}
    best = min((med[s] for s in ("fo-c", "fo-rust") if s in med), default=None)
    ours = med.get("ours")
    over = ours / med["overlay"] if ours and "overlay" in med else None
    return med, over, ours / best if ours and best else None


def cell(value, form="{:,.0f}"):
    return "-" if value is None else form.format(value)


def ms(value):
    return cell(value, "{:,.0f}" if value is None or value >= 100 else "{:.1f}")


def table(rows, systems, what, title):
    print(f"\n{title}\n\n| ms | " + " | ".join(SYSTEMS[s] for s in systems) + " | ours/overlay | ours/better fuse-overlayfs | spread |")
    print("|-|" + "-:|" * (len(systems) + 3))
    for name, (row, _) in rows.items():
        if what == "ms" or "own clock" not in fs_workloads.ALL[name].tags:
            print_row(name, row, systems, what)
    if what != "ms":
        timed = {n: ratios(row, what) for n, (row, _) in rows.items() if "own clock" not in fs_workloads.ALL[n].tags}
        over, best = geo(r[1] for r in timed.values() if r[1]), geo(r[2] for r in timed.values() if r[2])
        print(f"| geometric mean | {'| ' * len(systems)}{cell(over, '{:.2f}')} | {cell(best, '{:.3f}')} | |", flush=True)


def print_row(name, row, systems, what):
    med, over, best = ratios(row, what)
    spread = max((max(r[what]) / max(min(r[what]), 0.001) for r in row.values()), default=None)
    print(f"| {name} | " + " | ".join(ms(med.get(s)) for s in systems) +
          f" | {cell(over, '{:.2f}')} | {cell(best, '{:.3f}')} | {cell(spread, '{:.1f}')} |", flush=True)


def cost_table(rows):
    """What the path costs on our mount, and the servers' memory."""
    print("\n| | requests of ours | by kind | ours MiB: peak, anonymous, private | C | Rust |\n|-|-:|-|-|-|-|")
    for name, (row, _) in rows.items():
        if "ours" not in row:
            continue
        req = row["ours"]["requests"]
        kinds = ", ".join(f"{k} {n:,}" for k, n in sorted(req.items(), key=lambda kv: -kv[1])[:9])
        print(f"| {name} | {sum(req.values()):,} | {kinds} | " + " | ".join(mib(row.get(s)) for s in ("ours", "fo-c", "fo-rust")) + " |")


def mib(result):
    if not result or "VmHWM" not in result:
        return "-"
    private = result.get("Private_Clean", 0) + result.get("Private_Dirty", 0)
    return f"{result['VmHWM'] / 1024:.0f}, {result.get('RssAnon', 0) / 1024:.1f}, {private / 1024:.1f}"


def geo(values):
    values = list(values)
    return math.exp(statistics.fmean(math.log(v) for v in values)) if values else None


def limits(rows):
    """The issue's lines: (text, measured, limit, whether it holds, the workloads that do not)."""
    found = {name: ratios(row)[1:] for name, (row, _) in rows.items()}
    over = {n: r[0] for n, r in found.items() if r[0]}
    best = {n: r[1] for n, r in found.items() if r[1]}
    tagged = lambda tag: {n: over[n] for n in over if tag in fs_workloads.ALL[n].tags}
    lines = []

    def at_most(text, values, limit):
        if values:
            short = sorted((n for n in values if values[n] > limit), key=lambda n: -values[n])
            lines.append((text, f"{max(values.values()):.2f}", f"at most {limit}", [f"{n} {values[n]:.2f}" for n in short]))

    def at_least(text, values, limit):
        if values:
            faster = {n: 1 / v for n, v in values.items()}
            short = sorted((n for n in faster if faster[n] < limit), key=lambda n: faster[n])
            lines.append((text, f"{min(faster.values()):.1f}", f"at least {limit}", [f"{n} {faster[n]:.1f}" for n in short]))

    if best:
        at_least(f"times as fast as the better fuse-overlayfs, geometric mean of {len(best)}", {"mean": geo(best.values())}, 6)
    if over:
        at_most(f"ours/overlay, geometric mean of {len(over)}", {"mean": geo(over.values())}, 1.5)
    at_most("ours/better fuse-overlayfs, each workload", best, 1)
    at_most("ours/overlay, warm reads", tagged("warm"), 1.3)
    at_least("overlay/ours, chmod -R and chown -R of lower files", tagged("attributes"), 3)
    at_least("overlay/ours, directory rename and first byte", tagged("no copy"), 10)
    at_most("ours/overlay, creation-heavy", tagged("creation"), 6)
    return lines


def floors(rows, trip):
    """What the short workloads would take if every request cost the cheapest round trip and the rest what ext4 takes."""
    short = [entry.split()[0] for *_, names in limits(rows) for entry in names]
    names = [n for n in rows if n in short and rows[n][0].get("ours", {}).get("requests")]
    if "ours" not in trip or not names:
        return
    costs = ", ".join(f"{SYSTEMS[s]} {us:.1f}" for s, us in trip.items())
    print(f"\nthe cheapest round trip (statfs), microseconds: {costs}\n\n"
          "| short | round trips | floor of them, ms | with ext4's time | ours | the floor/overlay |\n|-|-:|-:|-:|-:|-:|")
    for name in names:
        med = ratios(rows[name][0])[0]
        trips = sum(n for kind, n in rows[name][0]["ours"]["requests"].items() if kind not in ONE_WAY)
        floor = trips * trip["ours"] / 1000
        whole = floor + med["native"] if "native" in med else None
        ratio = whole / med["overlay"] if whole and "overlay" in med else None
        print(f"| {name} | {trips:,} | {ms(floor)} | {ms(whole)} | {ms(med['ours'])} | {cell(ratio, '{:.2f}')} |")


def verdict(rows, trip):
    found = limits(rows)
    if found:
        print("\n| line | worst | limit | |\n|-|-:|-:|-|")
    for text, worst, limit, short in found:
        print(f"| {text} | {worst} | {limit} | {'SHORT: ' + ', '.join(short) if short else 'holds'} |")
    floors(rows, trip)
    for name, (_, errors) in rows.items():
        for system, why in errors.items():
            print(f"\n{name}, {SYSTEMS.get(system, system)}: {why}")
    sys.stdout.flush()


def chosen(only):
    if not only:
        return list(fs_workloads.ALL.values())
    found = []
    for word in only.split(","):
        names = [word] if word in fs_workloads.ALL else [n for n in fs_workloads.ALL if n.startswith(word)]
        if not names:
            raise SystemExit(f"tests/bench/fs: no workload {word}: {', '.join(fs_workloads.ALL)}")
        found += [fs_workloads.ALL[n] for n in names if fs_workloads.ALL[n] not in found]
    return found


def version(args):
    try:
        return re.search(r"(?:^|fuse-overlayfs: version |fuse-overlayfs )(\d[\w.-]*)", quiet(args), re.M)[1]
    except (Failed, OSError, TypeError):
        return "?"


def environment():
    # Debian's 1.14 calls itself 1.13-dev.
    fuse = [version(["dpkg-query", "-W", "-f", "${Version}", "fuse-overlayfs"]), version(["fuse-overlayfs-rust", "--version"])]
    with open("/proc/loadavg") as f:
        load = f.read().split()[0]
    print(f"rless {version(['rless', 'version', '--format', '{{.Client.Version}}'])}; Linux {os.uname().release}; "
          f"fuse-overlayfs {fuse[0]} (C), {fuse[1]} (Rust); {os.cpu_count()} processors, load {load} at the start", flush=True)


def options():
    p = argparse.ArgumentParser(prog="tests/bench/fs")
    p.add_argument("--only", default="")
    p.add_argument("--fs", default=",".join(SYSTEMS))
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--quick", action="store_true")
    p.add_argument("--one-core", action="store_true")
    p.add_argument("--both", action="store_true")
    p.add_argument("--list", action="store_true")
    p.add_argument("--trees", action="store_true")
    p.add_argument("--out")
    a = p.parse_args()
    a.systems = [s for s in SYSTEMS if s in a.fs.split(",")]
    unknown = set(a.fs.split(",")) - set(SYSTEMS)
    if unknown:
        p.error(f"no file system {', '.join(sorted(unknown))}: {', '.join(SYSTEMS)}")
    if a.runs < 1:
        p.error("--runs needs at least 1")
    a.works = chosen(a.only)
    return a


def main():
    a = options()
    if a.list:
        for work in fs_workloads.ALL.values():
            print(f"{work.name:16}{work.what}")
        return 0
    trees = sorted({work.tree for work in a.works})
    if a.trees:
        print(*trees)
        return 0
    try:
        for tree in trees:
            prepare(tree, a.systems)
    except (Failed, OSError, subprocess.SubprocessError) as e:
        print(f"tests/bench/fs: preparing the trees: {e}", file=sys.stderr)
        return 1
    environment()
    modes = ["one core"] if a.one_core and not a.both else ["as scheduled"] + ["one core"] * a.both
    result, state = {}, {"cold": None}
    for mode in modes:
        if mode == "one core":
            os.sched_setaffinity(0, {0})  # the servers inherit it
        rows = result[mode] = {}
        say(f"{mode}: {len(a.works)} workloads, {a.runs} runs each")
        trip = round_trip(a.systems, trees[0])
        for number, work in enumerate(a.works, 1):
            began = time.monotonic()
            rows[work.name] = bench(work, a.systems, a.runs, a.quick, state)
            med, over, best = ratios(rows[work.name][0])
            say(f"{number}/{len(a.works)} {work.name}: " + ", ".join(f"{s} {ms(v)}" for s, v in med.items()) +
                f"; {time.monotonic() - began:.0f} s")
            with open(a.out, "w") as f:
                json.dump({m: {n: {"results": r, "errors": e} for n, (r, e) in rs.items()} for m, rs in result.items()}, f)
        table(rows, a.systems, "ms", f"{mode}, medians of {a.runs}{', quick' if a.quick else ''}")
        table(rows, a.systems, "cpu", f"{mode}, processor time of workload and server (not of the kernel's own threads)")
        cost_table(rows)
        verdict(rows, trip)
    if state["cold"] is not None:
        print("\ncold: a fresh mount" + (", the machine's caches dropped" if state["cold"] else "; the machine's caches could NOT be dropped"))
    return 0 if any(row for rows in result.values() for row, _ in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
