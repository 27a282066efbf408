//! The settings of watching videos together.

use serde::{Deserialize, Serialize};

use super::rules::Violation;
use super::value::{DomainName, HttpUrl, text, texts};

/// Watching videos together.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// True if members may share video files by their address.
    pub files: bool,
    /// The hosts that such files may be of; any host, if there is none.
    #[serde(with = "texts")]
    pub hosts: Vec<DomainName>,
    /// True if files of this computer may be shared, over plain HTTP as well.
    pub loopback: bool,
    /// True if members may share videos of YouTube.
    pub youtube: bool,
    /// The server of YouTube's player.
    #[serde(with = "text")]
    pub youtube_player: HttpUrl,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            files: true,
            hosts: Vec::new(),
            loopback: false,
            youtube: false,
            youtube_player: HttpUrl("https://www.youtube-nocookie.com".to_owned()),
        }
    }
}

impl WatchConfig {
    /// The sources of media that pages need beside this server's.
    pub fn media_sources(&self) -> Vec<String> {
        if !self.files {
            return Vec::new();
        }
        let hosts = self.hosts.iter().map(|host| format!("https://{}", host.as_str()));
        let any = self.hosts.is_empty().then(|| "https:".to_owned());
        // An address of IPv6 has no place in a policy.
        let local = ["http://localhost:*", "http://127.0.0.1:*"].map(str::to_owned);
        any.into_iter().chain(hosts).chain(local.into_iter().filter(|_| self.loopback)).collect()
    }

    /// The source of frames that pages need, if there is one.
    pub fn frame_source(&self) -> Option<String> {
        self.youtube.then(|| self.youtube_player.origin())
    }
}

/// Settings of watching that are out of their range.
pub(super) fn wrong_watch(watch: &WatchConfig) -> Option<Violation> {
    let key = "watch.youtube_player";
    let is_safe = watch.youtube_player.is_https_or_loopback();
    (!is_safe).then(|| Violation::new(&[key], "is https, or http on this computer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_has_exactly_what_is_enabled() {
        let mut watch = WatchConfig::default();
        assert_eq!(watch.media_sources(), ["https:"]);
        assert_eq!(watch.frame_source(), None);
        watch.hosts = vec!["cdn.example.org".parse().unwrap()];
        assert_eq!(watch.media_sources(), ["https://cdn.example.org"]);
        watch.loopback = true;
        assert_eq!(
            watch.media_sources(),
            ["https://cdn.example.org", "http://localhost:*", "http://127.0.0.1:*"]
        );
        watch.files = false;
        assert!(watch.media_sources().is_empty());
        watch.youtube = true;
        assert_eq!(watch.frame_source().as_deref(), Some("https://www.youtube-nocookie.com"));
        assert!(wrong_watch(&watch).is_none());
        watch.youtube_player = "http://player.example.org".parse().unwrap();
        assert!(wrong_watch(&watch).is_some());
    }
}
