//! Rights of an identity, which every join carries.

use serde::{Deserialize, Serialize};

/// The rights of an identity. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grants {
    /// Join rooms.
    pub join: bool,
    /// Start a meeting, by joining an empty room.
    pub create: bool,
    /// Act on other members: mute them.
    pub moderate: bool,
    /// Publish media.
    pub publish: PublishGrants,
    /// Receive the media of others.
    pub subscribe: bool,
    /// Write to the chat.
    pub chat: bool,
    /// Be in a room without being shown to its members.
    pub hidden: bool,
    /// Act for a program instead of a person, such as a recorder.
    pub agent: bool,
    /// Use the operators' API.
    pub admin: bool,
}

/// The kinds of media that an identity may publish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishGrants {
    /// Microphones.
    pub audio: bool,
    /// Cameras.
    pub video: bool,
    /// Screens, with their audio.
    pub screen: bool,
}

/// A kind of media of a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// A microphone.
    #[default]
    Audio,
    /// A camera.
    Video,
    /// A screen, with its audio.
    Screen,
}

impl MediaKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Audio, Self::Video, Self::Screen];
}

impl Grants {
    /// The rights of everyone who is authenticated, as in Orange Meets: all that a person needs in a meeting,
    /// moderation included.
    pub const fn everyone() -> Self {
        Self {
            join: true,
            create: true,
            moderate: true,
            publish: PublishGrants { audio: true, video: true, screen: true },
            subscribe: true,
            chat: true,
            hidden: false,
            agent: false,
            admin: false,
        }
    }

    /// The rights as bits, in the order of the fields from the lowest bit up.
    pub fn bits(self) -> u16 {
        let Self { join, create, moderate, publish, subscribe, chat, hidden, agent, admin } = self;
        let PublishGrants { audio, video, screen } = publish;
        let flags = [join, create, moderate, audio, video, screen, subscribe, chat, hidden, agent, admin];
        flags.into_iter().rev().fold(0, |bits, flag| bits << 1 | u16::from(flag))
    }

    /// The rights of [`Self::bits`]. Bits of later versions grant nothing.
    pub fn from_bits(bits: u16) -> Self {
        let flag = |bit: u32| bits >> bit & 1 == 1;
        Self {
            join: flag(0),
            create: flag(1),
            moderate: flag(2),
            publish: PublishGrants { audio: flag(3), video: flag(4), screen: flag(5) },
            subscribe: flag(6),
            chat: flag(7),
            hidden: flag(8),
            agent: flag(9),
            admin: flag(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_survive_serialization() {
        let json = serde_json::to_string(&Grants::everyone()).unwrap();
        assert_eq!(
            json,
            r#"{"join":true,"create":true,"moderate":true,"publish":{"audio":true,"video":true,"screen":true},"subscribe":true,"chat":true,"hidden":false,"agent":false,"admin":false}"#
        );
        assert_eq!(serde_json::from_str::<Grants>(&json).unwrap(), Grants::everyone());
    }

    #[test]
    fn bits_and_grants_convert_both_ways() {
        assert_eq!(Grants::everyone().bits(), 0b0000_1111_1111);
        for bit in 0..11 {
            assert_eq!(Grants::from_bits(1 << bit).bits(), 1 << bit);
        }
        assert_eq!(Grants::from_bits(1 << 11), Grants::default(), "an unknown bit");
    }

    #[test]
    fn missing_grant_is_not_granted() {
        let read = |json| serde_json::from_str::<Grants>(json).unwrap();
        assert_eq!(read("{}"), Grants::default());
        let published = PublishGrants { video: true, ..PublishGrants::default() };
        assert_eq!(read(r#"{"publish":{"video":true}}"#).publish, published);
    }
}
