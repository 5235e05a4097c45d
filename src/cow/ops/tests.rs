//! Requests as the kernel writes them, answered into a socket that keeps what is written apart.

use super::wire::{HEADER, op, swap_root};
use super::{Buffers, Server};
use crate::cow::{Cow, Lower, Options};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;

/// A message of the server: what the header calls error, whom it answers, and the rest.
type Message = (i32, u64, Vec<u8>);

struct Kernel {
    server: Server,
    channel: File,
    other: UnixDatagram,
}

const INVAL_INODE: i32 = 2;
const OWNER: u32 = 5;
const READER: u32 = 7;

fn field(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Kernel {
    fn new(dir: &Path) -> Kernel {
        std::fs::create_dir_all(dir.join("low")).unwrap();
        let cow = Cow::open(Options {
            lower: Lower::Stack {
                roots: vec![dir.join("low")],
                hide: Vec::new(),
            },
            upper: Some(dir.join("upper")),
            squash: None,
            size_limit: None,
            stats: None,
        })
        .unwrap();
        let (channel, other) = UnixDatagram::pair().unwrap();
        other.set_nonblocking(true).unwrap();
        Kernel {
            server: Server::new(Arc::clone(&cow.tree)),
            channel: File::from(OwnedFd::from(channel)),
            other,
        }
    }

    /// Everything that the server writes about a request.
    fn ask(&self, task: u32, op: u32, node: u64, args: &[&[u8]]) -> Vec<Message> {
        let args = args.concat();
        let mut request = Vec::new();
        let len = u32::try_from(40 + args.len()).unwrap();
        for v in [len, op] {
            request.extend_from_slice(&v.to_ne_bytes());
        }
        for v in [9u64, node] {
            request.extend_from_slice(&v.to_ne_bytes());
        }
        for v in [0, 0, task, 0] {
            request.extend_from_slice(&v.to_ne_bytes());
        }
        request.extend_from_slice(&args);
        self.server
            .serve(&self.channel, &request, &mut Buffers::new());
        let mut told = Vec::new();
        let mut buf = vec![0; 1 << 16];
        while let Ok(n) = self.other.recv(&mut buf) {
            let code = i32::from_ne_bytes(buf[4..8].try_into().unwrap());
            told.push((code, field(&buf, 8), buf[HEADER..n].to_vec()));
        }
        told
    }

    /// Makes an inode; returns its node number and how often who else's cache was told that `node` changed.
    fn make(&self, task: u32, node: u64, name: &str) -> (u64, usize) {
        let mode = if name.starts_with("dir") {
            0o40_755
        } else {
            0o100_644u32
        };
        let (op, rest) = match mode {
            0o40_755 => (op::MKDIR, [0u8; 4].to_vec()),
            _ => (op::MKNOD, [0; 12].to_vec()),
        };
        let name = format!("{name}\0");
        let told = self.ask(
            task,
            op,
            node,
            &[&mode.to_ne_bytes(), &rest, name.as_bytes()],
        );
        let (answer, before) = told.split_last().unwrap();
        assert_eq!((answer.0, answer.1), (0, 9), "{told:?}");
        for (code, unique, body) in before {
            assert_eq!((*code, *unique), (INVAL_INODE, 0));
            let content = (field(body, 0), field(body, 8).cast_signed());
            assert_eq!(content, (node, -1), "its attributes");
        }
        (field(&answer.2, 0), before.len())
    }

    fn made(&self, task: u32, node: u64, name: &str) -> usize {
        self.make(task, node, name).1
    }

    fn answers(&self, task: u32, op: u32, node: u64, args: &[&[u8]]) {
        let told = self.ask(task, op, node, args);
        assert!(told.len() == 1 && told[0].0 == 0, "{told:?}");
    }
}

#[test]
fn a_change_is_told_where_another_task_may_come_to_keep_what_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = Kernel::new(dir.path());
    let root = swap_root(1);
    let (d, _) = kernel.make(OWNER, root, "dir");
    assert_eq!(kernel.made(OWNER, d, "a"), 0);
    // Its own look-up it has taken in.
    kernel.answers(OWNER, op::LOOKUP, root, &[b"dir\0"]);
    assert_eq!(kernel.made(OWNER, d, "b"), 0);
    // Another's is on its way; of another directory it is no news.
    kernel.answers(READER, op::LOOKUP, root, &[b"dir\0"]);
    assert_eq!(kernel.made(OWNER, root, "dir2"), 0);
    assert_eq!(kernel.made(OWNER, d, "c"), 1);
    assert_eq!(kernel.made(OWNER, d, "d"), 0, "it is told once");
    // It asks for something else: so it has it.
    kernel.answers(READER, op::GETATTR, d, &[&[0; 16]]);
    kernel.answers(READER, op::STATFS, root, &[]);
    assert_eq!(kernel.made(OWNER, d, "e"), 0);
    // Reading ahead says nothing: nobody waits for that.
    kernel.answers(READER, op::GETATTR, d, &[&[0; 16]]);
    kernel.ask(READER, op::READ, d, &[&[0; 40]]);
    assert_eq!(kernel.made(OWNER, d, "f"), 1);
}

#[test]
fn an_access_list_set_beside_a_listing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = Kernel::new(dir.path());
    let root = swap_root(1);
    let (d, _) = kernel.make(OWNER, root, "dir");
    let list = |from: u64| {
        let room = 4096u32.to_ne_bytes();
        let args: [&[u8]; 4] = [&[0; 8], &from.to_ne_bytes(), &room, &[0; 20]];
        kernel.ask(READER, op::READDIRPLUS, root, &args)
    };
    let answer = list(0);
    assert!(answer.len() == 1 && answer[0].2.len() > 128, "{answer:?}");
    // u::---, g::---, o::r--: the mode with it.
    let acl: [&[u8]; 4] = [
        &2u32.to_ne_bytes(),
        &[1, 0, 0, 0, 255, 255, 255, 255],
        &[4, 0, 0, 0, 255, 255, 255, 255],
        &[0x20, 0, 4, 0, 255, 255, 255, 255],
    ];
    let acl = acl.concat();
    let size = u32::try_from(acl.len()).unwrap().to_ne_bytes();
    let args: [&[u8]; 4] = [&size, &[0; 4], b"system.posix_acl_access\0", &acl];
    let told = kernel.ask(OWNER, op::SETXATTR, d, &args);
    assert_eq!(
        told.iter().map(|t| t.0).collect::<Vec<_>>(),
        [INVAL_INODE, 0]
    );
    assert_eq!(field(&told[0].2, 0), d);
    // The end of the listing has been seen.
    list(1 << 62);
    let told = kernel.ask(OWNER, op::SETXATTR, d, &args);
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn a_fault_of_ours_is_an_io_error_of_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = Kernel::new(dir.path());
    let told = kernel.ask(OWNER, op::FAULT, swap_root(1), &[]);
    assert_eq!(told, [(-libc::EIO, 9, Vec::new())]);
    // The thread goes on.
    kernel.make(OWNER, swap_root(1), "f");
}
