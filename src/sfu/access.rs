//! Rights between sessions, where the embedding server decides: tracks go to sessions of owners who share a room.

use crate::request::TrackKind;

/// The rights of a session, as the embedding server knows them. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionAccess {
    /// The rooms that the session's owner is in, and its rights there.
    pub places: Vec<Place>,
    /// The session's video tracks that show a screen; the others are cameras.
    pub screens: Vec<ScreenTrack>,
}

/// A video track that shows a screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScreenTrack {
    /// The track's name.
    pub name: String,
    /// True if its owner says that it shows a camera, too: it needs both rights then.
    pub is_camera: bool,
}

/// An owner's place in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The room's number; the embedding server uses none for two rooms.
    pub room: u64,
    /// The owner's rights.
    pub rights: MediaRights,
}

/// Rights to media in a room. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaRights {
    /// Receive the media of others.
    pub subscribe: bool,
    /// Send audio.
    pub audio: bool,
    /// Send video of cameras.
    pub video: bool,
    /// Send video of screens.
    pub screen: bool,
}

impl MediaRights {
    /// All rights.
    pub const ALL: Self = Self { subscribe: true, audio: true, video: true, screen: true };

    /// True if media of any kind may be sent.
    pub const fn publishes(self) -> bool {
        self.audio || self.video || self.screen
    }
}

impl SessionAccess {
    /// True if the session's track of this kind and name may be forwarded to a session with the access `to`.
    pub fn may_send(&self, kind: TrackKind, name: &str, to: &Self) -> bool {
        let may_publish = |rights: MediaRights| match kind {
            TrackKind::Audio => rights.audio,
            TrackKind::Video => match self.screens.iter().find(|screen| screen.name == name) {
                Some(screen) => rights.screen && (!screen.is_camera || rights.video),
                None => rights.video,
            },
        };
        let shared = |place: &Place| to.places.iter().any(|to| to.room == place.room && to.rights.subscribe);
        self.places.iter().any(|place| may_publish(place.rights) && shared(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(room: u64, rights: MediaRights) -> SessionAccess {
        let screen = |name: &str, is_camera| ScreenTrack { name: name.into(), is_camera };
        SessionAccess {
            places: vec![Place { room, rights }],
            screens: vec![screen("s", false), screen("both", true)],
        }
    }

    #[test]
    fn tracks_go_to_subscribers_of_the_same_room() {
        let all = access(1, MediaRights::ALL);
        assert!(all.may_send(TrackKind::Audio, "a", &all));
        assert!(!all.may_send(TrackKind::Audio, "a", &access(2, MediaRights::ALL)));
        assert!(!all.may_send(TrackKind::Audio, "a", &SessionAccess::default()));
        assert!(!SessionAccess::default().may_send(TrackKind::Audio, "a", &all));
        let deaf = access(1, MediaRights { subscribe: false, ..MediaRights::ALL });
        assert!(!all.may_send(TrackKind::Audio, "a", &deaf) && deaf.may_send(TrackKind::Audio, "a", &all));
        let two = SessionAccess { places: [all.places.clone(), deaf.places].concat(), screens: Vec::new() };
        assert!(all.may_send(TrackKind::Audio, "a", &two), "one of its places suffices");
    }

    #[test]
    fn each_kind_needs_its_own_right() {
        let all = access(1, MediaRights::ALL);
        for (rights, allowed) in [
            (MediaRights { audio: true, ..MediaRights::default() }, [true, false, false, false]),
            (MediaRights { video: true, ..MediaRights::default() }, [false, true, false, false]),
            (MediaRights { screen: true, ..MediaRights::default() }, [false, false, true, false]),
            (MediaRights { screen: true, video: true, ..MediaRights::default() }, [false, true, true, true]),
        ] {
            let video = |name| (TrackKind::Video, name);
            let tracks = [(TrackKind::Audio, "s"), video("v"), video("s"), video("both")];
            let found = tracks.map(|(kind, name)| access(1, rights).may_send(kind, name, &all));
            assert_eq!(found, allowed, "{rights:?}");
        }
    }
}
