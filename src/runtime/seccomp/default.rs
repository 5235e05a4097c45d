//! Our default profile.
//!
//! What is not listed does not exist (ENOSYS), so that libraries fall back as on an older kernel. What is
//! known and refused says EPERM. The list is by subject; names of other ABIs stand beside their own.
//!
//! * No new namespaces and no mounts without CAP_SYS_ADMIN; clone3, whose flags a filter cannot see, is ENOSYS and libc
//!   uses clone.
//! * Sockets of the families unix, inet, inet6, netlink and packet; all else is EAFNOSUPPORT, as in a kernel without
//!   it. On i386 socketcall(SYS_SOCKET) is ENOSYS: its family lies in memory, where no filter looks. (musl then uses
//!   socket; programs of an i386 glibc need a profile of their own for networking.)
//! * ioctl TIOCSTI and TIOCLINUX: a terminal's input is not for programs to write. Compared as the kernel does,
//!   in 32 bits.
//! * io_uring, userfaultfd, keyrings, kexec, modules, clocks: refused; some by capability.
//! * i386 and arm calls on 64-bit machines: the same rules. x32: ENOSYS.

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall,
    LinuxSyscallBuilder,
};

use super::compile::native;

/// Files and directories by path.
const PATHS: &str = "access chdir chmod chown chown32 creat faccessat faccessat2 fchmodat fchmodat2 fchownat \
    file_getattr file_setattr fstatat64 futimesat getcwd getxattr getxattrat inotify_add_watch lchown lchown32 \
    lgetxattr link linkat listxattr listxattrat llistxattr lremovexattr lsetxattr lstat lstat64 mkdir mkdirat \
    mknod mknodat name_to_handle_at newfstatat oldfstat oldlstat oldstat open openat openat2 readlink readlinkat \
    removexattr removexattrat rename renameat renameat2 rmdir setxattr setxattrat stat stat64 statfs statfs64 statx \
    symlink symlinkat truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes";

/// Open files.
const FILES: &str = "_llseek cachestat close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 \
    fallocate fchdir fchmod fchown fchown32 fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr \
    fsetxattr fstat fstat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 getdents getdents64 ioctl lseek pipe pipe2 \
    pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readdir readv sendfile sendfile64 splice sync \
    sync_file_range sync_file_range2 arm_sync_file_range arm_fadvise64_64 syncfs tee write writev";

/// Asynchronous input and output; waiting.
const EVENTS: &str = "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 \
    epoll_wait epoll_wait_old eventfd eventfd2 fanotify_mark inotify_init inotify_init1 inotify_rm_watch io_cancel \
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit pause poll ppoll ppoll_time64 \
    pselect6 pselect6_time64 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 \
    timerfd_settime timerfd_settime64";

/// Memory.
const MEMORY: &str = "brk get_mempolicy madvise map_shadow_stack mbind membarrier memfd_create memfd_secret mincore \
    mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free \
    pkey_mprotect process_madvise process_mrelease remap_file_pages set_mempolicy set_mempolicy_home_node";

/// Processes, threads, their limits and scheduling.
const PROCESSES: &str = "arch_prctl cacheflush breakpoint execve execveat exit exit_group fork futex futex_requeue \
    futex_time64 futex_wait futex_waitv futex_wake get_robust_list get_thread_area getcpu getpgid getpgrp getpid \
    getppid getpriority getrlimit getrusage getsid gettid ioprio_get ioprio_set landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self modify_ldt nice pidfd_getfd pidfd_open prctl prlimit64 \
    process_vm_readv process_vm_writev ptrace restart_syscall rseq sched_get_priority_max sched_get_priority_min \
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
    seccomp set_robust_list set_thread_area set_tid_address set_tls get_tls setpgid setpriority setrlimit setsid \
    swapcontext sysinfo times ugetrlimit olduname oldolduname uname uretprobe usr26 usr32 vfork wait4 waitid waitpid";

/// Identity and capabilities.
const IDENTITY: &str = "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 \
    getresgid getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid \
    setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid \
    setreuid32 setuid setuid32";

/// Signals and time.
const SIGNALS: &str = "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday kill nanosleep pidfd_send_signal \
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
    rt_sigtimedwait_time64 rt_tgsigqueueinfo setitimer sigaction sigaltstack signal sigpending sigprocmask sigreturn \
    sigsuspend tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
    timer_settime64 tkill sgetmask ssetmask";

/// System V and POSIX IPC; sockets, but for making them.
const IPC: &str = "accept accept4 bind connect getpeername getrandom getsockname getsockopt ipc listen mq_getsetattr \
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget \
    msgrcv msgsnd recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop semtimedop_time64 send \
    sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair riscv_flush_icache \
    riscv_hwprobe s390_guarded_storage s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr s390_sthyi";

/// Refused whatever the capabilities.
const REFUSED: &str = "io_uring_enter io_uring_register io_uring_setup kexec_file_load kexec_load migrate_pages \
    move_pages swapoff swapon uselib userfaultfd vm86 vm86old vmsplice pciconfig_iobase pciconfig_read pciconfig_write";

/// Refused unless the bounding set has the capability (or one of them).
const BY_CAPABILITY: [(&[Capability], &str); 11] = [
    (
        &[Capability::SysAdmin],
        "fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr \
         move_mount open_tree open_tree_attr pivot_root quotactl quotactl_fd setdomainname sethostname setns \
         umount umount2 unshare listmount statmount",
    ),
    (&[Capability::SysAdmin, Capability::Bpf], "bpf"),
    (
        &[Capability::SysAdmin, Capability::Perfmon],
        "perf_event_open",
    ),
    (&[Capability::SysAdmin, Capability::Syslog], "syslog"),
    (&[Capability::DacReadSearch], "open_by_handle_at"),
    (&[Capability::SysBoot], "reboot"),
    (&[Capability::SysChroot], "chroot"),
    (
        &[Capability::SysModule],
        "delete_module finit_module init_module query_module",
    ),
    (&[Capability::SysPacct], "acct"),
    (&[Capability::SysPtrace], "kcmp"),
    (&[Capability::SysTtyConfig], "vhangup"),
];

/// The same, of which an unprivileged use exists that needs no capability: the kernel decides… but for hardware and clocks.
const HARDWARE: [(&[Capability], &str); 2] = [
    (&[Capability::SysRawio], "ioperm iopl"),
    (
        &[Capability::SysTime],
        "clock_settime clock_settime64 settimeofday stime",
    ),
];

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`.
const NEW_NAMESPACES: [u64; 7] = [
    0x0002_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
];

/// `PER_LINUX`, `PER_LINUX32`, both with `UNAME26`, and the question what it is.
const PERSONALITIES: [u64; 5] = [0, 8, 0x0002_0000, 0x0002_0008, 0xffff_ffff];

/// Socket families: unix, inet, inet6, netlink, packet.
const FAMILIES: [u64; 5] = [1, 2, 10, 16, 17];
/// One more than the highest family of Linux.
const FAMILIES_END: u64 = 47;
/// `NETLINK_AUDIT`.
const NETLINK_AUDIT: u64 = 9;

/// The kernel takes this argument as 32 bits.
const LOW: u64 = 0xffff_ffff;

/// Our default profile for a container whose bounding set is `caps`.
#[must_use]
pub fn default_profile(caps: &Capabilities) -> LinuxSeccomp {
    let mut rules = Vec::new();
    for list in [
        PATHS, FILES, EVENTS, MEMORY, PROCESSES, IDENTITY, SIGNALS, IPC,
    ] {
        rules.push(allow(list, vec![]));
    }
    rules.push(refuse(REFUSED, libc::EPERM, vec![]));
    for (needed, list) in BY_CAPABILITY.iter().chain(&HARDWARE) {
        rules.push(if needed.iter().any(|c| caps.contains(c)) {
            allow(list, vec![])
        } else {
            refuse(list, libc::EPERM, vec![])
        });
    }
    if caps.contains(&Capability::SysAdmin) {
        rules.push(allow("clone clone3", vec![]));
    } else {
        rules.push(allow("clone", vec![]));
        for flag in NEW_NAMESPACES {
            rules.push(refuse(
                "clone",
                libc::EPERM,
                vec![masked(clone_flags(), flag, flag)],
            ));
        }
    }
    for value in PERSONALITIES {
        rules.push(allow("personality", vec![masked(0, LOW, value)]));
    }
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        rules.push(refuse("ioctl", libc::EPERM, vec![masked(1, LOW, request)]));
    }
    rules.extend(sockets(caps));
    profile(rules)
}

/// Who may make which sockets.
fn sockets(caps: &Capabilities) -> Vec<LinuxSyscall> {
    let mut rules: Vec<_> = FAMILIES
        .iter()
        .map(|family| allow("socket", vec![masked(0, LOW, *family)]))
        .collect();
    for family in (0..FAMILIES_END).filter(|f| !FAMILIES.contains(f)) {
        let one = vec![masked(0, LOW, family)];
        rules.push(refuse("socket", libc::EAFNOSUPPORT, one));
    }
    if !caps.contains(&Capability::AuditWrite) {
        // As without audit in the kernel: login and sudo then do without.
        let audit = vec![masked(0, LOW, 16), masked(2, LOW, NETLINK_AUDIT)];
        rules.push(refuse("socket", libc::EPROTONOSUPPORT, audit));
    }
    rules.push(refuse("socketcall", libc::ENOSYS, vec![masked(0, LOW, 1)]));
    rules
}

/// Which argument of clone(2) the flags are.
fn clone_flags() -> usize {
    usize::from(cfg!(target_arch = "s390x"))
}

fn masked(index: usize, mask: u64, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .value(mask)
        .value_two(value)
        .build()
        .expect("every field has a value or a default")
}

fn allow(names: &str, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    rule(names, LinuxSeccompAction::ScmpActAllow, None, args)
}

fn refuse(names: &str, errno: i32, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let errno = Some(errno.unsigned_abs());
    rule(names, LinuxSeccompAction::ScmpActErrno, errno, args)
}

fn rule(
    names: &str,
    action: LinuxSeccompAction,
    errno: Option<u32>,
    args: Vec<LinuxSeccompArg>,
) -> LinuxSyscall {
    let names: Vec<String> = names.split_ascii_whitespace().map(str::to_owned).collect();
    let mut builder = LinuxSyscallBuilder::default().names(names).action(action);
    if let Some(errno) = errno {
        builder = builder.errno_ret(errno);
    }
    if !args.is_empty() {
        builder = builder.args(args);
    }
    builder
        .build()
        .expect("every field has a value or a default")
}

fn profile(rules: Vec<LinuxSyscall>) -> LinuxSeccomp {
    let mut architectures = vec![native()];
    architectures.extend(match native() {
        Arch::ScmpArchX86_64 => Some(Arch::ScmpArchX86),
        Arch::ScmpArchAarch64 => Some(Arch::ScmpArchArm),
        Arch::ScmpArchS390x => Some(Arch::ScmpArchS390),
        _ => None,
    });
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::ENOSYS.unsigned_abs())
        .architectures(architectures)
        .syscalls(rules)
        .build()
        .expect("every field has a value or a default")
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::super::compile::compile;
    use super::*;
    use std::str::FromStr;

    const X86_64: u32 = 0xc000_003e;
    const I386: u32 = 0x4000_0003;
    const ALLOW: u32 = 0x7fff_0000;

    /// What the kernel would answer: the strictest of all filters (seccomp(2)), by running the BPF.
    fn answer(profile: &LinuxSeccomp, arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&nr.to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        for (i, arg) in args.iter().enumerate() {
            data[16 + 8 * i..24 + 8 * i].copy_from_slice(&arg.to_ne_bytes());
        }
        let filters = compile(profile).unwrap();
        // Of equals the one loaded last.
        let answers = filters.iter().rev().map(|f| run(&f.bpf, &data));
        answers.min_by_key(|a| (a & 0xffff_0000) as i32).unwrap()
    }

    fn run(bpf: &[u8], data: &[u8]) -> u32 {
        let word = |at: usize| u32::from_ne_bytes(data[at..at + 4].try_into().unwrap());
        let (program, _) = bpf.as_chunks::<8>();
        let (mut pc, mut a) = (0, 0u32);
        loop {
            let i = program[pc];
            let code = u16::from_ne_bytes([i[0], i[1]]);
            let (jt, jf) = (usize::from(i[2]), usize::from(i[3]));
            let k = u32::from_ne_bytes([i[4], i[5], i[6], i[7]]);
            let jump = |yes: bool| if yes { jt } else { jf };
            pc += 1;
            match code {
                0x20 => a = word(k as usize),
                0x54 => a &= k,
                0x05 => pc += k as usize,
                0x15 => pc += jump(a == k),
                0x25 => pc += jump(a > k),
                0x35 => pc += jump(a >= k),
                0x45 => pc += jump(a & k != 0),
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn errno(n: i32) -> u32 {
        0x0005_0000 | n as u32
    }

    #[test]
    fn the_default_profile_answers_as_it_says() {
        let none = [0; 6];
        let args = |a: &[u64]| {
            let mut all = none;
            all[..a.len()].copy_from_slice(a);
            all
        };
        let table: &[(&str, u32, i64, [u64; 6], u32)] = &[
            ("read", X86_64, libc::SYS_read, none, ALLOW),
            ("execve", X86_64, libc::SYS_execve, none, ALLOW),
            ("capset", X86_64, libc::SYS_capset, none, ALLOW),
            ("mseal", X86_64, 462, none, ALLOW),
            ("fchmodat2", X86_64, 452, none, ALLOW),
            ("unheard of", X86_64, 999, none, errno(libc::ENOSYS)),
            (
                "clone3",
                X86_64,
                libc::SYS_clone3,
                none,
                errno(libc::ENOSYS),
            ),
            (
                "fork by clone",
                X86_64,
                libc::SYS_clone,
                args(&[0x0120_0011]),
                ALLOW,
            ),
            (
                "thread",
                X86_64,
                libc::SYS_clone,
                args(&[0x003d_0f00]),
                ALLOW,
            ),
            (
                "clone user",
                X86_64,
                libc::SYS_clone,
                args(&[0x1000_0011]),
                errno(libc::EPERM),
            ),
            (
                "clone net",
                X86_64,
                libc::SYS_clone,
                args(&[0xff_4000_0011]),
                errno(libc::EPERM),
            ),
            (
                "unshare",
                X86_64,
                libc::SYS_unshare,
                none,
                errno(libc::EPERM),
            ),
            ("mount", X86_64, libc::SYS_mount, none, errno(libc::EPERM)),
            ("io_uring", X86_64, 425, none, errno(libc::EPERM)),
            ("io_uring i386", I386, 425, none, errno(libc::EPERM)),
            (
                "keyctl",
                X86_64,
                libc::SYS_keyctl,
                none,
                errno(libc::ENOSYS),
            ),
            ("bpf", X86_64, libc::SYS_bpf, none, errno(libc::EPERM)),
            ("chroot", X86_64, libc::SYS_chroot, none, ALLOW),
            (
                "personality linux",
                X86_64,
                libc::SYS_personality,
                none,
                ALLOW,
            ),
            (
                "personality ask",
                X86_64,
                libc::SYS_personality,
                args(&[u64::MAX]),
                ALLOW,
            ),
            (
                "personality no aslr",
                X86_64,
                libc::SYS_personality,
                args(&[0x4_0000]),
                errno(libc::ENOSYS),
            ),
            ("ioctl", X86_64, libc::SYS_ioctl, args(&[0, 0x5401]), ALLOW),
            (
                "TIOCSTI",
                X86_64,
                libc::SYS_ioctl,
                args(&[0, 0x5412]),
                errno(libc::EPERM),
            ),
            (
                "TIOCSTI high",
                X86_64,
                libc::SYS_ioctl,
                args(&[0, 0x1_0000_5412]),
                errno(libc::EPERM),
            ),
            (
                "TIOCLINUX",
                X86_64,
                libc::SYS_ioctl,
                args(&[0, 0xffff_ffff_0000_541c]),
                errno(libc::EPERM),
            ),
            (
                "TIOCSTI i386",
                I386,
                54,
                args(&[0, 0x5412]),
                errno(libc::EPERM),
            ),
            ("inet", X86_64, libc::SYS_socket, args(&[2, 1]), ALLOW),
            (
                "unix high",
                X86_64,
                libc::SYS_socket,
                args(&[0x7_0000_0001, 1]),
                ALLOW,
            ),
            (
                "alg",
                X86_64,
                libc::SYS_socket,
                args(&[38, 5]),
                errno(libc::EAFNOSUPPORT),
            ),
            (
                "alg high",
                X86_64,
                libc::SYS_socket,
                args(&[0x1_0000_0026, 5]),
                errno(libc::EAFNOSUPPORT),
            ),
            (
                "vsock",
                X86_64,
                libc::SYS_socket,
                args(&[40, 1]),
                errno(libc::EAFNOSUPPORT),
            ),
            (
                "family 200",
                X86_64,
                libc::SYS_socket,
                args(&[200, 1]),
                errno(libc::ENOSYS),
            ),
            (
                "netlink",
                X86_64,
                libc::SYS_socket,
                args(&[16, 3, 0]),
                ALLOW,
            ),
            (
                "audit",
                X86_64,
                libc::SYS_socket,
                args(&[16, 3, 9]),
                errno(libc::EPROTONOSUPPORT),
            ),
            ("read i386", I386, 3, none, ALLOW),
            ("inet i386", I386, 359, args(&[2]), ALLOW),
            (
                "alg i386",
                I386,
                359,
                args(&[38]),
                errno(libc::EAFNOSUPPORT),
            ),
            (
                "socketcall socket",
                I386,
                102,
                args(&[1]),
                errno(libc::ENOSYS),
            ),
            (
                "socketcall socket high",
                I386,
                102,
                args(&[0x1_0000_0001]),
                errno(libc::ENOSYS),
            ),
            ("socketcall connect", I386, 102, args(&[3]), ALLOW),
            ("clone3 i386", I386, 435, none, errno(libc::ENOSYS)),
            (
                "clone user i386",
                I386,
                120,
                args(&[0x1000_0011]),
                errno(libc::EPERM),
            ),
            ("x32 read", X86_64, 0x4000_0000, none, errno(libc::ENOSYS)),
            ("x32 -1", X86_64, u32::MAX.into(), none, errno(libc::ENOSYS)),
            ("arm", 0x4000_0028, 3, none, errno(libc::ENOSYS)),
        ];
        let profile = default_profile(&crate::runtime::default_capabilities());
        for (name, arch, nr, args, expected) in table {
            let got = answer(&profile, *arch, *nr as u32, *args);
            assert_eq!(got, *expected, "{name}: {got:#x} instead of {expected:#x}");
        }
    }

    #[test]
    fn capabilities_open_their_calls() {
        let cap = |name| Capabilities::from([Capability::from_str(name).unwrap()]);
        for (name, nr) in [
            ("SYS_ADMIN", libc::SYS_mount),
            ("SYS_ADMIN", libc::SYS_unshare),
            ("SYS_ADMIN", libc::SYS_clone3),
            ("BPF", libc::SYS_bpf),
            ("SYS_TIME", libc::SYS_clock_settime),
        ] {
            let with = default_profile(&cap(name));
            let without = default_profile(&cap("CHOWN"));
            assert_eq!(
                answer(&with, X86_64, nr as u32, [0; 6]),
                ALLOW,
                "{name} {nr}"
            );
            assert_ne!(
                answer(&without, X86_64, nr as u32, [0; 6]),
                ALLOW,
                "{name} {nr}"
            );
        }
        let clone = [0x7e02_0000, 0, 0, 0, 0, 0];
        assert_eq!(
            answer(&default_profile(&cap("SYS_ADMIN")), X86_64, 56, clone),
            ALLOW
        );
    }

    #[test]
    fn no_name_is_misspelt() {
        let profile = default_profile(&Capabilities::default());
        for rule in profile.syscalls().iter().flatten() {
            for name in rule.names() {
                let young = super::super::compile::knows(name);
                assert!(young, "{name}");
            }
        }
    }
}
