//! A container's files at one moment, to look at: `diff`, `commit`, `export`, `cp` of a container that does not run.
//!
//! Of a container that lives, its supervisor makes a frozen state ([`crate::cow::frozen`]) in a place that we prepare, and goes
//! on; that is opened here, and gone when the view is dropped. One that does not live is kept from being
//! started by its lock, and its upper is opened itself.

use std::time::Duration;

use super::ask::{Heard, Question, ask};
use super::image;
use super::record::{Containers, Record, no_such};
use super::stop::elsewhere;
use crate::cow::frozen::Frozen;
use crate::cow::{Cow, Lower, Options};
use crate::error::{Result, failed};
use crate::store::Store;
use crate::store::files::Lock;

/// How long a supervisor may take to freeze: it syncs what its container wrote.
const PATIENCE: Duration = Duration::from_secs(600);

/// A container's files at one moment.
#[derive(Debug)]
pub struct View {
    /// The files.
    pub cow: Cow,
    /// The record as it was then.
    pub record: Record,
    _frozen: Option<Frozen>,
    _lock: Option<Lock>,
}

impl View {
    /// The files of the container `id`. Without `content` they can be compared, not read.
    ///
    /// # Errors
    /// No such container; it lives on another host; its supervisor does not answer; a part of it is missing or damaged.
    pub fn of(store: &Store, containers: &Containers, id: &str, content: bool) -> Result<View> {
        for _ in 0..10 {
            let record = containers.load(id)?.ok_or_else(|| no_such(id))?;
            elsewhere(&record)?;
            let view = match record.state.live() {
                true => View::live(store, containers, record, content)?,
                false => View::ended(store, containers, record)?,
            };
            // Otherwise it has started or ended just now.
            if let Some(view) = view {
                return Ok(view);
            }
        }
        Err(failed(format!(
            "looking at container {id}: it starts and ends all the time"
        ))
        .into())
    }

    fn live(
        store: &Store,
        containers: &Containers,
        record: Record,
        content: bool,
    ) -> Result<Option<View>> {
        let frozen = Frozen::place(&containers.place(&record.id).upper())?;
        let question = Question::Freeze {
            dir: frozen.dir(),
            content,
        };
        match ask(containers, &record.id, &question, Some(PATIENCE))? {
            Heard::Done(_) => {}
            Heard::Nobody => return Ok(None),
            Heard::Silence => {
                let text = format!("the supervisor of container {} does not answer", record.id);
                return Err(failed(text).into());
            }
        }
        let cow = open(lower(store, &record)?, &frozen.dir())?;
        Ok(Some(View {
            cow,
            record,
            _frozen: Some(frozen),
            _lock: None,
        }))
    }

    fn ended(store: &Store, containers: &Containers, record: Record) -> Result<Option<View>> {
        let Some(lock) = containers.lock(&record.id)? else {
            return Ok(None);
        };
        let Some(record) = containers.load(&record.id)? else {
            return Ok(None);
        };
        if record.state.live() {
            return Ok(None);
        }
        let upper = containers.place(&record.id).upper();
        let cow = limited(lower(store, &record)?, &upper, record.storage_size)?;
        Ok(Some(View {
            cow,
            record,
            _frozen: None,
            _lock: Some(lock),
        }))
    }
}

pub(super) fn open(lower: Lower, upper: &std::path::Path) -> Result<Cow> {
    limited(lower, upper, None)
}

/// What is written there counts against the container's own limit.
fn limited(lower: Lower, upper: &std::path::Path, size_limit: Option<u64>) -> Result<Cow> {
    Cow::open(Options {
        lower,
        upper: Some(upper.to_owned()),
        squash: None,
        size_limit,
        stats: None,
    })
}

/// What the container's changes lie over.
pub(super) fn lower(store: &Store, record: &Record) -> Result<Lower> {
    if let Some(id) = &record.image_id {
        return Ok(Lower::Image {
            index: store.image_index(id),
            packs: store.packs_dir(),
        });
    }
    let directory = record
        .image
        .strip_prefix("rootfs:")
        .unwrap_or(&record.image);
    let mapping = crate::runtime::idmap::plan(&crate::runtime::idmap::Userns::default(), None)?;
    Ok(image::host_directory(store, directory, &mapping)?.lower)
}
