//! Giving memory back while nothing happens: the allocator's, the program's code, and waking a thread out of a read(2) that may last.
#![allow(unsafe_code)]

use std::io;
use std::sync::OnceLock;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::unistd::{Pid, getpid, gettid};

/// Nothing else uses it, nobody sends it to containers, and where nothing handles it, it does nothing.
const SIGNAL: Signal = Signal::SIGURG;

/// Segments begin in a page of their own; a page is this large, or a multiple of it.
const PAGE: usize = 4096;

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
    // SAFETY: `unload` has the type that is called, and looks at nothing of ours.
    unsafe { libc::dl_iterate_phdr(Some(unload), std::ptr::null_mut()) };
}

/// Takes one loaded object's code out of this process: the program's, a library's, the loader's.
unsafe extern "C" fn unload(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: dl_iterate_phdr(3) hands out an object that is loaded, with its program headers.
    let (base, headers) = unsafe {
        let object = &*object;
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into());
        (object.dlpi_addr as usize, headers)
    };
    let code = |h: &&libc::Elf64_Phdr| {
        h.p_type == libc::PT_LOAD && h.p_flags & (libc::PF_X | libc::PF_W) == libc::PF_X
    };
    for header in headers.iter().filter(code) {
        let begin = base + header.p_vaddr as usize;
        let start = begin & !(PAGE - 1);
        let len = begin + header.p_memsz as usize - start;
        // SAFETY: a file's mapping that nobody can write to: its pages are the file's, read again at the next touch.
        // The kernel's own (vdso) refuses.
        unsafe {
            libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED);
        }
    }
    0
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
        let here = code_that_was_unloaded_runs as fn() as usize;
        let loaded = || {
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut lines = maps.lines().skip_while(|line| {
                let range = line.split(' ').next().and_then(|w| w.split_once('-'));
                let number = |s| usize::from_str_radix(s, 16).unwrap_or(0);
                !range.is_some_and(|(a, b)| (number(a)..number(b)).contains(&here))
            });
            let rss = lines.find_map(|l| l.strip_prefix("Rss:")).unwrap();
            let words = rss.split_whitespace().next().unwrap();
            words.parse::<usize>().unwrap()
        };
        // The kernel may have unloaded some itself, and other threads load some meanwhile.
        let shrinks = || {
            loaded();
            let before = loaded();
            unload_code();
            loaded() < before
        };
        assert!((0..10).any(|_| shrinks()), "nothing was unloaded");
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
