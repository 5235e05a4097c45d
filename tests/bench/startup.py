"""Times the programs of tests/bench/startup; runs inside the benchmark's root as its user."""

import json
import os
import statistics
import subprocess
import sys
import time

ROOTFS = "/bench/user/rootfs"
BUNDLE = "/bench/user/bundle"
LIMITS = {  # row: (against, at most)
    "rless": [("podman", 0.30), ("crun, prepared bundle", 2.0)],
    "rless, pasta": [("podman, pasta", 0.6)],
    "rless, keep-id": [("rless", 1.1)],
}


def run(args, **more):
    return subprocess.run(args, check=True, stdin=subprocess.DEVNULL, **more)


def quiet(args):
    done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(args)}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def prepare():
    uid = os.getuid()
    ranges = [(0, uid, 1), (1, 300000, 65536)]
    os.makedirs(ROOTFS)
    # In the mapped namespace, so that the bundle's owners are those that the image has.
    run(["podman", "unshare", "tar", "-C", ROOTFS, "-xpf", "/bench/images/alpine.tar"], stderr=subprocess.DEVNULL)
    os.makedirs(BUNDLE)
    quiet(["sh", "-c", f"cd {BUNDLE} && crun spec --rootless"])
    path = BUNDLE + "/config.json"
    with open(path) as f:
        spec = json.load(f)
    maps = [{"containerID": c, "hostID": h, "size": n} for c, h, n in ranges]
    spec["process"].update(args=["true"], terminal=False)
    spec["root"] = {"path": ROOTFS, "readonly": False}
    spec["linux"]["uidMappings"] = spec["linux"]["gidMappings"] = maps
    with open(path, "w") as f:
        json.dump(spec, f)
    quiet(["podman", "pull", "-q", "oci:/bench/images/alpine.oci:latest"])
    image = quiet(["podman", "images", "-q", "--no-trunc"]).split()[0]
    quiet(["rless", "pull", "-q", "oci:/bench/images/alpine.oci"])
    own = quiet(["rless", "images", "-q"]).split()[0]
    return image, own


def contenders(image, own):
    podman = ["podman", "run", "--rm", "--cgroups=disabled"]
    rless = ["rless", "run", "--rm"]
    none = ["--network", "none"]
    return {
        "rless": rless + none + [own, "true"],
        "rless, keep-id": rless + none + ["--userns", "keep-id", own, "true"],
        "rless, pasta": rless + [own, "true"],
        "podman": podman + none + [image, "true"],
        "podman, keep-id": podman + none + ["--userns", "keep-id", image, "true"],
        "podman, pasta": podman + ["--network", "pasta", image, "true"],
        "crun, prepared bundle": ["crun", "--cgroup-manager=disabled", "run", "-b", BUNDLE, "bench"],
        "bubblewrap": ["bwrap", "--unshare-all", "--uid", "0", "--gid", "0", "--bind", ROOTFS, "/", "--proc", "/proc",
                       "--dev", "/dev", "true"],
    }


def once(args):
    began = time.perf_counter()
    pid = os.posix_spawnp(args[0], args, os.environ, file_actions=[
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
    _, status = os.waitpid(pid, 0)
    took = time.perf_counter() - began
    if status:
        sys.exit(f"{' '.join(args)}: status {status}")
    return took * 1000


def counts(args):
    """What the path costs, independent of the machine: processes, execs, system calls, messages, FUSE requests."""
    log, stats = "/tmp/strace", "/tmp/fuse-stats"
    for path in (log, stats):
        if os.path.exists(path):
            os.unlink(path)
    subprocess.run(["strace", "-u", "bench", "-f", "-qq", "-o", log, *args], stdin=subprocess.DEVNULL, check=True,
                   stdout=subprocess.DEVNULL, env={**os.environ, "RLESS_FUSE_STATS": stats})
    time.sleep(0.5)
    names, pids = {}, set()
    with open(log) as f:
        for line in f:
            pid, _, rest = line.partition(" ")
            pids.add(pid)
            rest = rest.strip()
            if rest.startswith(("+++", "---")) or "resumed>" in rest.split("(")[0]:
                continue
            name = rest.split("(")[0]
            if name.isidentifier():
                names[name] = names.get(name, 0) + 1
    result = {
        "processes and threads": len(pids),
        "execs": names.get("execve", 0),
        "system calls": sum(names.values()),
        "messages sent between processes": names.get("sendmsg", 0) + names.get("sendto", 0),
    }
    try:
        with open(stats) as f:
            result["FUSE requests"] = ", ".join(f.read().split("\n")).strip(", ")
    except OSError:
        pass
    return result, sorted(names.items(), key=lambda kv: -kv[1])[:12]


def times(runs, out):
    image, own = prepare()
    programs = contenders(image, own)
    driver = quiet(["podman", "info", "--format", "{{.Store.GraphDriverName}}, native diff "
                    "{{index .Store.GraphStatus \"Native Overlay Diff\"}}"]).strip()
    versions = [quiet(["podman", "--version"]).strip(), quiet(["crun", "--version"]).splitlines()[0],
                quiet(["bwrap", "--version"]).strip(), "rless " + quiet(["rless", "version", "--format", "{{.Client.Version}}"]).strip()]
    print(f"podman storage: {driver}; {', '.join(versions)}")
    took = {name: [] for name in programs}
    for number in range(runs + 2):
        for name, args in programs.items():
            one = once(args)
            if number >= 2:  # two rounds of warm-up
                took[name].append(one)
    medians = {name: statistics.median(t) for name, t in took.items()}
    print(f"\nmilliseconds, {runs} interleaved runs\n\n| | median | fastest | slowest |\n|-|-|-|-|")
    for name, t in took.items():
        print(f"| {name} | {medians[name]:.1f} | {min(t):.1f} | {max(t):.1f} |")
    print("\n| | measured | at most | |\n|-|-|-|-|")
    good = True
    for name, against in LIMITS.items():
        for other, limit in against:
            ratio = medians[name] / medians[other]
            good &= ratio <= limit
            print(f"| {name} / {other} | {ratio:.2f} | {limit:.2f} | {'met' if ratio <= limit else 'MISSED'} |")
    print(flush=True)
    with open(out, "w") as f:
        json.dump({"medians": medians, "runs": took, "programs": programs, "met": good}, f)


def count(out):
    with open(out) as f:
        result = json.load(f)
    result["cost"] = {}
    for name in ("rless", "rless, pasta", "podman", "crun, prepared bundle"):
        cost, top = counts(result["programs"][name])
        result["cost"][name] = cost
        print(f"{name}: " + ", ".join(f"{v} {k}" if k != "FUSE requests" else f"FUSE requests: {v}" for k, v in cost.items()))
        print("  most: " + ", ".join(f"{n} {c}" for n, c in top))
    with open(out, "w") as f:
        json.dump(result, f)


def main():
    runs, out, act = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    if act == "times":
        times(runs, out)
    elif act == "counts":
        count(out)
    else:
        run(["podman", "unshare", "rm", "-rf", ROOTFS], stderr=subprocess.DEVNULL)
        subprocess.run(["podman", "system", "reset", "-f"], stdin=subprocess.DEVNULL, capture_output=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
