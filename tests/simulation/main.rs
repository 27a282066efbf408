//! A deterministic simulation of several nodes, with the real code of rooms, replicas, journals and membership.
//!
//! A seed decides everything: what clients say, which messages of the engine are lost or late, which nodes
//! die, freeze, are cut off or leave, and when. `SIMULATION_SEEDS=5000` runs more seeds than `cargo test` does,
//! `SIMULATION_SEED=17` runs one, whose story `SIMULATION_LOG=1` prints.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod checks;
mod client;
mod engine;
mod lines;
mod node;
mod random;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use world::{Flaw, World};

/// Seeds of each run of the tests.
const SEEDS: u64 = 60;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[expect(clippy::disallowed_methods, reason = "an instant can only be had from the clock")]
fn start() -> std::time::Instant {
    std::time::Instant::now()
}

/// Runs one seed; the defect that it found, if it did.
fn run(seed: u64, flaw: Flaw) -> Result<world::Summary, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| World::new(seed, flaw).run()));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned())
    })
}

#[test]
fn invariants_hold_for_every_seed() {
    let (first, seeds) = match setting("SIMULATION_SEED") {
        Some(seed) => (seed, 1),
        None => (0, setting("SIMULATION_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let (found, total) = std::thread::scope(|scope| {
        let runner = || {
            let (mut found, mut total) = (Vec::new(), world::Summary::default());
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + seeds {
                    return (found, total);
                }
                match run(seed, Flaw::None) {
                    Ok(summary) => total.add(summary),
                    Err(why) => found.push(format!("seed {seed}: {why}")),
                }
            }
        };
        let runners: Vec<_> = (0..2).map(|_| scope.spawn(runner)).collect();
        let mut all = (Vec::new(), world::Summary::default());
        for runner in runners {
            let (found, total) = runner.join().unwrap();
            all.0.extend(found);
            all.1.add(total);
        }
        all
    });
    println!("{seeds} seeds: {total:?}");
    assert!(found.is_empty(), "{} of {seeds} seeds found something:\n{}", found.len(), found.join("\n"));
    if seeds >= SEEDS {
        assert!(total.alone > 0, "{total:?}");
        assert!(total.claims > 2 * seeds && total.fenced > 0 && total.events > 20 * seeds, "{total:?}");
    }
}

/// The checks can fail: an engine without its condition lets two owners write.
#[test]
fn engine_without_its_condition_is_found() {
    let found = (1..20).find_map(|seed| run(seed, Flaw::NoCondition).err());
    assert!(found.is_some());
}

/// The checks can fail: a node that shows what it asks to be stored shows what is lost.
#[test]
fn event_that_is_shown_before_it_is_stored_is_found() {
    let found = run(1, Flaw::ShownBeforeStored).unwrap_err();
    assert!(found.contains("I3") || found.contains("I6"), "{found}");
}
