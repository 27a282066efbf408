//! Coverage-guided fuzzing of all parsers of network input.
//!
//! `./run` builds and runs it; the variable FUZZ_TARGET names one of the targets.

#![no_main]

mod frames;
mod longpoll;
mod manifest;
mod media;
mod phoenix;
mod proofs;
mod requests;
mod room;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| match std::env::var("FUZZ_TARGET").as_deref() {
    Ok("frames") => frames::frames,
    Ok("room") => room::room,
    Ok("longpoll") => longpoll::longpoll,
    Ok("phoenix") => phoenix::phoenix,
    Ok("proofs") => proofs::proofs,
    Ok("requests") => requests::requests,
    Ok("manifest") => manifest::manifest,
    Ok("sdp") => media::sdp,
    Ok("calls") => media::calls,
    Ok("stun") => media::stun,
    Ok("engine") => media::engine,
    other => panic!("FUZZ_TARGET is none of the targets: {other:?}"),
});

fuzz_target!(|data: &[u8]| TARGET(data));
