"""What POSIX and Linux promise of a local file system, one function a promise.

    posix.py fill DIR      makes the tree that the image below our mount is built from
    posix.py CHECK DIR     checks, as the root of a user namespace, in such a tree

Run by posix.rs on a directory of the host's file system and on our mount: each check has to hold on both, what it
prints has to be the same, and so have the trees that it leaves.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import select
import shutil
import socket
import stat
import struct
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE, PUNCH, COLLAPSE, ZERO = 1, 2, 8, 16
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
MANY = int(os.environ.get("MANY", 100))  # half of the entries of a large directory
SEED = bytes(range(256)) * 40  # 10,240 bytes, three blocks


def call(name, *args):
    """A function of the C library that Python lacks; OSError where it fails."""
    args = [ctypes.c_long(a) if isinstance(a, int) else os.fsencode(a) if isinstance(a, str) else a for a in args]
    fn = getattr(libc, name)
    fn.restype = ctypes.c_int
    result = fn(*args)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
    return result


def fallocate(fd, mode, offset, length):
    call("fallocate", fd, mode, offset, length)


def rename2(old, new, flags):
    call("renameat2", -100, old, -100, new, flags)


def link_fd(fd, new):
    call("linkat", -100, f"/proc/self/fd/{fd}", -100, new, 0x400)  # Python's own does not follow


def fails(code, fn, *args, **kwargs):
    try:
        result = fn(*args, **kwargs)
    except OSError as e:
        assert e.errno == code, f"{fn} {args}: {e}, not {errno.errorcode[code]}"
    else:
        raise AssertionError(f"{fn} {args}: {result!r}, not {errno.errorcode[code]}")


def write(path, data=b"", mode=0o644):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    assert os.write(fd, data) == len(data)
    os.close(fd)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def as_user(uid, fn):
    """Runs fn in a process of that user and group without privileges; what it raises is raised here."""
    return forked(lambda: (os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid), fn()))()


def forked(fn):
    """Starts fn in a process; the result waits for it."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(r)
        try:
            fn()
        except BaseException as e:
            os.write(w, f"{type(e).__name__}: {e}".encode()[:4000])
            os._exit(1)
        os._exit(0)
    os.close(w)

    def wait():
        with os.fdopen(r, "rb") as f:
            told = f.read().decode()
        status = os.waitpid(pid, 0)[1]
        assert status == 0, told or f"status {status}"

    return wait


def tree(root):
    return {os.path.join(d, n): os.lstat(os.path.join(d, n)) for d, ds, fs in os.walk(root) for n in ds + fs}


def fill():
    os.umask(0o022)
    for name in ["a", "b", "c", "prog", "gone"]:
        write(name, SEED)
    os.chmod("prog", 0o4755)
    os.link("b", "b2")
    os.symlink("a", "link")
    os.mkfifo("fifo", 0o666)
    os.makedirs("d/sub/deep")
    for i in range(20):
        write(f"d/sub/f{i}", b"%d" % i)
    os.symlink("../a", "d/up")
    os.makedirs("e/full")
    write("e/full/x", b"x")
    os.mkdir("empty")
    os.setxattr("a", "user.lower", b"value")
    write("owned", SEED, 0o600)
    os.chown("owned", 33, 33)
    write("holes")
    os.truncate("holes", 1 << 20)
    os.mkdir("many")
    for i in range(MANY):
        os.mknod(f"many/low{i}", 0o644)


# --- inodes and names -------------------------------------------------------------------------------------------------


def inode_numbers():
    before = tree(".")
    device = os.stat(".").st_dev
    assert all(s.st_dev == device for s in before.values())
    changes = {
        "chmod": lambda p: os.chmod(p, 0o640),
        "chown": lambda p: os.chown(p, 5, 6),
        "append": lambda p: os.write(os.open(p, os.O_WRONLY | os.O_APPEND), b"more"),
        "overwrite": lambda p: os.pwrite(os.open(p, os.O_WRONLY), b"x", 5000),
        "truncate": lambda p: os.truncate(p, 100),
        "utime": lambda p: os.utime(p, ns=(1, 2)),
        "setxattr": lambda p: os.setxattr(p, "user.k", b"v"),
        "link": lambda p: os.link(p, "another"),
    }
    for name, change in changes.items():
        for path in ["a", "b"]:
            fd = os.open(path, os.O_RDONLY)
            change(path)
            for now in [os.stat(path), os.fstat(fd)]:
                assert (now.st_ino, now.st_dev) == (before["./" + path].st_ino, device), f"{name} of {path}"
            if name == "link":
                assert os.stat("another").st_ino == now.st_ino
                os.unlink("another")
    assert os.stat("b2").st_ino == os.stat("b").st_ino == before["./b2"].st_ino
    os.rename("a", "d/moved")
    os.rename("d", "e/dir")
    assert os.stat("e/dir/moved").st_ino == before["./a"].st_ino
    for path, s in before.items():
        if path.startswith("./d/") or path == "./d":
            assert os.lstat("e/dir" + path[3:]).st_ino == s.st_ino, path
    for d, _, _ in os.walk("."):
        for e in os.scandir(d):
            assert e.inode() == e.stat(follow_symlinks=False).st_ino, e.path
    numbers = [s.st_ino for s in tree(".").values()]
    assert len(numbers) - len(set(numbers)) == 1, "b and b2 are one, nothing else"


def link_counts():
    def n(path):
        return os.stat(path).st_nlink

    assert (n("b"), n("a"), n("d"), n("d/sub"), n("d/sub/deep"), n("empty")) == (2, 1, 3, 3, 2, 2)
    os.link("b", "empty/b3")
    assert n("b") == n("b2") == n("empty/b3") == 3
    os.unlink("b")
    assert n("b2") == 2
    os.rename("a", "b2")  # a name of the old one goes
    assert (n("b2"), n("empty/b3")) == (1, 1)
    os.rename("empty/b3", "empty/b3")
    os.link("c", "c2")
    os.rename("c", "c2")  # both names of one inode: nothing happens
    assert n("c") == n("c2") == 2
    rename2("c", "b2", EXCHANGE)
    assert (n("c"), n("b2"), n("c2")) == (1, 2, 2)
    os.rename("d/sub/deep", "empty/deep")
    assert (n("d/sub"), n("empty")) == (2, 3)
    os.rmdir("empty/deep")
    assert n("empty") == 2
    fails(errno.EPERM, os.link, "d", "dirlink")
    fails(errno.ENOTEMPTY, os.rmdir, "d")


def unlinked_but_open():
    fd = os.open("a", os.O_RDWR)
    other = os.open("a", os.O_RDONLY)
    os.unlink("a")
    assert os.fstat(fd).st_nlink == 0
    assert os.pread(other, 20_000, 0) == SEED
    os.pwrite(fd, b"new", 4094)
    os.ftruncate(fd, 5000)
    os.fchmod(fd, 0o600)
    os.setxattr(fd, "user.k", b"v")
    assert os.pread(other, 20_000, 0) == SEED[:4094] + b"new" + SEED[4097:5000]
    assert os.fstat(other).st_mode & 0o777 == 0o600 and os.getxattr(other, "user.k") == b"v"
    fails(errno.ENOENT, link_fd, fd, "back")
    write("a", b"another")
    assert os.fstat(fd).st_ino != os.stat("a").st_ino and os.pread(fd, 3, 4094) == b"new"
    held = os.open("empty", os.O_RDONLY)
    os.rmdir("empty")
    assert os.fstat(held).st_nlink == 0 and os.listdir(held) == []
    fails(errno.ENOENT, os.open, "x", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=held)
    fails(errno.ENOENT, os.mkdir, "x", dir_fd=held)


def held_over_copy_up_and_rename():
    reader = os.open("a", os.O_RDONLY)
    assert os.read(reader, 4) == SEED[:4]
    mapped = mmap.mmap(reader, 0, prot=mmap.PROT_READ)
    with open("a", "r+b") as w:
        w.seek(8000)
        w.write(b"changed")
    assert os.pread(reader, 7, 8000) == b"changed" == mapped[8000:8007]
    os.rename("a", "d/a")
    with open("d/a", "r+b") as w:
        w.write(b"again")
    assert os.pread(reader, 5, 0) == b"again" == mapped[:5]
    old = os.open("c", os.O_RDONLY)
    write("fresh", b"fresh")
    os.rename("fresh", "c")
    assert os.pread(old, 20_000, 0) == SEED and read("c") == b"fresh"
    os.chmod("d/a", 0o200)
    assert os.pread(reader, 5, 0) == b"again"
    cwd = os.open(".", os.O_RDONLY)
    os.chdir("d/sub")
    os.rename("../../d", "../../e/d")
    assert os.getcwd().endswith("e/d/sub") and read("f3") == b"3" and os.stat("../../../b").st_size == len(SEED)
    os.fchdir(cwd)


def directory_rename():
    inside = {p: s.st_ino for p, s in tree("d").items()}
    os.rename("d", "moved")
    assert not os.path.exists("d")
    assert {p.replace("moved", "d", 1): s.st_ino for p, s in tree("moved").items()} == inside
    assert read("moved/sub/f7") == b"7"
    os.mkdir("d")
    assert os.listdir("d") == [], "the old content does not show through a new directory"
    fails(errno.ENOTEMPTY, os.rename, "moved", "e")
    fails(errno.EINVAL, os.rename, "moved", "moved/sub/x")
    fails(errno.ENOTDIR, os.rename, "moved", "b")
    fails(errno.EISDIR, os.rename, "b", "d")
    os.rename("moved/sub", "d")  # over an empty one
    assert sorted(os.listdir("d"))[:3] == ["deep", "f0", "f1"] and os.listdir("moved") == ["up"]
    os.chdir("d/deep")
    assert os.stat("../..").st_ino == os.stat("../../moved/..").st_ino
    os.chdir("../..")


def rename_flags():
    fails(errno.EEXIST, rename2, "a", "b", NOREPLACE)
    rename2("a", "n", NOREPLACE)
    assert read("n") == SEED and not os.path.exists("a")
    a, d = os.stat("n").st_ino, os.stat("d").st_ino
    rename2("n", "d", EXCHANGE)  # a file and a directory that is not empty
    assert (os.stat("d").st_ino, os.stat("n").st_ino) == (a, d)
    assert read("d") == SEED and read("n/sub/f1") == b"1"
    rename2("n/sub", "e/full", EXCHANGE)
    assert os.listdir("n/sub") == ["x"] and len(os.listdir("e/full")) == 21
    fails(errno.ENOENT, rename2, "d", "missing", EXCHANGE)
    fails(errno.EINVAL, rename2, "n", "n/sub", EXCHANGE)
    fails(errno.EINVAL, rename2, "b", "x", NOREPLACE | EXCHANGE)
    fails(errno.EINVAL, rename2, "b", "x", 64)
    rename2("c", "white", WHITEOUT)
    left = os.lstat("c")
    assert stat.S_ISCHR(left.st_mode) and left.st_rdev == 0 and read("white") == SEED


def o_tmpfile():
    os.umask(0o027)
    fd = os.open("d", os.O_TMPFILE | os.O_RDWR, 0o666)
    s = os.fstat(fd)
    assert (s.st_nlink, stat.S_IMODE(s.st_mode), s.st_size) == (0, 0o640, 0)
    os.write(fd, SEED)
    assert sorted(os.listdir("d")) == ["sub", "up"]
    link_fd(fd, "d/named")
    assert os.fstat(fd).st_nlink == 1 and read("d/named") == SEED and os.stat("d/named").st_ino == s.st_ino
    os.fsync(fd)
    alone = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    fails(errno.ENOENT, link_fd, alone, "no")
    fails(errno.EINVAL, os.open, ".", os.O_TMPFILE | os.O_RDONLY)


def names_and_paths():
    for name in [b"x" * 255, b"\xff\xfe raw \x80", b"new\nline\ttab", b" ", b"...", "ü𝄞".encode(), b"-rf", b"a\\b"]:
        write(name, name)
        assert name in os.listdir(b".") and read(name) == name
        os.rename(name, b"d/" + name)
        assert read(b"d/" + name) == name
    fails(errno.ENAMETOOLONG, os.mkdir, "y" * 256)
    fails(errno.ENAMETOOLONG, os.stat, "y" * 256)
    fails(errno.ENAMETOOLONG, os.rename, "a", "y" * 256)
    os.symlink("t" * 4095, "long")
    assert os.readlink("long") == "t" * 4095 and os.lstat("long").st_size == 4095
    fails(errno.ENAMETOOLONG, os.symlink, "t" * 4096, "longer")
    fails(errno.ENOENT, os.symlink, "", "nowhere")
    # A path of PATH_MAX - 1 bytes is one, PATH_MAX is too long; the tree may be deeper than that.
    top = os.open(".", os.O_RDONLY)
    for _ in range(40):
        os.mkdir("p" * 199)
        os.chdir("p" * 199)
    write("bottom", b"deep")
    os.fchdir(top)
    path = "/".join(["p" * 199] * 20)
    rest = 4095 - len(path) - 2
    assert os.path.isdir(path + "/" + "." + "/" * rest) and len(path + "/." + "/" * rest) == 4095
    fails(errno.ENAMETOOLONG, os.stat, path + "/." + "/" * (rest + 1))
    shutil.rmtree("p" * 199)
    # Symbolic links: 40 are followed, 41 are a loop.
    os.symlink("a", "l0")
    for i in range(1, 41):
        os.symlink(f"l{i - 1}", f"l{i}")
    assert read("l39") == SEED
    fails(errno.ELOOP, os.stat, "l40")


def many_entries():
    """100,000 names: half from the image, half made here; all that stay are listed while others come and go."""
    for i in range(MANY):
        os.mknod(f"many/up{i}", 0o644)

    def churn():
        for i in range(0, MANY, 10):
            os.unlink(f"many/low{i}")
            os.unlink(f"many/up{i}")
            os.mknod(f"many/new{i}", 0o644)

    stays = {f"{kind}{i}" for kind in ["low", "up"] for i in range(MANY) if i % 10}
    wait = forked(churn)
    rounds = 0
    while True:
        done = os.path.exists(f"many/new{MANY - 10}")
        names = [e.name for e in os.scandir("many")]
        assert len(names) == len(set(names)), "no name twice"
        assert stays <= set(names), "none that stays is missing"
        rounds += 1
        if done:
            break
    wait()
    assert len(os.listdir("many")) == MANY * 19 // 10
    for name in ["low1", f"up{MANY - 1}", "new0"]:
        assert os.stat("many/" + name).st_size == 0
    fails(errno.ENOENT, os.stat, "many/low0")
    # Positions hold: what telldir said, seekdir finds.
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(libc.opendir(b"many"))
    name = lambda entry: ctypes.string_at(entry + 19)
    for _ in range(MANY * 14 // 10):
        libc.readdir(handle)
    libc.telldir.restype = ctypes.c_long
    place = libc.telldir(handle)
    expected = [name(libc.readdir(handle)) for _ in range(min(100, MANY // 10))]
    libc.rewinddir(handle)
    libc.readdir(handle)
    libc.seekdir(handle, ctypes.c_long(place))
    assert [name(libc.readdir(handle)) for _ in range(min(100, MANY // 10))] == expected
    libc.closedir(handle)
    shutil.rmtree("many")


# --- content ----------------------------------------------------------------------------------------------------------


def sparse_files():
    K = 1024
    for path in ["new", "a"]:
        fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        model = bytearray(os.pread(fd, 1 << 20, 0))
        model.extend(bytes(1024 * K - len(model)))
        os.ftruncate(fd, 1024 * K)
        os.pwrite(fd, b"d" * 64 * K, 512 * K)
        model[512 * K : 576 * K] = b"d" * 64 * K
        os.fsync(fd)
        assert os.lseek(fd, 100 * K, os.SEEK_DATA) == 512 * K
        assert os.lseek(fd, 512 * K, os.SEEK_HOLE) == 576 * K
        assert os.lseek(fd, 520 * K, os.SEEK_DATA) == 520 * K
        fails(errno.ENXIO, os.lseek, fd, 600 * K, os.SEEK_DATA)
        fails(errno.ENXIO, os.lseek, fd, 1024 * K, os.SEEK_HOLE)
        assert os.lseek(fd, 600 * K, os.SEEK_HOLE) == 600 * K
        before = os.fstat(fd).st_blocks
        fallocate(fd, PUNCH | KEEP_SIZE, 512 * K + 100, 40 * K)
        model[512 * K + 100 : 552 * K + 100] = bytes(40 * K)
        os.fsync(fd)
        freed = before - os.fstat(fd).st_blocks
        assert freed * 512 == 36 * K, f"{freed} sectors freed"
        fallocate(fd, ZERO, 100, 9000)
        model[100:9100] = bytes(9000)
        fallocate(fd, ZERO | KEEP_SIZE, 1020 * K, 64 * K)
        assert os.fstat(fd).st_size == 1024 * K
        fallocate(fd, KEEP_SIZE, 1024 * K, 64 * K)
        assert os.fstat(fd).st_size == 1024 * K
        fallocate(fd, 0, 1000 * K, 100 * K)
        model.extend(bytes(76 * K))
        assert os.fstat(fd).st_size == 1100 * K
        fails(errno.EOPNOTSUPP, fallocate, fd, PUNCH, 0, 4096)
        fails(errno.EINVAL, fallocate, fd, 0, 0, 0)
        fails(errno.EINVAL, fallocate, fd, 0, -1, 10)
        fails(errno.EFBIG, fallocate, fd, 0, 1 << 62, 4096)
        fails(errno.EBADF, fallocate, os.open(path, os.O_RDONLY), 0, 0, 10)
        assert os.pread(fd, 2048 * K, 0) == model
        os.close(fd)
        assert read(path) == model
    fails(errno.EFBIG, os.truncate, "new", 1 << 50)
    fails(errno.EINVAL, os.truncate, "new", -1)
    fails(errno.EISDIR, os.truncate, "d", 0)


def shared_mappings():
    """Two processes map one file: each sees the other's writes, and so do read and write."""
    for path in ["a", "new"]:
        if path == "new":
            write(path, bytes(len(SEED)))
        fd = os.open(path, os.O_RDWR)
        ours = mmap.mmap(fd, 0)
        private = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE)
        private[0:4] = b"mine"

        def other():
            theirs = mmap.mmap(os.open(path, os.O_RDWR), 0)
            theirs[0:5] = b"child"
            for i in range(1, 2000, 2):
                theirs[4000 + i] = 1
            deadline = time.monotonic() + 20
            while theirs[9000:9006] != b"parent":
                assert time.monotonic() < deadline
                time.sleep(0.001)

        wait = forked(other)
        for i in range(0, 2000, 2):
            ours[4000 + i] = 2
        ours[9000:9006] = b"parent"
        wait()
        assert ours[0:5] == b"child" and bytes(ours[4000:6000]) == b"\2\1" * 1000
        assert os.pread(fd, 2000, 4000) == b"\2\1" * 1000
        os.pwrite(fd, b"written", 7000)
        assert ours[7000:7007] == b"written" and private[0:4] == b"mine"
        ours.flush()
        ours.close()
        assert os.pread(fd, 5, 0) == b"child"
        os.close(fd)
    before = os.stat("c")
    fd = os.open("c", os.O_RDWR)
    m = mmap.mmap(fd, 0)
    time.sleep(0.02)
    m[0] = 0
    m.flush()
    assert os.stat("c").st_mtime_ns > before.st_mtime_ns


def append_from_many():
    for path in ["log", "a"]:
        start = read(path) if os.path.exists(path) else b""

        def appender(me):
            fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
            for i in range(200):
                line = b"%d:%d:" % (me, i) + b"." * (i % 90) + b"\n"
                assert os.write(fd, line) == len(line)

        for wait in [forked(lambda me=me: appender(me)) for me in range(6)]:
            wait()
        text = read(path)
        assert text.startswith(start)
        lines = text[len(start) :].split(b"\n")[:-1]
        assert len(lines) == 1200
        for me in range(6):
            mine = [l for l in lines if l.startswith(b"%d:" % me)]
            assert mine == [b"%d:%d:" % (me, i) + b"." * (i % 90) for i in range(200)]
        os.unlink(path)  # the order differs from run to run


def direct_io():
    buf = mmap.mmap(-1, 16384)
    buf.write(b"direct! " * 2048)
    for path in ["new", "a"]:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o644)
        plain = os.open(path, os.O_RDWR)
        os.pread(plain, 16384, 0)  # what is in the cache must not stay there
        assert os.pwritev(fd, [buf], 4096) == 16384
        assert os.pread(plain, 16384, 4096) == buf[:]
        os.pwrite(plain, b"buffered", 8192)
        back = mmap.mmap(-1, 4096)
        assert os.preadv(fd, [back], 8192) == 4096
        assert back[:8] == b"buffered" and back[8:] == (b"direct! " * 512)[8:]
        assert os.fstat(fd).st_size == 20480
        fcntl.fcntl(plain, fcntl.F_SETFL, os.O_DIRECT)
        assert os.preadv(plain, [back], 4096) == 4096 and back[:7] == b"direct!"


def copy_file_range():
    src, dst = os.open("a", os.O_RDONLY), os.open("copy", os.O_CREAT | os.O_RDWR, 0o644)
    assert os.copy_file_range(src, dst, 6000, 100, 3) == 6000
    assert os.pread(dst, 9000, 0) == bytes(3) + SEED[100:6100]
    assert os.sendfile(dst, src, 0, 50) == 50
    fails(errno.EOPNOTSUPP, fcntl.ioctl, dst, 0x40049409, src)  # FICLONE


# --- attributes -------------------------------------------------------------------------------------------------------


def extended_attributes():
    assert os.getxattr("a", "user.lower") == b"value"
    for path in ["a", "d"]:
        os.setxattr(path, "user.k", b"1", os.XATTR_CREATE)
        fails(errno.EEXIST, os.setxattr, path, "user.k", b"2", os.XATTR_CREATE)
        os.setxattr(path, "user.k", b"2", os.XATTR_REPLACE)
        fails(errno.ENODATA, os.setxattr, path, "user.none", b"", os.XATTR_REPLACE)
        fails(errno.ENODATA, os.getxattr, path, "user.none")
        fails(errno.ENODATA, os.removexattr, path, "user.none")
        os.setxattr(path, "user.empty", b"")
        assert os.getxattr(path, "user.empty") == b"" and "user.empty" in os.listxattr(path)
        os.setxattr(path, "user." + "n" * 250, b"")
        fails(errno.ERANGE, os.setxattr, path, "user." + "n" * 251, b"")
        fails(errno.EINVAL, os.setxattr, path, "user.", b"")
        fails(errno.EOPNOTSUPP, os.setxattr, path, "nonsense.k", b"")
        fails(errno.EOPNOTSUPP, os.setxattr, path, "noprefix", b"")
        fails(errno.EOPNOTSUPP, os.setxattr, path, "system.other", b"")
        fails(errno.EOPNOTSUPP, os.getxattr, path, "nonsense.k")
        fails(errno.EINVAL, os.getxattr, path, "user.")
        fails(errno.EOPNOTSUPP, os.removexattr, path, "nonsense.k")
        fails(errno.E2BIG, os.setxattr, path, "user.big", bytes(65537))
        fails(errno.EPERM, os.setxattr, path, "trusted.k", b"")
        os.setxattr(path, "user.bytes", bytes(range(256)))
        assert os.getxattr(path, "user.bytes") == bytes(range(256))
        room = ctypes.create_string_buffer(8)
        try:
            call("getxattr", path, b"user.bytes", room, 8)
            raise AssertionError("a value longer than the room")
        except OSError as e:
            assert e.errno == errno.ERANGE
        try:
            call("listxattr", path, room, 8)
            raise AssertionError("a list longer than the room")
        except OSError as e:
            assert e.errno == errno.ERANGE
        # There is an end, and it is ENOSPC; what is there can still be listed.
        try:
            for i in range(300):
                os.setxattr(path, f"user.{i:0250}", b"")
            raise AssertionError("no end of names")
        except OSError as e:
            assert e.errno == errno.ENOSPC, e
        names = os.listxattr(path)
        assert len(names) >= i
        for name in names:
            if name.startswith("user.0"):
                os.removexattr(path, name)
    for path in ["link", "fifo"]:
        fails(errno.EPERM, os.setxattr, path, "user.k", b"", follow_symlinks=False)
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    as_user(33, lambda: fails(errno.EPERM, os.setxattr, "sticky", "user.k", b""))
    as_user(33, lambda: fails(errno.EACCES, os.setxattr, "a", "user.k", b""))
    before = os.stat("a").st_ctime_ns
    time.sleep(0.02)
    os.removexattr("a", "user.lower")
    assert os.stat("a").st_ctime_ns > before and "user.lower" not in os.listxattr("a")


def acl(*args):
    return subprocess.run(args, check=True, stdout=subprocess.PIPE).stdout.decode()


def access_lists():
    os.umask(0o022)
    acl("setfacl", "-d", "-m", "u:33:rwx,g:44:r-x,m::rwx", "d")
    write("d/file", b"secret", 0o660)
    os.mkdir("d/dir", 0o770)
    os.mkfifo("d/fifo", 0o666)
    os.symlink("file", "d/sym")
    write("d/dir/inner", b"", 0o640)
    for path in ["d", "d/file", "d/dir", "d/fifo", "d/dir/inner"]:
        print(acl("getfacl", "-n", "-p", path), oct(os.stat(path).st_mode))
    as_user(33, lambda: read("d/file"))
    as_user(33, lambda: write("d/file", b"changed"))
    as_user(34, lambda: fails(errno.EACCES, read, "d/file"))
    os.chmod("d/file", 0o600)  # the mask
    as_user(33, lambda: fails(errno.EACCES, read, "d/file"))
    os.chmod("d/file", 0o640)
    as_user(33, lambda: read("d/file"))
    as_user(33, lambda: fails(errno.EACCES, os.open, "d/file", os.O_WRONLY))
    print(acl("getfacl", "-n", "d/file"))
    acl("setfacl", "-m", "u:35:r--", "c")  # a file of the image
    os.chmod("c", 0o640)
    as_user(35, lambda: read("c"))
    as_user(33, lambda: fails(errno.EACCES, read, "c"))
    acl("setfacl", "-b", "c")
    as_user(35, lambda: fails(errno.EACCES, read, "c"))
    assert "system.posix_acl_access" not in os.listxattr("c")
    acl("setfacl", "-m", "u::rw,g::r,o::-", "c")  # says no more than the mode
    assert "system.posix_acl_access" not in os.listxattr("c") and os.stat("c").st_mode & 0o777 == 0o640
    bad = struct.pack("<IHHI", 2, 1, 7, 0)
    fails(errno.EINVAL, os.setxattr, "c", "system.posix_acl_access", bad)
    fails(errno.EACCES, os.setxattr, "c", "system.posix_acl_default", os.getxattr("d", "system.posix_acl_default"))
    as_user(33, lambda: fails(errno.EPERM, os.removexattr, "d", "system.posix_acl_default"))
    os.chmod("d", 0o2755)
    os.chown("d", 0, 50)
    write("d/grouped", b"", 0o660)
    assert os.stat("d/grouped").st_gid == 50


def set_id_bits():
    """What takes setuid and setgid from a file, and when they stay."""

    def mapped(path):
        m = mmap.mmap(os.open(path, os.O_RDWR), 0)
        m[0] = 1
        m.flush()

    ways = {
        "write": lambda p: os.write(os.open(p, os.O_WRONLY), b"x"),
        "append": lambda p: os.write(os.open(p, os.O_WRONLY | os.O_APPEND), b"x"),
        "truncate": lambda p: os.truncate(p, 10),
        "open and truncate": lambda p: os.close(os.open(p, os.O_WRONLY | os.O_TRUNC)),
        "ftruncate": lambda p: os.ftruncate(os.open(p, os.O_WRONLY), 10),
        "fallocate": lambda p: fallocate(os.open(p, os.O_WRONLY), 0, 0, 20_000),
        "punch": lambda p: fallocate(os.open(p, os.O_WRONLY), PUNCH | KEEP_SIZE, 0, 4096),
        "copy": lambda p: os.copy_file_range(os.open("a", os.O_RDONLY), os.open(p, os.O_WRONLY), 10),
        "mapping": mapped,
        "chmod": lambda p: os.chmod(p, 0o6711),
        "same owner": lambda p: os.chown(p, -1, os.stat(p).st_gid),
        "no owner": lambda p: os.chown(p, -1, -1),
        "touch": lambda p: os.utime(p),
        "xattr": lambda p: os.setxattr(p, "user.k", b""),
        "nothing": lambda p: os.write(os.open(p, os.O_WRONLY), b""),
    }
    for mode in [0o6755, 0o4644, 0o2644, 0o2755]:
        for name, way in ways.items():
            if name == "mapping" and mode & 0o4:
                pass  # page faults take nothing at once: compared all the same
            for uid in [0, 33]:
                write("f", SEED)
                os.chown("f", 33, 33)
                os.chmod("f", mode)
                way("f") if uid == 0 else as_user(33, lambda: way("f"))
                print(f"{mode:o} {name} by {uid}: {os.stat('f').st_mode:o}")
                os.unlink("f")
    os.chown("prog", 33, 33)
    print(f"chown by root: {os.stat('prog').st_mode:o}")
    os.chmod("prog", 0o6755)
    as_user(33, lambda: os.write(os.open("prog", os.O_WRONLY), b"x"))
    assert os.stat("prog").st_mode & 0o6000 == 0
    # Directories: setgid is inherited, chown leaves it.
    os.chmod("d", 0o2775)
    os.chown("d", 33, 44)
    assert os.stat("d").st_mode & 0o7777 == 0o2775
    os.mkdir("d/under")
    write("d/f", b"", 0o2775)
    print([(oct(os.stat(p).st_mode), os.stat(p).st_gid) for p in ["d/under", "d/f"]])
    os.chown("d", 33, 33)
    as_user(33, lambda: write("d/mine", b"", 0o2771))
    os.chown("d", 33, 44)
    as_user(33, lambda: write("d/theirs", b"", 0o2771))
    as_user(33, lambda: (write("d/g", b""), os.chmod("d/g", 0o2771)))
    print([(oct(os.stat(p).st_mode), os.stat(p).st_gid) for p in ["d/mine", "d/theirs", "d/g"]])


def file_capabilities():
    shutil.copy("/bin/cat", "cat")
    os.chmod("cat", 0o755)

    def effective():
        """What it runs with as an ordinary user."""
        out = subprocess.run(
            ["./cat", "/proc/self/status"], check=True, stdout=subprocess.PIPE, user=33, group=33, extra_groups=[]
        ).stdout.decode()
        return [l for l in out.splitlines() if l.startswith("CapEff")][0].split()[1]

    def has():
        return "security.capability" in os.listxattr("cat")

    assert int(effective(), 16) == 0
    subprocess.run(["setcap", "cap_net_raw+ep", "cat"], check=True)
    assert has() and int(effective(), 16) == 1 << 13
    print(subprocess.run(["getcap", "cat"], check=True, stdout=subprocess.PIPE).stdout)
    os.rename("cat", "cat2")
    os.link("cat2", "cat")
    os.chmod("cat", 0o755)
    assert has() and int(effective(), 16) == 1 << 13
    os.chown("cat", 33, 33)
    assert not has() and int(effective(), 16) == 0
    for way in [
        lambda: os.write(os.open("cat", os.O_WRONLY | os.O_APPEND), b"x"),
        lambda: os.truncate("cat", os.stat("cat").st_size - 1),
    ]:
        subprocess.run(["setcap", "cap_net_raw+ep", "cat"], check=True)
        as_user(33, way)
        assert not has()
    subprocess.run(["setcap", "cap_net_raw+ep", "cat"], check=True)
    os.write(os.open("cat", os.O_WRONLY | os.O_APPEND), b"x")
    assert not has(), "root's write takes it too"
    as_user(33, lambda: fails(errno.EPERM, os.setxattr, "cat", "security.capability", struct.pack("<5I", 2 << 24, 1, 0, 0, 0)))
    os.unlink("cat")
    os.unlink("cat2")


def times():
    for path in ["a", "d", "link", "fifo", "new"]:
        if path == "new":
            write(path)
        for ns in [(-1, -999_999_999), (-1_234_567_890_123_456_789, 1), (0, 1 << 62), (951_782_400_000_000_001, -(1 << 60))]:
            os.utime(path, ns=ns, follow_symlinks=False)
            s = os.lstat(path)
            assert (s.st_atime_ns, s.st_mtime_ns) == ns, f"{path}: {(s.st_atime_ns, s.st_mtime_ns)}, not {ns}"
    OMIT, NOW = (1 << 30) - 2, (1 << 30) - 1

    def utimens(atime, mtime):
        spec = struct.pack("qqqq", 0, atime, 0, mtime)
        call("utimensat", -100, "a", spec, 0)

    before = os.stat("a")
    utimens(OMIT, OMIT)
    assert os.stat("a").st_mtime_ns == before.st_mtime_ns and os.stat("a").st_ctime_ns == before.st_ctime_ns
    utimens(OMIT, NOW)
    after = os.stat("a")
    assert after.st_atime_ns == before.st_atime_ns and abs(after.st_mtime - time.time()) < 5
    changes = {  # what changes: mtime, ctime
        "chmod": (lambda: os.chmod("b", 0o600), (False, True)),
        "write": (lambda: os.pwrite(os.open("b", os.O_WRONLY), b"x", 0), (True, True)),
        "write nothing": (lambda: os.pwrite(os.open("b", os.O_WRONLY), b"", 0), (False, False)),
        "truncate": (lambda: os.truncate("b", 5), (True, True)),
        "same size": (lambda: os.truncate("b", 5), (True, True)),
        "link": (lambda: os.link("b", "b4"), (False, True)),
        "unlink": (lambda: os.unlink("b4"), (False, True)),
        "rename": (lambda: os.rename("b", "b5"), (False, True)),
        "back": (lambda: os.rename("b5", "b"), (False, True)),
        "xattr": (lambda: os.setxattr("b", "user.k", b""), (False, True)),
        "chown": (lambda: os.chown("b", 1, 1), (False, True)),
        "read": (lambda: read("b"), (False, False)),
    }
    fd = os.open("b", os.O_RDONLY)
    for name, (change, expected) in changes.items():
        before = os.fstat(fd)
        time.sleep(0.02)
        change()
        after = os.fstat(fd)
        told = (after.st_mtime_ns > before.st_mtime_ns, after.st_ctime_ns > before.st_ctime_ns)
        assert told == expected, f"{name}: {told}"
    for name, change in {
        "create": lambda: write("d/x"),
        "rename": lambda: os.rename("d/x", "d/y"),
        "unlink": lambda: os.unlink("d/y"),
        "mkdir": lambda: os.mkdir("d/z"),
        "rmdir": lambda: os.rmdir("d/z"),
    }.items():
        before = os.stat("d")
        time.sleep(0.02)
        change()
        after = os.stat("d")
        assert after.st_mtime_ns > before.st_mtime_ns and after.st_ctime_ns > before.st_ctime_ns, name


def permissions():
    """What is refused: names, attributes and content, for a user without privileges."""
    os.chmod(".", 0o755)
    os.mkdir("closed", 0o700)
    write("closed/x", b"x")
    os.mkdir("blind", 0o711)
    write("blind/x", b"x")
    write("mine", b"m", 0o600)
    assert read("mine") == b"m" == read("mine")

    def user():
        fails(errno.EACCES, read, "mine")
        fails(errno.EACCES, os.stat, "closed/x")
        fails(errno.EACCES, os.listdir, "closed")
        fails(errno.EACCES, os.listdir, "blind")
        assert read("blind/x") == b"x"
        for op in [os.mkdir, os.unlink, os.rmdir]:
            fails(errno.EACCES, op, "empty/x" if op is os.mkdir else "d/sub/f1" if op is os.unlink else "d/sub/deep")
        fails(errno.EPERM, os.chmod, "a", 0o777)
        fails(errno.EPERM, os.chown, "owned", 0, 0)
        fails(errno.EPERM, os.utime, "a", ns=(1, 1))
        fails(errno.EACCES, os.utime, "a")
        fails(errno.EACCES, os.truncate, "a", 0)
        os.chmod("owned", 0o640)
        assert read("owned") == SEED

    as_user(33, user)
    os.mkdir("shared")
    os.chmod("shared", 0o1777)
    write("shared/roots", b"")
    as_user(34, lambda: write("shared/theirs", b""))
    as_user(33, lambda: fails(errno.EPERM, os.unlink, "shared/theirs"))
    as_user(33, lambda: fails(errno.EPERM, os.rename, "shared/roots", "shared/x"))
    as_user(34, lambda: os.unlink("shared/theirs"))


# --- what else a program leans on ---------------------------------------------------------------------------------------


def inotify():
    fd = call("inotify_init1", os.O_NONBLOCK)
    for path in [".", "d"]:
        call("inotify_add_watch", fd, path, 0x00000FFE & ~0x30)  # all but access, open and close without writing
    watch = {1: ".", 2: "d"}

    def other():
        write("new", b"x")
        os.chmod("a", 0o600)
        os.rename("new", "d/renamed")
        os.unlink("b2")
        os.mkdir("d/dir")
        os.rmdir("d/dir")
        os.truncate("c", 3)
        os.symlink("x", "sym")

    forked(other)()
    data = b""
    while select.select([fd], [], [], 0.3)[0]:
        data += os.read(fd, 65536)
    at = 0
    while at < len(data):
        wd, mask, _, length = struct.unpack_from("iIII", data, at)
        name = data[at + 16 : at + 16 + length].rstrip(b"\0").decode()
        print(f"{watch[wd]} {mask:#x} {name}")
        at += 16 + length


def sockets_and_fifos():
    server = socket.socket(socket.AF_UNIX)
    server.bind("d/sock")
    server.listen()
    assert stat.S_ISSOCK(os.stat("d/sock").st_mode)
    os.rename("d/sock", "sock")
    os.chmod("sock", 0o600)

    def client():
        c = socket.socket(socket.AF_UNIX)
        c.connect("sock")
        c.sendall(b"hello")

    wait = forked(client)
    assert server.accept()[0].recv(10) == b"hello"
    wait()
    as_user(33, lambda: fails(errno.EACCES, socket.socket(socket.AF_UNIX).connect, "sock"))
    fails(errno.EADDRINUSE, socket.socket(socket.AF_UNIX).bind, "sock")
    fails(errno.ENXIO, os.open, "sock", os.O_RDONLY)
    os.mkfifo("new", 0o644)
    for path in ["fifo", "new"]:
        wait = forked(lambda: os.write(os.open(path, os.O_WRONLY), b"through"))
        assert read(path) == b"through"
        wait()
        fails(errno.ENXIO, os.open, path, os.O_WRONLY | os.O_NONBLOCK)
    os.mknod("null", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    fails(errno.EPERM, os.mknod, "real", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    fails(errno.EPERM, os.mknod, "disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))


def locks():
    fd = os.open("a", os.O_RDWR)

    def tries(flags, refused):
        def attempt():
            other = os.open("a", os.O_RDWR)
            if refused:
                fails(errno.EWOULDBLOCK, fcntl.flock, other, flags | fcntl.LOCK_NB)
            else:
                fcntl.flock(other, flags | fcntl.LOCK_NB)

        forked(attempt)()

    fcntl.flock(fd, fcntl.LOCK_EX)
    os.pwrite(fd, b"copied up", 0)  # the lock stays
    tries(fcntl.LOCK_SH, True)
    os.rename("a", "a2")
    os.link("a2", "a")
    tries(fcntl.LOCK_EX, True)
    fcntl.flock(fd, fcntl.LOCK_SH)
    tries(fcntl.LOCK_SH, False)
    fcntl.flock(fd, fcntl.LOCK_UN)
    tries(fcntl.LOCK_EX, False)

    def ranges(start, length, refused):
        def attempt():
            other = os.open("a", os.O_RDWR)
            if refused:
                fails(errno.EAGAIN, fcntl.lockf, other, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
            else:
                fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)

        forked(attempt)()

    fcntl.lockf(fd, fcntl.LOCK_EX, 100, 50)
    ranges(0, 50, False)
    ranges(149, 1, True)
    ranges(150, 0, False)
    asked = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    kind, _, start, length, pid = struct.unpack("hhqqi4x", asked)
    assert (kind, start, length, pid) == (fcntl.F_WRLCK, 50, 100, os.getpid())
    os.close(os.open("a", os.O_RDONLY))  # POSIX: any close of the process lets go
    ranges(149, 1, False)
    # A waiting lock is granted when the holder ends.
    ready, go = os.pipe(), os.pipe()

    def holder():
        other = os.open("a", os.O_RDWR)
        fcntl.lockf(other, fcntl.LOCK_EX)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        time.sleep(0.1)

    wait = forked(holder)
    os.read(ready[0], 1)
    os.write(go[1], b"x")
    fcntl.lockf(os.open("a", os.O_RDWR), fcntl.LOCK_EX)
    wait()


# --- the limits of the manual, on our mount only ------------------------------------------------------------------------


def limit_sync():
    """Counted by the caller: none of these is a request, but for the one fsync."""
    write("d/new", b"x")
    os.sync()
    fd = os.open("d/new", os.O_RDWR)
    call("syncfs", fd)
    os.fsync(fd)


def limit_access_time():
    os.utime("a", ns=(1, 2))
    read("a")
    os.listdir("d")
    assert os.stat("a").st_atime_ns == 1


def limit_birth_time():
    assert subprocess.run(["stat", "-c", "%w", "a"], stdout=subprocess.PIPE, check=True).stdout == b"-\n"


def limit_clone():
    write("copy")
    src, dst = os.open("a", os.O_RDONLY), os.open("copy", os.O_WRONLY)
    fails(errno.EOPNOTSUPP, fcntl.ioctl, dst, 0x40049409, src)
    assert os.copy_file_range(src, dst, 100) == 100


def limit_inode_flags():
    fd = os.open("a", os.O_RDONLY)
    fails(errno.ENOTTY, fcntl.ioctl, fd, 0x80086601, bytes(8))  # FS_IOC_GETFLAGS
    fails(errno.ENOTTY, fcntl.ioctl, fd, 0x801C581F, bytes(28))  # FS_IOC_FSGETXATTR


def limit_devices():
    fails(errno.EPERM, os.mknod, "real", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod("none", stat.S_IFCHR | 0o600, os.makedev(0, 0))


def limit_fallocate_modes():
    fd = os.open("a", os.O_RDWR)
    fails(errno.EOPNOTSUPP, fallocate, fd, COLLAPSE, 0, 4096)
    fails(errno.EOPNOTSUPP, fallocate, fd, 32, 0, 4096)
    fallocate(fd, 0, 0, len(SEED))
    assert read("a") == SEED


def limit_holes_of_the_image():
    fd = os.open("holes", os.O_RDWR)
    size = os.fstat(fd).st_size
    assert os.lseek(fd, 0, os.SEEK_DATA) == 0 and os.lseek(fd, 0, os.SEEK_HOLE) == size
    assert os.fstat(fd).st_blocks * 512 == size
    assert not any(os.pread(fd, size, 0))


def limit_direct_alignment():
    fd = os.open("a", os.O_RDWR | os.O_DIRECT)
    os.pwrite(fd, b"odd", 4095)
    assert os.pread(fd, 5, 4094) == SEED[4094:4095] + b"odd" + SEED[4098:4099]


def limit_link_max():
    assert os.pathconf("a", "PC_LINK_MAX") == 127
    for i in range(200):
        os.link("a", f"a{i}")
    assert os.stat("a").st_nlink == 201


def limit_large_attributes():
    for i in range(3):
        os.setxattr("a", f"user.{i}", bytes([i]) * 65536)
    assert [os.getxattr("a", f"user.{i}")[:1] for i in range(3)] == [b"\0", b"\1", b"\2"]
    fails(errno.E2BIG, os.setxattr, "a", "user.0", bytes(65537))


def limit_security_attributes():
    os.setxattr("a", "security.other", b"x")
    assert os.getxattr("a", "security.other") == b"x"
    as_user(33, lambda: fails(errno.EPERM, os.setxattr, "owned", "security.other", b"x"))


def limit_mapped_writes():
    write("new")
    fd = os.open("new", os.O_RDWR)
    os.ftruncate(fd, 40960)
    os.utime("new", ns=(1, 2))
    mapped = mmap.mmap(fd, 0)
    mapped[9000] = 1
    assert os.stat("new").st_mtime_ns == 2
    fails(errno.ENXIO, os.lseek, fd, 0, os.SEEK_DATA)
    mapped.flush()
    assert os.stat("new").st_mtime_ns > 2
    assert os.lseek(fd, 0, os.SEEK_DATA) == 8192


def limit_setgid_groups():
    def member(fn):
        forked(lambda: (os.setgroups([44]), os.setresgid(33, 33, 33), os.setresuid(33, 33, 33), fn()))()

    ways = [lambda: os.write(os.open("new", os.O_WRONLY), b"x"), lambda: os.chown("new", -1, -1)]
    for group, after in [(33, 0o2644), (44, 0o644)]:
        for way in ways:
            write("new")
            os.chown("new", 33, group)
            os.chmod("new", 0o2644)
            member(way)
            assert os.stat("new").st_mode & 0o7777 == after, (group, oct(os.stat("new").st_mode))
    member(lambda: os.chmod("new", 0o2644))
    assert os.stat("new").st_mode & 0o7777 == 0o2644


CHECKS = [
    inode_numbers, link_counts, unlinked_but_open, held_over_copy_up_and_rename, directory_rename, rename_flags,
    o_tmpfile, names_and_paths, many_entries, sparse_files, shared_mappings, append_from_many, direct_io,
    copy_file_range, extended_attributes, access_lists, set_id_bits, file_capabilities, times, permissions, inotify,
    sockets_and_fifos, locks,
]  # fmt: skip

if __name__ == "__main__":
    os.chdir(sys.argv[2])
    os.umask(0)
    if sys.argv[1].startswith("limit_"):
        globals()[sys.argv[1]]()
    else:
        {f.__name__: f for f in [fill, *CHECKS]}[sys.argv[1]]()
