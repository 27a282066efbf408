//! Options of a load test: the command line of `satsuma load`.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;

use super::protocol::Protocols;
use super::target::LoadTarget;

const OF_THE_TEST: &str = "The test";

/// The most members of one run; their numbers and the machine's ports end before.
const MAX_MEMBERS: u64 = 1_000_000;

/// Load a server with rooms full of users, and measure how long each one's changes take to be seen.
///
/// Users log in, join, and send heartbeats and updates as the stock clients do. In each room one of them
/// reads every snapshot; the others only count bytes, so that this tool is not what is measured. It speaks
/// http:// and ws:// only: measure behind whatever ends TLS.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = OF_THE_TEST, after_help = AFTER)]
pub struct Options {
    /// The server, such as http://127.0.0.1:8787 or http://127.0.0.1:8787/meet; given for each of several nodes, the
    /// users of every room are spread over them.
    #[arg(long = "url", value_name = "URL", required = true)]
    pub urls: Vec<LoadTarget>,
    /// Rooms; their names are new ones each time.
    #[arg(long, value_name = "ROOMS", default_value = "1", value_parser = RangedU64ValueParser::<u32>::new().range(1..=MAX_MEMBERS))]
    pub rooms: u32,
    /// Users in each room.
    #[arg(long, value_name = "USERS", default_value = "10", value_parser = RangedU64ValueParser::<u32>::new().range(1..=MAX_MEMBERS))]
    pub users: u32,
    /// Updates a second of each user, such as 1 or 0.2; with 0 they are idle.
    #[arg(long, value_name = "PER_SECOND", default_value = "1", value_parser = rate)]
    pub rate: f64,
    /// The protocol of the users: Orange Meets', Phoenix Channels, or mixed, each of both by half of a room's.
    #[arg(long, value_enum, value_name = "PROTOCOL", default_value = "orange")]
    pub protocol: Protocols,
    /// Offer compression (permessage-deflate), as browsers do.
    #[arg(long)]
    pub deflate: bool,
    /// Users a second that leave while others come in their place; every second one drops its socket.
    #[arg(long, value_name = "PER_SECOND", default_value = "0", value_parser = rate)]
    pub churn: f64,
    /// Time to measure.
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Time between the last join and the measurement.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    pub warm_up: Duration,
    /// Users a second that join.
    #[arg(long, value_name = "PER_SECOND", default_value = "500", value_parser = join_rate)]
    pub join_rate: f64,
    /// The server's process, whose processor time and memory are to be measured; needs /proc. Given for each of
    /// several nodes, their sums.
    #[arg(long = "pid", value_name = "SERVER")]
    pub pids: Vec<u32>,
    /// The monitoring of a NATS server between nodes, such as http://127.0.0.1:8222, whose messages are to be
    /// counted; given for each of several servers, their sums.
    #[arg(long = "nats", value_name = "URL")]
    pub nats: Vec<LoadTarget>,
    /// Print one JSON object in place of the table.
    #[arg(long)]
    pub json: bool,
}

const AFTER: &str = "\
The report goes to standard output: a table, or with --json one JSON object and nothing else. Progress goes
to standard error, once a second. Ctrl-C ends the test early, with the report of what there is.

The exit code is 0 if everybody got in and nobody was closed, and 1 otherwise.";

impl Options {
    /// Number of concurrent users.
    pub fn members(&self) -> u64 {
        u64::from(self.rooms) * u64::from(self.users)
    }

    /// Checks that the options fit together.
    ///
    /// # Errors
    /// [`OptionsDisagree`] if they do not.
    pub fn check(&self) -> Result<(), OptionsDisagree> {
        match self.members() {
            members if members > MAX_MEMBERS => Err(OptionsDisagree::TooMany(members)),
            _ if self.churn > 0.0 && self.users == 1 => Err(OptionsDisagree::NobodyToReplace),
            _ => Ok(()),
        }
    }

    /// The time between two updates of one user; `None` if they are idle.
    pub fn period(&self) -> Option<Duration> {
        (self.rate > 0.0).then(|| Duration::from_secs_f64(1.0 / self.rate))
    }
}

/// Options that are good each by itself, and not together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsDisagree {
    /// More users than a run can have.
    #[error("--rooms times --users is {0}; at most 1000000 can be had")]
    TooMany(u64),
    /// The one who watches a room stays.
    #[error("--churn needs --users 2 or more: one user of each room watches it, and stays")]
    NobodyToReplace,
}

fn rate(text: &str) -> Result<f64, &'static str> {
    match text.parse::<f64>() {
        Ok(rate) if rate == 0.0 || (0.001..=1000.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.001 to 1000, or 0"),
    }
}

fn join_rate(text: &str) -> Result<f64, &'static str> {
    match text.parse::<f64>() {
        Ok(rate) if (0.1..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.1 to 100000"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Result<Options, String> {
        let line = Line::try_parse_from(["load"].into_iter().chain(line.split_whitespace()));
        line.map(|line| line.options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_is_read() {
        let read =
            options("--url http://[::1]:80 --rooms 500 --users 6 --rate 0.5 --for 1m --deflate").unwrap();
        assert_eq!((read.members(), read.period()), (3000, Some(Duration::from_secs(2))));
        assert_eq!((read.duration, read.deflate, read.json), (Duration::from_secs(60), true, false));
        assert_eq!(options("--url http://a --rate 0").unwrap().period(), None);
        let many = options("--url http://a --rooms 2000 --users 1000").unwrap();
        assert_eq!(many.check(), Err(OptionsDisagree::TooMany(2_000_000)));
        let nodes = options("--url http://a --url http://b:1 --pid 1 --pid 2 --nats http://c:8222").unwrap();
        assert_eq!(
            (nodes.urls.len(), nodes.urls[1].port(), nodes.pids.len(), nodes.nats.len()),
            (2, 1, 2, 1)
        );
        let alone = options("--url http://a --users 1 --churn 1").unwrap();
        assert_eq!(alone.check(), Err(OptionsDisagree::NobodyToReplace));
    }

    #[test]
    fn conflicting_options_are_errors() {
        for (line, sentence) in [
            ("", "--url"),
            ("--url http://a --rate=-1", "0.001 to 1000"),
            ("--url http://a --rate nan", "0.001 to 1000"),
            ("--url http://a --users 0", "--users"),
            ("--url http://a --for soon", "--for"),
            ("--url http://a --join-rate 0", "0.1 to 100000"),
            ("--url https://a", "http://"),
        ] {
            let error = options(line).unwrap_err();
            assert!(error.contains(sentence), "{line}: {error}");
        }
    }
}
