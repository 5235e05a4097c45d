//! `export`: a container's files as a tar, of one moment ([`super::view`]).

use std::io::{BufWriter, Write};

use super::events::Action;
use super::record::{Containers, Record};
use super::view::View;
use crate::error::{Result, ResultExt, failed};
use crate::store::Store;
use crate::store::archive::{self, LeftOut, What};

/// Writes the files of the container of `record` to `out`; tells what a tar cannot say.
///
/// # Errors
/// They cannot be read, or `out` takes no more.
pub fn export(store: &Store, record: &Record, out: &mut dyn Write) -> Result<Vec<LeftOut>> {
    let containers = Containers::of(store);
    let doing = || failed(format!("exporting container {}", record.id));
    let view = View::of(store, &containers, &record.id, true)?;
    let mut out = BufWriter::with_capacity(1 << 20, out);
    let all = view.cow.everything().fault(doing)?;
    let left_out = archive::write(&view.cow, &all, What::Tree, &mut out).fault(doing)?;
    out.flush().fault(doing)?;
    containers.emit(record, Action::Export);
    Ok(left_out)
}
