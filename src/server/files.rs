//! The limit of open files, the first one that many sockets reach.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Raises the soft limit of open files to the hard one, since every socket is an open file and the usual 1,024
/// are soon reached.
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
