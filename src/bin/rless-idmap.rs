//! `rless-idmap`: writes the uid and gid maps of a user namespace (filled in by the runtime work).

fn main() {}
