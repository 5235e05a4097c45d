//! Processes run beside the container's first one (`exec`): each has a supervisor of its own, which gets the
//! client's connection from here.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::Job;
use crate::error::{Result, failed};

/// Starts the session that `request` (JSON) describes, on the client's connection `socket`, in the container
/// whose first process is `init`.
///
/// # Errors
/// It cannot be started; the connection is the caller's to answer on then.
pub(super) fn begin(
    _job: &Job,
    _init: BorrowedFd<'_>,
    _socket: OwnedFd,
    _request: &[u8],
) -> Result<()> {
    Err(failed("this rless does not run a second process in a container").into())
}
