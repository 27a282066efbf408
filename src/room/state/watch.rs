//! Watching a video together: one value of the room, which snapshots have while there is a video.

use std::time::Instant;

use super::Room;
use crate::id::UserId;
use crate::protocol::activity::ActivityNotice;
use crate::protocol::server::Event;
use crate::protocol::watch::{Position, WatchRequest, Watching};
use crate::room::io::{Effect, Recipients};
use crate::store::saved::Persist;

/// The answer to whoever changes the video too often.
const TOO_OFTEN: &str = "you change the video too often; wait a moment";

/// The answer where nothing is watched.
const NO_VIDEO: &str = "no video is shared in this room";

impl Room {
    /// Carries out a member's request; `at` is the time in milliseconds since 1970.
    pub(super) fn watch(
        &mut self,
        (now, at): (Instant, u64),
        from: &UserId,
        request: WatchRequest,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(refused) = self.try_watch((now, at), from, request) {
            return self.refuse_message(from, refused, effects);
        }
        self.watch_changed(effects);
    }

    fn try_watch(
        &mut self,
        (now, at): (Instant, u64),
        from: &UserId,
        request: WatchRequest,
    ) -> Result<(), String> {
        if let Some(refused) = self.refuses_video(from) {
            return Err(refused.to_owned());
        }
        let Some(member) = self.members.get(from) else { return Ok(()) };
        if !self.watch.charge(now, &member.identity) {
            return Err(TOO_OFTEN.to_owned());
        }
        if let WatchRequest::Start { url } = &request {
            let video = self.settings.watch.read(url).map_err(|refused| refused.to_string())?;
            // Others do not know of a hidden one.
            let by = (!member.grants.hidden).then(|| from.clone());
            let watching = Watching { video, by, playing: false, position: Position::default(), at };
            self.watch.set(Some(watching));
            return Ok(());
        }
        let Some(watching) = self.watch.video().cloned() else { return Err(NO_VIDEO.to_owned()) };
        let (playing, position) = match request {
            WatchRequest::Stop | WatchRequest::Start { .. } => {
                self.watch.set(None);
                return Ok(());
            }
            WatchRequest::Play { position } => (true, position),
            WatchRequest::Pause { position } => (false, position),
            WatchRequest::Seek { position } => (watching.playing, position),
        };
        self.watch.set(Some(Watching { playing, position, at, ..watching }));
        Ok(())
    }

    /// Ends the video for all.
    pub(super) fn stop_video(&mut self, effects: &mut Vec<Effect>) {
        self.watch.set(None);
        self.watch_changed(effects);
    }

    fn watch_changed(&mut self, effects: &mut Vec<Effect>) {
        self.changed = true;
        effects.extend(self.persist(Persist::Watch { json: self.watch.to_saved().into() }));
    }

    /// Tells a member the server's time, by which positions are reckoned.
    pub(super) fn tell_time(&self, at: u64, to: &UserId, reference: u64, effects: &mut Vec<Effect>) {
        let event = Event::Activity(Box::new(ActivityNotice::Clock { reference, at }));
        effects.push(Effect::Send { to: Recipients::One(to.clone()), event });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModeratorDefault;
    use crate::id::{Grants, PublishGrants, RoomName};
    use crate::protocol::error_code::error_code;
    use crate::room::io::{Input, Join};
    use crate::room::state::tests::{join, persisted, says_at, seen, settings, start};
    use crate::room::state::{Moderator, RoomSettings};
    use crate::room::watch::WatchSettings;
    use crate::store::saved::SavedRoom;

    const START: &str = r#"{"type":"watch","action":"start","url":"https://example.org/a.webm#x"}"#;

    fn watching_settings() -> RoomSettings {
        let watch = WatchSettings { files: true, ..WatchSettings::default() };
        RoomSettings { watch, moderators: ModeratorDefault::First, ..settings() }
    }

    /// A room with the moderator a (connection 1), b (connection 2) and c (connection 3), who may publish nothing.
    fn room() -> (Room, Instant) {
        let now = start();
        let mut room = Room::new(watching_settings(), now);
        room.handle(now, join(1, "a", "A"));
        let guest = Grants { moderate: false, ..Grants::everyone() };
        let viewer = Grants { publish: PublishGrants::default(), ..guest };
        for (number, id, grants) in [(2, "b", guest), (3, "c", viewer)] {
            let Input::Join(ask) = join(number, id, id) else { unreachable!() };
            room.handle(now, Input::Join(Join { grants, ..ask }));
        }
        (room, now)
    }

    fn ask(room: &mut Room, now: Instant, from: u64, at: u64, rest: &str) -> Vec<Effect> {
        room.handle(now, says_at(from, at, &format!(r#"{{"type":"watch",{rest}}}"#)))
    }

    fn refusal(effects: &[Effect]) -> String {
        let seen = seen(effects);
        let error = seen.iter().find_map(|text| text.split_once(r#""error":"#));
        let sentence = error.and_then(|(_, rest)| rest.split(r#","code""#).next()).unwrap_or_default();
        sentence.trim_matches(['"', '}']).to_owned()
    }

    #[test]
    fn video_is_one_value_of_the_room() {
        let (mut room, now) = room();
        assert!(!room.encode_snapshot().contains(r#""watch""#));
        let effects = room.handle(now, says_at(2, 1000, START));
        let started = r#""watch":{"kind":"file","url":"https://example.org/a.webm","by":"b","playing":false,"position":0,"at":1000}}}"#;
        assert!(room.encode_snapshot().ends_with(started), "{}", room.encode_snapshot());
        assert!(matches!(&persisted(&effects)[..], [Persist::Watch { .. }]));
        ask(&mut room, now, 1, 2000, r#""action":"play","position":500"#);
        assert_eq!(room.watch.video().unwrap().position_at(3500).millis(), 2000);
        ask(&mut room, now, 2, 4000, r#""action":"seek","position":9000"#);
        assert_eq!(room.watch.video().unwrap().position_at(5000).millis(), 10_000, "it plays on");
        ask(&mut room, now, 2, 6000, r#""action":"pause","position":11000"#);
        assert_eq!(room.watch.video().unwrap().position_at(9000).millis(), 11_000);
        let effects = ask(&mut room, now, 2, 7000, r#""action":"stop""#);
        assert_eq!(persisted(&effects), [Persist::Watch { json: "null".into() }]);
        assert!(!room.encode_snapshot().contains(r#""watch""#));
        let nothing = ask(&mut room, now, 2, 7000, r#""action":"play","position":0"#);
        assert_eq!(refusal(&nothing), NO_VIDEO);
        for sentence in [NO_VIDEO, TOO_OFTEN] {
            assert!(error_code(sentence).is_some(), "{sentence}");
        }
    }

    #[test]
    fn moderators_decide_who_controls() {
        let (mut room, now) = room();
        let refused = ask(&mut room, now, 3, 0, r#""action":"start","url":"https://example.org/a""#);
        assert_eq!(refusal(&refused), "you may not share videos");
        room.handle(now, says_at(2, 0, START));
        room.handle(now, says_at(1, 0, r#"{"type":"moderate","action":"videos","on":false}"#));
        assert!(room.encode_snapshot().contains(r#""videos":false"#));
        let refused = ask(&mut room, now, 2, 0, r#""action":"play","position":0"#);
        assert_eq!(refusal(&refused), "only moderators share and control videos at this time");
        assert!(refusal(&ask(&mut room, now, 1, 0, r#""action":"play","position":0"#)).is_empty());
        let action = serde_json::from_str(r#"{"action":"stopVideo"}"#).unwrap();
        room.handle(now, Input::Moderate { by: Moderator::Operator, action });
        assert!(room.watch.video().is_none());
    }

    #[test]
    fn changes_are_charged_to_whoever_makes_them() {
        let (mut room, now) = room();
        room.handle(now, says_at(2, 0, START));
        let mut flood = || ask(&mut room, now, 2, 0, r#""action":"seek","position":1"#);
        let carried_out =
            std::iter::repeat_with(&mut flood).take_while(|effects| refusal(effects).is_empty());
        assert_eq!(carried_out.count(), 9, "with the start");
        assert_eq!(refusal(&ask(&mut room, now, 2, 0, r#""action":"stop""#)), TOO_OFTEN);
        assert!(refusal(&ask(&mut room, now, 1, 0, r#""action":"stop""#)).is_empty());
    }

    #[test]
    fn hidden_member_is_not_named() {
        let (mut room, now) = room();
        let Input::Join(ask) = join(4, "h", "H") else { unreachable!() };
        let grants = Grants { hidden: true, ..Grants::everyone() };
        room.handle(now, Input::Join(Join { grants, ..ask }));
        room.handle(now, says_at(4, 0, START));
        assert_eq!(room.watch.video().unwrap().by, None);
    }

    #[test]
    fn video_survives_a_restart_and_ends_with_the_meeting() {
        let (mut room, now) = room();
        room.handle(now, says_at(2, 1000, START));
        ask(&mut room, now, 2, 2000, r#""action":"play","position":500"#);
        let saved = SavedRoom {
            room: RoomName::parse("r").unwrap(),
            meeting: room.meeting().unwrap(),
            ai: None,
            moderation: None,
            watch: Some(room.watch.to_saved().into()),
            chat: Vec::new(),
            members: Vec::new(),
            departed: Vec::new(),
            unconfirmed: Vec::new(),
            journal: None,
        };
        let restored = Room::restore(watching_settings(), now, &saved);
        assert_eq!(restored.watch.video(), room.watch.video());
        assert_eq!(restored.watch.video().unwrap().position_at(12_000).millis(), 10_500, "it played on");
        let end = serde_json::from_str(r#"{"action":"end"}"#).unwrap();
        room.handle(now, Input::Moderate { by: Moderator::Operator, action: end });
        assert!(room.watch.video().is_none());
    }

    #[test]
    fn time_is_told_to_whoever_asks() {
        let (mut room, now) = room();
        let effects = room.handle(now, says_at(3, 1234, r#"{"type":"clock","ref":7}"#));
        assert_eq!(seen(&effects)[0], r#"to c: {"type":"clock","ref":7,"at":1234}"#);
    }
}
