//! Limits on concurrency and rate, charged to an identity, a client network or the server as a whole.
//!
//! [`KeyedLimit`] counts by any key; [`ConcurrencyLimit`] in total and by network; [`UserRate`] by identity and
//! network; [`GuessLimit`] the guesses of signatures.

mod concurrency;
mod guesses;
mod keyed;
mod user_rate;

pub use concurrency::{ConcurrencyLimit, ConcurrencyPermit, Exceeded};
pub use guesses::GuessLimit;
pub use keyed::{KeyedLimit, LimitReached, MAX_KEYS, Permit, Rate};
pub use user_rate::{RateExceeded, UserRate};
