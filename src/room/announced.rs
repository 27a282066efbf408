//! A member's announcements of its media: whether they are on, and which tracks carry them.

use std::sync::Arc;

use crate::id::{MediaKind, SessionId};
use crate::media_access::{MediaPlace, MediaRights, ScreenTrack};
use crate::protocol::user::{Tracks, User};

/// Maximum number of names of video tracks; those of sessions that the member left are forgotten first. A track without
/// a name here counts as a camera.
const MAX_NAMES: usize = 64;

/// The announcements of a member's last update, before the room's rules withdrew some of it.
#[derive(Debug, Default)]
pub struct Announced {
    texts: Texts,
    names: Vec<VideoName>,
}

/// The texts of a user object that name its media, as they were when they were last parsed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Texts {
    session: Option<String>,
    audio: Option<String>,
    video: Option<String>,
    screen: Option<String>,
}

/// The name of a video track, and all kinds as which it was announced. It keeps them: otherwise a track would become one
/// of another kind when that one is stopped.
#[derive(Debug)]
struct VideoName {
    session: SessionId,
    name: Arc<str>,
    is_camera: bool,
    is_screen: bool,
}

/// The parts of an update that the rules of a room and its moderators take back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restraint {
    withdrawn: Kinds,
    off: Kinds,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kinds {
    audio: bool,
    video: bool,
    screen: bool,
}

impl Announced {
    /// Takes the announcements of an update; true if they are others than before.
    pub fn update(&mut self, user: &User) -> bool {
        if self.texts.are_those_of(user) {
            return false;
        }
        self.texts = Texts::of(user);
        let Texts { video, screen, .. } = &self.texts;
        for (track, is_screen) in [(track(video), false), (track(screen), true)] {
            let Some((session, name)) = track else { continue };
            let is_it = |known: &&mut VideoName| known.session == session && known.name == name;
            if let Some(known) = self.names.iter_mut().find(is_it) {
                known.is_camera |= !is_screen;
                known.is_screen |= is_screen;
            } else if self.has_place() {
                self.names.push(VideoName { session, name, is_camera: !is_screen, is_screen });
            }
        }
        true
    }

    /// Sees to it that there is place for a name; false if all are of sessions that are announced.
    fn has_place(&mut self) -> bool {
        if self.names.len() < MAX_NAMES {
            return true;
        }
        let announced = self.texts.sessions();
        let old = self.names.iter().position(|name| !announced.contains(&name.session));
        old.map(|at| self.names.remove(at)).is_some()
    }

    /// The place in the directory of media, with these rights.
    pub fn place(&self, rights: MediaRights) -> MediaPlace {
        let screens = self.names.iter().filter(|name| name.is_screen).map(|name| {
            let track = ScreenTrack { name: name.name.to_string(), is_camera: name.is_camera };
            (name.session.clone(), track)
        });
        MediaPlace { rights, sessions: self.texts.sessions(), screens: screens.collect() }
    }
}

impl Texts {
    fn of(user: &User) -> Self {
        let tracks = &user.tracks;
        Self {
            session: user.transceiver_session_id.clone(),
            audio: tracks.audio.clone(),
            video: tracks.video.clone(),
            screen: tracks.screenshare.clone(),
        }
    }

    fn are_those_of(&self, user: &User) -> bool {
        let Self { session, audio, video, screen } = self;
        let tracks = &user.tracks;
        (session, audio, video, screen)
            == (&user.transceiver_session_id, &tracks.audio, &tracks.video, &tracks.screenshare)
    }

    /// The sessions that are named, each once.
    fn sessions(&self) -> Vec<SessionId> {
        let named = [&self.audio, &self.video, &self.screen].into_iter().filter_map(track);
        let own = self.session.as_deref().and_then(|session| SessionId::parse(session).ok());
        let mut sessions: Vec<SessionId> = own.into_iter().chain(named.map(|(session, _)| session)).collect();
        sessions.sort_unstable();
        sessions.dedup();
        sessions
    }
}

/// The session and the name of a track, as user objects have them.
fn track(text: &Option<String>) -> Option<(SessionId, Arc<str>)> {
    let (session, name) = text.as_deref()?.split_once('/')?;
    Some((SessionId::parse(session).ok()?, Arc::from(name)))
}

impl Restraint {
    /// Withdraws the track of a kind that the member may not publish.
    pub fn withdraw(&mut self, kind: MediaKind) {
        *self.withdrawn.of(kind) = true;
    }

    /// Shows a kind as switched off that a moderator stopped.
    pub fn switch_off(&mut self, kind: MediaKind) {
        *self.off.of(kind) = true;
    }

    /// Changes what a member says of its tracks.
    pub(super) fn apply(mut self, tracks: &mut Tracks) {
        for kind in MediaKind::ALL {
            if *self.withdrawn.of(kind) {
                tracks.withdraw(kind);
            } else if *self.off.of(kind) {
                tracks.switch_off(kind);
            }
        }
    }
}

impl Kinds {
    fn of(&mut self, kind: MediaKind) -> &mut bool {
        match kind {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
            MediaKind::Screen => &mut self.screen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(announced: &mut Announced, video: Option<&str>, screen: Option<&str>) -> Vec<(String, bool)> {
        let tracks = Tracks {
            video: video.map(str::to_owned),
            screenshare: screen.map(str::to_owned),
            ..Tracks::default()
        };
        announced.update(&User { tracks, ..User::default() });
        let screens = announced.place(MediaRights::ALL).screens;
        screens
            .into_iter()
            .map(|(session, track)| (format!("{session}/{}", track.name), track.is_camera))
            .collect()
    }

    #[test]
    fn track_stays_what_it_was_announced_as() {
        let mut announced = Announced::default();
        let screen = |name: &str, is_camera| (name.to_owned(), is_camera);
        assert_eq!(announce(&mut announced, Some("s/cam"), None), []);
        assert_eq!(announce(&mut announced, None, Some("s/cam")), [screen("s/cam", true)]);
        assert_eq!(
            announce(&mut announced, None, Some("s/screen")),
            [screen("s/cam", true), screen("s/screen", false)]
        );
        assert_eq!(
            announce(&mut announced, Some("s/screen"), None),
            [screen("s/cam", true), screen("s/screen", true)]
        );
        assert_eq!(announce(&mut announced, None, None).len(), 2);
    }

    #[test]
    fn names_are_bounded_and_those_of_former_sessions_go_first() {
        let mut announced = Announced::default();
        announce(&mut announced, Some("old/cam"), None);
        for number in 0..=MAX_NAMES {
            announce(&mut announced, Some("s/cam"), Some(&format!("s/{number}")));
        }
        assert_eq!(announced.names.len(), MAX_NAMES);
        assert!(announced.names.iter().all(|name| name.session.as_str() == "s"));
    }
}
