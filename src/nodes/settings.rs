//! Shared settings in the engine: a subject for each, of which the last entry counts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use satsuma_cluster::writer::Appended;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::error;

use super::engine::{Engine, Followed, StoredEntry, Subject, SubjectKind};
use super::node::Changes;
use super::room::feed::{Feed, News};
use crate::room::shared_settings::{EngineSilent, OwnSettings, SharedSetting, SharedSettings, Update};

/// Time for a change, which another node may make as well.
const PATIENCE: Duration = Duration::from_secs(3);

/// Pause before a change is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// Time for reading all settings, and the number of reads at a time.
const READ_ALL: Duration = Duration::from_secs(20);
const READS: usize = 64;

/// The key under which changes are told.
const CHANGED: &str = "changed";

/// The settings in the engine.
pub struct EngineSettings<E> {
    engine: E,
}

/// An entry. Its key shows if two have one subject.
#[derive(Debug, Serialize, Deserialize)]
struct SettingEntry {
    key: String,
    setting: SharedSetting,
}

impl<E: Engine> EngineSettings<E> {
    /// The settings in an engine.
    pub fn new(engine: E) -> Self {
        Self { engine }
    }

    /// Has this node's settings follow those of all, without an end. Settings that this node alone has, as from a time
    /// when it was a single one, become those of all.
    pub async fn follow(self: Arc<Self>, own: Arc<dyn OwnSettings>, mut changes: watch::Receiver<Changes>) {
        let mut feed = Feed::new(self.engine.clone(), Subject::setting(CHANGED));
        let mut interruptions = changes.borrow().interruptions;
        loop {
            let is_all = tokio::select! {
                news = feed.next() => match news {
                    News::Begun => true,
                    News::Followed(Followed::Broadcast(key)) => {
                        let key = String::from_utf8_lossy(&key).into_owned();
                        if let Ok(Some(setting)) = self.read(key).await {
                            own.take(setting).await;
                        }
                        false
                    }
                    News::Followed(Followed::Stored(_)) => false,
                },
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = changes.borrow_and_update().interruptions;
                    std::mem::replace(&mut interruptions, now) != now
                }
            };
            if is_all {
                self.exchange(&*own).await;
            }
        }
    }

    /// Takes all settings, and gives those that only this node has.
    async fn exchange(&self, own: &dyn OwnSettings) {
        let Ok(all) = self.all().await else { return };
        let stored = own.stored().await;
        let known: std::collections::HashMap<String, SharedSetting> =
            all.into_iter().map(|setting| (setting.key(), setting)).collect();
        for setting in stored {
            let key = setting.key();
            let is_newer = match known.get(&key) {
                None => true,
                // Settings of rooms are those of all, once there are any.
                Some(SharedSetting::Rules { .. }) => false,
                Some(shared) => setting.clone().replacing(Some(shared)).is_some(),
            };
            if is_newer {
                let update = move |shared: Option<&SharedSetting>| match (&setting, shared) {
                    (SharedSetting::Rules { .. }, Some(_)) => None,
                    (setting, shared) => setting.clone().replacing(shared),
                };
                let _ = self.update(key, Box::new(update)).await;
            }
        }
        for setting in known.into_values() {
            own.take(setting).await;
        }
    }
}

impl<E: Engine> SharedSettings for EngineSettings<E> {
    fn update(
        &self,
        key: String,
        update: Update,
    ) -> BoxFuture<'static, Result<Option<SharedSetting>, EngineSilent>> {
        let engine = self.engine.clone();
        Box::pin(async move {
            let changed = timeout(PATIENCE, change(&engine, &key, update)).await.map_err(|_| EngineSilent)?;
            engine.broadcast(Subject::setting(CHANGED), key.into()).await;
            Ok(changed)
        })
    }

    fn read(&self, key: String) -> BoxFuture<'static, Result<Option<SharedSetting>, EngineSilent>> {
        let engine = self.engine.clone();
        Box::pin(async move {
            let last = engine.last(Subject::setting(&key)).await.map_err(|_| EngineSilent)?;
            Ok(last
                .and_then(|entry| decode(&entry))
                .filter(|entry| entry.key == key)
                .map(|entry| entry.setting))
        })
    }

    fn all(&self) -> BoxFuture<'static, Result<Vec<SharedSetting>, EngineSilent>> {
        let engine = self.engine.clone();
        let read = async move {
            let subjects = engine.subjects(SubjectKind::Setting).await.map_err(|_| EngineSilent)?;
            let reads = stream::iter(subjects).map(|subject| {
                let engine = engine.clone();
                async move { engine.last(subject).await.map_err(|_| EngineSilent) }
            });
            let read: Vec<_> = reads.buffer_unordered(READS).collect().await;
            let mut settings = Vec::new();
            for entry in read {
                settings.extend(entry?.and_then(|entry| decode(&entry)).map(|entry| entry.setting));
            }
            Ok(settings)
        };
        Box::pin(async move { timeout(READ_ALL, read).await.unwrap_or(Err(EngineSilent)) })
    }
}

/// Changes the setting with a key, for as long as that takes.
async fn change<E: Engine>(engine: &E, key: &str, update: Update) -> Option<SharedSetting> {
    let subject = Subject::setting(key);
    loop {
        if let Ok(last) = engine.last(subject).await {
            let decoded = last.as_ref().map(decode);
            let stored = match decoded {
                None => None,
                Some(Some(entry)) if entry.key == key => Some(entry.setting),
                // Settings that a later release wrote are not to be lost.
                Some(_) => {
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(next) = update(stored.as_ref()) else { return stored };
            let expected = last.map_or(0, |entry| entry.sequence);
            let entry = SettingEntry { key: key.to_owned(), setting: next.clone() };
            if let Appended::Stored(sequence) = engine.append(subject, expected, encode(&entry)).await {
                engine.purge(subject, sequence).await;
                return Some(next);
            }
            // Another node was faster, or nobody knows: the next look shows it.
        }
        sleep(PAUSE).await;
    }
}

#[expect(clippy::expect_used, reason = "a setting is plain data")]
fn encode(entry: &SettingEntry) -> Bytes {
    serde_json::to_vec(entry).expect("a setting is plain data").into()
}

/// The setting of an entry; none for one of a later release, which says so by its log.
fn decode(entry: &StoredEntry) -> Option<SettingEntry> {
    let decoded = serde_json::from_slice(&entry.bytes);
    decoded.inspect_err(|why| error!(event = "unreadableSetting", sequence = entry.sequence, %why)).ok()
}

impl<E> fmt::Debug for EngineSettings<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineSettings(..)")
    }
}
