//! The limit on open files, which is the first that many sockets meet.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Every socket is an open file; the usual soft limit of 1,024 would be the first to be met.
pub(super) fn raise_file_limit(connections: usize) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        warn!(%error, "the limit on open files cannot be raised");
    }
    let files = getrlimit(Resource::Nofile).current;
    if files.is_some_and(|files| files < connections as u64) {
        warn!(
            files,
            connections, "fewer files may be open than limits.connections asks for; raise ulimit -n"
        );
    }
}
