//! **Pure**: this node's way to the engine, as it is lost and found again.

use std::time::{Duration, SystemTime};

use crate::room::shared::EngineState;

/// A change of the way to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// There is a connection.
    Connected,
    /// The connection is lost.
    Disconnected,
    /// This node does not hear itself, whatever the connection says.
    CutOff,
    /// It hears itself again.
    Rejoined,
}

/// The way to the engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    is_connected: bool,
    is_cut_off: bool,
    since: SystemTime,
    reconnects: u64,
}

impl Reach {
    /// A way that was found at this time.
    pub(super) fn new(at: SystemTime) -> Self {
        Self { is_connected: true, is_cut_off: false, since: at, reconnects: 0 }
    }

    /// The state for operators.
    pub(super) fn state(&self) -> EngineState {
        EngineState { is_away: self.is_away(), since: self.since }
    }

    /// Times that a connection was made again.
    pub(super) fn reconnects(&self) -> u64 {
        self.reconnects
    }

    fn is_away(&self) -> bool {
        !self.is_connected || self.is_cut_off
    }

    /// Takes a change; the time for which the engine was away, if it is back by it.
    pub(super) fn change(&mut self, at: SystemTime, change: Change) -> Option<Duration> {
        let was_away = self.is_away();
        match change {
            Change::Connected => {
                self.reconnects += u64::from(!self.is_connected);
                self.is_connected = true;
            }
            Change::Disconnected => self.is_connected = false,
            Change::CutOff => self.is_cut_off = true,
            Change::Rejoined => self.is_cut_off = false,
        }
        if self.is_away() == was_away {
            return None;
        }
        let lasted = at.duration_since(self.since).unwrap_or_default();
        self.since = at;
        was_away.then_some(lasted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_is_back_when_the_node_hears_itself() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut reach = Reach::new(at(0));
        assert_eq!(reach.change(at(1), Change::Connected), None, "it is there already");
        assert_eq!(reach.state(), EngineState { is_away: false, since: at(0) });
        assert_eq!(reach.change(at(10), Change::Disconnected), None);
        assert_eq!(reach.change(at(11), Change::CutOff), None);
        assert_eq!(reach.state(), EngineState { is_away: true, since: at(10) });
        assert_eq!(reach.change(at(15), Change::Connected), None, "nobody is heard yet");
        assert!(reach.state().is_away);
        assert_eq!(reach.change(at(16), Change::Rejoined), Some(Duration::from_secs(6)));
        assert_eq!(reach.state(), EngineState { is_away: false, since: at(16) });
        assert_eq!(reach.reconnects(), 1);
    }
}
