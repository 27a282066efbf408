//! The `process_…` metrics that Prometheus' own clients have, read when they are scraped.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Names of these metrics, without a counter's `_total`.
pub const NAMES: [&str; 6] = [
    "process_cpu_seconds",
    "process_open_fds",
    "process_max_fds",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

/// Collects them of the running process. A value that the system does not have (`/proc` is Linux') is left out.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let [cpu, open, max, virtual_memory, resident, start] = NAMES;
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = ConstCounter::new(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9);
        let help = "Processor time of the process, in user and system mode, in seconds.";
        seconds.encode(encoder.encode_descriptor(cpu, help, None, seconds.metric_type())?)?;

        let mut gauge = |name, help, value: Option<f64>| match value {
            None => Ok(()),
            Some(value) => {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
            }
        };
        // The directory that is being read is one of them.
        let files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as f64);
        gauge(open, "Open file descriptors.", files)?;
        let limit = getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |limit| limit as f64);
        gauge(max, "Limit on open file descriptors.", Some(limit))?;
        let memory = read("/proc/self/statm").as_deref().and_then(memory);
        gauge(virtual_memory, "Virtual memory in bytes.", memory.map(|[size, _]| size))?;
        gauge(resident, "Resident memory in bytes.", memory.map(|[_, resident]| resident))?;
        let started = read("/proc/self/stat").zip(read("/proc/stat"));
        let started = started.and_then(|(process, system)| start_time(&process, &system));
        gauge(start, "Start of the process, in seconds since 1970.", started)
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Size and resident part of a process' memory in bytes: the first two fields of `/proc/{pid}/statm` are pages.
fn memory(statm: &str) -> Option<[f64; 2]> {
    let mut pages = statm.split_whitespace().map(|field| field.parse::<u64>().ok());
    let mut bytes = || Some((pages.next()??.checked_mul(page_size() as u64)?) as f64);
    Some([bytes()?, bytes()?])
}

/// Field 22 of `/proc/{pid}/stat` is ticks since the system started; the name in field 2 may contain anything.
fn start_time(process: &str, system: &str) -> Option<f64> {
    let ticks: u64 = process[process.rfind(')')? + 1..].split_whitespace().nth(19)?.parse().ok()?;
    let boot: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot as f64 + ticks as f64 / clock_ticks_per_second().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_pages() {
        let page = page_size() as f64;
        assert_eq!(memory("20 3 1 1 0 5 0\n"), Some([20.0 * page, 3.0 * page]));
        assert_eq!(memory("20"), None);
        assert_eq!(memory("many few"), None);
    }

    #[test]
    fn start_time_survives_any_process_name() {
        let fields = (3..22).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        let process = format!("77 (a ) b (c) {fields} 250 1 2");
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!(start_time(&process, "cpu 1 2\nbtime 1000\n"), Some(1000.0 + 250.0 / ticks));
        assert_eq!(start_time("77", "btime 1000\n"), None);
        assert_eq!(start_time(&process, "cpu 1 2\n"), None);
    }
}
