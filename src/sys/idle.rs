//! Giving memory back while nothing happens: the allocator's, the program's code, and waking a thread out of a read(2) that may last.
#![allow(unsafe_code)]

use std::io;
use std::sync::OnceLock;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::unistd::{Pid, getpid, gettid};

/// Nothing else uses it, nobody sends it to containers, and where nothing handles it, it does nothing.
const SIGNAL: Signal = Signal::SIGURG;

/// Hands the C library's free memory back to the kernel.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number and touches only memory that is free, under the allocator's locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A thread whose system calls can be interrupted.
#[derive(Debug, Clone, Copy)]
pub struct Sleeper {
    process: Pid,
    thread: Pid,
}

/// Takes the program's code out of this process, as far as it came from files: what runs next is found in the page
/// cache again. A process that has started and now does little of what it could keeps little of it.
pub fn unload_code() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for (start, len) in maps.lines().filter_map(code) {
        // SAFETY: a file's mapping that nobody can write to: its pages are the file's, read again at the next touch.
        unsafe {
            libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED);
        }
    }
}

/// Address and length of a mapping, from its line in `/proc/PID/maps`, if it is a file's code.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let executable = words.next()? == "r-xp";
    let file = words.nth(3)?.starts_with('/');
    let address = |s| usize::from_str_radix(s, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    (executable && file).then(|| (start, end.saturating_sub(start)))
}

extern "C" fn nothing(_: libc::c_int) {}

/// Makes the calling thread one: its blocking system calls end with `EINTR` after [`Sleeper::interrupt`].
///
/// # Errors
/// As sigaction(2).
pub fn sleeper() -> io::Result<Sleeper> {
    static HANDLED: OnceLock<Result<(), nix::Error>> = OnceLock::new();
    let handled = HANDLED.get_or_init(|| {
        // Without SA_RESTART: read(2) is to come back.
        let action = SigAction::new(
            SigHandler::Handler(nothing),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing.
        unsafe { sigaction(SIGNAL, &action) }.map(drop)
    });
    (*handled)?;
    let mut set = SigSet::empty();
    set.add(SIGNAL);
    set.thread_swap_mask(SigmaskHow::SIG_UNBLOCK)?;
    Ok(Sleeper {
        process: getpid(),
        thread: gettid(),
    })
}

impl Sleeper {
    /// Interrupts what the thread waits in. One that has ended is not met: if another thread of this process has
    /// its number by now, that one is, and goes on as after any signal.
    pub fn interrupt(self) {
        // SAFETY: three numbers; the signal is handled (see `sleeper`).
        unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                self.process.as_raw(),
                self.thread.as_raw(),
                SIGNAL as libc::c_int,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_was_unloaded_runs() {
        let line = "7f1c2d400000-7f1c2d588000 r-xp 00028000 fe:00 1234    /usr/lib/libc.so.6";
        assert_eq!(code(line), Some((0x7f1c_2d40_0000, 0x18_8000)));
        for other in [
            "7ffd3a5f2000-7ffd3a5f4000 r-xp 00000000 00:00 0    [vdso]",
            "7f1c2d588000-7f1c2d5d8000 r--p 001b0000 fe:00 1234    /usr/lib/libc.so.6",
            "7f1c2d5d8000-7f1c2d5da000 r-xp 00000000 00:00 0",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
        unload_code();
        assert_eq!("1 2 3".split(' ').count(), 3);
    }

    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn a_read_that_waits_is_interrupted() {
        let (read_end, _write_end) = nix::unistd::pipe().unwrap();
        let (tell, told) = channel();
        let (ended, end) = channel();
        std::thread::spawn(move || {
            tell.send(sleeper().unwrap()).unwrap();
            ended
                .send(nix::unistd::read(&read_end, &mut [0; 8]))
                .unwrap();
        });
        let sleeper = told.recv().unwrap();
        let mut tries = 0;
        let result = loop {
            sleeper.interrupt();
            match end.recv_timeout(Duration::from_millis(20)) {
                Ok(result) => break result,
                Err(_) => tries += 1,
            }
            assert!(tries < 500, "it reads on");
        };
        assert_eq!(result, Err(nix::errno::Errno::EINTR));
    }
}
