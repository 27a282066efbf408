//! Tests of the engine against str0m clients in virtual time.

use std::time::Duration;

use crate::request::LayerWish;
use client::Got;

mod access;
mod client;
mod congestion;
mod connectivity;
mod ending;
mod hostile;
mod joining;
mod keyframes;
mod layers;
mod limits;
mod loss;
mod negotiating;
mod refusing;
mod sending;
mod updating;
mod world;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Asks for this layer at best, without other wishes.
fn wish(rid: &str) -> LayerWish {
    LayerWish { preferred: Some(rid.to_owned()), ..LayerWish::default() }
}

/// Checks that no sequence number is missing.
#[track_caller]
fn assert_complete(got: &[Got]) {
    let numbers: Vec<u64> = got.iter().map(|got| got.seq).collect();
    assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{numbers:?}");
}
