"""The workloads of tests/bench/fs: what is done on one mounted file system.

Each takes a `View`: `at(input)` is a part of the lower tree, `top` an empty directory to write in, `quick` asks for
less of it, `sh(script, ...)` runs a shell command that has to succeed, `child(function, ...)` calls a function in a
forked process, `inside(script)` runs one in a chroot of the mount. What `run` returns has to be the same on every file
system; `setup` is not timed.
"""

import dataclasses
import mmap
import os
import random
import sqlite3
import time

ALL = {}
PAGE = 4096


@dataclasses.dataclass
class Workload:
    name: str
    what: str
    run: object
    setup: object = None
    tree: str = "src"
    # Parts of the lower tree that change: a plain directory gets a copy of them first.
    changes: object = lambda quick: []
    # Parts of the lower tree that it reads; nobody's first run shall be the one that fetches them from the disk.
    reads: object = lambda quick: []
    cold: bool = False
    tags: tuple = ()


def workload(name, what, **more):
    def put(run):
        ALL[name] = Workload(name, what, run, **more)
        return run
    return put


def warm(name, what, tags=("warm",), **more):
    """Timed the second time."""
    def put(run):
        ALL[name] = Workload(name, what, run, setup=run, tags=tags, **more)
        return run
    return put


def lines(path):
    with open(path, "rb") as f:
        return sum(1 for _ in f)


def part(quick):
    """A directory of the lower tree that is changed: 16,800 files, or 2,100."""
    return ["linux/fs"] if quick else ["linux/arch"]


# Reading.

@warm("find-warm", "the same, second time")
@workload("find-cold", "find with a stat of each of 83,000 entries (quick: 31,600), cold", cold=True)
def find(v):
    v.sh("find \"$1\" -printf '%s %m\\n' >/tmp/out", v.at("linux/drivers" if v.quick else "linux"))
    return lines("/tmp/out")


@warm("grep-warm", "the same, second time")
@workload("grep-cold", "grep -r in the headers of include and arch (quick: include), cold", cold=True)
def grep(v):
    where = [v.at("linux/include")] + ([] if v.quick else [v.at("linux/arch")])
    v.sh("grep -rh --include='*.h' EXPORT_SYMBOL \"$@\" >/tmp/out", *where)
    return lines("/tmp/out")


@warm("cat-warm", "the same, second time")
@workload("cat-cold", "cat of every file of the source tree, 1.3 GB (quick: drivers/net, 110 MB), cold", cold=True)
def cat(v):
    v.sh("find \"$1\" -type f -print0 | xargs -0 cat >/dev/null", v.at("linux/drivers/net" if v.quick else "linux"))


@warm("seq-read-warm", "the same, second time", tags=())
@workload("seq-read-cold", "read of a 512 MB lower file, cold", cold=True)
def seq_read(v):
    v.sh("cat \"$1\" >/dev/null", v.at("big") + "/file")


# Creating and removing.

def untar(v):
    v.sh("tar -xf \"$1\" -C \"$2\"", f"/inputs/{'quick' if v.quick else 'part'}.tar", v.top)


@workload("untar", "tar -x of 20,700 files (quick: 4,000)", tags=("creation",))
def untar_timed(v):
    untar(v)


@workload("rm-upper", "rm -r of what untar made", setup=untar, tags=("creation",))
def rm_upper(v):
    v.sh("rm -r \"$1\"", v.top)


@workload("rm-lower", "rm -r of a lower directory of 16,800 files (quick: 2,100)", changes=part)
def rm_lower(v):
    v.sh("rm -r \"$1\"", v.at(part(v.quick)[0]))


@workload("cp-a", "cp -a of that directory to the upper", reads=part)
def cp_a(v):
    v.sh("cp -a \"$1\" \"$2/copy\"", v.at(part(v.quick)[0]), v.top)


@workload("git-checkout", "git checkout of a branch with half of 8,000 sources changed", changes=lambda quick: ["git"])
def git_checkout(v):
    v.sh("cd \"$1\" && git checkout -q other", v.at("git"))


def git_status_run(v):
    v.sh("cd \"$1\" && git status --porcelain >/tmp/out", v.at("git"))
    return lines("/tmp/out")


ALL["git-status"] = Workload("git-status", "git status of that repository, first time on the mount", git_status_run,
                             changes=lambda quick: ["git"])


@workload("create-fsync", "10,000 small files: create, fsync, rename (quick: 500)")
def create_fsync(v):
    v.child(create_many, v.top, 500 if v.quick else 10000)


def create_many(top, count):
    for i in range(count):
        fd = os.open(f"{top}/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, b"x" * 200)
        os.fsync(fd)
        os.close(fd)
        os.rename(f"{top}/new", f"{top}/file{i}")


# Changing lower files.

@workload("chmod-lower", "chmod -R of a lower directory of 16,800 files (quick: 2,100)", changes=part, tags=("attributes",))
def chmod_lower(v):
    v.sh("chmod -R g+w,o-r \"$1\"", v.at(part(v.quick)[0]))


@workload("chown-lower", "chown -R of it", changes=part, tags=("attributes",))
def chown_lower(v):
    v.sh("chown -R 5:7 \"$1\"", v.at(part(v.quick)[0]))


@workload("rename-lower", "mv of it (which copies where rename is refused)", changes=part, tags=("no copy",))
def rename_lower(v):
    path = v.at(part(v.quick)[0])
    v.sh("mv \"$1\" \"$1.renamed\"", path)


@workload("append-lower", "append a line to 2,000 lower files", changes=lambda quick: ["linux/fs"])
def append_lower(v):
    v.child(append_many, v.at("linux/fs"), 2000)


def append_many(top, count):
    for where, dirs, files in os.walk(top):
        dirs.sort()
        for name in sorted(files):
            if count == 0:
                return
            count -= 1
            with open(f"{where}/{name}", "ab") as f:
                f.write(b"/* appended */\n")


@workload("first-byte", "change of the first byte of a 512 MB lower file", changes=lambda quick: ["big"], tags=("no copy",))
def first_byte(v):
    v.child(first_byte_of, v.at("big") + "/file")


def first_byte_of(path):
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"x", 0)
    os.close(fd)


# Inside one file.

def write_file(path, size):
    block = os.urandom(1 << 20)
    with open(path, "wb", buffering=0) as f:
        for _ in range(size >> 20):
            f.write(block)
        os.fsync(f.fileno())


def data_file(v):
    v.child(write_file, f"{v.top}/data", 64 << 20)


@workload("random-rw", "20,000 random 4 KiB reads and writes in 64 MB, then fsync (quick: 5,000)", setup=data_file)
def random_rw(v):
    v.child(random_pages, f"{v.top}/data", 5000 if v.quick else 20000)


def random_pages(path, count):
    rng, block = random.Random(1), os.urandom(PAGE)
    fd = os.open(path, os.O_RDWR)
    pages = os.fstat(fd).st_size // PAGE
    for i in range(count):
        at = rng.randrange(pages) * PAGE
        os.pwrite(fd, block, at) if i % 2 else os.pread(fd, PAGE, at)
    os.fsync(fd)
    os.close(fd)


@workload("seq-write", "write of 256 MB, then fsync (quick: 64 MB)")
def seq_write(v):
    v.child(write_file, f"{v.top}/data", (64 if v.quick else 256) << 20)


@workload("mmap-write", "every page of a 64 MB file written through a shared mapping, then msync", setup=data_file)
def mmap_write(v):
    v.child(map_write, f"{v.top}/data")


def map_write(path):
    fd = os.open(path, os.O_RDWR)
    with mmap.mmap(fd, 0) as m:
        block = b"y" * PAGE
        for at in range(0, len(m), PAGE):
            m[at:at + PAGE] = block
        m.flush()
    os.close(fd)


@workload("mmap-read", "a 512 MB lower file read through a mapping, cold (quick: 128 MB of it)", cold=True)
def mmap_read(v):
    v.child(map_read, v.at("big") + "/file", (128 if v.quick else 512) << 20)


def map_read(path, size):
    fd = os.open(path, os.O_RDONLY)
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as m:
        for at in range(0, size, 1 << 20):
            _ = m[at:at + (1 << 20)]
    os.close(fd)


# Programs.

BUILD = "cd \"$1\" && rm -rf \"$2/$3\" && make -s O=\"$2\" -j$(nproc) \"$3/\" >/tmp/out 2>&1 || { tail -5 /tmp/out; exit 1; }"


def build_dir(v):
    return "kernel/time" if v.quick else "mm"


def build_setup(v):
    v.sh("cd \"$1\" && make -s O=\"$2\" tinyconfig >/tmp/out 2>&1 || { tail -5 /tmp/out; exit 1; }", v.at("linux"), v.top)
    build(v)


@workload("build", "make of the kernel's mm (quick: kernel/time), sources read before", setup=build_setup, tags=("warm",))
def build(v):
    v.sh(BUILD, v.at("linux"), v.top, build_dir(v))


@workload("apt-install", "apt-get install of g++ and make in a Debian root (quick: libc6-dev and make)", tree="debian",
          changes=lambda quick: ["."], tags=("creation",))
def apt_install(v):
    v.inside("apt-get install -q -y --no-download --no-install-recommends $1 >/tmp/log 2>&1 </dev/null || { tail -5 /tmp/log; exit 1; }",
             "libc6-dev make" if v.quick else "g++ make")


@workload("sqlite", "500 inserts into SQLite with a commit each (quick: 100)")
def sqlite(v):
    v.child(sqlite_inserts, f"{v.top}/db", 100 if v.quick else 500)


def sqlite_inserts(path, count):
    db = sqlite3.connect(path)
    db.execute("create table t (id integer primary key, a text, b integer)")
    for i in range(count):
        db.execute("insert into t (a, b) values (?, ?)", ("x" * 100, i))
        db.commit()
    assert db.execute("select count(*) from t where b >= 0").fetchone()[0] == count
    db.close()


PG = """
set -e
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
as="setpriv --reuid postgres --regid postgres --clear-groups"
data=/var/lib/postgresql/bench
start() { $as pg_ctl -s -w -D $data -l /tmp/pg.log -o "-c listen_addresses= -c unix_socket_directories=/tmp -c shared_buffers=32MB -c dynamic_shared_memory_type=mmap" start || { tail -5 /tmp/pg.log >&2; exit 1; }; }
stop() { $as pg_ctl -s -w -D $data stop; }
cd /tmp
"""


def pg_setup(v):
    v.inside(PG + "$as initdb -D $data -A trust >/tmp/log 2>&1 || { tail -5 /tmp/log; exit 1; }; start; "
             "$as pgbench -q -h /tmp -i -s 5 postgres >/tmp/log 2>&1 || { tail -5 /tmp/log; exit 1; }; stop")


def pg_run(v):
    """Without the server's start and stop."""
    return float(v.inside(PG + "start; a=$(date +%s%N); $as pgbench -h /tmp -n -c 2 -t $1 postgres >/tmp/log 2>&1 || { tail -5 /tmp/log; exit 1; }; "
                          "b=$(date +%s%N); stop; echo $((b - a))", "200" if v.quick else "1000")) / 1e6


ALL["pgbench"] = Workload("pgbench", "pgbench: 2 clients, 1,000 transactions each (quick: 200), fsync on", pg_run, pg_setup,
                          tree="debian", changes=lambda quick: ["."], tags=("own clock",))


def timed(work, view):
    """Milliseconds, and the answer."""
    began = time.perf_counter()
    answer = work.run(view)
    took = (time.perf_counter() - began) * 1000
    if "own clock" in work.tags:
        return answer, None
    return took, answer
