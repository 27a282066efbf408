//! The video that a room watches: the settings that decide on it, and the rate of its changes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use url::Url;

use crate::config::{WatchConfig, has_private_address, is_loopback};
use crate::id::IdentityId;
use crate::protocol::watch::{InvalidVideo, Video, Watching};

/// Time that one change takes from an identity's budget, which is that of a burst.
const CHANGE: Duration = Duration::from_millis(500);

/// Changes that an identity may make at once; after those it may make two a second.
const BURST: u32 = 10;

/// Settings of watching together, fixed at the room's creation. By default nothing can be watched.
#[derive(Clone, Debug, Default)]
pub struct WatchSettings {
    /// True if members may share video files.
    pub files: bool,
    /// The hosts that such files may be of; any host, if there is none.
    pub hosts: Vec<String>,
    /// True if files of this computer may be shared, over plain HTTP as well.
    pub loopback: bool,
    /// True if members may share videos of YouTube.
    pub youtube: bool,
}

/// Reason for not sharing a video. The sentence goes to the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotShare {
    /// The address is of no video.
    #[error(transparent)]
    Invalid(#[from] InvalidVideo),
    /// Nothing can be watched here.
    #[error("this server does not let members share videos")]
    Off,
    /// It is a file, and no file may be shared.
    #[error("this server lets members share videos of YouTube alone")]
    NoFiles,
    /// It is of YouTube.
    #[error("this server does not let members share videos of YouTube")]
    NoYouTube,
    /// It is of a host that is not allowed.
    #[error("this server does not let members share videos of that host")]
    OtherHost,
}

impl WatchSettings {
    /// The settings that the configuration has.
    pub fn new(config: &WatchConfig) -> Self {
        let WatchConfig { files, hosts, loopback, youtube, youtube_player: _ } = config;
        let hosts = hosts.iter().map(|host| host.as_str().to_owned()).collect();
        Self { files: *files, hosts, loopback: *loopback, youtube: *youtube }
    }

    /// True if something can be watched.
    pub fn is_on(&self) -> bool {
        self.files || self.youtube
    }

    /// Reads the address of a video, if it may be shared.
    ///
    /// # Errors
    /// [`CannotShare`].
    pub fn read(&self, url: &str) -> Result<Video, CannotShare> {
        if !self.is_on() {
            return Err(CannotShare::Off);
        }
        let video = Video::parse(url)?;
        self.admits(&video).map(|()| video)
    }

    /// Decides if a video may be shared.
    ///
    /// # Errors
    /// [`CannotShare`].
    fn admits(&self, video: &Video) -> Result<(), CannotShare> {
        let url = match video {
            Video::YouTube { .. } => return self.youtube.then_some(()).ok_or(CannotShare::NoYouTube),
            Video::File { .. } if !self.files => return Err(CannotShare::NoFiles),
            Video::File { url } => Url::parse(url).map_err(|_| InvalidVideo::NoUrl)?,
        };
        if is_loopback(&url) {
            return self.loopback.then_some(()).ok_or(CannotShare::OtherHost);
        }
        // Members' browsers may be in a network where such an address is a router or a printer.
        if has_private_address(&url) {
            return Err(CannotShare::OtherHost);
        }
        let is_listed = |host: &str| self.hosts.is_empty() || self.hosts.iter().any(|listed| listed == host);
        url.host_str().is_some_and(is_listed).then_some(()).ok_or(CannotShare::OtherHost)
    }
}

/// The video, if one is watched.
#[derive(Debug, Default)]
pub struct Watch {
    video: Option<Watching>,
    /// Of each identity that changed it lately the time at which its budget is whole again.
    changes: HashMap<IdentityId, Instant>,
}

impl Watch {
    /// Reads a stored video; none if it is malformed, or may be shared no longer.
    pub fn restore(settings: &WatchSettings, json: &str) -> Self {
        let video = serde_json::from_str(json).ok();
        let video = video.filter(|watching: &Watching| settings.admits(&watching.video).is_ok());
        Self { video, changes: HashMap::new() }
    }

    /// The video.
    pub fn video(&self) -> Option<&Watching> {
        self.video.as_ref()
    }

    /// Replaces the video, or ends it.
    pub fn set(&mut self, video: Option<Watching>) {
        self.video = video;
    }

    /// Takes a change from the budget of an identity; false if that is exhausted.
    pub fn charge(&mut self, now: Instant, identity: &IdentityId) -> bool {
        let whole = self.changes.get(identity).map_or(now, |whole| now.max(*whole)) + CHANGE;
        if whole.saturating_duration_since(now) > CHANGE * BURST {
            return false;
        }
        self.changes.insert(identity.clone(), whole);
        true
    }

    /// Forgets the identities whose budgets are whole.
    pub fn forget_idle(&mut self, now: Instant) {
        self.changes.retain(|_, whole| *whole > now);
    }

    /// Encodes the video for the store; `null` if there is none.
    pub fn to_saved(&self) -> String {
        self.video.as_ref().map_or_else(|| "null".to_owned(), Watching::to_json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::error_code::error_code;

    const FILE: &str = "https://example.org/a.mp4";
    const YOUTUBE: &str = "https://youtu.be/dQw4w9WgXcQ";
    const LOCAL: &str = "http://127.0.0.1:1/a.mp4";

    #[expect(clippy::disallowed_methods, reason = "an instant can only be had from the clock")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn settings_decide_on_videos() {
        let off = WatchSettings::default();
        let files = WatchSettings { files: true, ..off.clone() };
        let listed = WatchSettings { hosts: vec!["cdn.example.org".into()], ..files.clone() };
        let youtube = WatchSettings { youtube: true, ..off.clone() };
        let local = WatchSettings { loopback: true, ..files.clone() };
        for (settings, url, refused) in [
            (&off, FILE, Some(CannotShare::Off)),
            (&off, YOUTUBE, Some(CannotShare::Off)),
            (&files, FILE, None),
            (&files, YOUTUBE, Some(CannotShare::NoYouTube)),
            (&files, LOCAL, Some(CannotShare::OtherHost)),
            (&files, "https://192.168.1.1/a.mp4", Some(CannotShare::OtherHost)),
            (&files, "https://[fe80::1]/a.mp4", Some(CannotShare::OtherHost)),
            (&files, "https://[::ffff:10.0.0.1]/a.mp4", Some(CannotShare::OtherHost)),
            (&files, "http://example.org/", Some(CannotShare::Invalid(InvalidVideo::NoUrl))),
            (&listed, FILE, Some(CannotShare::OtherHost)),
            (&listed, "https://cdn.example.org/a", None),
            (&listed, "https://x.cdn.example.org/a", Some(CannotShare::OtherHost)),
            (&youtube, YOUTUBE, None),
            (&youtube, FILE, Some(CannotShare::NoFiles)),
            (&local, LOCAL, None),
            (&youtube, "https://www.youtube.com/feed", Some(CannotShare::Invalid(InvalidVideo::NoVideo))),
        ] {
            assert_eq!(settings.read(url).err(), refused, "{settings:?} {url}");
            let sentence = refused.map(|refused| refused.to_string());
            assert!(sentence.iter().all(|sentence| error_code(sentence).is_some()), "{sentence:?}");
        }
    }

    #[test]
    fn budget_of_changes_is_an_identitys_own() {
        let (mut watch, now) = (Watch::default(), start());
        let [ada, bob] = ["A", "B"].map(IdentityId::new);
        for _ in 0..BURST {
            assert!(watch.charge(now, &ada));
        }
        assert!(!watch.charge(now, &ada) && watch.charge(now, &bob));
        assert!(watch.charge(now + CHANGE, &ada) && !watch.charge(now + CHANGE, &ada));
        watch.forget_idle(now + CHANGE * BURST + CHANGE);
        assert!(watch.changes.is_empty());
    }

    #[test]
    fn stored_video_returns_while_it_may_be_shared() {
        let settings = WatchSettings { files: true, ..WatchSettings::default() };
        let video = settings.read(FILE).unwrap();
        let mut watch = Watch::default();
        assert!(Watch::restore(&settings, &watch.to_saved()).video().is_none());
        let position = 7.try_into().unwrap();
        watch.set(Some(Watching { video, by: None, playing: true, position, at: 9 }));
        assert_eq!(Watch::restore(&settings, &watch.to_saved()).video(), watch.video());
        assert!(Watch::restore(&WatchSettings::default(), &watch.to_saved()).video().is_none());
        assert!(Watch::restore(&settings, "{").video().is_none());
    }
}
