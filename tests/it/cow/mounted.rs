//! A mounted tree and the process that serves it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// `lower` and `upper` in `dir`, mounted at `dir/mnt`.
pub(crate) struct Mounted {
    pub(crate) dir: PathBuf,
    /// What is run as rless.
    pub(crate) program: PathBuf,
    server: Option<Child>,
    /// More arguments of `mount-cow`.
    options: Vec<String>,
}

impl Mounted {
    pub(crate) fn point(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    /// The server's.
    pub(crate) fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    pub(crate) fn start(dir: &Path) -> Mounted {
        Mounted::start_with(dir, &[])
    }

    pub(crate) fn start_with(dir: &Path, options: &[&str]) -> Mounted {
        let mut m = Mounted::new(dir, std::env::var_os("RLESS_BIN").unwrap().into());
        m.options = options.iter().map(|o| (*o).to_owned()).collect();
        m.mount();
        m
    }

    /// With another program in the place of rless.
    pub(crate) fn served_by(dir: &Path, program: PathBuf) -> Mounted {
        let mut m = Mounted::new(dir, program);
        m.mount();
        m
    }

    fn new(dir: &Path, program: PathBuf) -> Mounted {
        Mounted {
            dir: dir.to_owned(),
            program,
            server: None,
            options: Vec::new(),
        }
    }

    /// What mounts it at `point`.
    fn command(&self, point: &Path) -> Command {
        let lower = self.dir.join("lower");
        let mut cmd = Command::new(&self.program);
        cmd.arg("mount-cow");
        match lower.join("image.idx") {
            index if index.exists() => {
                cmd.arg("--index")
                    .arg(index)
                    .arg("--packs")
                    .arg(lower.join("packs"));
            }
            _ => {
                cmd.arg("--lower").arg(&lower);
            }
        }
        cmd.arg("--upper").arg(self.dir.join("upper"));
        cmd.args(&self.options).arg(point);
        cmd
    }

    /// Mounts what cannot be mounted: checks that it says so; returns the error text.
    pub(crate) fn refused(dir: &Path) -> String {
        let m = Mounted::new(dir, std::env::var_os("RLESS_BIN").unwrap().into());
        std::fs::create_dir_all(m.point()).unwrap();
        let mut limited = Command::new("timeout");
        let cmd = m.command(&m.point());
        limited
            .arg("20")
            .arg(cmd.get_program())
            .args(cmd.get_args());
        let output = limited.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{text}");
        text
    }

    pub(crate) fn mount(&mut self) {
        let point = self.point();
        std::fs::create_dir_all(&point).unwrap();
        self.server = Some(self.command(&point).spawn().unwrap());
        crate::harness::wait_for("the mount", std::time::Duration::from_secs(20), || {
            std::fs::read_to_string("/proc/self/mountinfo")
                .unwrap()
                .lines()
                .any(|l| {
                    l.contains(&format!(" /root {} ", point.display())) && l.contains("fuse.rless")
                })
        });
    }

    /// An orderly end: everything must be there afterwards.
    pub(crate) fn unmount(&mut self) {
        nix::mount::umount(&self.point()).unwrap();
        let status = self.server.take().unwrap().wait().unwrap();
        assert!(status.success(), "server: {status}");
    }

    /// Ends the server at once, as an out-of-memory kill would.
    pub(crate) fn strike(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// After [`Mounted::strike`].
    pub(crate) fn mount_again(&mut self) {
        nix::mount::umount2(&self.point(), nix::mount::MntFlags::MNT_DETACH).unwrap();
        self.mount();
    }

    /// Both.
    pub(crate) fn kill(&mut self) {
        self.strike();
        self.mount_again();
    }

    /// The upper has no data files but those of files that are there (each has one at most).
    pub(crate) fn no_orphans(&self, what: &str) -> Result<(), String> {
        use std::os::unix::fs::MetadataExt;
        let mut files = std::collections::HashSet::new();
        for path in super::tree::paths(&self.point(), None) {
            let meta = std::fs::symlink_metadata(self.point().join(path)).unwrap();
            if meta.is_file() {
                files.insert(meta.ino());
            }
        }
        let data = super::tree::paths(&self.dir.join("upper/data"), None);
        // Two levels: data/<xx>/<number>.
        let held = data.iter().filter(|p| p.contains('/')).count();
        if held > files.len() {
            return Err(format!(
                "{what}: {held} data files of {} files",
                files.len()
            ));
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = nix::mount::umount2(&self.point(), nix::mount::MntFlags::MNT_DETACH);
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
