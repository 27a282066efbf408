//! **Pure**: a member as events show it, and the difference between two states of it.

use serde::Serialize;

use crate::protocol::user::User;

/// A member in an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventMember {
    /// Its id in the room.
    pub id: String,
    /// Its verified name.
    pub name: String,
    /// True once it has left the lobby.
    pub joined: bool,
    /// True while its hand is raised.
    pub raised_hand: bool,
    /// True while its microphone is on.
    pub audio: bool,
    /// True while its camera is on.
    pub video: bool,
    /// True while its screen is shared.
    pub screen: bool,
    /// The names of its published tracks.
    #[serde(skip)]
    pub tracks: [Option<String>; 3],
}

/// The kind of a track, in the order of [`EventMember::tracks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackKind {
    /// A microphone.
    Audio,
    /// A camera.
    Video,
    /// A screen.
    Screen,
}

/// A published track.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventTrack {
    /// Its kind.
    pub kind: TrackKind,
    /// Its name, `{session id}/{track name}`.
    pub name: String,
}

/// A difference between two states of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A track is gone.
    Unpublished(EventTrack),
    /// A track is new.
    Published(EventTrack),
    /// The hand was raised, or lowered.
    Hand(bool),
    /// Something else that events show.
    Other,
}

impl EventMember {
    /// Reads a user object as the room keeps it.
    pub fn read(json: &str) -> Self {
        // Every member's JSON was written by this server.
        let user: User = serde_json::from_str(json).unwrap_or_default();
        let is_on = |enabled: Option<bool>| enabled.unwrap_or_default();
        let tracks = user.tracks;
        Self {
            id: user.id,
            name: user.name,
            joined: user.joined,
            raised_hand: user.raised_hand,
            audio: is_on(tracks.audio_enabled),
            video: is_on(tracks.video_enabled),
            screen: is_on(tracks.screen_share_enabled),
            tracks: [tracks.audio, tracks.video, tracks.screenshare],
        }
    }

    /// The published tracks.
    pub fn published(&self) -> impl Iterator<Item = EventTrack> {
        let kinds = [TrackKind::Audio, TrackKind::Video, TrackKind::Screen];
        let tracks = kinds.into_iter().zip(&self.tracks);
        tracks.filter_map(|(kind, name)| Some(EventTrack { kind, name: name.clone()? }))
    }

    /// The differences to a later state, tracks that are gone first.
    pub fn differences(&self, later: &Self) -> Vec<Difference> {
        let (before, after): (Vec<_>, Vec<_>) = (self.published().collect(), later.published().collect());
        let gone = before.iter().filter(|track| !after.contains(track)).cloned().map(Difference::Unpublished);
        let new = after.iter().filter(|track| !before.contains(track)).cloned().map(Difference::Published);
        let hand = (self.raised_hand != later.raised_hand).then_some(Difference::Hand(later.raised_hand));
        let same =
            Self { raised_hand: later.raised_hand, tracks: later.tracks.clone(), ..self.clone() } == *later;
        gone.chain(new).chain(hand).chain((!same).then_some(Difference::Other)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(kind: TrackKind, name: &str) -> EventTrack {
        EventTrack { kind, name: name.to_owned() }
    }

    #[test]
    fn differences_of_user_objects_are_found() {
        let before = EventMember::read(
            r#"{"id":"a","name":"Ada","joined":true,"tracks":{"audio":"s/1","audioEnabled":true,"video":"s/2"}}"#,
        );
        assert_eq!(before.differences(&before), []);
        let speaking = EventMember::read(
            r#"{"id":"a","name":"Ada","joined":true,"speaking":true,"x":1,"tracks":{"audio":"s/1","audioEnabled":true,"video":"s/2"}}"#,
        );
        assert_eq!(before.differences(&speaking), [], "speech and unknown fields are no change");
        let after = EventMember::read(
            r#"{"id":"a","name":"Ada","joined":true,"raisedHand":true,"tracks":{"audio":"s/3","video":"s/2","screenshare":"s/4"}}"#,
        );
        assert_eq!(
            before.differences(&after),
            [
                Difference::Unpublished(track(TrackKind::Audio, "s/1")),
                Difference::Published(track(TrackKind::Audio, "s/3")),
                Difference::Published(track(TrackKind::Screen, "s/4")),
                Difference::Hand(true),
                Difference::Other,
            ]
        );
    }

    #[test]
    fn unreadable_user_object_is_an_empty_member() {
        assert_eq!(EventMember::read("[]"), EventMember::default());
    }
}
