//! One user-facing error: what was being done, to what, why it failed and what to do.
//!
//! Functions return [`anyhow::Result`] and add context that names the act and its object
//! (`opening image index sha256:ab…`). Where the exit code or the advice is known, a [`Fault`]
//! is put into the chain: it carries a [`Kind`] (which alone decides the exit code) and hints.
//! The chain is reported once, by [`report`], at the top of `main`.
//!
//! Exit codes follow docker and podman: the container's own; 125 rless failed, 126 the command
//! cannot be executed, 127 it was not found, 128+n it was ended by signal n.

use std::fmt;

use nix::errno::Errno;

/// Result with a context chain; see [`report`] for how it reaches the user.
pub type Result<T, E = anyhow::Error> = std::result::Result<T, E>;

/// What went wrong, as far as a caller or the exit code has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// rless itself, the host or the request failed: exit 125.
    Failed,
    /// The request was malformed (bad flag value, bad reference): exit 125.
    Usage,
    /// An object (image, container, volume) does not exist: exit 125; `1` for commands on objects.
    NoSuchObject,
    /// An object of that name exists or is in use: exit 125; `2` for `rm`/`rmi` of objects in use.
    Conflict,
    /// No process can be run in the container (it does not run, it has no such user): exit 255.
    NoSession,
    /// The container's command exists but cannot be executed: exit 126.
    NotExecutable,
    /// The container's command was not found: exit 127.
    CommandNotFound,
}

impl Kind {
    /// Exit code of `rless run` and of commands without a code of their own.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::NotExecutable => 126,
            Kind::CommandNotFound => 127,
            Kind::NoSession => 255,
            Kind::Failed | Kind::Usage | Kind::NoSuchObject | Kind::Conflict => 125,
        }
    }
}

/// A link of an error chain that knows its [`Kind`] and what the user can do about it.
#[derive(Debug, Clone)]
pub struct Fault {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl Fault {
    /// A fault of `kind` whose `message` names the act and its object, without a final stop.
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Fault {
            kind,
            message: message.to_string(),
            hint: None,
        }
    }

    /// Adds what to do about it: a full sentence or a command line.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The kind this fault was made with.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// Makes a [`Kind::Failed`] fault; short for the commonest case.
pub fn failed(message: impl fmt::Display) -> Fault {
    Fault::new(Kind::Failed, message)
}

/// Makes a [`Kind::Usage`] fault.
pub fn usage(message: impl fmt::Display) -> Fault {
    Fault::new(Kind::Usage, message)
}

/// Adds a [`Fault`] as context to any error.
pub trait ResultExt<T> {
    /// Wraps the error with the fault that `f` makes; the original becomes its cause.
    ///
    /// # Errors
    /// The error given, wrapped.
    fn fault(self, f: impl FnOnce() -> Fault) -> Result<T>;
}

impl<T, E> ResultExt<T> for Result<T, E>
where
    Result<T, E>: anyhow::Context<T, E>,
{
    fn fault(self, f: impl FnOnce() -> Fault) -> Result<T> {
        anyhow::Context::with_context(self, f)
    }
}

/// The kind of the outermost [`Fault`] in the chain that is not [`Kind::Failed`], else `Failed`.
#[must_use]
pub fn kind(error: &anyhow::Error) -> Kind {
    faults(error)
        .map(|f| f.kind)
        .find(|k| *k != Kind::Failed)
        .unwrap_or(Kind::Failed)
}

/// What a report begins with: podman's word, which scripts look for.
pub const PREFIX: &str = "Error: ";

/// The message for the user: one line with the cause chain joined by `: `, then the hints.
#[must_use]
pub fn report(error: &anyhow::Error) -> String {
    format!("{PREFIX}{}", message(error))
}

/// `text` with its control characters (C0, DEL, C1) written as `\x1b`, but for those in `kept`: a terminal
/// shows them instead of obeying. For whatever may come from an image or a container.
#[must_use]
pub fn visible(text: &str, kept: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !kept.contains(&c) {
            out.push_str(&format!("\\x{:02x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// [`report`] without its first word: for a message that goes to another process first.
#[must_use]
pub fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for (i, link) in error.chain().enumerate() {
        let message = link.to_string();
        if last.ends_with(&message) {
            continue;
        }
        if i > 0 {
            text.push_str(": ");
        }
        text.push_str(&message);
        last = message;
    }
    let mut hints: Vec<&str> = faults(error).filter_map(|f| f.hint.as_deref()).collect();
    if hints.is_empty() {
        hints.extend(hint_of_the_cause(error));
    }
    for hint in hints {
        text.push_str("\n  hint: ");
        text.push_str(hint);
    }
    visible(&text, &['\n', '\t'])
}

/// What to do about a system error (errno(3)) that has the same cause wherever it comes from.
fn hint_of_the_cause(error: &anyhow::Error) -> Option<&'static str> {
    let number = error.chain().find_map(|e| {
        let io = e.downcast_ref::<std::io::Error>();
        let of_io = io.and_then(std::io::Error::raw_os_error);
        of_io.or_else(|| e.downcast_ref::<Errno>().map(|e| *e as i32))
    })?;
    match Errno::from_raw(number) {
        Errno::EMFILE => Some("Raise the limit of open files: `ulimit -n 1024`."),
        Errno::ENFILE => Some(
            "The machine has no more open files to give: sysctl fs.file-max, or end other programs.",
        ),
        Errno::ENOSPC | Errno::EDQUOT => Some(
            "Free some space: `rless container prune` and `rless rmi` remove what is not needed.",
        ),
        _ => None,
    }
}

/// Every fault of the chain, outermost first.
fn faults(error: &anyhow::Error) -> impl Iterator<Item = &Fault> {
    // A fault added by `context` is found by downcasting the whole error once; one at the root
    // (or made by `Fault.into()`) is a link of the chain. anyhow hides context types from
    // `chain()`, so faults are looked for in both places.
    let outer = error.downcast_ref::<Fault>();
    let inner = error.chain().filter_map(|e| e.downcast_ref::<Fault>());
    let skip = outer.map(std::ptr::from_ref);
    outer
        .into_iter()
        .chain(inner.filter(move |f| Some(std::ptr::from_ref(*f)) != skip))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn kind_and_hint_survive_outer_context() {
        let e = Err::<(), _>(Fault::new(Kind::CommandNotFound, "no such file").hint("check PATH"))
            .context("starting container")
            .unwrap_err();
        assert_eq!(kind(&e), Kind::CommandNotFound);
        assert_eq!(
            report(&e),
            "Error: starting container: no such file\n  hint: check PATH"
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        let e = anyhow!("reading \u{1b}]0;x\u{7}\u{9b}2J\u{7f}\r").context("a\nb\tc");
        assert_eq!(
            report(&e),
            "Error: a\nb\tc: reading \\x1b]0;x\\x07\\x9b2J\\x7f\\x0d"
        );
        assert_eq!(visible("é\n", &[]), "é\\x0a");
    }

    #[test]
    fn a_cause_with_one_remedy_names_it_unless_somebody_knew_better() {
        let full = || std::io::Error::from_raw_os_error(libc::ENOSPC);
        let e = Err::<(), _>(full()).context("writing /x").unwrap_err();
        assert!(
            report(&e).ends_with("`rless rmi` remove what is not needed."),
            "{}",
            report(&e)
        );
        let e = Err::<(), _>(full())
            .fault(|| failed("writing /x").hint("use /y"))
            .unwrap_err();
        assert_eq!(report(&e).matches("hint: ").count(), 1, "{}", report(&e));
        let e = Err::<(), _>(Errno::EMFILE)
            .context("making a pipe")
            .unwrap_err();
        assert!(report(&e).contains("hint: Raise the limit of open files: `ulimit -n 1024`."));
        let e = Err::<(), _>(Errno::EPERM)
            .context("making a pipe")
            .unwrap_err();
        assert!(!report(&e).contains("hint"), "{}", report(&e));
    }

    #[test]
    fn fault_as_context_is_found_below_another() {
        let e = Err::<(), _>(anyhow!("EACCES"))
            .fault(|| Fault::new(Kind::NotExecutable, "executing /x").hint("chmod +x"))
            .context("run")
            .unwrap_err();
        assert_eq!(kind(&e), Kind::NotExecutable);
        assert!(report(&e).contains("hint: chmod +x"), "{}", report(&e));
    }
}
