//! Limits on concurrency and rate, charged to an identity, a client network or the server as a whole.
//!
//! [`KeyedLimit`] counts by any key; [`ConcurrencyLimit`] in total and by network; [`UserRate`] by identity and
//! network.

mod concurrency;
mod keyed;
mod user_rate;

pub use concurrency::{ConcurrencyLimit, ConcurrencyPermit, Exceeded};
pub use keyed::{KeyedLimit, LimitReached, MAX_KEYS, Permit, Rate};
pub use user_rate::{RateExceeded, UserRate};
