"""Starts many containers with rless and with podman and measures; run by tests/bench/many as root of its root."""

import json
import os
import statistics
import subprocess
import sys
import time

COUNT, UID, OUT = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
AT_A_TIME, ROUNDS, REPEATS = 32, 3, 20
ENV = {"PATH": "/bench/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/bench/user", "USER": "bench",
       "XDG_RUNTIME_DIR": f"/run/user/{UID}", "LANG": "C.UTF-8"}
# Without cgroups, which podman would need systemd for and which cost it time.
RUN = {"rless": ["rless", "run"], "podman": ["podman", "run", "--cgroups=disabled"]}
LIMITS = [  # name, of what, at most
    ("ps with all running", "rless / podman", 0.20),
    ("32 at a time", "rless / podman", 0.25),
    ("exec true", "rless / podman", 0.25),
    ("PSS per idle container", "MiB", 6.0),
]


def start(args):
    return subprocess.Popen(args, env=ENV, user=UID, group=UID, extra_groups=[], cwd="/bench/user",
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    out, err = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(process.args)}: {process.returncode}: {out}{err}")
    return out


def timed(args):
    began = time.perf_counter()
    end(start(args))
    return (time.perf_counter() - began) * 1000


def idle(engine, image, name):
    return [*RUN[engine], "-d", "--network", "none", "--name", name, image, "sleep", "100000"]


def pids():
    return {int(p) for p in os.listdir("/proc") if p.isdigit()}


def pss(pid):
    """PSS of a process in KiB, and what it runs."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            size = next((int(line.split()[1]) for line in f if line.startswith("Pss:")), 0)
        return size, os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return 0, ""


def clear():
    for engine in RUN:
        end(start([engine, "rm", "--force", "--all", "--time", "0"]))


def main():
    images = {
        "podman": end(start(["podman", "pull", "-q", "oci:/bench/images/alpine.oci:latest"])).split()[-1],
    }
    end(start(["rless", "pull", "-q", "oci:/bench/images/alpine.oci"]))
    images["rless"] = end(start(["rless", "images", "-q"])).split()[0]
    for engine, image in images.items():  # warm
        end(start([*RUN[engine], "--rm", "--network", "none", image, "true"]))
    took = {}

    def note(what, engine, value):
        took.setdefault(what, {}).setdefault(engine, []).append(value)

    before = pids()
    for number in range(COUNT):
        for engine, image in images.items():
            note("one after the other", engine, timed(idle(engine, image, f"c{number}")))
    time.sleep(2)
    memory = {"rless": {}, "podman": {}}
    for pid in pids() - before:
        size, exe = pss(pid)
        engine = "rless" if exe.startswith("rless") else "podman" if exe in ("conmon", "fuse-overlayfs", "podman") else None
        if engine:
            memory[engine].setdefault(exe, []).append(size)
    for engine, programs in memory.items():
        for exe, sizes in programs.items():
            print(f"{engine}: {len(sizes)} × {exe}, {sum(sizes) / len(sizes):.0f} KiB PSS each")
        took["PSS per idle container"] = took.get("PSS per idle container", {})
        took["PSS per idle container"][engine] = [sum(map(sum, programs.values())) / 1024 / COUNT]
    for _ in range(REPEATS):
        for engine in images:
            note("ps with all running", engine, timed([engine, "ps"]))
            note("exec true", engine, timed([engine, "exec", "c0", "true"]))
    for engine in images:
        running = len(end(start([engine, "ps", "-q"])).split())
        if running != COUNT:
            sys.exit(f"{engine}: {running} of {COUNT} run")
        note("rm -f of all", engine, timed([engine, "rm", "--force", "--all", "--time", "0"]))
    for number in range(ROUNDS):
        for engine, image in images.items():
            began = time.perf_counter()
            starts = [start(idle(engine, image, f"p{n}")) for n in range(AT_A_TIME)]
            for process in starts:
                end(process)
            note("32 at a time", engine, (time.perf_counter() - began) * 1000)
        clear()
    subprocess.run(["podman", "system", "reset", "-f"], env=ENV, user=UID, group=UID, extra_groups=[],
                   stdin=subprocess.DEVNULL, capture_output=True)
    show(took)


def show(took):
    print("\nmedians; milliseconds, or MiB of memory\n\n| | rless | podman | rless / podman |\n|-|-|-|-|")
    ratio = {}
    for what, engines in took.items():
        ours, theirs = (statistics.median(engines[e]) for e in ("rless", "podman"))
        ratio[what] = ours / theirs
        print(f"| {what} | {ours:.1f} | {theirs:.1f} | {ratio[what]:.2f} |")
    print("\n| | measured | at most | |\n|-|-|-|-|")
    good = True
    for what, kind, limit in LIMITS:
        measured = statistics.median(took[what]["rless"]) if kind == "MiB" else ratio[what]
        good &= measured <= limit
        print(f"| {what}, {kind} | {measured:.2f} | {limit:.2f} | {'met' if measured <= limit else 'MISSED'} |")
    with open(OUT, "w") as f:
        json.dump({"took": took, "met": good}, f)


if __name__ == "__main__":
    main()
