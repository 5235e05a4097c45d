"""Does the work of tests/bench/memory, one step a call: prepare, server, cache N, container."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time

HOME, STORE = os.environ["HOME"], os.environ["RLESS_STORE"]
BIG = 200 << 20
KEYS = ("Rss", "Pss", "Pss_Anon", "Pss_File", "Private_Clean", "Private_Dirty")


def call(*args):
    subprocess.run(args, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def add(tar, name, kind, size=0, body=None):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size = kind, 0o755, size
    tar.addfile(info, body)


def prepare():
    made = 1
    with tarfile.open(f"{HOME}/large.tar", "w") as tar:
        random = os.urandom(BIG)
        add(tar, "big", tarfile.REGTYPE, BIG, io.BytesIO(random))
        os.mkdir(f"{HOME}/lower")
        with open(f"{HOME}/lower/big", "wb") as f:
            f.write(random)
        while made < 200_000:
            directory = f"usr/dir{made}"
            add(tar, directory, tarfile.DIRTYPE)
            for b in range(100):
                add(tar, f"{directory}/some-module-{b:03}.py", tarfile.REGTYPE, 6, io.BytesIO(b"inside"))
            made += 101
    with tarfile.open(f"{HOME}/busybox.tar", "w") as tar:
        tar.add(shutil.which("busybox"), "bin/busybox")
        tar.add(shutil.which("busybox"), "bin/sleep")
    for name in ("large", "busybox"):
        call("python3", os.path.dirname(__file__) + "/pack.py", "--layer", f"{HOME}/{name}.tar", "--compression", "none",
             f"{HOME}/{name}")
        made = subprocess.check_output(["rless", "pull", "-q", f"oci:{HOME}/{name}"], text=True)
        with open(f"{HOME}/{name}.id", "w") as f:
            f.write(made.strip())
        shutil.rmtree(f"{HOME}/{name}")
        os.remove(f"{HOME}/{name}.tar")


def index():
    found = [f"{STORE}/index/images/{f}" for f in os.listdir(f"{STORE}/index/images") if f.endswith(".idx")]
    return max(found, key=os.path.getsize)


class Mount:
    def __init__(self, number):
        self.dir = f"{HOME}/m{number}"
        self.point = f"{self.dir}/mnt"
        os.makedirs(self.point)

    def ours(self):
        self.server = subprocess.Popen(["rless", "mount-cow", "--index", index(), "--packs", f"{STORE}/packs", "--upper",
                                        f"{self.dir}/upper", self.point])
        while f" {self.point} " not in open("/proc/self/mountinfo").read():
            if self.server.poll() is not None:
                sys.exit("rless mount-cow did not mount")
            time.sleep(0.02)
        return self

    def overlay(self):
        for name in ("upper", "work"):
            os.mkdir(f"{self.dir}/{name}")
        call("mount", "-t", "overlay", "-o",
             f"userxattr,lowerdir={HOME}/lower,upperdir={self.dir}/upper,workdir={self.dir}/work", "overlay", self.point)
        self.server = None
        return self

    def end(self):
        call("umount", self.point)
        if self.server:
            self.server.wait(30)
        shutil.rmtree(self.dir)


def rollup(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        lines = (line.split() for line in f)
        return {words[0][:-1]: int(words[1]) for words in lines if words[0][:-1] in KEYS}


def row(what, pid):
    now = rollup(pid)
    private = now["Private_Clean"] + now["Private_Dirty"]
    print(f"| {what} | {private:,} | " + " | ".join(f"{now[k]:,}" for k in KEYS) + " |", flush=True)
    return private


def head():
    print("\n| KiB | private | " + " | ".join(KEYS) + " |\n|-" + "|-:" * (len(KEYS) + 1) + "|")


def read(path):
    with open(path, "rb", buffering=0) as f:
        while f.read(1 << 20):
            pass


def server():
    mount = Mount(0).ours()
    pid = mount.server.pid
    print(f"The server of an image of 200,000 entries (index of {os.path.getsize(index()) >> 10:,} KiB); the program's own pages "
          "count as private clean while nobody else runs it")
    head()
    read(f"{mount.point}/usr/dir1/some-module-050.py")
    private = row("mounted, one file read", pid)
    seen = sum(len(d) + len(f) for _, d, f in os.walk(mount.point))
    row(f"at the end of find / ({seen:,} entries)", pid)
    time.sleep(5)
    row("5 s later", pid)
    read(f"{mount.point}/big")
    row("200 MiB read", pid)
    with open(f"{mount.point}/written", "wb") as f:
        for _ in range(64):
            f.write(bytes(1 << 20))
        os.fsync(f.fileno())
    row("64 MiB written", pid)
    time.sleep(7)
    row("7 s later", pid)
    # Drops what the kernel knows of names.
    call("mount", "-i", "-o", "remount", mount.point)
    time.sleep(5)
    row("forgotten, 5 s later", pid)
    mount.end()
    print(f"\nAfter mounting and reading one file: {private:,} KiB private, at most 8,192 wanted: {'met' if private <= 8192 else 'MISSED'}")


def cached():
    with open("/proc/meminfo") as f:
        return next(int(line.split()[1]) >> 10 for line in f if line.startswith("Cached:"))


def drop(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def cache(count):
    print(f"\nPage cache of {count} mounts of one image, each reading the same {BIG >> 20} MiB (growth of Cached, MiB; "
          "others on this machine disturb it)\n\n| | one | all | all, after the host's copy was dropped |\n|-|-:|-:|-:|")
    packs = [f"{STORE}/packs/{f}" for f in os.listdir(f"{STORE}/packs")]
    for name, files in (("ours", packs), ("overlay", [f"{HOME}/lower/big"])):
        mounts = [getattr(Mount(i), name)() for i in range(count)]
        for path in files:
            drop(path)
        before = cached()
        grown = []
        for mount in mounts:
            read(f"{mount.point}/big")
            grown.append(cached() - before)
        for path in files:
            drop(path)
        print(f"| {'rless' if name == 'ours' else 'kernel overlayfs'} | {grown[0]:,} | {grown[-1]:,} | {cached() - before:,} |", flush=True)
        for mount in mounts:
            mount.end()


def container():
    with open(f"{HOME}/busybox.id") as f:
        image = f.read()
    name = f"bench-{os.getpid()}"
    call("rless", "run", "-d", "--name", name, "--network", "none", image, "/bin/sleep", "60")
    time.sleep(5)
    print("\nAn idle container without network (processes of the program)")
    head()
    program = os.path.realpath(shutil.which("rless"))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.path.realpath(f"/proc/{pid}/exe") == program:
                with open(f"/proc/{pid}/comm") as f:
                    row(f.read().strip(), pid)
        except (OSError, KeyError):
            pass
    call("rless", "rm", "-f", name)


{"prepare": prepare, "server": server, "container": container, "cache": lambda: cache(int(sys.argv[2]))}[sys.argv[1]]()
