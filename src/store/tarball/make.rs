//! Tars made by hand for tests, wrong ones included.

/// A header block under construction.
#[derive(Clone)]
pub(crate) struct Head(pub(crate) [u8; 512]);

impl Head {
    pub(crate) fn new(name: impl AsRef<[u8]>, flag: u8) -> Head {
        let mut head = Head([0; 512]);
        head = head.put(0, name.as_ref()).put(257, b"ustar\x0000");
        head.0[156] = flag;
        head.mode(0o644)
            .octal(108, 8, 0)
            .octal(116, 8, 0)
            .size(0)
            .octal(136, 12, 0)
    }

    pub(crate) fn gnu(self) -> Head {
        self.put(257, b"ustar  \0")
    }

    pub(crate) fn v7(self) -> Head {
        self.put(257, &[0; 8])
    }

    pub(crate) fn put(mut self, at: usize, bytes: &[u8]) -> Head {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn octal(self, at: usize, width: usize, value: u64) -> Head {
        let digits = format!("{value:0width$o}\0", width = width - 1);
        self.put(at, digits.as_bytes())
    }

    pub(crate) fn mode(self, mode: u64) -> Head {
        self.octal(100, 8, mode)
    }

    pub(crate) fn owner(self, uid: u64, gid: u64) -> Head {
        self.octal(108, 8, uid).octal(116, 8, gid)
    }

    pub(crate) fn size(self, size: u64) -> Head {
        self.octal(124, 12, size)
    }

    pub(crate) fn mtime(self, mtime: u64) -> Head {
        self.octal(136, 12, mtime)
    }

    pub(crate) fn link(self, target: impl AsRef<[u8]>) -> Head {
        self.put(157, target.as_ref())
    }

    pub(crate) fn device(self, major: u64, minor: u64) -> Head {
        self.octal(329, 8, major).octal(337, 8, minor)
    }

    /// With the checksum.
    pub(crate) fn block(self) -> [u8; 512] {
        let spaced = self.put(148, b"        ");
        let sum: u64 = spaced.0.iter().map(|b| u64::from(*b)).sum();
        spaced.put(148, format!("{sum:06o}\0 ").as_bytes()).0
    }

    /// The header, and content padded to blocks.
    pub(crate) fn with(self, content: impl AsRef<[u8]>) -> Vec<u8> {
        let content = content.as_ref();
        let head = self.size(content.len() as u64);
        [&head.block()[..], &padded(content)].concat()
    }
}

pub(crate) fn padded(content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(content.len().next_multiple_of(512), 0);
    bytes
}

pub(crate) fn file(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Vec<u8> {
    Head::new(name, b'0').with(content)
}

pub(crate) fn dir(name: impl AsRef<[u8]>) -> Vec<u8> {
    Head::new(name, b'5').mode(0o755).block().to_vec()
}

pub(crate) fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Vec<u8> {
    Head::new(name, b'2').link(target).block().to_vec()
}

pub(crate) fn hardlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Vec<u8> {
    Head::new(name, b'1').link(target).block().to_vec()
}

/// A PAX header of these records, for the entry that follows.
pub(crate) fn pax<V: AsRef<[u8]>>(records: &[(&str, V)]) -> Vec<u8> {
    Head::new("pax", b'x').with(records_of(records))
}

pub(crate) fn records_of<V: AsRef<[u8]>>(records: &[(&str, V)]) -> Vec<u8> {
    let mut all = Vec::new();
    for (key, value) in records {
        let body = [b" ", key.as_bytes(), b"=", value.as_ref(), b"\n"].concat();
        // The length counts its own digits.
        let digits = (1..9).find(|d| (body.len() + d).to_string().len() == *d);
        all.extend_from_slice((body.len() + digits.unwrap()).to_string().as_bytes());
        all.extend_from_slice(&body);
    }
    all
}

/// Entries and the end of the archive.
pub(crate) fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}
