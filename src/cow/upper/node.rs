//! Nodes: inodes that are new or changed.

use super::super::meta::{BLOCK, Meta, S_IFDIR, S_IFLNK, S_IFREG};
use super::super::ranges::Ranges;
use super::arena::{Region, is_region};
use super::data::{Held, Place};
use super::space::name_cost;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

/// Extended attributes, sorted by name.
pub(crate) type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// An inode in memory.
pub(crate) struct Node {
    pub ino: u64,
    /// Look-ups of inodes that are not the lower's (those are counted there).
    pub lookups: AtomicU64,
    /// Counted as an inode without a name.
    pub nameless: AtomicBool,
    /// Held from a snapshot of the content to the record of it: records of one file are appended in the order of their
    /// snapshots, and an fsync waits for a flush under way. Taken before `state`.
    pub flushing: Mutex<()>,
    pub state: RwLock<State>,
}

/// All that can change of it.
pub(crate) struct State {
    pub meta: Meta,
    /// `None`: still the lower's.
    pub xattrs: Option<Xattrs>,
    /// Of directories: where they are.
    pub parent: u64,
    pub body: Body,
}

/// What depends on the file type.
pub(crate) enum Body {
    File(Box<FileBody>),
    Dir(Box<DirBody>),
    /// A symbolic link made here.
    Link(Box<[u8]>),
    /// A symbolic link of the lower.
    LowLink,
    /// Fifo, socket, device.
    Other,
}

/// Where a regular file's content is.
#[derive(Default)]
pub(crate) struct FileBody {
    /// Bytes of the lower's content that show through where `valid` has no block.
    pub base_len: u64,
    /// The lower is a live host file and nothing was written: all content is its.
    pub live: bool,
    /// Number of the data file; 0 while there is none.
    pub data_id: u64,
    /// Blocks the data file may take, if it is a region of an arena.
    pub blocks: u64,
    /// Data files the content was moved out of, while the journal names them and not `data_id`.
    pub left: Vec<Region>,
    /// Blocks that are in the data file.
    pub valid: Ranges,
    /// Length of the data file: whatever is beyond reads as zeros.
    pub phys: u64,
    pub fd: Option<Held>,
    /// Bytes behind the file's end in its last block may be old content; they may be cleared
    /// when this record is durable.
    pub stale: Option<u64>,
    /// On the list of files with content the journal does not know yet.
    pub dirty: bool,
    /// Nobody else has a link to the data file: it may be changed in place. Else it has to be looked at first.
    pub owned: bool,
    /// A record in the journal names `data_id`.
    pub logged: bool,
    /// The data file's name is durable.
    pub named: bool,
    /// An earlier server may have written to the data file, and been killed before it synced that.
    pub inherited: bool,
    /// How many failed syncs of the data file (or its arena) are accounted for in `error`,
    pub failures: u64,
    /// which the next fsync answers.
    pub error: Option<Errno>,
    /// Blocks of the data file that changed since the last record (those among `valid` count).
    pub written: Ranges,
    /// Taken from `written` by a flush under way.
    pub inflight: Ranges,
    /// The next record has to list every block.
    pub full: bool,
    /// The size grew or blocks came since the last record.
    pub grown: bool,
    /// Number of the last record about size or content.
    pub seq: u64,
    /// The size by the last record, and by the last image if that came later: it is not the journal's for sure.
    pub known: [u64; 2],
    /// The last record with redo, while none without came after it; 0 for none.
    pub redo: u64,
    /// How many of those in a row.
    pub redos: u32,
    /// Counts changes other than plain writes; a flush that was overtaken starts again.
    pub generation: u64,
}

/// A name in a directory's difference to the lower.
pub(crate) struct Slot {
    /// 0: the lower's entry of this name is gone.
    pub ino: u64,
    pub seq: u64,
    pub kind: u8,
    /// The lower directory has this name (too).
    pub covers: bool,
}

/// A directory's difference to the lower directory of the same number.
#[derive(Default)]
pub(crate) struct DirBody {
    /// There is one.
    pub base: bool,
    pub names: BTreeMap<Arc<[u8]>, Slot>,
    /// Names that are there, in the order they came: positions for readdir.
    pub order: BTreeMap<u64, Arc<[u8]>>,
    pub next_seq: u64,
    /// How many of `names` cover a lower entry.
    pub covered: u64,
    /// Bytes that `names` are counted as.
    pub cost: u64,
}

impl DirBody {
    /// Sets a name; a previous slot of it goes.
    pub(crate) fn put(&mut self, name: &[u8], ino: u64, kind: u8, covers: bool) {
        self.clear(name);
        let seq = self.next_seq;
        let name: Arc<[u8]> = name.into();
        if ino != 0 {
            self.next_seq += 1;
            self.order.insert(seq, Arc::clone(&name));
        }
        self.covered += u64::from(covers);
        self.cost += name_cost(&name);
        self.names.insert(
            name,
            Slot {
                ino,
                seq,
                kind,
                covers,
            },
        );
    }

    /// Forgets what is said about a name.
    pub(crate) fn clear(&mut self, name: &[u8]) {
        if let Some(slot) = self.names.remove(name) {
            self.covered -= u64::from(slot.covers);
            self.cost -= name_cost(name);
            if slot.ino != 0 {
                self.order.remove(&slot.seq);
            }
        }
    }

    /// Takes a name away: hides the lower's entry where there is one.
    pub(crate) fn take(&mut self, name: &[u8], covers: bool) {
        if covers {
            self.put(name, 0, 0, true);
        } else {
            self.clear(name);
        }
    }
}

impl FileBody {
    /// The data file, if it is open.
    pub(crate) fn open(&self) -> Option<Place> {
        self.fd.as_ref()?.get()
    }

    /// What the next record has to tell of: blocks that changed since the last one.
    pub(crate) fn changed(&self) -> Ranges {
        let mut out = Ranges::default();
        for (s, e) in self.written.iter().chain(self.inflight.iter()) {
            let mut at = s;
            while at < e {
                let (inside, until) = self.valid.run(at);
                if inside {
                    out.insert(at, until.min(e));
                }
                at = until;
            }
        }
        out
    }

    /// The data file.
    pub(crate) fn region(&self) -> Region {
        Region {
            id: self.data_id,
            blocks: self.blocks,
        }
    }

    /// Where the data file's room ends, in bytes.
    pub(crate) fn cap(&self) -> u64 {
        match is_region(self.data_id) {
            true => self.blocks * BLOCK,
            false => u64::MAX,
        }
    }

    /// Room for all that is in the data file, in bytes.
    pub(crate) fn cap_or_end(&self) -> u64 {
        match is_region(self.data_id) {
            true => self.blocks * BLOCK,
            false => self.valid.end() * BLOCK,
        }
    }

    /// A flush under way came to nothing.
    pub(crate) fn give_back(&mut self) {
        for (s, e) in std::mem::take(&mut self.inflight).iter() {
            self.written.insert(s, e);
        }
        self.grown = true;
    }

    /// The record numbered `seq` tells of all that changed.
    pub(crate) fn told(&mut self, seq: u64, size: u64) {
        self.known = [size; 2];
        self.written = Ranges::default();
        self.inflight = Ranges::default();
        self.full = false;
        self.grown = false;
        self.dirty = false;
        self.logged |= self.data_id != 0;
        self.seq = seq;
        // A flush under way has an older state to tell of.
        self.generation += 1;
    }
}

impl Node {
    pub(crate) fn new(ino: u64, state: State) -> Node {
        Node {
            ino,
            lookups: AtomicU64::new(0),
            nameless: AtomicBool::new(false),
            flushing: Mutex::default(),
            state: RwLock::new(state),
        }
    }
}

impl State {
    /// A lower inode as it is before its first change.
    pub(crate) fn over_lower(meta: Meta, parent: u64, live: bool) -> State {
        let body = match meta.kind() {
            S_IFREG => Body::File(Box::new(FileBody {
                base_len: meta.size,
                known: [meta.size; 2],
                live,
                ..FileBody::default()
            })),
            S_IFDIR => Body::Dir(Box::new(DirBody {
                base: true,
                ..DirBody::default()
            })),
            S_IFLNK => Body::LowLink,
            _ => Body::Other,
        };
        State {
            meta,
            xattrs: None,
            parent,
            body,
        }
    }

    /// A new inode.
    pub(crate) fn fresh(meta: Meta, parent: u64, target: &[u8], xattrs: Xattrs) -> State {
        let body = match meta.kind() {
            S_IFREG => Body::File(Box::default()),
            S_IFDIR => Body::Dir(Box::default()),
            S_IFLNK => Body::Link(target.into()),
            _ => Body::Other,
        };
        State {
            meta,
            xattrs: Some(xattrs),
            parent,
            body,
        }
    }

    /// All its content is the lower's, which may change.
    pub(crate) fn is_lowers(&self) -> bool {
        match &self.body {
            Body::File(f) => f.live,
            Body::LowLink => true,
            _ => false,
        }
    }

    pub(crate) fn dir(&self) -> Option<&DirBody> {
        match &self.body {
            Body::Dir(d) => Some(d),
            _ => None,
        }
    }

    pub(crate) fn dir_mut(&mut self) -> Option<&mut DirBody> {
        match &mut self.body {
            Body::Dir(d) => Some(d),
            _ => None,
        }
    }

    /// 512-byte blocks in use.
    pub(crate) fn sectors(&self, size: u64) -> u64 {
        match &self.body {
            Body::File(f) => {
                let base = if f.live { size } else { f.base_len.min(size) };
                let base = base.div_ceil(BLOCK);
                let low = f.valid.missing(0, base);
                (f.valid.blocks() + low) * (BLOCK / 512)
            }
            _ => 0,
        }
    }
}
