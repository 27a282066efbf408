//! A process's processor time and memory, as the system reports them.

use std::time::Duration;
use std::{fs, io};

use rustix::param::clock_ticks_per_second;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Processor time used so far, and current memory.
#[derive(Clone, Copy, Debug)]
pub struct ProcessUsage {
    /// Processor time, of the process and of the system for it.
    pub cpu: Duration,
    /// Resident memory.
    pub resident_bytes: u64,
}

/// The process cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[error("--pid {pid}: {error}; is a process of this number running? (only Linux has /proc)")]
pub struct NoProcess {
    pid: u32,
    error: io::Error,
}

/// Looks at a process.
///
/// # Errors
/// [`NoProcess`] if there is none of this number, or no `/proc`.
fn usage(pid: u32) -> Result<ProcessUsage, NoProcess> {
    let read = |file: &str| {
        fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|error| NoProcess { pid, error })
    };
    let malformed = |file: &str| NoProcess { pid, error: io::Error::other(format!("{file} is malformed")) };
    let ticks = ticks(&read("stat")?).ok_or_else(|| malformed("stat"))?;
    let resident_bytes = resident_bytes(&read("status")?).ok_or_else(|| malformed("status"))?;
    let cpu = Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second().max(1) as f64);
    Ok(ProcessUsage { cpu, resident_bytes })
}

/// The sum of several processes; none of none.
///
/// # Errors
/// [`NoProcess`] for the first that is not there.
pub fn usage_of_all(pids: &[u32]) -> Result<Option<ProcessUsage>, NoProcess> {
    let mut sum = None;
    for &pid in pids {
        let ProcessUsage { cpu, resident_bytes } = usage(pid)?;
        let before = sum.unwrap_or(ProcessUsage { cpu: Duration::ZERO, resident_bytes: 0 });
        sum = Some(ProcessUsage {
            cpu: before.cpu + cpu,
            resident_bytes: before.resident_bytes + resident_bytes,
        });
    }
    Ok(sum)
}

/// The processor time of this process.
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// `utime` and `stime` of `/proc/{pid}/stat`, fields 14 and 15; the name before may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
    let mut field = || fields.next()?.parse::<u64>().ok();
    field()?.checked_add(field()?)
}

/// `VmRSS` of `/proc/{pid}/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Fewer files can be open than a run needs sockets.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "{wanted} files would have to be open, and the system allows this process {allowed}; raise `ulimit -Hn`"
)]
pub struct TooFewFiles {
    wanted: u64,
    allowed: u64,
}

/// Raises the limit on open files to what `members` need: the usual one is 1,024.
///
/// # Errors
/// [`TooFewFiles`] if it cannot be raised so far.
pub fn allow_sockets(members: u64) -> Result<(), TooFewFiles> {
    /// Standard streams, the runtime's own, and the connections with which users log in.
    const OTHERS: u64 = 256;
    let wanted = members + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    // If this fails the old limit stays, which is looked at below.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    match getrlimit(Resource::Nofile).current {
        Some(allowed) if allowed < wanted => Err(TooFewFiles { wanted, allowed }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_proc_are_found_behind_any_name() {
        let stat = "1234 (a) b (c)) S 1 1234 1234 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 8 0 100 0 0";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("1234 (a) S 1"), None);
        assert_eq!(ticks("no"), None);
        assert_eq!(resident_bytes("Name:\ta\nVmRSS:\t   14848 kB\nThreads:\t8\n"), Some(14_848 * 1024));
        assert_eq!(resident_bytes("Name:\ta\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn own_memory_is_read_missing_process_is_error() {
        let own = usage(std::process::id()).unwrap();
        assert!(own.resident_bytes > 1 << 20, "{own:?}");
        let twice = usage_of_all(&[std::process::id(); 2]).unwrap().unwrap();
        assert!(twice.resident_bytes > own.resident_bytes && twice.cpu >= own.cpu, "{twice:?}");
        assert!(usage_of_all(&[]).unwrap().is_none());
        let missing = usage(u32::MAX).unwrap_err().to_string();
        assert!(missing.starts_with("--pid 4294967295: "), "{missing}");
    }

    #[test]
    fn own_processor_time_grows() {
        let before = own_cpu();
        let mut sum = 0u64;
        while own_cpu() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }

    #[test]
    fn too_many_sockets_is_an_error() {
        let error = allow_sockets(u64::MAX / 2).map_err(|error| error.to_string());
        // An unlimited system is no failure.
        assert!(error.is_ok() || error.is_err_and(|error| error.contains("ulimit -Hn")));
        assert!(allow_sockets(1).is_ok());
    }
}
