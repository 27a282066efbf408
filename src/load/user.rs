//! Realistic member data for a load test.

use std::fmt::Write;

use serde::Deserialize;
use uuid::Uuid;

/// The field of a user that carries a [`UpdateStamp`]. Servers keep fields that they do not know.
pub const STAMP: &str = "t";

const NAMES: [&str; 16] = [
    "Ada",
    "Barbara",
    "Charles",
    "Dorothy",
    "Edsger",
    "Frances",
    "Grace",
    "Hedy",
    "Ivan",
    "Jean",
    "Katherine",
    "Leslie",
    "Margaret",
    "Niklaus",
    "Radia",
    "Sophie",
];

/// The identity and send time of an update in a snapshot; on the wire an array of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct UpdateStamp {
    /// The member's number in this run.
    pub member: u32,
    /// The update's number among the member's measured ones, from 1 on; 0 is not measured.
    pub update: u32,
    /// Send time, in microseconds of the tool's clock.
    pub at: u64,
}

/// A member's looks: random ids as the media API makes them, which no compression can shorten.
///
/// Constant ones would make snapshots compress far better than those of a real meeting.
#[derive(Clone, Debug)]
pub struct SyntheticUser {
    /// The `_pk`.
    pub id: Uuid,
    /// Its display name.
    pub name: String,
    session: Uuid,
    microphone: Uuid,
    camera: Uuid,
}

impl SyntheticUser {
    /// A new random user.
    pub fn random() -> Self {
        let id = Uuid::new_v4();
        let [name, initial, ..] = *id.as_bytes();
        let name = NAMES[usize::from(name) % NAMES.len()];
        let name = format!("{name} {}", char::from(b'A' + initial % 26));
        Self { id, name, session: Uuid::new_v4(), microphone: Uuid::new_v4(), camera: Uuid::new_v4() }
    }

    /// Appends the `userUpdate` with which the member says how it is now.
    pub fn write_update(&self, stamp: UpdateStamp, text: &mut String) {
        let Self { id, name, session, microphone, camera } = self;
        let UpdateStamp { member, update, at } = stamp;
        let session = session.simple();
        // As in a meeting, it is mostly speaking that changes; hands are up now and then.
        let (speaking, hand) = (at & 1 == 1, at & 0b1110 == 0);
        // Formatting into a String cannot fail.
        let _ = write!(
            text,
            r#"{{"type":"userUpdate","user":{{"id":"{id}","name":"{name}","joined":true,"raisedHand":{hand},"speaking":{speaking},"transceiverSessionId":"{session}","tracks":{{"audioEnabled":true,"audioUnavailable":false,"videoEnabled":true,"screenShareEnabled":false,"video":"{session}/{camera}","audio":"{session}/{microphone}"}},"{STAMP}":[{member},{update},{at}]}}}}"#
        );
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Deserialize)]
    struct UserUpdate<'a> {
        #[serde(borrow)]
        user: &'a RawValue,
    }

    /// The part of the update that a server keeps, as it appears in a snapshot.
    fn encoded(user: &SyntheticUser, stamp: UpdateStamp) -> String {
        let mut text = String::new();
        user.write_update(stamp, &mut text);
        let message: UserUpdate<'_> = serde_json::from_str(&text).unwrap();
        message.user.get().to_owned()
    }

    fn stamp(member: u32) -> UpdateStamp {
        UpdateStamp { member, update: 7, at: 40_000_000 + u64::from(member) * 1009 }
    }

    #[test]
    fn users_have_realistic_length() {
        let lengths: Vec<usize> =
            (0..500).map(|member| encoded(&SyntheticUser::random(), stamp(member)).len()).collect();
        assert!(lengths.iter().all(|length| (400..=460).contains(length)), "{lengths:?}");
        let (shortest, longest) = (SyntheticUser::random(), SyntheticUser::random());
        let first = encoded(
            &SyntheticUser { name: "Ada L".into(), ..shortest },
            UpdateStamp { member: 0, update: 0, at: 0 },
        );
        let last = UpdateStamp { member: 9_999, update: 9_999, at: 600_000_000 };
        let last = encoded(&SyntheticUser { name: "Katherine J".into(), ..longest }, last);
        assert!(first.len() >= 400 && last.len() <= 465, "{} and {}", first.len(), last.len());
    }

    #[test]
    fn no_two_are_alike_and_the_stamp_survives() {
        let mut all: Vec<String> =
            (0..500).map(|member| encoded(&SyntheticUser::random(), stamp(member))).collect();
        let value: serde_json::Value = serde_json::from_str(&all[3]).unwrap();
        let survived: UpdateStamp = serde_json::from_value(value[STAMP].clone()).unwrap();
        assert_eq!(survived, stamp(3));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 500);
        let user = SyntheticUser::random();
        assert_eq!(encoded(&user, stamp(1)), encoded(&user, stamp(1)), "a member keeps its looks");
    }

    #[test]
    fn a_room_of_them_compresses_like_a_real_one() {
        let room: Vec<String> =
            (0..100).map(|member| encoded(&SyntheticUser::random(), stamp(member))).collect();
        let room = room.join(",");
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(room.as_bytes()).unwrap();
        let compressed = encoder.finish().unwrap().len();
        // Four random UUIDs and a session are 72 bytes that nothing can shorten; field names go.
        let per_user = compressed / 100;
        assert!((85..200).contains(&per_user), "{per_user} bytes a user of {}", room.len() / 100);
    }
}
